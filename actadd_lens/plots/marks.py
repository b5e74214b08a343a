"""Marks that several figures share: intervals, bands, the clean run, axes, the legend."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from actadd_lens.plots.cells import MEAN
from actadd_lens.plots.style import CLEAN_COLOUR, LETTER_EM, labelled, wrapped


def interval(
    ax: Axes, at: Any, low: pd.Series, high: pd.Series, *, across: bool = False, **look: Any
) -> None:
    """A line from `low` to `high` at each place, upright or across; none where either is nan."""
    known = (low.notna() & high.notna()).to_numpy()
    if known.any():
        draw = ax.hlines if across else ax.vlines
        draw(np.asarray(at)[known], low[known], high[known], **look)


def band(ax: Axes, at: pd.Series, low: pd.Series, high: pd.Series, **look: Any) -> None:
    """The area between `low` and `high`; a single place, which has no area, gets a line."""
    if low.notna().sum() > 1:
        ax.fill_between(at, low, high, linewidth=0, **look)
    else:
        interval(ax, at, low, high, **look, linewidth=3)


def clean_level(ax: Axes, clean: pd.DataFrame) -> None:
    """The clean run as a level line with its interval as a band."""
    for _, row in clean.dropna(subset="mean").iterrows():
        if row[["low", "high"]].notna().all():
            ax.axhspan(row["low"], row["high"], color=CLEAN_COLOUR, alpha=0.12, linewidth=0)
        ax.axhline(row["mean"], color=CLEAN_COLOUR, linewidth=1.0, zorder=1.8, label="clean")


def label_y(axes: Sequence[Axes], label: str, unit: str | None, shown: pd.DataFrame) -> None:
    """Label of the effect beside the first of each row; shares get the whole scale."""
    for ax in axes:
        ax.set_ylabel(wrapped(labelled(label, unit), 2.2))
    values = shown[[*MEAN]]
    if unit == "%" and not (values.lt(0) | values.gt(100)).any(axis=None):
        axes[0].set_ylim(-3, 103)  # what lies at the ends is seen whole
        axes[0].set_yticks(range(0, 101, 20))


def log_ticks(axis: Axis, values: Any) -> None:
    """A logarithmic axis with plain numbers, some of them whatever the span of the values."""
    # matplotlib's Artist.axes is declared without its type.
    axis.axes.set(**{f"{axis.axis_name}scale": "log"})  # type: ignore[attr-defined]
    span = math.log10(np.max(values) / np.min(values))
    if span < 0.7:
        axis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    else:
        axis.set_major_locator(LogLocator(subs=(1, 2, 5) if span < 2.5 else (1,)))
    axis.set_major_formatter(lambda value, _: f"{value:g}".replace("e-0", "e-"))
    axis.set_minor_formatter(NullFormatter())


def legend(
    figure: Figure, axes: Sequence[Axes], note: str | None, extra: dict[str, Any] | None = None
) -> None:
    """One legend under all panels, each label once, with `note` above it."""
    entries: dict[str, Any] = {}
    for ax in axes:
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
            entries.setdefault(label, handle)
    entries |= extra or {}
    if not entries and not note:
        return
    inches = figure.get_figwidth()
    figure.legend(
        list(entries.values()),
        list(entries),
        loc="outside lower center",
        ncols=_columns(entries, inches),
        title=note and wrapped(note, inches, 8),
    )


def _columns(labels: Iterable[str], inches: float) -> int:
    """The most columns of a legend that fit into a width."""
    widths = [0.5 + len(label) * LETTER_EM * 8 / 72 for label in labels]
    for n in range(len(widths), 1, -1):
        if sum(max(column) for column in np.array_split(widths, n)) <= inches:
            return n
    return 1
