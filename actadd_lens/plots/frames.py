"""What figures read: frames are checked, made plain and cut into panels."""

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
SPLITS = ("vector", "position")


@dataclass(frozen=True)
class Panel:
    """What is drawn in one panel."""

    key: tuple[Any, ...]
    """Its values of `vector` and `position`, those of the two that the frame has."""
    title: str
    """Those of them in which panels differ."""
    steered: pd.DataFrame
    clean: pd.DataFrame
    """The clean run: one row or none, as a rule."""
    controls: pd.DataFrame
    """All other runs, with a column `kind`, which is "random" for "random:1"."""


def table(
    frame: pd.DataFrame, numbers: Sequence[str], others: Sequence[str] = (), *, give: str
) -> pd.DataFrame:
    """The frame with plain floats in `numbers`, which matplotlib needs; `others` must be there.

    Empty values become nan, and so do infinite ones, which have no place on a scale. Messages say
    what to `give` instead.
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


def configurations(
    frame: pd.DataFrame, numbers: Sequence[str], others: Sequence[str] = (), *, key: Sequence[str]
) -> pd.DataFrame:
    """A checked frame of one metric, in which no two steered rows have the same `key`."""
    frame = table(frame, numbers, ["run", *others], give="one row per configuration")
    frame = frame.assign(run=frame["run"].astype(str))
    steered = frame[frame["run"] == "steered"]
    if steered.empty:
        raise FigureError(
            f"none of the frame's {len(frame)} rows is a steered configuration: "
            'give some with run "steered"'
        )
    metrics = list(frame["metric"].dropna().unique()) if "metric" in frame.columns else []
    if len(metrics) > 1:
        raise FigureError(
            f"the frame holds the metrics {metrics}: choose one, "
            f'e.g. frame[frame["metric"] == {metrics[0]!r}]'
        )
    for name in key:
        if steered[name].isna().any():
            raise FigureError(f"{name!r} is empty in a steered row: fill it in or drop the row")
    names = [name for name in dict.fromkeys((*SPLITS, *key)) if name in frame.columns]
    twice = steered[steered.duplicated(names)]
    if len(twice):
        clash = twice[names].iloc[0].to_dict()
        raise FigureError(f"several steered rows have {clash}: keep one row for each")
    return frame


def percent(frame: pd.DataFrame, unit: str | None, numbers: Sequence[str] = MEAN) -> pd.DataFrame:
    """Shares as percentages if the unit is "%"."""
    return frame.assign(**{name: 100 * frame[name] for name in numbers}) if unit == "%" else frame


def panels(frame: pd.DataFrame, splits: Sequence[str] = SPLITS) -> list[Panel]:
    """A panel for each pair and position that is steered, in order of appearance."""
    steered = frame["run"] == "steered"
    names = [n for n in splits if n in frame.columns and not _empty(frame[n][steered]).all()]
    keys = frame.loc[steered, names].drop_duplicates()
    found = []
    for key in keys.itertuples(index=False, name=None) if names else [()]:
        inside = pd.Series(True, index=frame.index)
        titles = []
        for name, value in zip(names, key, strict=True):
            everywhere = _empty(frame[name])
            if name == "position":  # a control at a position of its own is in every panel
                everywhere |= ~frame[name].isin(keys[name])
            inside &= everywhere | (frame[name] == value).fillna(False).astype(bool)
            if keys[name].nunique() > 1:
                label = "" if name == "vector" else f"{name}\N{NO-BREAK SPACE}"
                titles.append(label + plain(value))
        rows = frame[inside]
        run = rows["run"]
        controls = rows[~run.isin(["steered", "clean"])]
        controls = controls.assign(kind=[name.split(":")[0] for name in controls["run"]])
        title = ", ".join(titles)
        found.append(Panel(key, title, rows[run == "steered"], rows[run == "clean"], controls))
    return found


def _empty(column: pd.Series) -> pd.Series:
    return column.isna() | (column.astype(str) == "")
