"""What figures read: frames checked and made plain, and cut into panels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from actadd_lens.errors import FigureError
from actadd_lens.plots.style import plain

MEAN = ("mean", "low", "high")
GRID = ("layer", "coefficient")
SPLITS = ("pair", "position")


@dataclass(frozen=True)
class Panel:
    """The cells that are drawn in one panel."""

    key: tuple[Any, ...]
    """Its values of `pair` and `position`, those of the two that the frame has."""
    title: str
    """Those of them in which panels differ."""
    cells: pd.DataFrame

    @property
    def steered(self) -> pd.DataFrame:
        """The steered cells."""
        return self.cells[self.cells["run"] == "steered"]

    @property
    def clean(self) -> pd.DataFrame:
        """The clean run: a row or none, as a rule."""
        return self.cells[self.cells["run"] == "clean"]

    @property
    def controls(self) -> pd.DataFrame:
        """Everything else, with a column `kind`, which is "random" for "random:1"."""
        cells = self.cells[~self.cells["run"].isin(["steered", "clean"])]
        return cells.assign(kind=[control.split(":")[0] for control in cells["run"]])


def table(
    frame: pd.DataFrame, numbers: Sequence[str], others: Sequence[str] = (), *, give: str
) -> pd.DataFrame:
    """The frame with plain floats in `numbers`, which matplotlib needs.

    What is empty becomes nan, and so does what is infinite, as it has no place on a scale.

    Args:
        frame: what the caller gave.
        numbers: columns that must hold numbers.
        others: columns that must be there.
        give: what to give instead, for messages.
    """
    wanted = [*others, *numbers]
    missing = [name for name in wanted if name not in frame.columns]
    if missing:
        raise FigureError(
            f"the frame lacks the columns {missing} (it has {list(frame.columns)}): "
            f"give {give} with {wanted}"
        )
    read = {}
    for name in numbers:
        try:
            column = frame[name].astype("Float64").astype(float)
        except (TypeError, ValueError) as error:
            raise FigureError(
                f"the column {name!r} does not hold numbers ({error}): give {give}"
            ) from error
        read[name] = column.where(np.isfinite(column))
    return frame.assign(**read)


def cells(
    frame: pd.DataFrame,
    numbers: Sequence[str] = MEAN,
    others: Sequence[str] = (),
    *,
    key: Sequence[str] = (),
) -> pd.DataFrame:
    """A checked frame of cells of one metric, where every steered cell has a `key` of its own."""
    frame = table(frame, numbers, ["run", *others], give="one row per cell")
    frame = frame.assign(run=frame["run"].astype(str))
    steered = frame[frame["run"] == "steered"]
    if steered.empty:
        raise FigureError(
            f"none of the frame's {len(frame)} rows is a steered cell: "
            'give some with control "steered"'
        )
    metrics = list(frame["metric"].dropna().unique()) if "metric" in frame.columns else []
    if len(metrics) > 1:
        raise FigureError(
            f"the frame holds the metrics {metrics}: choose one, "
            f'e.g. frame[frame["metric"] == {metrics[0]!r}]'
        )
    for name in key:
        if steered[name].isna().any():
            raise FigureError(f"{name!r} is empty in a steered cell: fill it in or drop the row")
    names = [name for name in dict.fromkeys((*SPLITS, *key)) if name in frame.columns]
    twice = steered[steered.duplicated(names)] if key else steered[:0]
    if len(twice):
        clash = twice[names].iloc[0].to_dict()
        raise FigureError(f"several steered cells have {clash}: keep one row for each")
    return frame


def sweep(frame: pd.DataFrame, unit: str | None, grid: tuple[str, str] = GRID) -> pd.DataFrame:
    """The cells of a sweep over two columns of numbers, shares as percentages if unit is "%"."""
    return percent(cells(frame, (*grid, *MEAN), key=grid), unit)


def percent(frame: pd.DataFrame, unit: str | None, numbers: Sequence[str] = MEAN) -> pd.DataFrame:
    """Shares as percentages if the unit is "%"."""
    return frame.assign(**{name: 100 * frame[name] for name in numbers}) if unit == "%" else frame


def panels(frame: pd.DataFrame, splits: Sequence[str] = SPLITS) -> list[Panel]:
    """A panel for each pair and position that is steered, in order of appearance."""
    steered = frame["run"] == "steered"
    names = [n for n in splits if n in frame.columns and not _blank(frame[n][steered]).all()]
    keys = frame.loc[steered, names].drop_duplicates()
    told = [name for name in names if keys[name].nunique() > 1]
    found = []
    for key in keys.itertuples(index=False, name=None) if names else [()]:
        inside = pd.Series(True, index=frame.index)
        for name, value in zip(names, key, strict=True):
            everywhere = _blank(frame[name])
            if name == "position":  # a control of its own position stands beside every other
                everywhere |= ~frame[name].isin(keys[name])
            inside &= everywhere | (frame[name] == value).fillna(False).astype(bool)
        title = ", ".join(
            plain(value) if name == "pair" else f"{name}\N{NO-BREAK SPACE}{plain(value)}"
            for name, value in zip(names, key, strict=True)
            if name in told
        )
        found.append(Panel(key, title, frame[inside]))
    return found


def _blank(column: pd.Series) -> pd.Series:
    return column.isna() | (column.astype(str) == "")
