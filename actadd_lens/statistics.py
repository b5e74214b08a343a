"""Intervals. scipy does the work; this room only names what is reported with every figure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import binomtest, bootstrap


@dataclass(frozen=True)
class Interval:
    """A mean with its confidence interval over `n` independent items."""

    mean: float
    low: float
    high: float
    n: int

    def percent(self) -> str:
        """The interval in percent, as reports print it: `72 [66, 77] %, n=200`."""
        low, high = 100 * self.low, 100 * self.high
        return f"{100 * self.mean:.0f} [{low:.0f}, {high:.0f}] %, n={self.n}"


def proportion(successes: Sequence[bool], confidence: float = 0.95) -> Interval:
    """Share of successes with its Wilson score interval (Wilson 1927, no continuity correction).

    Args:
        successes: one independent outcome each, for instance one completion per prompt.
        confidence: coverage of the interval, in (0, 1).

    Raises:
        ValueError: no outcomes.

    >>> proportion([True, True, False, True])
    Interval(mean=0.75, low=0.30064..., high=0.95441..., n=4)
    """
    n = len(successes)
    if n == 0:
        raise ValueError("proportion of 0 outcomes is undefined: give at least one")
    hits = sum(map(bool, successes))
    wilson = binomtest(hits, n).proportion_ci(confidence, method="wilson")
    return Interval(hits / n, float(wilson.low), float(wilson.high), n)


def mean(values: Sequence[float], confidence: float = 0.95) -> Interval:
    """Mean of independent values with its bootstrap interval (BCa, 2,000 resamples, seed 0).

    Args:
        values: one number per independent item, for instance per prompt.
        confidence: coverage of the interval, in (0, 1).

    Raises:
        ValueError: no values.

    >>> mean([1.0, 1.0, 1.0])
    Interval(mean=1.0, low=1.0, high=1.0, n=3)
    """
    if len(values) == 0:
        raise ValueError("mean of 0 values is undefined: give at least one")
    array = np.asarray(values, dtype=float)
    centre = float(array.mean())
    if np.ptp(array) == 0.0:  # nothing to resample; scipy would warn and return NaN
        return Interval(centre, centre, centre, len(array))
    interval = bootstrap(
        (array,),
        np.mean,
        confidence_level=confidence,
        n_resamples=2000,
        rng=np.random.default_rng(0),
    ).confidence_interval
    return Interval(centre, float(interval.low), float(interval.high), len(array))
