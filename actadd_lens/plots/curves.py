"""Curves: an effect against the layer or the coefficient, and norms by layer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import cycle
from typing import TYPE_CHECKING, Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from actadd_lens.errors import FigureError
from actadd_lens.plots.frames import Panel, panels, sweep, table
from actadd_lens.plots.style import (
    COLOURS,
    CONTROL_COLOUR,
    MARKERS,
    band,
    clean_level,
    drawing,
    label_y,
    legend,
    log_ticks,
    panel_axes,
    plain,
    wrapped,
)

if TYPE_CHECKING:
    from actadd_lens.vectors.vector import SteeringVector
else:
    SteeringVector = Any  # a figure of numbers needs no torch

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
        frame: rows with `run`, `layer`, `coefficient`, `mean`, `low`, `high`, and maybe
            `vector` and `position`; see the top of this module.
        ylabel: what `mean` measures.
        unit: its unit, added to the label; "%" shows shares in [0, 1] as percentages.
        note: a line above the legend, for what the bands are and how large n is.

    Raises:
        FigureError: a column is missing, no row is steered, there are several metrics, or two
            steered rows have the same place.

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


def norm_profile(
    frame: pd.DataFrame, *, vectors: Mapping[int, SteeringVector | float] | None = None
) -> Figure:
    """L2 norm of the residual stream entering each block, BOS apart from all other tokens.

    Lines are medians over tokens, bands go from their 10th to their 90th percentile. BOS is often
    hundreds of times larger than the rest, so the axis is logarithmic.

    Args:
        frame: what `actadd_lens.residual_norms` returns; the columns `layer`, `position` (BOS is
            0) and `norm` are read.
        vectors: steering vectors, or norms, by layer. They are drawn likewise, over the rows that
            are not zero, as the row of BOS is. The coefficient counts if the vector has it.

    Raises:
        FigureError: a column is missing, no norm is positive, or a value of `vectors` is neither.

    >>> norms = al.residual_norms(load_model("testbed"), ["The sun", "Rain"])
    >>> [axes] = norm_profile(norms, vectors={1: 20.0}).axes
    >>> axes.get_yscale(), axes.get_xlabel()
    ('log', 'layer (stream entering the block)')
    """
    give = "what actadd_lens.residual_norms returns"
    frame = table(frame, ["layer", "position", "norm"], give=give)
    bos = frame["position"] == 0
    lines: list[tuple[pd.DataFrame, str, dict[str, Any]]] = [
        (frame[~bos], "other tokens", {"marker": "o"}),
        (frame[bos], "BOS", {"marker": "s"}),
        (_norms(vectors or {}), "steering vector", {"marker": "^", "linestyle": (0, (4, 2))}),
    ]
    drawn = []
    with drawing() as figure:
        [ax], _ = panel_axes(figure, 1, (4.2, 3.1))
        for (rows, label, look), colour in zip(lines, COLOURS, strict=False):
            norms = rows[rows["norm"] > 0].groupby("layer")["norm"]
            if len(norms):
                low, middle, high = (norms.quantile(share) for share in (0.1, 0.5, 0.9))
                layers = middle.index.to_series()
                band(ax, layers, low, high, color=colour, alpha=0.18)
                ax.plot(layers, middle, label=label, color=colour, **look)
                drawn += [norms.min(), norms.max()]
        if not drawn:
            raise FigureError(f"none of the frame's {len(frame)} norms is positive: give {give}")
        ax.xaxis.set_major_locator(MaxNLocator(steps=[1, 2, 5, 10], integer=True))
        log_ticks(ax.yaxis, pd.concat(drawn))
        ax.set_xlabel("layer (stream entering the block)")
        ax.set_ylabel("L2 norm of the residual stream")
        legend(figure, [ax], "medians over tokens; bands: 10th to 90th percentile")
    return figure


def _figure(
    frame: pd.DataFrame, *, x: str, series: str, ylabel: str, unit: str | None, note: str | None
) -> Figure:
    frame = sweep(frame, unit)
    shown = panels(frame)
    kinds = sorted({kind for panel in shown for kind in panel.controls["kind"]})
    dashes = dict(zip(kinds, cycle(CONTROL_DASHES)))
    with drawing() as figure:
        axes, per_row = panel_axes(figure, len(shown))
        width = figure.get_figwidth() / per_row - 0.5
        for ax, panel in zip(axes, shown, strict=True):
            lines = panel.steered[series].unique()
            alone = [_series_label(series, lines[0])] if len(lines) == 1 else []
            ax.set_title(wrapped(", ".join(filter(None, [panel.title, *alone])), width))
            _draw(ax, panel, x=x, series=series, dashes=dashes)
            ax.set_xlabel(X_LABELS[x])
            ax.xaxis.set_major_locator(MaxNLocator(steps=[1, 2, 5, 10], integer=x == "layer"))
        label_y(axes[::per_row], ylabel, unit, frame)
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
    for _, row in controls[~placed].iterrows():  # a control without a layer, such as a prompt
        ax.axhline(row["mean"], **_control_look(row["kind"], dashes))
    clean_level(ax, panel.clean)


def _control_look(kind: str, dashes: dict[str, object]) -> dict[str, Any]:
    label = plain(kind.replace("_", " "))
    return {"label": label, "color": CONTROL_COLOUR, "linestyle": dashes[kind], "linewidth": 1.0}


def _lines(rows: pd.DataFrame, by: list[str], x: str) -> Iterator[pd.DataFrame]:
    for _, line in rows.groupby(by, sort=True):
        yield line.sort_values(x)


def _series_label(series: str, value: float) -> str:
    return f"layer {value:g}" if series == "layer" else f"c = {value:g}"


def _norms(vectors: Mapping[int, SteeringVector | float]) -> pd.DataFrame:
    """The layer and the norm of each row of each vector."""
    rows: list[tuple[int, float]] = []
    for layer, given in vectors.items():
        try:
            norms = given.norms().tolist() if hasattr(given, "norms") else [float(given)]
        except (TypeError, ValueError) as error:
            raise FigureError(
                f"vectors[{layer}] is {given!r}: give a SteeringVector or its norm"
            ) from error
        rows.extend((layer, norm) for norm in norms)
    return pd.DataFrame(rows, columns=["layer", "norm"]).astype(float)
