"""Whether there is a direction at all: do several pairs agree on it, does it part two sets.

Both read one token of each prompt, and no text is generated.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from einops import reduce
from jaxtyping import Float64
from torch import Tensor

from actadd_lens.errors import PromptError, VectorError, require_count
from actadd_lens.models import bridge
from actadd_lens.models.base import Bridge
from actadd_lens.models.tokens import PromptLike, Prompts, tokenize
from actadd_lens.vectors import activations
from actadd_lens.vectors.pair import ContrastPair, as_pair
from actadd_lens.vectors.vector import SteeringVector, as_vectors

if TYPE_CHECKING:
    from actadd_lens.statistics import Interval
else:
    Interval = Any  # scipy takes a while to import

_DIGITS = 5
"""Projections that agree to so many digits of the largest stream tie: float32 gives no more."""


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
    bridge.check_layers(model, [layer])
    texts = [as_pair(pair) for pair in pairs]
    if len(texts) < 2:
        raise PromptError(f"{len(texts)} contrast pairs cannot be split in halves: give at least 2")
    point = bridge.hook_point(layer)
    [positive], [negative] = activations.sides(model, texts, [point], token).double()
    generator = torch.Generator().manual_seed(seed)
    agreements = torch.stack([_agreement(positive - negative, generator) for _ in range(splits)])
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
    as_vectors(model, vector)
    direction = _direction(vector)
    prompts = [tokenize(model, texts) for texts in (positive, negative)]
    labels = [f"positive prompt {i}" for i in range(len(prompts[0]))]
    labels += [f"negative prompt {i}" for i in range(len(prompts[1]))]
    flat = [*prompts[0], *prompts[1]]
    [read] = activations.token_rows(model, flat, labels, [vector.hook_point], token).double()
    scale = torch.linalg.vector_norm(read, dim=1).max()
    projections = torch.round(read @ direction / scale, decimals=_DIGITS) * scale
    sides = projections.split([len(ids) for ids in prompts])
    return Separability(
        auc=_auc(*sides),
        d_prime=_d_prime(*sides),
        n_positive=len(sides[0]),
        n_negative=len(sides[1]),
        positive=tuple(sides[0].tolist()),
        negative=tuple(sides[1].tolist()),
    )


def _agreement(
    differences: Float64[Tensor, "pair d_model"], generator: torch.Generator
) -> Float64[Tensor, ""]:
    """Cosine between the means of two random halves; NaN if one of them is zero."""
    order = torch.randperm(len(differences), generator=generator)
    one, other = (
        reduce(differences[half], "pair d_model -> d_model", "mean")
        for half in order.tensor_split(2)
    )
    cosine: Tensor = one @ other / (one.norm() * other.norm())
    return cosine


def _direction(vector: SteeringVector) -> Float64[Tensor, "d_model"]:
    if len(vector.rows) != 1:
        raise VectorError(
            f"vector has {len(vector.rows)} rows, a direction is one: reduce it first, e.g. "
            "v.collapse('mean') or v.collapse('last')"
        )
    row = vector.rows[0].double()
    if not row.any():
        raise VectorError("the vector is zero, so it has no direction: give another")
    unit: Tensor = row / row.norm()
    return unit


def _auc(positive: Float64[Tensor, "n"], negative: Float64[Tensor, "m"]) -> float:
    from scipy.stats import mannwhitneyu

    # The p value is not used; this method of making it costs nothing.
    u = mannwhitneyu(positive.numpy(), negative.numpy(), method="asymptotic").statistic
    return float(u) / (len(positive) * len(negative))


def _d_prime(positive: Float64[Tensor, "n"], negative: Float64[Tensor, "m"]) -> float:
    spread = sum(float((side - side.mean()).square().sum()) for side in (positive, negative))
    degrees = len(positive) + len(negative) - 2
    if spread == 0 or degrees == 0:
        return math.nan
    return float(positive.mean() - negative.mean()) / math.sqrt(spread / degrees)
