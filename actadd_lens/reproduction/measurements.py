"""What was measured, by run: means, paired changes, and what tables and figures have in common."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import isnan, nan
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from actadd_lens import plots
from actadd_lens.statistics import ClusterInterval, Interval, cluster_mean, proportion
from actadd_lens.sweeps import Best, Result, SweepResult
from actadd_lens.sweeps.configurations import KEYS
from actadd_lens.sweeps.results import typed

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
        return self.result.interval(self.rows(metric, run, **labels))

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
        by = [*(key for key in self.result.keys if key != "run"), "run", "metric"]
        once = self.frame.drop_duplicates([*by, "draw", "prompt_index"])
        doses = once.groupby(by, sort=False, dropna=False)["dose"].agg(lambda own: own.mean())
        return self.result.intervals(self.frame, by).assign(dose=doses.to_numpy())

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
        found = found.assign(_rank=rank(found["run"]))
        found = found.sort_values([*differ, "_rank"], kind="stable", ignore_index=True)
        return found[[*differ, "run", *chosen, "n"]]


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


def by_part(tables: Mapping[str, pd.DataFrame], head: str = "concept") -> pd.DataFrame:
    """The tables of several parts as one, with the part in its first column."""
    return pd.concat(tables, names=[head]).reset_index(head)


def note(summary: pd.DataFrame, what: str = "prompts") -> str:
    """The line under a figure that says what its intervals are."""
    return f"95 % intervals, n = {int(summary['n'].max())} {what}"


def dots_by_run(
    summary: pd.DataFrame, panels: "pd.Series[Any]", ylabel: str, ours: Collection[str]
) -> Figure:
    """A dot with its interval for each run, the clean one as a level, in several panels.

    Args:
        summary: One line for each panel and run.
        panels: The panel of each line.
        ylabel: A share.
        ours: Runs in the colour of steering; the others are baselines.
    """
    clean = summary["run"] == "clean"
    return plots.bars(
        summary.drop(columns=["metric", "layer", "position"]).assign(
            vector=panels,
            condition=summary["run"].where(~clean),
            source=np.where(summary["run"].isin([*ours]), "steered", "baseline"),
            run=np.where(clean, "clean", "steered"),
        ),
        x="condition", group="source", ylabel=ylabel, unit="%", note=note(summary),
    )  # fmt: skip
