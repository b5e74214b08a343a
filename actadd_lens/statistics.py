"""Intervals, paired tests and corrections for many tests, computed by scipy.

The independent item is the prompt. Samples of one prompt are not independent, so every function
that takes samples takes `clusters`, the prompt of each sample (any hashable label): samples are
averaged within their prompt first, and then every prompt counts once. NaN is a missing sample. It
is left out and counted in `missing`; a prompt whose samples are all missing is left out too.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, SupportsFloat, cast

import numpy as np
from jaxtyping import Float
from scipy.stats import binomtest, bootstrap, false_discovery_control, permutation_test

from actadd_lens.errors import StatisticsError

__all__ = [
    "ClusterInterval",
    "Interval",
    "TestResult",
    "adjust",
    "cluster_mean",
    "mean",
    "mean_change",
    "paired_permutation",
    "proportion",
    "share_moved_wrong",
]

Array = np.ndarray[Any, np.dtype[np.float64]]

DIGITS: Final = 12
"""Means that agree to this many digits are equal: they differ by the rounding of their sums."""

EXCHANGEABLE: Final = (
    "within each prompt the steered and the clean run are exchangeable: swapping the two, for all "
    "samples of the prompt at once, leaves the joint distribution of the values as it is"
)


@dataclass(frozen=True)
class Interval:
    """A mean with its confidence interval over `n` independent items."""

    mean: float
    """In the unit of the values; for a share between 0 and 1."""
    low: float
    """Lower bound of the interval; NaN where there is none."""
    high: float
    """Upper bound of the interval; NaN where there is none."""
    n: int
    """Independent items, for instance prompts."""

    def percent(self) -> str:
        """The interval in percent, as reports print it: `72 [66, 77] %, n=200`."""
        low, high = 100 * self.low, 100 * self.high
        return f"{100 * self.mean:.0f} [{low:.0f}, {high:.0f}] %, n={self.n}"


@dataclass(frozen=True)
class ClusterInterval(Interval):
    """An interval over `n` clusters (prompts), from which `missing` samples (NaN) are left out."""

    missing: int
    """Samples that are NaN."""


def proportion(successes: Sequence[bool], confidence: float = 0.95) -> Interval:
    """Share of successes with its Wilson score interval (Wilson 1927, no continuity correction).

    Args:
        successes: one independent outcome each, for instance one completion per prompt.
        confidence: coverage of the interval, in (0, 1).

    Raises:
        StatisticsError: no outcomes, or confidence out of range.

    >>> proportion([True, True, False, True])
    Interval(mean=0.75, low=0.30064..., high=0.95441..., n=4)
    """
    _check_confidence(confidence)
    n = len(successes)
    if n == 0:
        raise StatisticsError("proportion of 0 outcomes is undefined: give at least one")
    hits = sum(map(bool, successes))
    wilson = binomtest(hits, n).proportion_ci(confidence, method="wilson")
    return Interval(hits / n, float(wilson.low), float(wilson.high), n)


def mean(values: Iterable[SupportsFloat], confidence: float = 0.95, seed: int = 0) -> Interval:
    """Mean of independent values with its bootstrap interval (BCa, 2,000 resamples).

    Args:
        values: one number per independent item, for instance per prompt.
        confidence: coverage of the interval, in (0, 1).
        seed: of the resampling; the global random state is not used.

    Returns:
        The interval. Its bounds are NaN for a single value, which says nothing about the spread;
        both bounds equal the mean for constant values.

    Raises:
        StatisticsError: no values, NaN or infinite ones, or confidence out of range.

    >>> mean([1.0, 1.0, 1.0])
    Interval(mean=1.0, low=1.0, high=1.0, n=3)
    """
    array = _numbers("values", values)
    if len(array) == 0:
        raise StatisticsError("mean of 0 values is undefined: give at least one")
    if np.isnan(array).any():
        raise StatisticsError(
            f"{np.isnan(array).sum()} of {len(array)} values are NaN: drop them, "
            "or use cluster_mean, which counts them"
        )
    return _bootstrap(array, confidence, seed)


def cluster_mean(
    values: Iterable[SupportsFloat],
    clusters: Iterable[Hashable],
    confidence: float = 0.95,
    seed: int = 0,
) -> ClusterInterval:
    """Mean of the cluster means, with its bootstrap interval over clusters (BCa, 2,000 resamples).

    Every prompt counts once, however many samples it has; with equally many samples this is the
    pooled mean. Whole clusters are drawn (Davison & Hinkley 1997, section 3.8, first
    strategy) by the bias-corrected accelerated bootstrap (Efron 1987). With fewer than about ten
    clusters such intervals are too narrow: five normal clusters are covered about 82 % of the
    time instead of 95.

    Args:
        values: one number per sample, in any unit.
        clusters: the prompt of each sample.
        confidence: coverage of the interval, in (0, 1).
        seed: of the resampling; the global random state is not used.

    Returns:
        The interval, where `n` counts clusters. Its bounds are NaN for a single cluster; both
        bounds equal the mean if all clusters have the same mean. The order of samples and the
        names of clusters do not matter.

    Raises:
        StatisticsError: no number among the values, infinite ones, other than one cluster per
            value, or confidence out of range.

    >>> cluster_mean([0.0, 1.0, 1.0, 1.0, 0.0, 0.0], ["a", "a", "b", "b", "c", "c"])
    ClusterInterval(mean=0.5, low=0.0, high=..., n=3, missing=0)
    """
    means, missing = _cluster_means(_numbers("values", values), clusters)
    # Sorted, so that the order of the prompts has no influence on which are drawn.
    interval = _bootstrap(np.sort(means), confidence, seed)
    return ClusterInterval(**vars(interval), missing=missing)


@dataclass(frozen=True)
class TestResult:
    """A test of steered against clean over `n` prompts, `missing` pairs (NaN) left out."""

    statistic: float
    """Mean over prompts of steered - clean, in the unit of the values."""
    p_value: float
    """Uncorrected; see `adjust` for several tests."""
    n: int
    """Prompts."""
    alternative: str
    """"two-sided", "greater" or "less", as asked for."""
    null: str
    """The hypothesis that a small `p_value` is evidence against, in words."""
    missing: int
    """Pairs of samples that are left out, one of them being NaN."""


def paired_permutation(
    steered: Iterable[SupportsFloat],
    clean: Iterable[SupportsFloat],
    clusters: Iterable[Hashable] | None = None,
    alternative: str = "two-sided",
    seed: int = 0,
) -> TestResult:
    """Sign-flip permutation test of steered against clean (Fisher 1935).

    The null hypothesis: within each prompt the steered and the clean run are exchangeable;
    swapping the two, for all samples of the prompt at once, leaves the joint distribution of the
    values as it is. Prompts are independent. Under it every prompt's mean of steered - clean is
    as likely to have the other sign. The test is exact for this hypothesis; as a test of "the mean
    change is zero" it holds for many prompts, or if the changes are spread symmetrically.

    All 2^n sign flips are counted for up to 13 prompts, 9,999 random ones beyond (p-values as in
    Phipson & Smyth 2010, never 0). No two-sided p-value is below 2 / 2^n: fewer than six prompts
    cannot reach 5 %.

    Args:
        steered: one number per sample, in any unit.
        clean: the same samples in the clean run, in the same order.
        clusters: the prompt of each sample; by default every sample is a prompt of its own.
        alternative: "two-sided", "greater" (steered above clean) or "less".
        seed: of the random flips; the global random state is not used.

    Raises:
        StatisticsError: lengths that differ, no pair of numbers, infinite values, or an unknown
            alternative.

    >>> paired_permutation([2.0, 4.0, 3.0], [1.0, 1.0, 1.0], alternative="greater").p_value
    0.125
    """
    _check_choice("alternative", alternative, ("two-sided", "greater", "less"))
    changes, missing = _changes(steered, clean, clusters)
    changes = np.sort(changes)  # so that the order of the prompts does not decide which are flipped
    scaled = changes / (np.abs(changes).max() or 1.0)
    if len(scaled) == 1:
        scaled = np.append(scaled, 0.0)  # scipy wants two; zero has no sign to flip
    flipped = permutation_test(
        (scaled,),
        _rounded_mean,
        permutation_type="samples",
        n_resamples=9999,
        batch=1000,  # bounds the memory
        alternative=cast(Any, alternative),
        rng=np.random.default_rng(seed),
    )
    statistic, p_value = float(changes.mean()), float(flipped.pvalue)
    return TestResult(statistic, p_value, len(changes), alternative, EXCHANGEABLE, missing)


def mean_change(
    steered: Iterable[SupportsFloat],
    clean: Iterable[SupportsFloat],
    clusters: Iterable[Hashable] | None = None,
    confidence: float = 0.95,
    seed: int = 0,
) -> ClusterInterval:
    """Mean over prompts of steered - clean, with its bootstrap interval.

    Where few prompts changed, all in one direction, resampling has little to draw from and the
    interval is too narrow: it may exclude 0 although `paired_permutation` finds nothing. Use the
    test then.

    Args:
        steered: one number per sample, in any unit.
        clean: the same samples in the clean run, in the same order.
        clusters: the prompt of each sample; by default every sample is a prompt of its own.
        confidence: coverage of the interval, in (0, 1).
        seed: of the bootstrap.

    Raises:
        StatisticsError: lengths that differ, no pair of numbers, infinite values, or confidence
            out of range.

    >>> mean_change([2.0, 4.0, 3.0], [1.0, 1.0, 2.0]).mean
    1.6666666666666667
    """
    changes, missing = _changes(steered, clean, clusters)
    interval = cluster_mean(changes, range(len(changes)), confidence, seed)
    return replace(interval, missing=missing)


def share_moved_wrong(
    steered: Iterable[SupportsFloat],
    clean: Iterable[SupportsFloat],
    clusters: Iterable[Hashable] | None = None,
    wanted: str = "up",
    confidence: float = 0.95,
) -> ClusterInterval:
    """Share of prompts whose mean moved against the wanted direction, with its Wilson interval.

    Tan et al. (2407.12404) call such prompts anti-steerable. A prompt that did not move, up to
    rounding, is not wrong, but counts in `n`.

    Args:
        steered: one number per sample, in any unit.
        clean: the same samples in the clean run, in the same order.
        clusters: the prompt of each sample; by default every sample is a prompt of its own.
        wanted: "up" or "down", where steering should move the values.
        confidence: coverage of the interval, in (0, 1).

    Raises:
        StatisticsError: lengths that differ, no pair of numbers, infinite values, an unknown
            direction, or confidence out of range.

    >>> share_moved_wrong([2.0, 0.0, 3.0, 1.0], [1.0, 1.0, 1.0, 1.0]).percent()
    '25 [5, 70] %, n=4'
    """
    _check_choice("direction", wanted, ("up", "down"))
    changes, missing = _changes(steered, clean, clusters)
    wrong = changes < 0 if wanted == "up" else changes > 0
    return ClusterInterval(**vars(proportion(wrong.tolist(), confidence)), missing=missing)


def adjust(p_values: Iterable[SupportsFloat], method: str = "holm") -> Float[np.ndarray, " test"]:
    """P-values corrected for the number of tests, in the order given.

    "holm" (Holm 1979) bounds the chance of any false positive, under any dependence; "bh"
    (Benjamini & Hochberg 1995) the expected share of false ones among the positives, for
    independent or positively dependent tests. NaN is a test that was not made. It stays NaN and
    is not counted.

    Args:
        p_values: one per test, in [0, 1].
        method: "holm" or "bh".

    Raises:
        StatisticsError: no number among the p-values, one out of range, or an unknown method.

    >>> adjust([0.01, 0.04, 0.03]).tolist()
    [0.03, 0.06, 0.06]
    """
    _check_choice("method", method, ("holm", "bh"))
    adjusted = _numbers("p-values", p_values)
    made = ~np.isnan(adjusted)
    raw = adjusted[made]
    if len(raw) == 0:
        raise StatisticsError(f"none of {len(adjusted)} p-values is a number: give at least one")
    if raw.min() < 0 or raw.max() > 1:
        raise StatisticsError(f"p-values from {raw.min()} to {raw.max()}: they are between 0 and 1")
    if method == "bh":
        adjusted[made] = false_discovery_control(raw)
        return adjusted
    order = np.argsort(raw)
    steps = np.arange(len(raw), 0, -1) * raw[order]
    adjusted[np.flatnonzero(made)[order]] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return adjusted


def _numbers(name: str, values: Iterable[SupportsFloat]) -> Array:
    """The values as an array; `name` is what an error calls them."""
    try:
        array = np.asarray(_as_list(values), dtype=float)
    except (TypeError, ValueError) as error:
        raise StatisticsError(
            f"{name} are not all numbers ({error}): give one per sample"
        ) from error
    if array.ndim != 1:
        raise StatisticsError(f"{name} of shape {array.shape}: give one number per sample")
    if np.isinf(array).any():
        raise StatisticsError(
            f"{np.isinf(array).sum()} of {len(array)} {name} are infinite, so they have no mean: "
            "bound them, or make them NaN to leave them out"
        )
    return array


def _as_list(values: Iterable[Any]) -> list[Any]:
    """Plain Python items: elements of a tensor or an array cannot be compared as labels."""
    return list(values.tolist() if hasattr(values, "tolist") else values)


def _cluster_means(values: Array, clusters: Iterable[Hashable]) -> tuple[Array, int]:
    """Mean of each cluster that has one, in order of appearance, and how many values are NaN."""
    labels = _as_list(clusters)
    if len(labels) != len(values):
        raise StatisticsError(
            f"{len(values)} values and {len(labels)} clusters: name the cluster of each value"
        )
    present = ~np.isnan(values)
    if not present.any():
        raise StatisticsError(f"none of {len(values)} values is a number: give at least one")
    index = {label: i for i, label in enumerate(dict.fromkeys(labels))}
    codes = np.array([index[label] for label in labels])[present]
    counts = np.bincount(codes)
    sums = np.bincount(codes, weights=values[present])
    return sums[counts > 0] / counts[counts > 0], int((~present).sum())


def _rounded_mean(values: Array, axis: int) -> Any:
    """Mean of values of order one, rounded so that means equal on paper are equal."""
    return np.round(values.mean(axis=axis), DIGITS)


def _check_confidence(confidence: float) -> None:
    if not 0 < confidence < 1:
        raise StatisticsError(f"confidence {confidence} is not between 0 and 1: 0.95 is usual")


def _bootstrap(array: Array, confidence: float, seed: int) -> Interval:
    _check_confidence(confidence)
    centre, spread = float(array.mean()), float(np.ptp(array))
    if len(array) == 1:
        return Interval(centre, np.nan, np.nan, 1)
    if spread <= np.abs(array).max() * 10.0**-DIGITS:  # BCa divides by the spread
        return Interval(centre, centre, centre, len(array))
    bounds = bootstrap(
        ((array - array.min()) / spread,),
        _rounded_mean,
        confidence_level=confidence,
        n_resamples=2000,
        batch=100,  # bounds the memory
        rng=np.random.default_rng(seed),
    ).confidence_interval
    low, high = array.min() + spread * np.array([bounds.low, bounds.high])
    return Interval(centre, float(low), float(high), len(array))


def _changes(
    steered: Iterable[SupportsFloat],
    clean: Iterable[SupportsFloat],
    clusters: Iterable[Hashable] | None,
) -> tuple[Array, int]:
    """Mean of steered - clean in each cluster, and how many pairs have a NaN."""
    ours, theirs = _numbers("steered values", steered), _numbers("clean values", clean)
    if len(ours) != len(theirs):
        raise StatisticsError(
            f"{len(ours)} steered and {len(theirs)} clean values: give both of every sample"
        )
    labels = range(len(ours)) if clusters is None else _as_list(clusters)
    changes, missing = _cluster_means(ours - theirs, labels)
    sizes, _ = _cluster_means(np.abs(ours) + np.abs(theirs), labels)
    return np.where(np.abs(changes) <= sizes * 10.0**-DIGITS, 0.0, changes), missing


def _check_choice(name: str, choice: str, choices: tuple[str, ...]) -> None:
    if choice not in choices:
        raise StatisticsError(f"unknown {name} {choice!r}: choose one of {', '.join(choices)}")
