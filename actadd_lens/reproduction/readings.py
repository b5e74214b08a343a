"""Figures out of a measurement, by run: means, paired changes, tables for reports."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isnan, nan
from typing import Any

import numpy as np
import pandas as pd

from actadd_lens.statistics import ClusterInterval, Interval, cluster_mean, proportion
from actadd_lens.sweeps import Result
from actadd_lens.sweeps.results import interval_of, typed

NAMES = {"mean_difference": "mean difference"}
"""What runs are called in reports, where that is not the name of the control."""
ORDER = ("clean", "steered", "mean difference", "prompted", "negated", "random", "shuffled")


@dataclass(frozen=True)
class Change(ClusterInterval):
    """Mean over prompts of the change from one run to another."""


@dataclass(frozen=True)
class Readings:
    """A measurement in which draws of a random vector are one run, "random"; see ``draw``."""

    result: Result
    """From ``Setup.measured``."""

    @property
    def frame(self) -> pd.DataFrame:
        """Every value; the column ``draw`` keeps the run as it was measured."""
        frame = self.result.frame
        kinds = frame["run"].astype(str).str.split(":").str[0]
        return frame.assign(draw=frame["run"], run=kinds.map(lambda kind: NAMES.get(kind, kind)))

    def rows(self, metric: str, run: str = "steered", **labels: Any) -> pd.DataFrame:
        """Values of one metric in one run; the clean run has no labels.

        Raises:
            KeyError: There are none.
        """
        frame = self.frame
        mask = (frame["metric"] == metric) & (frame["run"] == run)
        for name, value in labels.items() if run != "clean" else ():
            mask &= (frame[name] == value).fillna(False).astype(bool)
        if not mask.any():
            raise KeyError(f"no {metric} of {run} at {labels}")
        cells = frame.loc[mask, self.result.keys].astype(str).drop_duplicates()
        if run == "clean" and len(cells) > 1:
            raise ValueError(f"{len(cells)} clean cells: labels do not tell them apart")
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
            metric: Which.
            run: The one.
            than: The other.
            where: Labels of the other, where they are not those of the one.
            **labels: Labels of the one.
        """
        ours = _by_prompt(self.rows(metric, run, **labels))
        theirs = _by_prompt(self.rows(metric, than, **(labels if where is None else where)))
        paired = (ours - theirs).dropna()
        return changed(paired, len(ours), share=metric in self.result.shares)

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

        Where there are several steered cells, columns tell them apart.
        """
        table = self.summary()
        chosen = list(metrics) if metrics else self.result.metrics
        steered = table[table["run"] == "steered"]
        told = [key for key in self.result.keys if key != "run" and steered[key].nunique() > 1]
        table = table[table["metric"].isin(chosen)]
        lines: dict[tuple[Any, ...], dict[str, str]] = {}
        for row in table.to_dict("records"):
            key = (*("" if pd.isna(row[k]) else row[k] for k in told), row["run"])
            shown = text_of(
                Interval(row["mean"], row["low"], row["high"], row["n"]),
                share=row["metric"] in self.result.shares,
            )
            line = lines.setdefault(key, {"n": str(row["n"])})
            if str(row["n"]) != line["n"]:
                shown = f"{shown}, n = {row['n']}"
            line[row["metric"]] = shown
        found = pd.DataFrame(
            [
                {**dict(zip([*told, "run"], key, strict=True)), **values}
                for key, values in lines.items()
            ]
        )
        rank = {name: i for i, name in enumerate(ORDER)}
        place = found["run"].map(lambda run: rank.get(run, len(rank)))
        found = found.assign(_place=place).sort_values([*told, "_place"], kind="stable")
        return found[[*told, "run", *chosen, "n"]].reset_index(drop=True)


def text_of(interval: Interval, *, share: bool = False, n: bool = False) -> str:
    """A mean with its interval; shares in percent, changes of shares in points.

    >>> text_of(Interval(0.5, 0.25, 0.75, 8), share=True, n=True)
    '50 % [25, 75], n = 8'
    >>> text_of(Interval(1.234, 1.2, 1.3, 8))
    '1.23 [1.2, 1.3]'
    >>> text_of(Change(0.5, 0.25, 0.75, 8, 0), share=True)
    '+50 points [+25, +75]'
    """
    if isnan(interval.mean):
        return "-"
    behind = f", n = {interval.n}" if n else ""
    sign = "+" if isinstance(interval, Change) else ""
    shape = f"{sign}.0f" if share else f"{sign}.3g"
    scale, unit = (100, " points" if sign else " %") if share else (1, "")
    mean, low, high = (
        f"{scale * x + 0.0:{shape}}" for x in (interval.mean, interval.low, interval.high)
    )
    return f"{mean}{unit} [{low}, {high}]{behind}"


def each(intervals: Mapping[str, Interval], *, share: bool = False) -> str:
    """Several intervals, named.

    >>> each({"a": Interval(0.5, 0.25, 0.75, 8)}, share=True)
    'a 50 % [25, 75]'
    """
    return "; ".join(f"{name} {text_of(i, share=share)}" for name, i in intervals.items())


def as_readings(rows: pd.DataFrame, shares: Sequence[str] = ()) -> Readings:
    """Values that were read otherwise than by ``Setup.measured``, as if by it.

    Args:
        rows: Labels of cells, then ``prompt``, ``metric`` and ``value``.
        shares: Metrics whose values are zeros and ones.
    """
    frame = rows.assign(
        sample=nan,
        prompt_index=rows.groupby("prompt", sort=False).ngroup(),
        dose=nan,
        kl=nan,
        text=None,
    )
    metrics = [[name, name, name in shares] for name in dict.fromkeys(rows["metric"])]
    return Readings(Result(typed(frame), {"metrics": metrics}))


def _by_prompt(rows: pd.DataFrame) -> "pd.Series[float]":
    return rows.groupby("prompt", sort=False)["value"].mean()


def changed(paired: "pd.Series[float]", of: int, *, share: bool = False) -> Change:
    """The mean of changes, a prompt each, with its interval; NaN where one is infinite or none is.

    Changes that are all alike show no spread to resample. Where they are of shares, Wilson's bound
    on a change that none of the prompts shows stands in its place, on either side.

    Args:
        paired: Changes with the prompt as index.
        of: Prompts that there should be.
        share: Whether they are of zeros and ones.

    >>> changed(pd.Series(0.0, range(60)), 60, share=True)
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
