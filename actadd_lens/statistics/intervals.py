"""Intervals over independent items, and over prompts of which there are several samples."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, SupportsFloat

import numpy as np
from scipy.stats import binomtest, bootstrap

from actadd_lens.errors import StatisticsError

Array = np.ndarray[Any, np.dtype[np.float64]]

DIGITS: Final = 12
"""Means that agree to this many digits are equal: they differ by the rounding of their sums."""


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
    array = numbers("values", values)
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
    means, missing = cluster_means(numbers("values", values), clusters)
    # Sorted, so that the order of the prompts has no influence on which are drawn.
    interval = _bootstrap(np.sort(means), confidence, seed)
    return ClusterInterval(**vars(interval), missing=missing)


def numbers(name: str, values: Iterable[SupportsFloat]) -> Array:
    """The values as an array; `name` is what an error calls them."""
    try:
        array = np.asarray(as_list(values), dtype=float)
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


def as_list(values: Iterable[Any]) -> list[Any]:
    """Plain Python items: elements of a tensor or an array cannot be compared as labels."""
    return list(values.tolist() if hasattr(values, "tolist") else values)


def cluster_means(values: Array, clusters: Iterable[Hashable]) -> tuple[Array, int]:
    """Mean of each cluster that has one, in order of appearance, and how many values are NaN."""
    labels = as_list(clusters)
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


def rounded_mean(values: Array, axis: int) -> Any:
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
        rounded_mean,
        confidence_level=confidence,
        n_resamples=2000,
        batch=100,  # bounds the memory
        rng=np.random.default_rng(seed),
    ).confidence_interval
    low, high = array.min() + spread * np.array([bounds.low, bounds.high])
    return Interval(centre, float(low), float(high), len(array))
