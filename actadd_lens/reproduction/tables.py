"""Tables and figures that several experiments have in common."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from actadd_lens import plots
from actadd_lens.reproduction.measurements import Measurements, percent
from actadd_lens.reproduction.outcome import Measured

WITHOUT_AXIS = ("clean", "mean difference", "prompted", "negated")
"""Runs that have no value along the axis of ``along_axis``."""


def by_part(tables: Mapping[str, pd.DataFrame], head: str = "concept") -> pd.DataFrame:
    """The tables of several parts as one, with the part in its first column."""
    return pd.concat(tables, names=[head]).reset_index(head)


def by_run(
    m: Measured, metrics: Sequence[str] | None = None, head: str = "concept"
) -> pd.DataFrame:
    """``Measurements.by_run`` of every part."""
    return by_part({name: part.by_run(metrics) for name, part in m.parts.items()}, head)


def along_axis(
    part: Measurements,
    metric: str,
    axis: str,
    lines: Mapping[str, Mapping[str, Any]],
    columns: Mapping[str, tuple[str, Mapping[str, Any]]],
) -> pd.DataFrame:
    """A line for each value along an axis, then one for each run without such a value.

    Args:
        part: Where the values are.
        metric: A share.
        axis: Head of the first column.
        lines: What is in that column, and the labels that it means.
        columns: Run and further labels of each column; the first one has the runs without a value.
    """

    def text(run: str, **labels: Any) -> str:
        return percent(part.value(metric, run, **labels))

    first = next(iter(columns))
    table = [
        {axis: line} | {head: text(run, **labels, **more) for head, (run, more) in columns.items()}
        for line, labels in lines.items()
    ]
    table += [{axis: run, first: text(run)} for run in WITHOUT_AXIS]
    return pd.DataFrame(table).fillna("").assign(n=part.value(metric, "clean").n)


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
