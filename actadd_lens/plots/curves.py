"""Effect along one dimension of a sweep: against the layer, or against the coefficient."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import cycle
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from actadd_lens.plots.cells import Panel, panels, sweep
from actadd_lens.plots.marks import band, clean_level, label_y, legend
from actadd_lens.plots.style import (
    COLOURS,
    CONTROL_COLOUR,
    MARKERS,
    drawing,
    panel_axes,
    plain,
    wrapped,
)

CONTROL_DASHES = ((0, (4, 2)), (0, (1, 1.5)), (0, (4, 1.5, 1, 1.5)), (0, (8, 3)))
X_LABELS = {"layer": "injection layer", "coefficient": "injection coefficient (× vector)"}


def layer_profile(
    frame: pd.DataFrame,
    *,
    ylabel: str = "effect",
    unit: str | None = None,
    note: str | None = None,
) -> Figure:
    """Effect against the injection layer (the paper's figure 3), one line per coefficient.

    Args:
        frame: cells with `control`, `layer`, `coefficient`, `mean`, `low`, `high`, and maybe
            `pair` and `position`; see the top of this module.
        ylabel: what `mean` measures.
        unit: its unit, put behind the label; "%" shows shares in [0, 1] as percentages.
        note: a line above the legend, for what the bands are and how large n is.

    Raises:
        FigureError: a column is missing, no cell is steered, there are several metrics, or two
            steered cells have the same place.

    >>> import pandas as pd
    >>> cell = {"run": "steered", "coefficient": 4.0, "mean": 0.7, "low": 0.6, "high": 0.8}
    >>> figure = layer_profile(pd.DataFrame([{"layer": l, **cell} for l in range(6)]), unit="%")
    >>> [axes.get_xlabel() for axes in figure.axes]
    ['injection layer']
    """
    return _figure(frame, x="layer", series="coefficient", ylabel=ylabel, unit=unit, note=note)


def coefficient_curve(
    frame: pd.DataFrame,
    *,
    ylabel: str = "effect",
    unit: str | None = None,
    note: str | None = None,
) -> Figure:
    """Effect against the injection coefficient, one line per layer.

    Arguments and errors are those of `layer_profile`.

    >>> import pandas as pd
    >>> cell = {"run": "steered", "layer": 2, "mean": 0.7, "low": 0.6, "high": 0.8}
    >>> frame = pd.DataFrame([{"coefficient": c, **cell} for c in (0.0, 1.0, 2.0)])
    >>> [axes.get_xlabel() for axes in coefficient_curve(frame).axes]
    ['injection coefficient (× vector)']
    """
    return _figure(frame, x="coefficient", series="layer", ylabel=ylabel, unit=unit, note=note)


def _figure(
    frame: pd.DataFrame, *, x: str, series: str, ylabel: str, unit: str | None, note: str | None
) -> Figure:
    frame = sweep(frame, unit)
    shown = panels(frame)
    kinds = sorted({kind for panel in shown for kind in panel.controls["kind"]})
    dashes = dict(zip(kinds, cycle(CONTROL_DASHES)))
    with drawing() as figure:
        axes, abreast = panel_axes(figure, len(shown))
        width = figure.get_figwidth() / abreast - 0.5
        for ax, panel in zip(axes, shown, strict=True):
            lines = panel.steered[series].unique()
            alone = [_series_label(series, lines[0])] if len(lines) == 1 else []
            ax.set_title(wrapped(", ".join(filter(None, [panel.title, *alone])), width, 9))
            _draw(ax, panel, x=x, series=series, dashes=dashes)
            ax.set_xlabel(X_LABELS[x])
            ax.xaxis.set_major_locator(MaxNLocator(steps=[1, 2, 5, 10], integer=x == "layer"))
        label_y(axes[::abreast], ylabel, unit, frame)
        legend(figure, axes, note)
    return figure


def _draw(ax: Axes, panel: Panel, *, x: str, series: str, dashes: dict[str, object]) -> None:
    lines = list(_lines(panel.steered, [series], x))
    for line, colour, marker in zip(lines, cycle(COLOURS), cycle(MARKERS)):
        name = _series_label(series, line[series].iloc[0])
        label = f"steered, {name}" if len(lines) > 1 else "steered"
        band(ax, line[x], line["low"], line["high"], color=colour, alpha=0.18)
        look = {"color": colour, "marker": marker, "clip_on": False, "zorder": 2.5}
        ax.plot(line[x], line["mean"], label=label, **look)
    controls = panel.controls
    placed = controls[[x, series]].notna().all(axis=1)
    draws = controls.groupby("kind")["run"].nunique()
    for line in _lines(controls[placed], ["kind", "run", series], x):
        alpha = 0.12 / draws[line["kind"].iloc[0]]
        band(ax, line[x], line["low"], line["high"], color=CONTROL_COLOUR, alpha=alpha)
        ax.plot(line[x], line["mean"], **_control_look(line["kind"].iloc[0], dashes))
    for _, row in controls[~placed].iterrows():  # one that has no layer, as a prompt in words
        ax.axhline(row["mean"], **_control_look(row["kind"], dashes))
    clean_level(ax, panel.clean)


def _control_look(kind: str, dashes: dict[str, object]) -> dict[str, Any]:
    label = plain(kind.replace("_", " "))
    return {"label": label, "color": CONTROL_COLOUR, "linestyle": dashes[kind], "linewidth": 1.0}


def _lines(cells: pd.DataFrame, by: list[str], x: str) -> Iterator[pd.DataFrame]:
    for _, line in cells.groupby(by, sort=True):
        yield line.sort_values(x)


def _series_label(series: str, value: float) -> str:
    return f"layer {value:g}" if series == "layer" else f"c = {value:g}"
