"""The grid of a sweep as a map: effect by layer and coefficient."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import CenteredNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from matplotlib.patheffects import withStroke

from actadd_lens.errors import FigureError
from actadd_lens.plots.frames import Panel, panels, sweep
from actadd_lens.plots.style import (
    DIVERGING,
    PAGE_INCHES,
    drawing,
    fit_height,
    ink,
    labelled,
    legend,
    panel_axes,
    plain,
    wrapped,
)

SQUARE_INCHES = (0.33, 0.25)
BESIDE_INCHES = 1.2  # for the labels of y and the colour bar
MOST_LETTERS = 85  # of values in the width of a page
MOST_LAYERS = 26  # named in the width of a page
EMPTY_COLOUR = "0.9"
HALO = withStroke(linewidth=3.4, foreground="white")  # black on it is seen on any colour
FRAME: dict[str, Any] = {"fill": False, "edgecolor": "black", "linewidth": 1.6}
FRAME["path_effects"] = [HALO]
CLEAN: dict[str, Any] = {"color": "black", "linewidth": 1.2, "path_effects": [HALO]}
Y_LABELS = {"coefficient": "coefficient (× vector)", "recorded": "recording layer"}

Place = tuple[float, float]


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
    shown = panels(sweep(frame, unit, grid))
    framed = _framed(shown, grid, chosen)
    steered, clean = (pd.concat([getattr(p, of) for p in shown]) for of in ("steered", "clean"))
    columns, rows = (sorted(steered[name].unique()) for name in grid)
    means = pd.concat([steered["mean"], clean["mean"]]).dropna()
    with drawing() as figure:
        colours, decimals = _colours(means, unit), _decimals(means, unit)
        most, high = PAGE_INCHES - BESIDE_INCHES, max(1.25, len(rows) * SQUARE_INCHES[1])
        width = len(columns) * SQUARE_INCHES[0]
        size, per_row = (PAGE_INCHES, high + 3), max(1, int(most / width))
        axes, per_row = panel_axes(figure, len(shown), size, per_row=per_row)
        width = min(max(width, 1.4), most / per_row)
        figure.set_figwidth(width * per_row + BESIDE_INCHES)
        for ax, panel, place in zip(axes, shown, framed, strict=True):
            values = panel.steered.pivot(index=y, columns="layer", values="mean")
            _draw(ax, values.reindex(index=rows, columns=columns), colours, decimals, per_row)
            ax.set_title(wrapped(_title(panel, decimals, unit), width))
            if place is not None:
                corner = columns.index(place[0]) - 0.5, rows.index(place[1]) - 0.5
                ax.add_patch(Rectangle(corner, 1, 1, clip_on=False, zorder=4, **FRAME))
        for ax in axes[::per_row]:
            ax.set_ylabel(Y_LABELS.get(y, plain(y.replace("_", " "))))
        keys: dict[str, Artist] = {"chosen": Patch(**FRAME)} if any(framed) else {}
        keys |= _bar(
            figure,
            axes,
            high * math.ceil(len(axes) / per_row),
            colours,
            labelled(label, unit),
            clean["mean"],
        )
        legend(figure, (), note, keys)
        fit_height(figure, axes, per_row, high)
    return figure


def _framed(
    shown: Sequence[Panel], grid: tuple[str, str], chosen: Place | Mapping[Any, Place] | None
) -> list[Place | None]:
    """The chosen place of each panel; an error if the panel lacks it."""
    if chosen is None:
        return [None] * len(shown)
    if not isinstance(chosen, Mapping):
        chosen = {panel.key: chosen for panel in shown}
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
    """Colours of the values, of all percentages, and of 0 to 1 where there is no value."""
    if unit == "%" and means.between(0, 100).all():
        return ScalarMappable(Normalize(0, 100), mpl.rcParams["image.cmap"])
    low, high = (float(means.min()), float(means.max())) if len(means) else (0.0, 1.0)
    if low < 0 < high:
        return ScalarMappable(CenteredNorm(0, max(-low, high)), DIVERGING)
    return ScalarMappable(Normalize(low, high), mpl.rcParams["image.cmap"])


def _decimals(means: pd.Series, unit: str | None) -> int:
    """As many as give the largest value two digits, or three if it is neither below 1 nor in %."""
    largest = float(means.abs().max()) if len(means) else 0.0
    digits = 3 if largest >= 1 and unit != "%" else 2
    return min(4, max(0, digits - 1 - math.floor(math.log10(largest)))) if largest else 0


def _number(value: float, decimals: int) -> str:
    """A value with a true minus sign, and none on 0."""
    return f"{round(value, decimals) + 0.0:.{decimals}f}".replace("-", "\N{MINUS SIGN}")


def _title(panel: Panel, decimals: int, unit: str | None) -> str:
    end = "%" if unit == "%" else ""
    clean = [
        f"clean\N{NO-BREAK SPACE}{_number(value, decimals)}{end}"
        for value in panel.clean["mean"].dropna()
    ]
    return ", ".join(filter(None, [panel.title, *clean]))


def _draw(
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
            colour = ink(colours.to_rgba(values[row, column]))
            ax.text(column, row, text, color=colour, ha="center", va="center", size=6.5)
    step = math.ceil(n_columns * per_row / MOST_LAYERS)
    ax.set_xticks(range(0, n_columns, step), [f"{n:g}" for n in cells.columns[::step]])
    ax.set_yticks(range(n_rows), [f"{n:g}" for n in cells.index])
    ax.tick_params(length=0)
    ax.set_xlabel("injection layer")


def _bar(
    figure: Figure,
    axes: Sequence[Axes],
    high: float,
    colours: ScalarMappable,
    label: str,
    clean: pd.Series,
) -> dict[str, Artist]:
    """The colour bar with the clean run's values; what the legend says of them."""
    bar = figure.colorbar(colours, ax=axes, aspect=8 * high, pad=0.02)
    bar.set_label(wrapped(label, high))
    bar.outline.set_visible(False)
    lines = [bar.ax.axhline(value, **CLEAN) for value in clean.dropna().unique()]
    return {"clean, on the colour bar": lines[0]} if lines else {}
