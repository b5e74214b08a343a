"""What success costs: every cell of a sweep, and those that no other cell beats."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from actadd_lens.errors import FigureError
from actadd_lens.plots.cells import GRID, Panel, cells, panels, percent
from actadd_lens.plots.labels import place
from actadd_lens.plots.marks import interval, legend
from actadd_lens.plots.style import (
    CLEAN_COLOUR,
    COLOURS,
    CONTROL_COLOUR,
    drawing,
    labelled,
    panel_axes,
    plain,
    wrapped,
)

SUCCESS = ("success", "success_low", "success_high")
COST = ("cost", "cost_low", "cost_high")
PANEL_INCHES = (4.6, 3.7)
MOST_IN_WORDS = 8  # cells of a front; more are labelled by their numbers alone


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

    Every steered cell is a dot with light intervals. Cells on the front are joined by a step line:
    the best success to be had at a cost. They bear their layer and coefficient, and their position
    if there are several.

    Args:
        frame: cells with `control`, `layer`, `coefficient`, `on_front` (true for the cells that
            no other beats in both), `success`, `success_low`, `success_high`, `cost`, `cost_low`,
            `cost_high`, and maybe `pair`, which makes panels, and `position`.
        success: what the column `success` measures.
        cost: what the column `cost` measures.
        success_unit: its unit; "%" shows shares in [0, 1] as percentages.
        cost_unit: likewise.
        note: a line above the legend, for what the intervals are and how large n is.

    Raises:
        FigureError: a column is missing, no cell is steered, two steered cells have the same
            place, or a cell marked as on the front is beaten by another.

    >>> import pandas as pd
    >>> rows = [(1.0, 0.2, 0.1, True), (2.0, 0.6, 0.3, True), (4.0, 0.5, 0.9, False)]
    >>> frame = pd.DataFrame(rows, columns=["coefficient", "success", "cost", "on_front"])
    >>> empty = {f"{name}_{end}": None for name in ("success", "cost") for end in ("low", "high")}
    >>> frame = frame.assign(run="steered", layer=2, **empty)
    >>> figure = pareto(frame, success="wedding words", cost="KL", cost_unit="nats")
    >>> [text.get_text() for text in figure.axes[0].texts]
    ['layer 2, c = 1', 'layer 2, c = 2']
    """
    frame = cells(frame, (*GRID, *SUCCESS, *COST), ["on_front"], key=GRID)
    frame = frame.assign(on_front=frame["on_front"].astype("boolean").fillna(False).astype(bool))
    frame = percent(percent(frame, success_unit, SUCCESS), cost_unit, COST)
    shown = panels(frame, ["pair"])
    fronts = [_front(panel) for panel in shown]
    short = max(map(len, fronts)) > MOST_IN_WORDS
    with drawing() as figure:
        axes, abreast = panel_axes(figure, len(shown), PANEL_INCHES)
        width = figure.get_figwidth() / abreast - 0.6
        for ax, panel, front in zip(axes, shown, fronts, strict=True):
            _draw(ax, panel, front, "front (layer, c)" if short else "front")
            ax.set_title(wrapped(panel.title, width, 9))
            ax.set_xlabel(wrapped(labelled(cost, cost_unit), width))
        for ax in axes[::abreast]:
            ax.set_ylabel(wrapped(labelled(success, success_unit), 2.8))
        legend(figure, axes, note)
        for ax, panel, front in zip(axes, shown, fronts, strict=True):
            place(figure, ax, front["cost"], front["success"], _names(panel, front, short))
    return figure


def _front(panel: Panel) -> pd.DataFrame:
    """The cells on the front by cost, proved to be one."""
    front = panel.steered[panel.steered["on_front"]].sort_values(["cost", "success"])
    front = front.dropna(subset=["cost", "success"])
    beaten = front[front["success"] < front["success"].cummax()]
    if len(beaten):
        places = beaten[[*GRID]].to_dict("records")
        raise FigureError(
            f"on_front marks {places}, which cost more and reach less than another cell on it: "
            "mark the cells that no other beats"
        )
    return front


def _names(panel: Panel, front: pd.DataFrame, short: bool) -> list[str]:
    """Layer and coefficient of each cell, and its position if there are several."""
    form = "layer {row.layer:g}, c = {row.coefficient:g}"
    if short:
        form = "{row.layer:g}, {row.coefficient:g}"
    if "position" in front.columns and panel.steered["position"].nunique() > 1:
        form += ", {row.position}"
    return [plain(form.format(row=row)) for row in front.itertuples()]


def _draw(ax: Axes, panel: Panel, front: pd.DataFrame, name: str) -> None:
    others = panel.steered[~panel.steered["on_front"]]
    ax.grid(True, axis="both")
    steps = front["cost"].repeat(2)[1:], front["success"].repeat(2)[:-1]
    ax.plot(*steps, color=COLOURS[1], linewidth=1.2)
    looks = [
        (
            front,
            f"steered, on the Pareto {name}",
            {"marker": "o", "color": COLOURS[1], "zorder": 3},
        ),
        (others, "steered", {"marker": "o", "color": COLOURS[0], "alpha": 0.75, "markersize": 3}),
    ]
    for kind, rows in panel.controls.groupby("kind"):
        looks.append((rows, plain(kind), {"marker": "x", "color": CONTROL_COLOUR, "markersize": 3}))
    clean = {"marker": "D", "color": CLEAN_COLOUR, "markersize": 5, "zorder": 3}
    looks.append((panel.clean, "clean", clean))
    for rows, label, look in looks:
        if rows.empty:
            continue
        light = {"color": look["color"], "alpha": 0.25, "linewidth": 0.9}
        interval(ax, rows["cost"], rows["success_low"], rows["success_high"], **light)
        interval(ax, rows["success"], rows["cost_low"], rows["cost_high"], across=True, **light)
        ax.plot(rows["cost"], rows["success"], linestyle="", label=label, **look)
    ax.margins(0.08)
