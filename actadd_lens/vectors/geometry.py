"""Norms, angles and directions of vectors, compared with the streams that they are added to.

Nothing is generated and no logits are made: every pass ends at the deepest layer read.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from einops import einsum, rearrange
from jaxtyping import Float64
from torch import Tensor
from torch.nn.functional import pad

from actadd_lens.errors import LayerError, PositionError, PromptError, VectorError, require_count
from actadd_lens.models import hook_points
from actadd_lens.models.base import Bridge
from actadd_lens.models.tokens import PromptLike, Prompts, as_prompts, token_texts
from actadd_lens.steering import positions
from actadd_lens.steering.interventions import Intervention, Steering
from actadd_lens.steering.placement import rows_on
from actadd_lens.vectors import activations
from actadd_lens.vectors.pair import ContrastPair, as_pair
from actadd_lens.vectors.vector import SteeringVector, as_vectors

if TYPE_CHECKING:
    from pandas import DataFrame

    from actadd_lens.statistics import Interval
else:
    DataFrame = Interval = Any  # pandas and scipy take a while to import: only where needed

_norms = partial(torch.linalg.vector_norm, dim=2)
_DIGITS = 5
"""Projections that agree to so many digits of the largest stream tie: float32 gives no more."""


def residual_norms(
    model: Bridge,
    prompts: Prompts,
    layers: Sequence[int] | None = None,
    *,
    batch_size: int | None = None,
) -> DataFrame:
    """L2 norm of the residual stream entering each block, at every token of the prompts.

    Args:
        model: Any TransformerBridge with a tokenizer.
        prompts: A text, token ids, a chat, or a list of these.
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

    wanted = activations.wanted_layers(model, layers)
    if not wanted:
        raise LayerError("the list of layers is empty: give at least one, or None for all")
    if batch_size is not None:
        require_count("batch_size", batch_size)
    sequences = as_prompts(model, prompts)
    names = [hook_points.hook_point(layer) for layer in wanted]
    lines: list[tuple[str, int, int, int, str, float]] = []
    read = activations.prompt_streams(model, sequences, names, take=_norms, batch_size=batch_size)
    for index, norms in enumerate(read):
        tokens = token_texts(model, sequences[index])
        for layer, row in zip(wanted, norms.tolist(), strict=True):
            lines.extend(
                (sequences[index].label, index, layer, position, token, norm)
                for position, (token, norm) in enumerate(zip(tokens, row, strict=True))
            )
    columns = ["prompt", "prompt_index", "layer", "position", "token", "norm"]
    return pd.DataFrame(lines, columns=columns)


def dose(model: Bridge, vectors: Steering, prompts: Prompts) -> DataFrame:
    """The relative norm of a vector: its norm over that of the clean stream where it is added.

    The paper's norm ratio, of each row at the position where it is added. The coefficient counts if
    the vector was multiplied by it.

    Args:
        model: Any TransformerBridge with a tokenizer.
        vectors: A vector, or several, each measured by itself.
        prompts: A text, token ids, a chat, or a list of these.

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
    sequences = as_prompts(model, prompts)
    if any(vector.position == "generated" for vector in given):
        raise PositionError(
            "a vector at position 'generated' lands on no token of a prompt, so it has no dose "
            "there: move it, e.g. v.at('all')"
        )
    placed = [
        (index, which, row, position)
        for index, ids in enumerate(sequences)
        for which, vector in enumerate(given)
        for position, row in enumerate(rows_on(vector, ids, index))
        if row != positions.NO_ROW
    ]
    streams = [stream_point(vector) for vector in given]
    names = list(dict.fromkeys(streams))
    norms = activations.prompt_streams(model, sequences, names, take=_norms)
    lines = []
    for index, which, row, position in placed:
        added = given[which].norms()[row].item()
        there = float(norms[index][names.index(streams[which]), position])
        where = (sequences[index].label, index, which, given[which].layer, row, position)
        lines.append((*where, added, there))
    columns = ["prompt", "prompt_index", "vector", "layer", "row", "position"]
    frame = pd.DataFrame(lines, columns=[*columns, "vector_norm", "residual_norm"])
    frame["dose"] = frame["vector_norm"] / frame["residual_norm"]
    return frame


def cosines(vectors: Mapping[str, SteeringVector] | Mapping[int, SteeringVector]) -> DataFrame:
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
    return pd.DataFrame(values.detach().numpy(), index=labels, columns=labels)


def split_half(
    model: Bridge,
    pairs: Sequence[ContrastPair | tuple[PromptLike, PromptLike]],
    layer: int,
    *,
    splits: int = 100,
    seed: int = 0,
    token: int = -1,
) -> Interval:
    """How well the mean differences of two random halves of the pairs agree.

    Near 1, any half of the pairs gives the same direction; near 0, each pair has its own. With
    an odd number of pairs one half has one more. All prompts are read once, whatever ``splits``.

    Args:
        model: Any TransformerBridge with a tokenizer.
        pairs: At least two contrast pairs or 2-tuples of strings.
        layer: Layer to read at: the stream entering it, as for ``mean_difference``.
        splits: How many random splits, >= 1.
        seed: Of the splits; the global random state is not used.
        token: Which token of each prompt, BOS being 0, negative from the end.

    Returns:
        ``mean`` of the cosine over the splits, ``low`` and ``high`` its 2.5 and 97.5 percentile
        over the splits, and ``n`` pairs. That is the spread over splits of these very pairs, not
        a confidence interval: other pairs may differ by more. NaN if half of the pairs may have
        a mean difference of zero.

    Raises:
        PromptError: Fewer than two pairs, or a prompt beyond the context.
        PositionError: A prompt has no such token.
        LayerError: The model has no such layer.
        SamplingError: ``splits`` is not a positive integer.

    >>> pairs = [("I love it", "I hate it"), ("Good", "Bad"), ("Yes", "No")]
    >>> agreement = split_half(load_model("testbed"), pairs, layer=1)
    >>> -1 <= agreement.low <= agreement.mean <= agreement.high <= 1, agreement.n
    (True, 3)
    """
    from actadd_lens.statistics import Interval

    require_count("splits", splits)
    hook_points.check_layers(model, [layer])
    texts = [as_pair(pair) for pair in pairs]
    if len(texts) < 2:
        raise PromptError(f"{len(texts)} contrast pairs cannot be split in halves: give at least 2")
    point = hook_points.hook_point(layer)
    [positive], [negative] = activations.sides(model, texts, [point], token).double()
    differences = positive - negative
    generator = torch.Generator().manual_seed(seed)
    agreements = torch.empty(splits, dtype=torch.float64)
    for split in range(splits):
        order = torch.randperm(len(texts), generator=generator)
        one, other = (differences[half].mean(dim=0) for half in order.tensor_split(2))
        agreements[split] = one @ other / (one.norm() * other.norm())
    low, high = torch.quantile(agreements, agreements.new_tensor([0.025, 0.975])).tolist()
    return Interval(float(agreements.mean()), low, high, len(texts))


@dataclass(frozen=True)
class Separability:
    """How well a direction separates two sets of prompts."""

    auc: float
    """P(positive > negative) + P(tie) / 2 of a random positive and a random negative prompt."""

    d_prime: float
    """Difference of the means over the pooled standard deviation; NaN if that is undefined or 0."""

    n_positive: int
    """Prompts on the positive side."""

    n_negative: int
    """Prompts on the negative side."""

    positive: tuple[float, ...] = field(repr=False)
    """Projection of each positive prompt, in the units of the stream."""

    negative: tuple[float, ...] = field(repr=False)
    """Projection of each negative prompt."""


def separability(
    model: Bridge,
    positive: Prompts,
    negative: Prompts,
    vector: SteeringVector,
    *,
    token: int = -1,
) -> Separability:
    """How well the direction of a vector separates positive from negative prompts.

    One token of each prompt is read at the vector's hook point and projected on its direction, so
    the vector's norm does not matter. Prompts that the vector was made from are separated too well:
    use others. AUC is the Mann-Whitney U over its largest value (Hanley & McNeil 1982); d' is that
    of signal detection (Green & Swets 1966), with the variance pooled over both sets.

    Args:
        model: Any TransformerBridge with a tokenizer.
        positive: Prompts expected further along the vector.
        negative: Prompts expected less far.
        vector: One row; ``collapse`` reduces several.
        token: Which token of each prompt, BOS being 0, negative from the end.

    Returns:
        AUC: 1 if every positive prompt is further along than every negative one, .5 without any
        difference; and d', in standard deviations.

    Raises:
        VectorError: A vector of several rows, one that is zero, or one that does not fit the model.
        PromptError: No prompt, an empty one, or one beyond the context.
        PositionError: A prompt has no such token.

    >>> model = load_model("testbed")
    >>> vector = al.mean_difference(model, [("I love it", "I hate it")], layer=1)
    >>> found = separability(model, ["We love it", "Good"], ["We hate it", "Bad"], vector)
    >>> 0 <= found.auc <= 1, found.n_positive
    (True, 2)
    """
    from scipy.stats import mannwhitneyu

    as_vectors(model, vector)
    if len(vector.rows) != 1:
        raise VectorError(
            f"vector has {len(vector.rows)} rows, a direction is one: reduce it first, e.g. "
            "v.collapse('mean') or v.collapse('last')"
        )
    row = vector.rows[0].double()
    if not row.any():
        raise VectorError("the vector is zero, so it has no direction: give another")
    prompts = {"positive": as_prompts(model, positive), "negative": as_prompts(model, negative)}
    labels = [f"{side} prompt {i}" for side, given in prompts.items() for i in range(len(given))]
    flat = [*prompts["positive"], *prompts["negative"]]
    [read] = activations.token_rows(model, flat, labels, [vector.hook_point], token).double()
    scale = torch.linalg.vector_norm(read, dim=1).max()
    projections = torch.round(read @ (row / row.norm()) / scale, decimals=_DIGITS) * scale
    above, below = projections.split([len(given) for given in prompts.values()])
    # The p value is not used; this method of making it costs nothing.
    u = mannwhitneyu(above.detach().numpy(), below.detach().numpy(), method="asymptotic").statistic
    return Separability(
        auc=float(u) / (len(above) * len(below)),
        d_prime=_d_prime(above, below),
        n_positive=len(above),
        n_negative=len(below),
        positive=tuple(above.tolist()),
        negative=tuple(below.tolist()),
    )


def stream_point(intervention: Intervention) -> str:
    """The point of the stream that an intervention is measured against."""
    name = intervention.hook_point
    beside = name.endswith(("attn_out", "mlp_out", "attn.hook_out", "mlp.hook_out"))
    return hook_points.hook_point(hook_points.layer_of(name)) if beside else name


def _d_prime(positive: Float64[Tensor, "n"], negative: Float64[Tensor, "m"]) -> float:
    spread = sum(float((side - side.mean()).square().sum()) for side in (positive, negative))
    degrees = len(positive) + len(negative) - 2
    if spread == 0 or degrees == 0:
        return math.nan
    return float(positive.mean() - negative.mean()) / math.sqrt(spread / degrees)
