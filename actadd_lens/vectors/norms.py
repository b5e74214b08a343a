"""Norms, relative norms and angles of vectors, compared with the stream they are added to.

Nothing is generated and no logits are made: every pass ends at the deepest layer read.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from einops import einsum, rearrange
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pad

from actadd_lens.errors import LayerError, PositionError, VectorError, require_count
from actadd_lens.models import bridge
from actadd_lens.models.base import Bridge
from actadd_lens.models.bridge import BridgeModel
from actadd_lens.models.tokens import as_texts, token_texts, tokenize
from actadd_lens.steering import positions
from actadd_lens.steering.interventions import Intervention, Steering
from actadd_lens.steering.placement import rows_on
from actadd_lens.vectors import activations
from actadd_lens.vectors.vector import SteeringVector, as_vectors

if TYPE_CHECKING:
    from pandas import DataFrame
else:
    DataFrame = Any  # pandas takes half a second to import: only where a frame is asked for


def residual_norms(
    model: Bridge,
    prompts: str | Sequence[str],
    layers: Sequence[int] | None = None,
    *,
    batch_size: int | None = None,
) -> DataFrame:
    """L2 norm of the residual stream entering each block, at every token of the prompts.

    Args:
        model: Any TransformerBridge with a tokenizer.
        prompts: BOS is put in front of each.
        layers: Which layers; every one by default.
        batch_size: Prompts read at once; by default as many as keep the stream within 128 MiB.

    Returns:
        A row for each prompt, layer and token: ``prompt``, ``prompt_index``, ``layer``,
        ``position`` (BOS is 0), ``token`` (its text) and ``norm``, in the units of the stream.

    Raises:
        PromptError: No prompt, an empty one, or one beyond the context.
        LayerError: A layer that the model does not have, or none.

    >>> norms = residual_norms(load_model("testbed"), ["The sun", "Rain"], layers=[0, 1])
    >>> by_layer = norms[norms["position"] > 0].groupby("layer")["norm"].mean()
    >>> by_layer.index.tolist()
    [0, 1]
    """
    import pandas as pd

    wanted = list(range(BridgeModel(model).n_layers) if layers is None else dict.fromkeys(layers))
    if not wanted:
        raise LayerError("the list of layers is empty: give at least one, or None for all")
    bridge.check_layers(model, wanted)
    texts, sequences = as_texts(prompts), tokenize(model, prompts)
    names = [bridge.hook_point(layer) for layer in wanted]
    lines: list[tuple[str, int, int, int, str, float]] = []
    for index, norms in enumerate(_norms(model, sequences, names, batch_size)):
        tokens = token_texts(model, sequences[index])
        for layer, row in zip(wanted, norms.tolist(), strict=True):
            lines.extend(
                (texts[index], index, layer, position, token, norm)
                for position, (token, norm) in enumerate(zip(tokens, row, strict=True))
            )
    columns = ["prompt", "prompt_index", "layer", "position", "token", "norm"]
    return pd.DataFrame(lines, columns=columns)


def dose(model: Bridge, vectors: Steering, prompts: str | Sequence[str]) -> DataFrame:
    """The relative norm of a vector: its norm over that of the clean stream where it is added.

    The paper's norm ratio, of each row at the position where it is added. The coefficient counts if
    the vector was multiplied by it.

    Args:
        model: Any TransformerBridge with a tokenizer.
        vectors: A vector, or several, each measured by itself.
        prompts: BOS is put in front of each.

    Returns:
        A row for each prompt, vector and position where a row is added: ``prompt``,
        ``prompt_index``, ``vector`` (its index among several), ``layer``, ``row``, ``position``
        (BOS is 0), ``vector_norm``, ``residual_norm`` and ``dose`` = vector_norm /
        residual_norm. The stream is read at the vector's hook point, and where it enters the
        block for a vector that is added to what attention or MLP write.

    Raises:
        PositionError: A vector that does not fit on a prompt, or is added to generated tokens
            alone.
        PromptError: No prompt, an empty one, or one beyond the context.
        VectorError, LayerError: No vector, or one that does not fit the model.

    >>> model = load_model("testbed")
    >>> vector = SteeringVector.from_pair(model, ("Love", "Hate"), layer=1)
    >>> once, thrice = (dose(model, c * vector, "I hate you")["dose"] for c in (1, 3))
    >>> bool((abs(3 * once - thrice) < 1e-5).all())
    True
    """
    import pandas as pd

    given = as_vectors(model, vectors)
    if not given:
        raise VectorError("no vector to measure the dose of: give at least one")
    texts, sequences = as_texts(prompts), tokenize(model, prompts)
    landings = [
        (index, which, row, position)
        for index, ids in enumerate(sequences)
        for which, vector in enumerate(given)
        for row, position in _landings(vector, len(ids), index)
    ]
    streams = [stream_point(vector) for vector in given]
    names = list(dict.fromkeys(streams))
    norms = _norms(model, sequences, names)
    lines = []
    for index, which, row, position in landings:
        added = given[which].norms()[row].item()
        there = float(norms[index][names.index(streams[which]), position])
        where = (texts[index], index, which, given[which].layer, row, position)
        lines.append((*where, added, there))
    columns = ["prompt", "prompt_index", "vector", "layer", "row", "position"]
    frame = pd.DataFrame(lines, columns=[*columns, "vector_norm", "residual_norm"])
    frame["dose"] = frame["vector_norm"] / frame["residual_norm"]
    return frame


def cosines(
    vectors: Mapping[str, SteeringVector] | Mapping[int, SteeringVector],
) -> DataFrame:
    """Cosine between every two vectors, each flattened to one long row.

    Row i is compared with row i; a shorter vector is extended with zeros, as in a sum. Hook points
    and positions are ignored, so that vectors of several layers can be compared.

    Args:
        vectors: By label, e.g. the name of a pair, or what ``extract`` gives: by layer.

    Returns:
        A square frame with the labels on both sides, values from -1 to 1; NaN for a vector that
        is zero, as its direction is undefined.

    Raises:
        VectorError: No vector, or vectors of different widths.

    >>> v = SteeringVector(torch.tensor([[1.0, 1.0]]), "blocks.1.hook_resid_pre")
    >>> cosines({"both": v, "first": v.with_dims(slice(0, 1)), "against": -v}).round(3)
              both  first  against
    both     1.000  0.707   -1.000
    first    0.707  1.000   -0.707
    against -1.000 -0.707    1.000
    """
    import pandas as pd

    if not vectors:
        raise VectorError("no vectors to compare: give at least one")
    widths = {label: vector.rows.shape[1] for label, vector in vectors.items()}
    if len(set(widths.values())) > 1:
        raise VectorError(f"vectors have widths {widths}: take all of them from the same model")
    length = max(len(vector.rows) for vector in vectors.values())
    stacked = torch.stack(
        [pad(v.rows.double(), (0, 0, 0, length - len(v.rows))) for v in vectors.values()]
    )
    flat = rearrange(stacked, "vector pos d_model -> vector (pos d_model)")
    unit = flat / torch.linalg.vector_norm(flat, dim=1, keepdim=True)
    values = einsum(unit, unit, "row dim, column dim -> row column").clamp(-1, 1)
    labels = list(vectors)
    return pd.DataFrame(values.numpy(), index=labels, columns=labels)


def _norms(
    model: Bridge,
    sequences: Sequence[Sequence[int]],
    names: Sequence[str],
    batch_size: int | None = None,
) -> list[Float[Tensor, "point pos"]]:
    """Norms of each sequence at the named points, read in batches of like length."""
    if batch_size is not None:
        require_count("batch_size", batch_size)
    read: dict[int, Tensor] = {}
    for batch in activations.batches_of(model, sequences, len(names), batch_size):
        streams = activations.prompt_streams(model, [sequences[index] for index in batch], names)
        for index, stream in zip(batch, streams, strict=True):
            read[index] = torch.linalg.vector_norm(stream, dim=2)
    return [read[index] for index in range(len(sequences))]


def _landings(vector: SteeringVector, n_tokens: int, prompt: int) -> list[tuple[int, int]]:
    """Pairs of row and position where a vector lands on a prompt."""
    if vector.position == "generated":
        raise PositionError(
            "a vector at position 'generated' lands on no token of a prompt, so it has no dose "
            "there: move it, e.g. v.at('all')"
        )
    rows = enumerate(rows_on(vector, n_tokens, prompt))
    return [(row, position) for position, row in rows if row != positions.NO_ROW]


def stream_point(intervention: Intervention) -> str:
    """The point of the stream that an intervention is measured against."""
    name = intervention.hook_point
    beside = name.endswith(("attn_out", "mlp_out", "attn.hook_out", "mlp.hook_out"))
    return bridge.hook_point(bridge.layer_of(name)) if beside else name
