"""Effects along layers, coefficients or the categories of an ablation, and norms by layer."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import cycle, pairwise, product
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from actadd_lens.errors import FigureError
from actadd_lens.plots import style
from actadd_lens.plots.frames import (
    GRID,
    MEAN,
    SPLITS,
    Panel,
    configurations,
    panels,
    percent,
    table,
)
from actadd_lens.vectors.vector import SteeringVector

CONTROL_DASHES = ((0, (4, 2)), (0, (1, 1.5)), (0, (4, 1.5, 1, 1.5)), (0, (8, 3)))
LABELS = {"layer": "layer {:g}", "coefficient": "c = {:g}"}
X_LABELS = {"layer": "injection layer", "coefficient": "injection coefficient (× vector)"}
DOT_INCHES = 0.16
MOST_LABELS = 42  # slanted labels in the width of a page
CONTROL_MARKERS = ("", "x", "s", "^", "D")  # the first kind is the steered rows

Slot = tuple[str, object]  # kind of run, group


def layer_profile(
    frame: pd.DataFrame, *, ylabel: str = "effect", unit: str | None = None, note: str | None = None
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
    return _curves(frame, x="layer", series="coefficient", ylabel=ylabel, unit=unit, note=note)


def coefficient_curve(
    frame: pd.DataFrame, *, ylabel: str = "effect", unit: str | None = None, note: str | None = None
) -> Figure:
    """Effect against the injection coefficient, one line per layer.

    Arguments and errors are those of `layer_profile`.

    >>> import pandas as pd
    >>> cell = {"run": "steered", "layer": 2, "mean": 0.7, "low": 0.6, "high": 0.8}
    >>> frame = pd.DataFrame([{"coefficient": c, **cell} for c in (0.0, 1.0, 2.0)])
    >>> [axes.get_xlabel() for axes in coefficient_curve(frame).axes]
    ['injection coefficient (× vector)']
    """
    return _curves(frame, x="coefficient", series="layer", ylabel=ylabel, unit=unit, note=note)


def _curves(
    frame: pd.DataFrame, *, x: str, series: str, ylabel: str, unit: str | None, note: str | None
) -> Figure:
    frame = percent(configurations(frame, (*GRID, *MEAN), key=GRID), unit)
    shown = panels(frame)
    kinds = sorted({kind for panel in shown for kind in panel.controls["kind"]})
    dashes = dict(zip(kinds, cycle(CONTROL_DASHES)))
    with style.drawing() as figure:
        axes, per_row = style.panel_axes(figure, len(shown))
        width = figure.get_figwidth() / per_row - 0.5
        for ax, panel in zip(axes, shown, strict=True):
            lines = list(panel.steered.sort_values(x).groupby(series))
            names = [LABELS[series].format(value) for value, _ in lines]
            alone = names if len(names) == 1 else []
            ax.set_title(style.wrapped(", ".join(filter(None, [panel.title, *alone])), width))
            for (_, line), name, colour, marker in zip(
                lines, names, cycle(style.COLOURS), cycle(style.MARKERS)
            ):
                style.band(ax, line[x], line["low"], line["high"], color=colour, alpha=0.18)
                label = "steered" if alone else f"steered, {name}"
                look = {"color": colour, "marker": marker, "clip_on": False, "zorder": 2.5}
                ax.plot(line[x], line["mean"], label=label, **look)
            _draw_controls(ax, panel.controls, x, series, dashes)
            style.clean_level(ax, panel.clean)
            ax.set_xlabel(X_LABELS[x])
            ax.xaxis.set_major_locator(MaxNLocator(steps=[1, 2, 5, 10], integer=x == "layer"))
        style.label_y(axes[::per_row], ylabel, unit, frame)
        style.legend(figure, axes, note)
    return figure


def _draw_controls(
    ax: Axes, controls: pd.DataFrame, x: str, series: str, dashes: dict[str, object]
) -> None:
    looks: dict[str, dict[str, Any]] = {
        kind: {"label": style.plain(kind.replace("_", " ")), "linestyle": dashed}
        for kind, dashed in dashes.items()
    }
    placed = controls[[x, series]].notna().all(axis=1)
    draws = controls.groupby("kind")["run"].nunique()
    grey: dict[str, Any] = {"color": style.CONTROL_COLOUR}
    for _, rows in controls[placed].groupby(["kind", "run", series]):
        line, kind = rows.sort_values(x), rows["kind"].iloc[0]
        style.band(ax, line[x], line["low"], line["high"], alpha=0.12 / draws[kind], **grey)
        ax.plot(line[x], line["mean"], linewidth=1.0, **grey, **looks[kind])
    for _, row in controls[~placed].iterrows():  # a control without a layer, such as a prompt
        ax.axhline(row["mean"], linewidth=1.0, **grey, **looks[row["kind"]])


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
    frame = frame.assign(category=frame[x], series=frame[group] if group else "steered")
    placed = frame[frame["run"] != "clean"]
    empty = [name for name in names if placed[name].isna().any()]
    if empty:
        raise FigureError(f"{empty} are empty in a row other than the clean run's: fill them in")
    shown = panels(frame, _splits(placed[placed["run"] == "steered"], names))
    categories, groups = list(placed["category"].unique()), list(placed["series"].unique())
    kinds = ["steered", *dict.fromkeys(kind for panel in shown for kind in panel.controls["kind"])]
    slots = [(kind, name) for name in groups for kind in kinds]
    places = [_places(panel, slots) for panel in shown]
    densest = max(place["category"].value_counts().max() for place in places)
    spacing = 1 / (densest + 1)
    inches = max(style.PANEL_INCHES[0], 0.8 + len(categories) * (densest + 1) * DOT_INCHES)
    inches = min(inches, style.PAGE_INCHES)
    with style.drawing() as figure:
        size, most = (inches, style.PANEL_INCHES[1]), int(style.PAGE_INCHES / inches)
        axes, per_row = style.panel_axes(figure, len(shown), size, per_row=most)
        for ax, panel, place in zip(axes, shown, places, strict=True):
            place["at"] = place["category"].map(categories.index) + spacing * place["shift"]
            _draw_dots(ax, place, slots)
            style.clean_level(ax, panel.clean)
            ax.set_xlabel(style.plain(x.replace("_", " ")))
            ax.set_title(style.wrapped(panel.title, inches - 0.8))
        style.label_y(axes[::per_row], ylabel, unit, frame)
        style.legend(figure, axes, note)
        _label(figure, axes, [style.plain(category) for category in categories], per_row)
    return figure


def _splits(steered: pd.DataFrame, names: list[str]) -> list[str]:
    """Columns that must make panels for rows to have places of their own."""
    splits: list[str] = []
    for name in SPLITS:
        free = name in steered.columns and name not in names
        if free and steered.duplicated([*names, *splits]).any():
            splits.append(name)
    return splits


def _places(panel: Panel, slots: list[Slot]) -> pd.DataFrame:
    """Rows with their slot, and their shift in dots from the middle of their category."""
    drawn = pd.concat([panel.steered.assign(kind="steered"), panel.controls], ignore_index=True)
    drawn["slot"] = [slots.index(key) for key in zip(drawn["kind"], drawn["series"], strict=True)]
    within = drawn.groupby("category")["slot"]
    drawn["shift"] = within.rank("dense") - (within.transform("nunique") + 1) / 2
    return drawn


def _draw_dots(ax: Axes, places: pd.DataFrame, slots: list[Slot]) -> None:
    kinds, groups = (list(dict.fromkeys(names)) for names in zip(*slots, strict=True))
    looks = dict(zip(groups, cycle(zip(style.COLOURS, style.MARKERS, strict=True)), strict=False))
    marks = dict(zip(kinds, cycle(CONTROL_MARKERS), strict=False))
    for kind, name in product(kinds, groups):
        rows = places[places["slot"] == slots.index((kind, name))]
        if rows.empty:
            continue
        colour, marker = looks[name]
        inside, label = colour, style.plain(name)
        if kind != "steered":
            colour, marker, inside = style.CONTROL_COLOUR, marks[kind], "white"
            label = style.plain(kind.replace("_", " ")) + (" (control)" if kind in groups else "")
        look: dict[str, Any] = {"color": colour, "clip_on": False, "zorder": 2.5}
        style.interval(ax, rows["at"], rows["low"], rows["high"], linewidth=1.2, **look)
        look |= {"linestyle": "", "marker": marker, "markerfacecolor": inside, "label": label}
        ax.plot(rows["at"], rows["mean"], **look)


def _label(figure: Figure, axes: list[Axes], texts: list[str], per_row: int) -> None:
    """Name the categories; names that would touch are slanted, and then as many as fit."""
    for ax in axes:
        ax.set(xticks=range(len(texts)), xlim=(-0.5, len(texts) - 0.5), xticklabels=texts)
    figure.draw_without_rendering()
    boxes = [label.get_window_extent() for label in axes[0].get_xticklabels()]
    if all(right.x0 - left.x1 > figure.dpi / 20 for left, right in pairwise(boxes)):
        return
    step = math.ceil(len(texts) * per_row / MOST_LABELS)
    high = axes[0].bbox.height / figure.dpi
    for ax in axes:
        look: dict[str, Any] = {"rotation": 40, "ha": "right", "rotation_mode": "anchor"}
        ax.set_xticks(range(0, len(texts), step), texts[::step], **look)
    style.fit_height(figure, axes, per_row, high)


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
    with style.drawing() as figure:
        [ax], _ = style.panel_axes(figure, 1, (4.2, 3.1))
        for (rows, label, look), colour in zip(lines, style.COLOURS, strict=False):
            norms = rows[rows["norm"] > 0].groupby("layer")["norm"]
            if len(norms):
                low, middle, high = (norms.quantile(share) for share in (0.1, 0.5, 0.9))
                layers = middle.index.to_series()
                style.band(ax, layers, low, high, color=colour, alpha=0.18)
                ax.plot(layers, middle, label=label, color=colour, **look)
                drawn += [norms.min(), norms.max()]
        if not drawn:
            raise FigureError(f"none of the frame's {len(frame)} norms is positive: give {give}")
        ax.xaxis.set_major_locator(MaxNLocator(steps=[1, 2, 5, 10], integer=True))
        style.log_ticks(ax.yaxis, pd.concat(drawn))
        ax.set_xlabel("layer (stream entering the block)")
        ax.set_ylabel("L2 norm of the residual stream")
        style.legend(figure, [ax], "medians over tokens; bands: 10th to 90th percentile")
    return figure


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
