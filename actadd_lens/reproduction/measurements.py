"""What was measured, by run: means, paired changes, and tables for reports."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import isnan, nan
from typing import Any

import numpy as np
import pandas as pd

from actadd_lens.statistics import ClusterInterval, Interval, cluster_mean, proportion
from actadd_lens.sweeps import Best, Result, SweepResult
from actadd_lens.sweeps.configurations import KEYS
from actadd_lens.sweeps.results import interval_of, typed

NAMES = {"mean_difference": "mean difference"}
"""Runs whose name in reports is not that of the control."""
ORDER = ("clean", "steered", "mean difference", "prompted", "negated", "random", "shuffled")
"""Runs in the order of tables and figures."""


@dataclass(frozen=True)
class Change(ClusterInterval):
    """Mean over prompts of the change from one run to another."""


@dataclass(frozen=True, eq=False)
class Measurements:
    """A result in which all draws of a random vector are one run, "random"."""

    result: Result
    """The values as they were measured, draws apart."""

    @cached_property
    def frame(self) -> pd.DataFrame:
        """Every value; the column ``draw`` has the run as it was measured."""
        frame = self.result.frame
        kinds = frame["run"].astype(str).str.split(":").str[0]
        return frame.assign(draw=frame["run"], run=kinds.map(lambda kind: NAMES.get(kind, kind)))

    def rows(self, metric: str, run: str = "steered", **labels: Any) -> pd.DataFrame:
        """Values of one metric in one run; the clean run has no labels.

        Raises:
            KeyError: There are none.
            ValueError: The labels do not say which of several clean runs is meant.
        """
        frame = self.frame
        mask = (frame["metric"] == metric) & (frame["run"] == run)
        for name, value in labels.items() if run != "clean" else ():
            mask &= (frame[name] == value).fillna(False).astype(bool)
        if not mask.any():
            raise KeyError(f"no {metric} of {run} at {labels}")
        found = frame.loc[mask, self.result.keys].astype(str).drop_duplicates()
        if run == "clean" and len(found) > 1:
            raise ValueError(f"{len(found)} clean runs: labels do not distinguish them")
        return frame[mask]

    def value(self, metric: str, run: str = "steered", **labels: Any) -> ClusterInterval:
        """Mean over prompts with its interval."""
        rows = self.rows(metric, run, **labels)
        return interval_of(rows["value"], rows["prompt"], share=metric in self.result.shares)

    def change(
        self,
        metric: str,
        run: str = "steered",
        than: str = "clean",
        *,
        where: Mapping[str, Any] | None = None,
        **labels: Any,
    ) -> Change:
        """Mean over prompts of one run minus another, paired by prompt, with its interval.

        Args:
            metric: Which one.
            run: The one run.
            than: The other run.
            where: Labels of the other, if they are not those of the one.
            **labels: Labels of the one.
        """
        ours = _by_prompt(self.rows(metric, run, **labels))
        theirs = _by_prompt(self.rows(metric, than, **(labels if where is None else where)))
        return mean_change((ours - theirs).dropna(), len(ours), share=metric in self.result.shares)

    def best(self, metric: str) -> Best:
        """The steered configuration with the highest mean; see ``SweepResult.best``."""
        return SweepResult(self.result.frame, self.result.provenance).best(metric)

    @cached_property
    def summary(self) -> pd.DataFrame:
        """``Result.summary`` with the draws of a random vector pooled."""
        keys = [key for key in self.result.keys if key != "run"]
        frame = self.frame
        lines = []
        for labels, own in frame.groupby([*keys, "run", "metric"], sort=False, dropna=False):
            share = labels[-1] in self.result.shares
            i = interval_of(own["value"], own["prompt"], share=share)
            dose = own.drop_duplicates([*keys, "draw", "prompt_index"])["dose"].mean()
            lines.append((*labels, i.mean, i.low, i.high, i.n, i.missing, dose))
        columns = [*keys, "run", "metric", "mean", "low", "high", "n", "missing", "dose"]
        table = pd.DataFrame(lines, columns=columns)
        return table.astype({key: frame[key].dtype for key in keys})

    def by_run(self, metrics: Sequence[str] | None = None) -> pd.DataFrame:
        """A line for each run, a column for each metric, as text with intervals.

        If there are several steered configurations, columns distinguish them.
        """
        table, chosen = self.summary, list(metrics or self.result.metrics)
        steered = table[table["run"] == "steered"]
        differ = [key for key in self.result.keys if key != "run" and steered[key].nunique() > 1]
        lines: dict[tuple[Any, ...], dict[str, Any]] = {}
        for row in table[table["metric"].isin(chosen)].to_dict("records"):
            labels = {key: "" if pd.isna(row[key]) else row[key] for key in differ}
            labels["run"] = row["run"]
            line = lines.setdefault((*labels.values(),), {**labels, "n": str(row["n"])})
            text = format_interval(interval_in(row), share=row["metric"] in self.result.shares)
            line[row["metric"]] = text if str(row["n"]) == line["n"] else f"{text}, n = {row['n']}"
        found = pd.DataFrame(list(lines.values()))
        ordered = found.assign(_rank=rank(found["run"])).sort_values(
            [*differ, "_rank"], kind="stable"
        )
        return ordered[[*differ, "run", *chosen, "n"]].reset_index(drop=True)


def rank(runs: "pd.Series[Any]") -> "pd.Series[int]":
    """The place of each run in ``ORDER``; others come last."""
    places = {run: i for i, run in enumerate(ORDER)}
    return runs.map(lambda run: places.get(run, len(places)))


def interval_in(row: Mapping[Any, Any]) -> Interval:
    """The interval that a line of a summary has."""
    return Interval(row["mean"], row["low"], row["high"], row["n"])


def format_interval(interval: Interval, *, share: bool = False, n: bool = False) -> str:
    """A mean with its interval; shares in percent, changes of shares in points.

    >>> format_interval(Interval(0.5, 0.25, 0.75, 8), share=True, n=True)
    '50 % [25, 75], n = 8'
    >>> format_interval(Interval(1.234, 1.2, 1.3, 8))
    '1.23 [1.2, 1.3]'
    >>> format_interval(Change(0.5, 0.25, 0.75, 8, 0), share=True)
    '+50 points [+25, +75]'
    """
    if isnan(interval.mean):
        return "-"
    size = f", n = {interval.n}" if n else ""
    sign = "+" if isinstance(interval, Change) else ""
    shape = f"{sign}.0f" if share else f"{sign}.3g"
    scale, unit = (100, " points" if sign else " %") if share else (1, "")
    mean, low, high = (
        f"{scale * x + 0.0:{shape}}" for x in (interval.mean, interval.low, interval.high)
    )
    return f"{mean}{unit} [{low}, {high}]{size}"


def percent(interval: Interval, *, n: bool = False) -> str:
    """A share, or a change of one, with its interval.

    >>> percent(Interval(0.5, 0.25, 0.75, 8), n=True)
    '50 % [25, 75], n = 8'
    """
    return format_interval(interval, share=True, n=n)


def format_intervals(shares: Mapping[str, Interval]) -> str:
    """Several shares, or changes of them, with their names.

    >>> format_intervals({"a": Interval(0.5, 0.25, 0.75, 8)})
    'a 50 % [25, 75]'
    """
    return "; ".join(f"{name} {percent(i)}" for name, i in shares.items())


def as_measurements(rows: pd.DataFrame, shares: Sequence[str] = ()) -> Measurements:
    """Values that something else than ``Setup.measure`` produced.

    Args:
        rows: Labels of configurations, then ``prompt``, ``metric`` and ``value``. Of ``KEYS``
            those that are missing are added, empty.
        shares: Metrics whose values are zeros and ones.
    """
    absent = {key: None for key in KEYS if key not in rows}
    index = rows.groupby("prompt", sort=False).ngroup()
    whole = pd.DataFrame({**absent, **rows}).assign(prompt_index=index)
    whole = whole.assign(sample=nan, dose=nan, kl=nan, text=None)
    metrics = [[name, name, name in shares] for name in dict.fromkeys(rows["metric"])]
    return Measurements(Result(typed(whole), {"metrics": metrics}))


def mean_change(paired: "pd.Series[float]", of: int, *, share: bool = False) -> Change:
    """The mean of one change per prompt, with its interval; NaN if one is infinite or none is left.

    If all changes are equal, resampling shows no spread. For shares, the interval then has the
    width of Wilson's bound on a change that no prompt shows, on both sides.

    Args:
        paired: Changes with the prompt as index.
        of: How many prompts there should be.
        share: Whether they are changes of zeros and ones.

    >>> mean_change(pd.Series(0.0, range(60)), 60, share=True)
    Change(mean=0.0, low=-0.06..., high=0.06..., n=60, missing=0)
    """
    if not len(paired) or not np.isfinite(paired).all():
        return Change(nan, nan, nan, len(paired), of - len(paired))
    i = cluster_mean(paired, paired.index)
    low, high = i.low, i.high
    if share and i.n > 1 and low == high:
        unseen = proportion([False] * i.n).high
        low, high = max(-1.0, i.mean - unseen), min(1.0, i.mean + unseen)
    return Change(i.mean, low, high, i.n, of - i.n)


def _by_prompt(rows: pd.DataFrame) -> "pd.Series[float]":
    return rows.groupby("prompt", sort=False)["value"].mean()
