"""Intervals, paired tests and corrections for many tests, computed by scipy.

The independent item is the prompt. Samples of one prompt are not independent, so every function
that takes samples takes `clusters`, the prompt of each sample (any hashable label): samples are
averaged within their prompt first, and then every prompt counts once. NaN is a missing sample. It
is left out and counted in `missing`; a prompt whose samples are all missing is left out too.
"""

from actadd_lens.statistics.comparisons import (
    TestResult,
    adjust,
    mean_change,
    paired_permutation,
    share_moved_wrong,
)
from actadd_lens.statistics.intervals import (
    ClusterInterval,
    Interval,
    cluster_mean,
    mean,
    proportion,
)

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
