"""Texts beside points, kept clear of marks, lines and one another as well as it goes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Text
from matplotlib.transforms import Bbox

LOOK: dict[str, Any] = {
    "annotation_clip": False,
    "arrowprops": {"arrowstyle": "-", "color": "0.5", "linewidth": 0.5, "shrinkA": 0, "shrinkB": 2},
    "ha": "center",
    "size": 7,
    "textcoords": "offset points",
    "va": "center",
}
AWAY = (5, 13, 23, 35, 50)  # points from a mark to its text
# Above and to the left first: no cell of a front has another there.
ANGLES = np.radians([135, 90, 180, 45, 315, 0, 270, 225])
PER_LINE = 30  # places on a segment of a line that texts keep clear of

Pixels = Float[np.ndarray, "_ 2"]


def place(figure: Figure, ax: Axes, x: pd.Series, y: pd.Series, texts: Sequence[str]) -> None:
    """Write each text beside its point; a line leads there from one that stands further off."""
    figure.draw_without_rendering()  # settles where things are on the page
    marks = np.concatenate([_drawn(ax, line) for line in ax.get_lines()])
    boxes: list[Bbox] = []
    inside = Bbox.from_extents(*ax.bbox.extents)
    for at, text in zip(zip(x, y, strict=True), texts, strict=True):
        written = ax.annotate(text, at, (0, 0), **LOOK)
        written.set_in_layout(False)
        size = np.array(Text.get_window_extent(written).size)  # without the line
        point = np.array(ax.transData.transform(at))
        middles = point + _offsets(size, figure.dpi / 72)
        around = [Bbox([middle - size / 2, middle + size / 2]) for middle in middles]
        leaders = [np.linspace(point, middle, PER_LINE)[5:] for middle in middles]
        leaders[: len(ANGLES)] = [np.empty((0, 2))] * len(ANGLES)
        best = int(
            np.argmin(
                [_cost(*way, marks, boxes, inside) for way in zip(around, leaders, strict=True)]
            )
        )
        x_offset, y_offset = (middles[best] - point) * 72 / figure.dpi
        written.set_position((x_offset, y_offset))
        if written.arrow_patch and not len(leaders[best]):
            written.arrow_patch.set_visible(False)
        boxes.append(around[best])
        marks = np.concatenate([marks, leaders[best]])


def _drawn(ax: Axes, line: Line2D) -> Pixels:
    """Places all along a line, or where its marks are, several times as they are wider."""
    path = line.get_path()
    marks_only = line.get_linestyle() == "None"
    places = path.vertices if marks_only else path.interpolated(PER_LINE).vertices
    return np.repeat(ax.transData.transform(places), 5 if marks_only else 1, axis=0)


def _offsets(size: Float[np.ndarray, " 2"], pixels: float) -> Pixels:
    """From a point to the middle of a text of a size, the nearest places first."""
    directions = np.column_stack([np.cos(ANGLES), np.sin(ANGLES)])
    sides = np.sign(directions.round(6)) * size / 2
    return np.concatenate([away * pixels * directions + sides for away in AWAY])


def _cost(box: Bbox, leader: Pixels, marks: Pixels, boxes: Sequence[Bbox], inside: Bbox) -> float:
    """How much a text in a box and its leader would hide, and how much would not be inside."""
    hidden = box.padded(2).count_contains(marks)
    crossed = sum(other.count_contains(leader) for other in boxes)
    beyond = np.subtract(inside.min, box.min), np.subtract(box.max, inside.max)
    outside = sum(max(0.0, *gaps) for gaps in beyond)
    return float(hidden + crossed + 500 * box.count_overlaps(boxes) + outside)
