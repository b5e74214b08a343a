"""What success costs: every configuration of a sweep, and those that no other beats."""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Annotation, Text
from matplotlib.transforms import Bbox

from actadd_lens.errors import FigureError
from actadd_lens.plots.frames import GRID, Panel, configurations, panels, percent
from actadd_lens.plots.style import (
    CLEAN_COLOUR,
    COLOURS,
    CONTROL_COLOUR,
    drawing,
    interval,
    labelled,
    legend,
    panel_axes,
    plain,
    wrapped,
)

SUCCESS = ("success", "success_low", "success_high")
COST = ("cost", "cost_low", "cost_high")
PANEL_INCHES = (4.6, 3.7)
LABEL_OFFSET = (-4, 3)  # points from a dot to its label
LABEL: dict[str, Any] = {
    "annotation_clip": False,
    "arrowprops": {
        "relpos": (1, 0),
        "arrowstyle": "-",
        "color": "0.5",
        "linewidth": 0.5,
        "shrinkB": 2,
    },
    "ha": "right",
    "in_layout": False,
    "size": 7,
    "textcoords": "offset points",
}
MOST_IN_WORDS = 8  # labels of a front; those of a longer one are numbers alone


def pareto(
    frame: pd.DataFrame,
    *,
    success: str = "success",
    cost: str = "cost",
    success_unit: str | None = None,
    cost_unit: str | None = None,
    note: str | None = None,
) -> Figure:
    """Success (higher is better) against cost (lower is better), with the front that none beats.

    Every steered configuration is a dot with light intervals. A step line joins those on the
    front: the best success that a cost buys. They are labelled with their layer and coefficient,
    and with their position if there are several.

    Args:
        frame: rows with `run`, `layer`, `coefficient`, `on_front` (true for the configurations
            that no other beats in both), `success`, `success_low`, `success_high`, `cost`,
            `cost_low`, `cost_high`, and maybe `vector`, which makes panels, and `position`.
        success: what the column `success` measures.
        cost: what the column `cost` measures.
        success_unit: its unit; "%" shows shares in [0, 1] as percentages.
        cost_unit: likewise.
        note: a line above the legend, for what the intervals are and how large n is.

    Raises:
        FigureError: a column is missing, no row is steered, two steered rows have the same
            place, or a configuration marked as on the front is beaten by another.

    >>> import pandas as pd
    >>> rows = [(1.0, 0.2, 0.1, True), (2.0, 0.6, 0.3, True), (4.0, 0.5, 0.9, False)]
    >>> frame = pd.DataFrame(rows, columns=["coefficient", "success", "cost", "on_front"])
    >>> empty = {f"{name}_{end}": None for name in ("success", "cost") for end in ("low", "high")}
    >>> frame = frame.assign(run="steered", layer=2, **empty)
    >>> figure = pareto(frame, success="wedding words", cost="KL", cost_unit="nats")
    >>> [text.get_text() for text in figure.axes[0].texts]
    ['layer 2, c = 1', 'layer 2, c = 2']
    """
    frame = configurations(frame, (*GRID, *SUCCESS, *COST), ["on_front"], key=GRID)
    frame = frame.assign(on_front=frame["on_front"].astype("boolean").fillna(False).astype(bool))
    frame = percent(percent(frame, success_unit, SUCCESS), cost_unit, COST)
    shown = panels(frame, ["vector"])
    fronts = [_front(panel) for panel in shown]
    short = max(map(len, fronts)) > MOST_IN_WORDS
    with drawing() as figure:
        axes, per_row = panel_axes(figure, len(shown), PANEL_INCHES)
        width = figure.get_figwidth() / per_row - 0.6
        for ax, panel, front in zip(axes, shown, fronts, strict=True):
            _draw(ax, panel, front, "front (layer, c)" if short else "front")
            ax.set_title(wrapped(panel.title, width))
            ax.set_xlabel(wrapped(labelled(cost, cost_unit), width))
        for ax in axes[::per_row]:
            ax.set_ylabel(wrapped(labelled(success, success_unit), 2.8))
        legend(figure, axes, note)
        figure.draw_without_rendering()  # labels need to know where marks are on the page
        for ax, panel, front in zip(axes, shown, fronts, strict=True):
            _label(ax, panel, front, short)
    return figure


def _front(panel: Panel) -> pd.DataFrame:
    """The configurations on the front, by cost; an error if one of them is beaten."""
    front = panel.steered[panel.steered["on_front"]].sort_values(["cost", "success"])
    front = front.dropna(subset=["cost", "success"])
    beaten = front[front["success"] < front["success"].cummax()]
    if len(beaten):
        places = beaten[[*GRID]].to_dict("records")
        raise FigureError(
            f"on_front marks {places}, which cost more and reach less than another row on it: "
            "mark the rows that no other beats"
        )
    return front


def _draw(ax: Axes, panel: Panel, front: pd.DataFrame, name: str) -> None:
    others = panel.steered[~panel.steered["on_front"]]
    ax.grid(True, axis="both")
    steps = front["cost"].repeat(2)[1:], front["success"].repeat(2)[:-1]
    ax.plot(*steps, color=COLOURS[1], linewidth=1.2)
    best = {"marker": "o", "color": COLOURS[1], "zorder": 3}
    small = {"color": CONTROL_COLOUR, "marker": "x", "markersize": 3}
    looks: list[tuple[pd.DataFrame, str, dict[str, Any]]] = [
        (front, f"steered, on the Pareto {name}", best),
        (others, "steered", {**small, "marker": "o", "color": COLOURS[0], "alpha": 0.75}),
        *((rows, plain(kind), small) for kind, rows in panel.controls.groupby("kind")),
        (panel.clean, "clean", {**best, "marker": "D", "color": CLEAN_COLOUR, "markersize": 5}),
    ]
    for rows, label, look in looks:
        if rows.empty:
            continue
        light = {"color": look["color"], "alpha": 0.25, "linewidth": 0.9}
        interval(ax, rows["cost"], rows["success_low"], rows["success_high"], **light)
        interval(ax, rows["success"], rows["cost_low"], rows["cost_high"], across=True, **light)
        ax.plot(rows["cost"], rows["success"], linestyle="", label=label, **look)
    ax.margins(0.08)


def _label(ax: Axes, panel: Panel, front: pd.DataFrame, short: bool) -> None:
    """Write layer and coefficient next to each dot of the front, and its position if several.

    Above and left of a dot there is nothing, since no configuration beats one on the front. A label
    that would cover another is raised. Its line crosses no label: those before it end further left.
    """
    form = "{row.layer:g}, {row.coefficient:g}"
    if not short:
        form = "layer {row.layer:g}, c = {row.coefficient:g}"
    if "position" in front.columns and panel.steered["position"].nunique() > 1:
        form += ", {row.position}"
    labels = [
        ax.annotate(plain(form.format(row=row)), (row.cost, row.success), LABEL_OFFSET, **LABEL)
        for row in front.itertuples()
    ]
    left, right = ax.get_xlim()
    for label, cost in zip(labels, front["cost"], strict=True):  # none begins outside
        share = _extent(label).width / ax.bbox.width + 0.04
        left = min(left, (cost - share * right) / (1 - share))
    ax.set_xlim(left, right)
    boxes: list[Bbox] = []
    for label in labels:
        x, y = LABEL_OFFSET
        while any(_extent(label).overlaps(box) for box in boxes):
            y += 1
            label.set_position((x, y))
        boxes.append(_extent(label))
        if y == LABEL_OFFSET[1] and label.arrow_patch:
            label.arrow_patch.set_visible(False)


def _extent(label: Annotation) -> Bbox:
    """The box of a label, without the line that leads to it."""
    label.get_window_extent()  # puts the text in its place
    return Text.get_window_extent(label)
