"""Effect by category, for ablations: which row, which position, which dimensions."""

from __future__ import annotations

import math
from itertools import cycle, pairwise, product
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from actadd_lens.errors import FigureError
from actadd_lens.plots.frames import MEAN, SPLITS, Panel, configurations, panels, percent
from actadd_lens.plots.style import (
    COLOURS,
    CONTROL_COLOUR,
    MARKERS,
    PAGE_INCHES,
    PANEL_INCHES,
    clean_level,
    drawing,
    fit_height,
    interval,
    label_y,
    legend,
    panel_axes,
    plain,
    wrapped,
)

DOT_INCHES = 0.16
MOST_LABELS = 42  # slanted labels in the width of a page
STEERED = "steered"
CONTROL_MARKERS = ("", "x", "s", "^", "D")  # the first kind is the steered rows


def bars(
    frame: pd.DataFrame,
    *,
    x: str,
    group: str | None = None,
    ylabel: str = "effect",
    unit: str | None = None,
    note: str | None = None,
) -> Figure:
    """Effect of each category as a dot with its interval, groups side by side in colour.

    For ablations: which row of the vector carries the effect, alone or left out; how many
    dimensions do. Categories and groups keep the order in which the frame has them. Controls are
    grey marks to the right of the dot that they belong to, the clean run is a level line with a
    band.

    Args:
        frame: rows with `run`, `mean`, `low`, `high` and the columns named next. Columns
            `vector` and `position` make panels if the other two leave several steered rows alike.
        x: column of the categories; it may be empty for the clean run alone.
        group: column that is shown by colour, likewise.
        ylabel: what `mean` measures.
        unit: its unit, added to the label; "%" shows shares in [0, 1] as percentages.
        note: a line above the legend, for what the intervals are and how large n is.

    Raises:
        FigureError: a column is missing, no row is steered, `x` or `group` is empty in a row
            other than the clean run's, or several steered rows have the same place.

    >>> import pandas as pd
    >>> rows = pd.DataFrame({"row": ["0: BOS", "1: Love"], "mean": [0.1, 0.7]})
    >>> frame = rows.assign(run="steered", low=rows["mean"] - 0.1, high=rows["mean"] + 0.1)
    >>> [axes] = bars(frame, x="row", ylabel="success", unit="%").axes
    >>> [label.get_text() for label in axes.get_xticklabels()]
    ['0: BOS', '1: Love']
    """
    names = [x] if group is None else [x, group]
    frame = percent(configurations(frame, MEAN, names, key=names), unit)
    placed = frame[frame["run"] != "clean"]
    empty = [name for name in names if placed[name].isna().any()]
    if empty:
        raise FigureError(f"{empty} are empty in a row other than the clean run's: fill them in")
    categories = list(placed[x].unique())
    groups = [None] if group is None else list(placed[group].unique())
    shown = panels(frame, _splits(placed[placed["run"] == STEERED], names))
    kinds = [STEERED, *dict.fromkeys(kind for panel in shown for kind in panel.controls["kind"])]
    slots = [(kind, name) for name in groups for kind in kinds]
    places = [_places(panel, x, group, slots) for panel in shown]
    densest = max(place.groupby("category").size().max() for place in places)
    inches = max(PANEL_INCHES[0], 0.8 + len(categories) * (densest + 1) * DOT_INCHES)
    inches = min(inches, PAGE_INCHES)
    with drawing() as figure:
        size, most = (inches, PANEL_INCHES[1]), int(PAGE_INCHES / inches)
        axes, per_row = panel_axes(figure, len(shown), size, per_row=most)
        for ax, panel, place in zip(axes, shown, places, strict=True):
            _draw(ax, panel, place, slots, categories, 1 / (densest + 1))
            ax.set_xlabel(plain(x.replace("_", " ")))
            ax.set_title(wrapped(panel.title, inches - 0.8))
        label_y(axes[::per_row], ylabel, unit, frame)
        legend(figure, axes, note)
        _label(figure, axes, [plain(category) for category in categories], per_row)
    return figure


def _splits(steered: pd.DataFrame, names: list[str]) -> list[str]:
    """Columns that must make panels for rows to have places of their own."""
    splits: list[str] = []
    for name in SPLITS:
        free = name in steered.columns and name not in names
        if free and steered.duplicated([*names, *splits]).any():
            splits.append(name)
    return splits


def _places(
    panel: Panel, x: str, group: str | None, slots: list[tuple[str, object]]
) -> pd.DataFrame:
    """Rows with their category, their slot, and their place among those of their category."""
    drawn = pd.concat([panel.steered.assign(kind=STEERED), panel.controls])
    names = [None] * len(drawn) if group is None else drawn[group]
    slot = [slots.index(key) for key in zip(drawn["kind"], names, strict=True)]
    drawn = drawn.assign(category=drawn[x], slot=slot)
    present = drawn[["category", "slot"]].drop_duplicates().sort_values("slot")
    within = present.groupby("category")["slot"]
    present = present.assign(shift=within.cumcount() - (within.transform("size") - 1) / 2)
    return drawn.merge(present, on=["category", "slot"])


def _draw(
    ax: Axes,
    panel: Panel,
    places: pd.DataFrame,
    slots: list[tuple[str, object]],
    categories: list[object],
    spacing: float,
) -> None:
    kinds, groups = (list(dict.fromkeys(names)) for names in zip(*slots, strict=True))
    looks = dict(zip(groups, cycle(zip(COLOURS, MARKERS, strict=True)), strict=False))
    marks = dict(zip(kinds, cycle(CONTROL_MARKERS), strict=False))
    for kind, name in product(kinds, groups):
        rows = places[places["slot"] == slots.index((kind, name))]
        if rows.empty:
            continue
        at = rows["category"].map(categories.index) + spacing * rows["shift"]
        colour, marker = looks[name]
        label = "steered" if name is None else plain(name)
        if kind != STEERED:
            colour, marker = CONTROL_COLOUR, marks[kind]
            label = plain(kind.replace("_", " ")) + (" (control)" if kind in groups else "")
        look: dict[str, Any] = {"color": colour, "clip_on": False, "zorder": 2.5}
        interval(ax, at, rows["low"], rows["high"], linewidth=1.2, **look)
        inside = "white" if kind != STEERED else colour  # seen against the interval
        look |= {"markerfacecolor": inside, "label": label}
        ax.plot(at, rows["mean"], linestyle="", marker=marker, **look)
    clean_level(ax, panel.clean)


def _label(figure: Figure, axes: list[Axes], texts: list[str], per_row: int) -> None:
    """Name the categories; names that would touch are slanted, and then as many as fit."""
    for ax in axes:
        ax.set(xticks=range(len(texts)), xlim=(-0.5, len(texts) - 0.5))
        ax.set_xticklabels(texts)
    figure.draw_without_rendering()
    boxes = [label.get_window_extent() for label in axes[0].get_xticklabels()]
    if all(right.x0 - left.x1 > figure.dpi / 20 for left, right in pairwise(boxes)):
        return
    step = math.ceil(len(texts) * per_row / MOST_LABELS)
    high = axes[0].bbox.height / figure.dpi
    for ax in axes:
        look: dict[str, Any] = {"rotation": 40, "ha": "right", "rotation_mode": "anchor"}
        ax.set_xticks(range(0, len(texts), step), texts[::step], **look)
    fit_height(figure, axes, per_row, high)
