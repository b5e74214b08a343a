"""Every figure. Tidy frames in, matplotlib figures out; nothing global is touched or shown.

Both figures read the same columns, one row per cell: `control` ("none" for steered cells,
"unsteered" for the clean run, anything else for a control), `layer`, `coefficient` (both empty in
the clean row), and `mean`, `low`, `high`, an interval. A column `pair` with several values makes
one panel for each.

A figure is a `matplotlib.figure.Figure`: a notebook shows it, `figure.savefig` or `save` writes it
in any format that matplotlib knows.
"""

from __future__ import annotations

import os
import textwrap
from collections.abc import Iterator, Sequence
from io import BytesIO
from itertools import cycle
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from actadd_lens.errors import ActAddError, OutputError
from actadd_lens.files import write_atomically

STYLE: Any = {  # a dict; matplotlib's own annotation would spell out every key it knows
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.labelsize": 8.5,
    "axes.linewidth": 0.6,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 9,
    "font.family": "sans-serif",
    "font.size": 8.5,
    "grid.color": "0.9",
    "grid.linewidth": 0.5,
    "legend.columnspacing": 1.1,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "legend.handlelength": 1.7,
    "legend.title_fontsize": 8,
    "lines.linewidth": 1.6,
    "lines.markersize": 4,
    "pdf.fonttype": 42,  # text stays text in vector output
    "savefig.dpi": 300,
    "svg.fonttype": "none",
    "xtick.labelsize": 8,
    "xtick.major.width": 0.6,
    "ytick.labelsize": 8,
    "ytick.major.width": 0.6,
}
# Okabe and Ito's palette, in an order that keeps neighbours apart in grey print as well.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MARKERS = ("o", "s", "^", "D", "v", "P")
CLEAN_COLOUR = "0.25"
CONTROL_COLOUR = "0.6"
CONTROL_DASHES = ((0, (4, 2)), (0, (1, 1.5)), (0, (4, 1.5, 1, 1.5)), (0, (8, 3)))
PANEL_INCHES = (3.3, 2.9)
COLUMNS = ("control", "layer", "coefficient", "mean", "low", "high")


def layer_profile(
    frame: pd.DataFrame,
    *,
    ylabel: str = "effect",
    unit: str | None = None,
    note: str | None = None,
) -> Figure:
    """Effect against the injection layer (the paper's figure 3), one line per coefficient.

    Args:
        frame: cells with the columns named at the top of this module.
        ylabel: what `mean` measures.
        unit: its unit, put behind the label; "%" shows shares in [0, 1] as percentages.
        note: a line above the legend, for what the bands are and how large n is.

    Raises:
        ActAddError: a column is missing, or no cell is steered.

    >>> import pandas as pd
    >>> cell = {"control": "none", "coefficient": 4.0, "mean": 0.7, "low": 0.6, "high": 0.8}
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
    >>> cell = {"control": "none", "layer": 2, "mean": 0.7, "low": 0.6, "high": 0.8}
    >>> frame = pd.DataFrame([{"coefficient": c, **cell} for c in (0.0, 1.0, 2.0)])
    >>> [axes.get_xlabel() for axes in coefficient_curve(frame).axes]
    ['injection coefficient (× vector)']
    """
    return _figure(frame, x="coefficient", series="layer", ylabel=ylabel, unit=unit, note=note)


def save(figure: Figure, path: str | os.PathLike[str]) -> Path:
    """Write a figure in the format of the path's suffix, whole or not at all.

    Raises:
        OutputError: the suffix is not a format, or the file cannot be written.
    """
    path = Path(path)
    drawn = BytesIO()
    try:
        with mpl.rc_context(STYLE):
            figure.savefig(drawn, format=path.suffix[1:] or "png")
    except ValueError as error:
        raise OutputError(f"cannot write the figure {path}: {error}") from error
    write_atomically(path, drawn.getvalue())
    return path


def _figure(
    frame: pd.DataFrame, *, x: str, series: str, ylabel: str, unit: str | None, note: str | None
) -> Figure:
    panels = _panels(_checked(frame))
    width, height = PANEL_INCHES
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(width * len(panels), height), layout="constrained")
        axes = list(figure.subplots(1, len(panels), sharey=True, squeeze=False)[0])
        for ax, (pair, cells) in zip(axes, panels, strict=True):
            lines = sorted(cells.loc[cells["control"] == "none", series].unique())
            alone = [_series_label(series, float(lines[0]))] if len(lines) == 1 else []
            ax.set_title(", ".join(filter(None, [pair, *alone])))
            _draw(ax, cells, x=x, series=series, scale=100.0 if unit == "%" else 1.0)
            _label_x(ax, x)
        axes[0].set_ylabel(textwrap.fill(f"{ylabel} ({unit})" if unit else ylabel, 32))
        if unit == "%":
            axes[0].set_ylim(0, 100)
        _legend(figure, axes, note)
    return figure


def _checked(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame with plain floats, which matplotlib needs; empty cells become nan."""
    missing = [name for name in COLUMNS if name not in frame.columns]
    if missing:
        raise ActAddError(
            f"the frame lacks the columns {missing} (it has {list(frame.columns)}): "
            f"give one row per cell with {list(COLUMNS)}"
        )
    if not (frame["control"] == "none").any():
        raise ActAddError(
            f"none of the frame's {len(frame)} rows is a steered cell: "
            'give some with control "none"'
        )
    numbers = [name for name in COLUMNS if name != "control"]
    return frame.assign(**{name: frame[name].astype("Float64").astype(float) for name in numbers})


def _panels(frame: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    if "pair" not in frame.columns or frame["pair"].nunique() < 2:
        return [("", frame)]
    return [(str(pair), cells) for pair, cells in frame.groupby("pair", sort=False)]


def _draw(ax: Axes, cells: pd.DataFrame, *, x: str, series: str, scale: float) -> None:
    cells = cells.assign(**{name: cells[name] * scale for name in ("mean", "low", "high")})
    clean = cells[cells["control"] == "unsteered"]
    steered = cells[cells["control"] == "none"]
    controls = cells[~cells["control"].isin(["none", "unsteered"])]

    for (control, line), dashes in zip(_lines(controls, x, series), cycle(CONTROL_DASHES)):
        ax.fill_between(line[x], line["low"], line["high"], color=CONTROL_COLOUR, alpha=0.12, lw=0)
        ax.plot(line[x], line["mean"], label=control, color=CONTROL_COLOUR, ls=dashes, lw=1.0)
    for _, row in clean.iterrows():
        ax.axhspan(row["low"], row["high"], color=CLEAN_COLOUR, alpha=0.12, linewidth=0)
        ax.axhline(row["mean"], color=CLEAN_COLOUR, linewidth=1.0, label="clean")
    lines = list(_lines(steered, x, series))
    for (_, line), colour, marker in zip(lines, cycle(COLOURS), cycle(MARKERS)):
        name = _series_label(series, float(line[series].iloc[0]))
        label = f"steered, {name}" if len(lines) > 1 else "steered"
        ax.fill_between(line[x], line["low"], line["high"], color=colour, alpha=0.18, linewidth=0)
        ax.plot(line[x], line["mean"], color=colour, marker=marker, label=label, clip_on=False)


def _lines(cells: pd.DataFrame, x: str, series: str) -> Iterator[tuple[str, pd.DataFrame]]:
    for (control, _), line in cells.groupby(["control", series], sort=True):
        yield str(control), line.sort_values(x)


def _series_label(series: str, value: float) -> str:
    return f"layer {value:g}" if series == "layer" else f"c = {value:g}"


def _label_x(ax: Axes, x: str) -> None:
    ax.set_xlabel("injection layer" if x == "layer" else "injection coefficient (× vector)")
    ax.xaxis.set_major_locator(MaxNLocator(steps=[1, 2, 5, 10], integer=x == "layer"))


def _legend(figure: Figure, axes: Sequence[Axes], note: str | None) -> None:
    """One legend under all panels, each label once, steered lines first."""
    entries: dict[str, Any] = {}
    for ax in axes:
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
            entries.setdefault(label, handle)
    labels = sorted(entries, key=lambda label: not label.startswith("steered"))
    figure.legend(
        [entries[label] for label in labels],
        labels,
        loc="outside lower center",
        ncols=min(len(labels), 4 if len(axes) > 1 or "steered" in labels else 2),
        title=note,
    )
