"""Tests of steered against clean, and corrections for many tests, computed by scipy."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import dataclass, replace
from typing import Final, Literal, SupportsFloat, cast, get_args

import numpy as np
from jaxtyping import Float
from scipy.stats import false_discovery_control, permutation_test

from actadd_lens.errors import StatisticsError
from actadd_lens.statistics.intervals import (
    DIGITS,
    Array,
    ClusterInterval,
    as_list,
    cluster_mean,
    cluster_means,
    numbers,
    proportion,
    rounded_mean,
)

Alternative = Literal["two-sided", "greater", "less"]

EXCHANGEABLE: Final = (
    "within each prompt the steered and the clean run are exchangeable: swapping the two, for all "
    "samples of the prompt at once, leaves the joint distribution of the values as it is"
)


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
    _check_choice("alternative", alternative, get_args(Alternative))
    changes, missing = _changes(steered, clean, clusters)
    changes = np.sort(changes)  # so that the order of the prompts does not decide which are flipped
    scaled = changes / (np.abs(changes).max() or 1.0)
    if len(scaled) == 1:
        scaled = np.append(scaled, 0.0)  # scipy wants two; zero has no sign to flip
    flipped = permutation_test(
        (scaled,),
        rounded_mean,
        permutation_type="samples",
        n_resamples=9999,
        batch=1000,  # bounds the memory
        alternative=cast(Alternative, alternative),
        rng=np.random.default_rng(seed),
    )
    return TestResult(
        float(changes.mean()),
        float(flipped.pvalue),
        len(changes),
        alternative,
        EXCHANGEABLE,
        missing,
    )


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
    adjusted = numbers("p-values", p_values)
    made = ~np.isnan(adjusted)
    raw = adjusted[made]
    if len(raw) == 0:
        raise StatisticsError(f"none of {len(adjusted)} p-values is a number: give at least one")
    if raw.min() < 0 or raw.max() > 1:
        raise StatisticsError(f"p-values from {raw.min()} to {raw.max()}: they are between 0 and 1")
    adjusted[made] = _holm(raw) if method == "holm" else false_discovery_control(raw)
    return adjusted


def _changes(
    steered: Iterable[SupportsFloat],
    clean: Iterable[SupportsFloat],
    clusters: Iterable[Hashable] | None,
) -> tuple[Array, int]:
    """Mean of steered - clean in each cluster, and how many pairs have a NaN."""
    ours, theirs = numbers("steered values", steered), numbers("clean values", clean)
    if len(ours) != len(theirs):
        raise StatisticsError(
            f"{len(ours)} steered and {len(theirs)} clean values: give both of every sample"
        )
    labels = range(len(ours)) if clusters is None else as_list(clusters)
    changes, missing = cluster_means(ours - theirs, labels)
    sizes, _ = cluster_means(np.abs(ours) + np.abs(theirs), labels)
    return np.where(np.abs(changes) <= sizes * 10.0**-DIGITS, 0.0, changes), missing


def _holm(raw: Array) -> Array:
    order = np.argsort(raw)
    steps = np.arange(len(raw), 0, -1) * raw[order]
    adjusted = np.empty_like(raw)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return adjusted


def _check_choice(name: str, choice: str, choices: tuple[str, ...]) -> None:
    if choice not in choices:
        raise StatisticsError(f"unknown {name} {choice!r}: choose one of {', '.join(choices)}")
