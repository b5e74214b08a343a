"""Reading the stream, and vectors, as tokens: the logit lens of the clean and the steered run.

The final norm and the unembedding are applied to the stream before it is finished (nostalgebraist,
"interpreting GPT: the logit lens", 2020). TransformerLens does it (``logit_readout``), with what
each architecture does to its logits last.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from actadd_lens.analysis.logprobs import kl_terms
from actadd_lens.errors import LayerError, VectorError, require_count
from actadd_lens.frames import DataFrame
from actadd_lens.models import bridge, hook_points
from actadd_lens.models.base import Bridge
from actadd_lens.models.bridge import BridgeModel
from actadd_lens.models.tokens import Prompt, PromptLike, as_prompts, token_texts
from actadd_lens.steering.checks import as_interventions
from actadd_lens.steering.edits import prompt_edits
from actadd_lens.steering.interventions import Steering
from actadd_lens.vectors.vector import SteeringVector, as_vectors

_FAITHFUL = 0.01
"""Bound on the KL divergence (nats) of the last layer's lens from the model's own prediction.

Mostly the same operations give the same bits, so it is 0; this allows for kernels that round
otherwise in half precision.
"""


def logit_lens(
    model: Bridge,
    prompt: PromptLike,
    steering: Steering = None,
    *,
    layers: Sequence[int] | None = None,
) -> DataFrame:
    """What the clean run, and the steered one, would predict if they ended at each layer.

    Layer l is the stream entering block l, a vector added there included; layer n_layers is the
    finished stream, where the lens is the model's own prediction.

    Args:
        model: Any TransformerBridge with a tokenizer.
        prompt: One text, token ids, or a chat.
        steering: An intervention such as a vector, several of them, or None for the clean run
            alone.
        layers: From 0 to n_layers; all of them by default.

    Returns:
        A row for each run, layer and position: ``run`` ("clean" or "steered"), ``layer``,
        ``position`` (BOS is 0), ``token`` (the text there), ``top_token`` and ``p_top``, the
        most likely next token and its probability, ``entropy`` of the prediction (nats), and
        ``kl_to_final`` = KL(final || lens) in nats, where final is what the model itself predicts
        in the same run.

    Raises:
        PromptError: An empty prompt, or one beyond the context.
        PositionError: A vector does not fit on the prompt.
        VectorError: A vector that does not fit the model.
        LayerError: No such layer, or a model whose predictions are not its final norm and
            unembedding applied to the stream.

    >>> model = load_model("testbed")
    >>> vector = SteeringVector.from_pair(model, ("Love", "Hate"), layer=1)
    >>> lens = logit_lens(model, "We hated it", 4 * vector)
    >>> bool((lens.query("layer == @lens.layer.max()")["kl_to_final"] < 1e-4).all())
    True
    """
    import pandas as pd

    runs = {"clean": None} if steering is None else {"clean": None, "steered": steering}
    [ids] = as_prompts(model, [prompt])
    read = token_texts(model, ids)
    lines: list[tuple[Any, ...]] = []
    for run, vectors in runs.items():
        final, lenses = _lenses(model, ids, vectors, layers)
        for layer, lens in lenses:
            top = lens.max(dim=1)
            entropy = torch.special.entr(lens.exp()).sum(dim=1)
            kl = kl_terms(final, lens).sum(dim=1).clamp(min=0)  # round-off alone is below 0
            best = token_texts(model, top.indices.tolist())
            columns = (read, best, *(c.tolist() for c in (top.values.exp(), entropy, kl)))
            for position, values in enumerate(zip(*columns, strict=True)):
                lines.append((run, layer, position, *values))
    names = ["run", "layer", "position", "token", "top_token", "p_top", "entropy", "kl_to_final"]
    return pd.DataFrame(lines, columns=names)


def lens_logprobs(
    model: Bridge,
    prompt: PromptLike,
    steering: Steering = None,
    *,
    layers: Sequence[int] | None = None,
) -> Float[Tensor, "layer pos vocab"]:
    """Log-probabilities (nats) that ``logit_lens`` is made from, of the steered run if it is given.

    Takes layers x positions x vocabulary x 4 bytes, twice while it is put together: 197 MB for 20
    tokens at the 49 streams of a model with 50,257 tokens. ``logit_lens`` works layer by layer.

    Arguments and errors are those of ``logit_lens``.

    Returns:
        A slice for each layer in the order asked for; float32, on the CPU.

    >>> logprobs = lens_logprobs(load_model("testbed"), "We hated it", layers=[0, 2])
    >>> len(logprobs), bool(torch.allclose(logprobs.exp().sum(dim=2), torch.tensor(1.0)))
    (2, True)
    """
    [ids] = as_prompts(model, [prompt])
    _, lenses = _lenses(model, ids, steering, layers)
    return torch.stack([lens.cpu() for _, lens in lenses])


def unembed_vector(model: Bridge, vector: SteeringVector, k: int = 10) -> DataFrame:
    """The tokens that each row of a vector points to, and those it points away from.

    The rows are unembedded directly, without the later blocks. As usual for directions, the final
    norm's centring and weights are part of the unembedding, biases and soft caps are left out, and
    the logits are relative to their mean over the vocabulary. The logits are therefore linear in
    the vector: twice the vector has twice the logits, and its negative has the negative logits.
    The final norm also divides by the scale of the finished stream. A vector by itself has no such
    scale, so the division is left out: for what the row adds to the logits of a prompt, divide by
    the scale.

    Args:
        model: Any TransformerBridge with a tokenizer.
        vector: Rows that are zero, such as BOS's, point nowhere and are left out.
        k: Tokens at either end of each row; the whole vocabulary where that is smaller than 2 k.

    Returns:
        For each row the ``k`` highest and the ``k`` lowest tokens: ``row``, ``rank`` (0 is the
        highest), ``token`` (its text), ``token_id``, ``logit``.

    Raises:
        VectorError: A vector that is zero, or one that does not fit the model.
        LayerError: A model that TransformerLens gives no final norm and unembedding.
        SamplingError: ``k`` is not a positive integer.

    >>> model = load_model("testbed")
    >>> vector = SteeringVector.from_pair(model, (" weddings", " "), layer=2)
    >>> unembed_vector(model, vector, k=1).columns.tolist()
    ['row', 'rank', 'token', 'token_id', 'logit']
    """
    import pandas as pd

    require_count("k", k)
    as_vectors(model, vector)
    rows = vector.norms().nonzero()[:, 0].tolist()
    if not rows:
        raise VectorError("the vector is zero, so it points to no token: give another")
    values, tokens = bridge.direct_logits(model, vector.rows[rows]).sort(dim=1, descending=True)
    n = values.shape[1]
    ranks = list(range(n)) if 2 * k >= n else [*range(k), *range(n - k, n)]
    lines = [
        (row, rank, text, ids[rank], logits[rank])
        for row, ids, logits in zip(rows, tokens.tolist(), values.tolist(), strict=True)
        for rank, text in zip(ranks, token_texts(model, (ids[r] for r in ranks)), strict=True)
    ]
    return pd.DataFrame(lines, columns=["row", "rank", "token", "token_id", "logit"])


def _lenses(
    model: Bridge, ids: Prompt, steering: Steering, layers: Sequence[int] | None
) -> tuple[Float[Tensor, "pos vocab"], Iterator[tuple[int, Float[Tensor, "pos vocab"]]]]:
    """What the model predicts at every position, and the lens of each layer, one at a time."""
    own = BridgeModel(model)
    last = own.n_layers
    wanted = list(dict.fromkeys(range(last + 1) if layers is None else layers))
    outside = [layer for layer in wanted if not 0 <= layer <= last]
    if outside or not wanted:
        raise LayerError(
            f"no layers {outside or 'given'} to look at: {own.name} has the streams "
            f"entering layers 0 to {last - 1}, and {last} for the finished one"
        )
    points = {layer: hook_points.hook_point(layer) for layer in wanted if layer < last}
    points[last] = hook_points.hook_point(last - 1, "resid_post")
    tokens = torch.tensor([ids.tokens], device=own.device)
    mask = torch.ones_like(tokens)
    given = as_interventions(model, steering)
    edits = prompt_edits(model, [given], mask, [ids]).by_point
    run = own.run(tokens, mask, edits=edits, read=list(dict.fromkeys(points.values())))
    assert run.logits is not None
    final, streams = run.logits[0].float().log_softmax(dim=1), run.streams
    # The lens of the finished stream must be what the model predicts, or it shows nothing.
    finished = bridge.lens_logprobs(model, streams[points[last]][0]).to(final.device)
    worst = float(kl_terms(final, finished).sum(dim=1).max())
    if worst > _FAITHFUL:
        raise LayerError(
            f"the final norm and unembedding of {own.name} give other predictions "
            f"than the model (KL divergence {worst:.3g} nats): a logit lens would mislead"
        )
    return final, (
        (layer, bridge.lens_logprobs(model, streams[points[layer]][0]).to(final.device))
        for layer in wanted
    )
