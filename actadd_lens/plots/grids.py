"""The grid of a sweep: its effects as a map, and what success costs in it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import CenteredNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from matplotlib.text import Annotation, Text
from matplotlib.transforms import Bbox

from actadd_lens.errors import FigureError
from actadd_lens.plots import style
from actadd_lens.plots.frames import GRID, MEAN, Panel, configurations, panels, percent

SQUARE_INCHES = (0.33, 0.25)
BESIDE_INCHES = 1.2  # for the labels of y and the colour bar
MOST_LETTERS = 85  # of values in the width of a page
MOST_LAYERS = 26  # named in the width of a page
EMPTY_COLOUR = "0.9"
HALO: dict[str, Any] = {"path_effects": [withStroke(linewidth=3.4, foreground="white")]}
FRAME: dict[str, Any] = {"label": "chosen", "fill": False, "edgecolor": "black", "linewidth": 1.6}
CLEAN: dict[str, Any] = {"label": "clean, on the colour bar", "color": "black", "linewidth": 1.2}
Y_LABELS = {"coefficient": "coefficient (× vector)", "recorded": "recording layer"}

Place = tuple[float, float]

SUCCESS = ("success", "success_low", "success_high")
COST = ("cost", "cost_low", "cost_high")
PANEL_INCHES = (4.6, 3.7)
OFFSET = (-4, 3)  # points from a dot to its label
LEADER = {"relpos": (1, 0), "arrowstyle": "-", "color": "0.5", "linewidth": 0.5, "shrinkB": 2}
LABEL: dict[str, Any] = {"ha": "right", "size": 7, "annotation_clip": False, "in_layout": False}
MOST_IN_WORDS = 8  # labels of a front; those of a longer one are numbers alone


def heat_map(
    frame: pd.DataFrame,
    *,
    y: str = "coefficient",
    chosen: Place | Mapping[Any, Place] | None = None,
    label: str = "effect",
    unit: str | None = None,
    note: str | None = None,
) -> Figure:
    """Effect of every steered row by layer and coefficient, a panel for each pair and position.

    All panels share one colour scale, which is centred at 0 if there are values on both sides of
    it. Values are written into their squares where they fit; a square without a value is grey. The
    clean run's value is a line on the colour bar, and is in the panel's title.

    Args:
        frame: rows with `run`, `layer`, `mean`, `low`, `high`, the column `y`, and maybe `vector`
            and `position`; controls are left out.
        y: column of numbers that are the rows of the map; layers are its columns.
        chosen: layer and coefficient (or what `y` is) of a square to frame in every panel, or a
            mapping to it from the panel's pair, from its position, or from (pair, position).
        label: what `mean` measures.
        unit: its unit, added to the label; "%" shows shares in [0, 1] as percentages.
        note: a line below the panels.

    Raises:
        FigureError: as in `layer_profile`, or the frame lacks a chosen configuration.

    >>> import pandas as pd
    >>> cell = {"run": "steered", "low": 0.1, "high": 0.9}
    >>> places = [(layer, c) for layer in range(3) for c in (1.0, 4.0)]
    >>> rows = [{"layer": l, "coefficient": c, "mean": l * c / 10, **cell} for l, c in places]
    >>> figure = heat_map(pd.DataFrame(rows), chosen=(2, 4.0), label="success", unit="%")
    >>> [axes.get_ylabel() for axes in figure.axes]
    ['coefficient (× vector)', 'success (%)']
    """
    grid = ("layer", y)
    shown = panels(percent(configurations(frame, (*grid, *MEAN), key=grid), unit))
    framed = _framed(shown, grid, chosen)
    steered, clean = (pd.concat([getattr(p, of) for p in shown]) for of in ("steered", "clean"))
    columns, rows = (sorted(steered[name].unique()) for name in grid)
    means = pd.concat([steered["mean"], clean["mean"]]).dropna()
    with style.drawing() as figure:
        colours, decimals = _colours(means, unit), _decimals(means, unit)
        most, high = style.PAGE_INCHES - BESIDE_INCHES, max(1.25, len(rows) * SQUARE_INCHES[1])
        width = len(columns) * SQUARE_INCHES[0]
        size, per_row = (style.PAGE_INCHES, high + 3), max(1, int(most / width))
        axes, per_row = style.panel_axes(figure, len(shown), size, per_row=per_row)
        width = min(max(width, 1.4), most / per_row)
        figure.set_figwidth(width * per_row + BESIDE_INCHES)
        for ax, panel, place in zip(axes, shown, framed, strict=True):
            values = panel.steered.pivot(index=y, columns="layer", values="mean")
            _draw_squares(
                ax, values.reindex(index=rows, columns=columns), colours, decimals, per_row
            )
            titles = [panel.title] if panel.title else []
            for value in panel.clean["mean"].dropna():
                number = _number(value, decimals) + ("%" if unit == "%" else "")
                titles.append(f"clean\N{NO-BREAK SPACE}{number}")
            ax.set_title(style.wrapped(", ".join(titles), width))
            if place is not None:
                corner = columns.index(place[0]) - 0.5, rows.index(place[1]) - 0.5
                ax.add_patch(Rectangle(corner, 1, 1, clip_on=False, zorder=4, **FRAME, **HALO))
        for ax in axes[::per_row]:
            ax.set_ylabel(Y_LABELS.get(y, style.plain(y.replace("_", " "))))
        tall = high * math.ceil(len(axes) / per_row)
        bar = figure.colorbar(colours, ax=axes, aspect=8 * tall, pad=0.02)
        bar.set_label(style.wrapped(label, tall, unit))
        bar.outline.set_visible(False)
        for value in clean["mean"].dropna().unique():
            bar.ax.axhline(value, **CLEAN, **HALO)
        style.legend(figure, [*axes, bar.ax], note)
        style.fit_height(figure, axes, per_row, high)
    return figure


def _framed(
    shown: Sequence[Panel], grid: tuple[str, str], chosen: Place | Mapping[Any, Place] | None
) -> list[Place | None]:
    """The chosen place of each panel; an error if the panel lacks it."""
    if not isinstance(chosen, Mapping):
        chosen = {panel.key: chosen for panel in shown} if chosen is not None else {}
    known = [name for panel in shown for name in (panel.key, *panel.key)]
    strays = [name for name in chosen if name not in known]
    if strays:
        raise FigureError(
            f"chosen names {strays}, the panels are {[panel.key for panel in shown]}: "
            "name a pair, a position or both"
        )
    framed = []
    for panel in shown:
        place = next((chosen[n] for n in (panel.key, *panel.key) if n in chosen), None)
        there = panel.steered[[*grid]].itertuples(index=False, name=None)
        if place is not None and tuple(place) not in {*there}:
            raise FigureError(
                f"the chosen {' and '.join(grid)} {tuple(place)} are not a steered row of the "
                f"panel {panel.key}: choose one that was run, or name one for each panel"
            )
        framed.append(place)
    return framed


def _colours(means: pd.Series, unit: str | None) -> ScalarMappable:
    """Colours from the least to the largest value; of percentages from 0 to 100."""
    low, high = (float(means.min()), float(means.max())) if len(means) else (0.0, 1.0)
    if unit == "%" and 0 <= low <= high <= 100:
        low, high = 0.0, 100.0
    if low < 0 < high:
        return ScalarMappable(CenteredNorm(0, max(-low, high)), style.DIVERGING)
    return ScalarMappable(Normalize(low, high))


def _decimals(means: pd.Series, unit: str | None) -> int:
    """As many as give the largest value two digits, or three if it is neither below 1 nor in %."""
    largest = float(means.abs().max()) if len(means) else 0.0
    digits = 3 if largest >= 1 and unit != "%" else 2
    return min(4, max(0, digits - 1 - math.floor(math.log10(largest)))) if largest else 0


def _number(value: float, decimals: int) -> str:
    """A value with a true minus sign, and none on 0."""
    return f"{round(value, decimals) + 0.0:.{decimals}f}".replace("-", "\N{MINUS SIGN}")


def _draw_squares(
    ax: Axes, cells: pd.DataFrame, colours: ScalarMappable, decimals: int, per_row: int
) -> None:
    """The squares with their values, if these fit, and the names of columns and rows."""
    ax.set_facecolor(EMPTY_COLOUR)
    ax.grid(False)
    ax.spines[:].set_visible(False)
    n_rows, n_columns = cells.shape
    edges = np.arange(n_columns + 1) - 0.5, np.arange(n_rows + 1) - 0.5
    values = np.ma.masked_invalid(cells.to_numpy())
    look: dict[str, Any] = {"norm": colours.norm, "edgecolors": "white", "linewidth": 0.5}
    ax.pcolormesh(*edges, values, cmap=colours.cmap, **look)
    texts = {
        place: _number(value, decimals)
        for place, value in np.ndenumerate(cells.to_numpy())
        if np.isfinite(value)
    }
    widest = max(map(len, texts.values()), default=0)
    if widest <= max(5, 20 // n_columns) and widest * n_columns * per_row <= MOST_LETTERS:
        for (row, column), text in texts.items():
            colour = style.ink(colours.to_rgba(values[row, column]))
            ax.text(column, row, text, color=colour, ha="center", va="center", size=6.5)
    step = math.ceil(n_columns * per_row / MOST_LAYERS)
    ax.set_xticks(range(0, n_columns, step), [f"{n:g}" for n in cells.columns[::step]])
    ax.set_yticks(range(n_rows), [f"{n:g}" for n in cells.index])
    ax.tick_params(length=0)
    ax.set_xlabel("injection layer")


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
    with style.drawing() as figure:
        axes, per_row = style.panel_axes(figure, len(shown), PANEL_INCHES)
        width = figure.get_figwidth() / per_row - 0.6
        for ax, panel, front in zip(axes, shown, fronts, strict=True):
            _draw_front(ax, panel, front, "front (layer, c)" if short else "front")
            ax.set_title(style.wrapped(panel.title, width))
            ax.set_xlabel(style.wrapped(cost, width, cost_unit))
        for ax in axes[::per_row]:
            ax.set_ylabel(style.wrapped(success, 2.8, success_unit))
        style.legend(figure, axes, note)
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


def _draw_front(ax: Axes, panel: Panel, front: pd.DataFrame, name: str) -> None:
    others = panel.steered[~panel.steered["on_front"]]
    ax.grid(True, axis="both")
    steps = front["cost"].repeat(2)[1:], front["success"].repeat(2)[:-1]
    ax.plot(*steps, color=style.COLOURS[1], linewidth=1.2)
    best = {"marker": "o", "color": style.COLOURS[1], "zorder": 3}
    clean = {"marker": "D", "color": style.CLEAN_COLOUR, "zorder": 3, "markersize": 5}
    small = {"color": style.CONTROL_COLOUR, "marker": "x", "markersize": 3}
    looks: list[tuple[pd.DataFrame, str, dict[str, Any]]] = [
        (front, f"steered, on the Pareto {name}", best),
        (others, "steered", {**small, "marker": "o", "color": style.COLOURS[0], "alpha": 0.75}),
        *((rows, style.plain(kind), small) for kind, rows in panel.controls.groupby("kind")),
        (panel.clean, "clean", clean),
    ]
    for rows, label, look in looks:
        if rows.empty:
            continue
        light = {"color": look["color"], "alpha": 0.25, "linewidth": 0.9}
        cost, *cost_ends = (rows[name] for name in COST)
        success, *success_ends = (rows[name] for name in SUCCESS)
        style.interval(ax, cost, *success_ends, **light)
        style.interval(ax, success, *cost_ends, across=True, **light)
        ax.plot(cost, success, linestyle="", label=label, **look)
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
    look = {"textcoords": "offset points", "arrowprops": LEADER, **LABEL}
    labels = [
        ax.annotate(style.plain(form.format(row=row)), (row.cost, row.success), OFFSET, **look)
        for row in front.itertuples()
    ]
    left, right = ax.get_xlim()
    for label, cost in zip(labels, front["cost"], strict=True):  # none begins outside
        share = _extent(label).width / ax.bbox.width + 0.04
        left = min(left, (cost - share * right) / (1 - share))
    ax.set_xlim(left, right)
    boxes: list[Bbox] = []
    for label in labels:
        x, y = OFFSET
        while any(_extent(label).overlaps(box) for box in boxes):
            y += 1
            label.set_position((x, y))
        boxes.append(_extent(label))
        if y == OFFSET[1] and label.arrow_patch:
            label.arrow_patch.set_visible(False)


def _extent(label: Annotation) -> Bbox:
    """The box of a label, without the line that leads to it."""
    label.get_window_extent()  # puts the text in its place
    return Text.get_window_extent(label)
