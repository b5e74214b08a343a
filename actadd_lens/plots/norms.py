"""Norms by layer: the residual stream, and the vectors that are added to it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from actadd_lens.errors import FigureError
from actadd_lens.plots.cells import table
from actadd_lens.plots.marks import band, legend, log_ticks
from actadd_lens.plots.style import COLOURS, drawing, panel_axes

if TYPE_CHECKING:
    from actadd_lens.vectors.vector import SteeringVector
else:
    SteeringVector = Any  # a figure of numbers needs no torch

BAND = (0.1, 0.5, 0.9)


def norm_profile(
    frame: pd.DataFrame, *, vectors: Mapping[int, SteeringVector | float] | None = None
) -> Figure:
    """L2 norm of the residual stream entering each block, BOS apart from all other tokens.

    Lines are medians over tokens, bands go from their 10th to their 90th percentile. BOS is often
    hundreds of times larger than the rest, so the axis is logarithmic.

    Args:
        frame: what `actadd_lens.residual_norms` returns, of which `layer`, `position` (BOS is 0)
            and `norm` are read.
        vectors: steering vectors, or norms, by layer; drawn likewise over the rows that are not
            zero, as the row of BOS is. The coefficient counts if the vector has it.

    Raises:
        FigureError: a column is missing, no norm is positive, or a vector is neither.

    >>> norms = al.residual_norms(load_model("testbed"), ["The sun", "Rain"])
    >>> [axes] = norm_profile(norms, vectors={1: 20.0}).axes
    >>> axes.get_yscale(), axes.get_xlabel()
    ('log', 'layer (stream entering the block)')
    """
    give = "what actadd_lens.residual_norms returns"
    frame = table(frame, ["layer", "position", "norm"], give=give)
    bos = frame["position"] == 0
    added = _rows(vectors or {})
    lines: list[tuple[pd.DataFrame, str, dict[str, Any]]] = [
        (frame[~bos], "other tokens", {"color": COLOURS[0], "marker": "o"}),
        (frame[bos], "BOS", {"color": COLOURS[1], "marker": "s"}),
        (added, "steering vector", {"color": COLOURS[2], "marker": "^", "linestyle": (0, (4, 2))}),
    ]
    lines = [(rows[rows["norm"] > 0], label, look) for rows, label, look in lines]
    drawn = pd.concat([rows["norm"] for rows, _, _ in lines])
    if drawn.empty:
        raise FigureError(f"none of the frame's {len(frame)} norms is positive: give {give}")
    with drawing() as figure:
        [ax], _ = panel_axes(figure, 1, (4.2, 3.1))
        for rows, label, look in lines:
            if len(rows):
                _draw(ax, rows, label, look)
        ax.xaxis.set_major_locator(MaxNLocator(steps=[1, 2, 5, 10], integer=True))
        log_ticks(ax.yaxis, drawn)
        ax.set_xlabel("layer (stream entering the block)")
        ax.set_ylabel("L2 norm of the residual stream")
        legend(figure, [ax], "medians over tokens; bands: 10th to 90th percentile")
    return figure


def _rows(vectors: Mapping[int, SteeringVector | float]) -> pd.DataFrame:
    """A line for each row of each vector: its layer and its norm."""
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


def _draw(ax: Axes, rows: pd.DataFrame, label: str, look: dict[str, Any]) -> None:
    low, middle, high = (rows.groupby("layer")["norm"].quantile(q) for q in BAND)
    layers = middle.index.to_series()
    band(ax, layers, low, high, color=look["color"], alpha=0.18)
    ax.plot(layers, middle, label=label, **look)
