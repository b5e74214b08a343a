"""The look of figures: style file, panels of a page, marks that figures share, and saving."""

from __future__ import annotations

import math
import os
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from actadd_lens.errors import OutputError
from actadd_lens.vectors.files import write_atomically

STYLE = Path(__file__).with_name("actadd.mplstyle")
COLOURS = tuple(
    mpl.rc_params_from_file(STYLE, use_default_template=False)["axes.prop_cycle"].by_key()["color"]
)
MARKERS = ("o", "s", "^", "D", "v", "P")
CLEAN_COLOUR = "0.25"
CONTROL_COLOUR = "0.6"
DIVERGING = "RdBu_r"  # for signed values: readable with every common colour blindness
PAGE_INCHES = 6.8
PANEL_INCHES = (3.3, 2.9)
LETTERS_PER_INCH = 14  # of the fonts that the style file sets
SHOWN_DPI = 100
SHOWN_SCALE = 2  # dots of a screen for each of those, so that letters stay sharp


class Shown(Figure):
    """A figure that notebooks show by themselves, whether or not pyplot was imported before."""

    def _repr_png_(self) -> tuple[bytes, dict[str, int]]:
        drawn = BytesIO()
        with mpl.rc_context(fname=STYLE):
            self.savefig(drawn, format="png", dpi=SHOWN_SCALE * SHOWN_DPI)
        width, height = (round(inches * SHOWN_DPI) for inches in self.get_size_inches())
        return drawn.getvalue(), {"width": int(width), "height": int(height)}


@contextmanager
def drawing() -> Iterator[Figure]:
    """A figure to draw in, in the package's style; the global state is left as it was."""
    with mpl.rc_context(fname=STYLE):
        yield Shown(layout="constrained")


def panel_axes(
    figure: Figure, n: int, inches: tuple[float, float] = PANEL_INCHES, *, per_row: int = 3
) -> tuple[list[Axes], int]:
    """Axes for n panels that share y, and how many are in a row: three at most."""
    per_row = 2 if n == 4 and per_row >= 2 else min(n, per_row, 3)
    rows = -(-n // per_row)
    figure.set_size_inches(min(inches[0], PAGE_INCHES / per_row) * per_row, inches[1] * rows)
    axes = list(figure.subplots(rows, per_row, sharey=True, squeeze=False).flat)
    for spare in axes[n:]:
        spare.remove()
    return axes[:n], per_row


def fit_height(figure: Figure, axes: Sequence[Axes], per_row: int, inches: float) -> None:
    """Make a figure as high as its panels need to be so high within all that is around them."""
    figure.draw_without_rendering()
    lacking = inches - axes[0].bbox.height / figure.dpi
    figure.set_figheight(figure.get_figheight() + lacking * math.ceil(len(axes) / per_row))


def save(figure: Figure, path: str | os.PathLike[str]) -> Path:
    """Write a figure in the format of the path's suffix, whole or not at all.

    In SVG and PDF text stays text.

    Raises:
        OutputError: the suffix is not a format, or the file cannot be written.
    """
    path = Path(path)
    drawn = BytesIO()
    try:
        with mpl.rc_context(fname=STYLE):
            figure.savefig(drawn, format=path.suffix[1:] or "png")
    except ValueError as error:
        raise OutputError(f"cannot write the figure {path}: {error}") from error
    write_atomically(path, drawn.getvalue())
    return path


def interval(
    ax: Axes, at: Any, low: pd.Series, high: pd.Series, *, across: bool = False, **look: Any
) -> None:
    """A line from `low` to `high` at each place, upright or across; none where either is nan."""
    known = (low.notna() & high.notna()).to_numpy()
    if known.any():
        draw = ax.hlines if across else ax.vlines
        draw(np.asarray(at)[known], low[known], high[known], **look)


def band(ax: Axes, at: pd.Series, low: pd.Series, high: pd.Series, **look: Any) -> None:
    """The area between `low` and `high`; a single place, which has no area, gets a line."""
    if low.notna().sum() > 1:
        ax.fill_between(at, low, high, linewidth=0, **look)
    else:
        interval(ax, at, low, high, **look, linewidth=3)


def clean_level(ax: Axes, clean: pd.DataFrame) -> None:
    """The clean run as a level line with its interval as a band."""
    for _, row in clean.dropna(subset="mean").iterrows():
        if row[["low", "high"]].notna().all():
            ax.axhspan(row["low"], row["high"], color=CLEAN_COLOUR, alpha=0.12, linewidth=0)
        ax.axhline(row["mean"], color=CLEAN_COLOUR, linewidth=1.0, zorder=1.8, label="clean")


def label_y(axes: Sequence[Axes], label: str, unit: str | None, shown: pd.DataFrame) -> None:
    """Label the effect at the first panel of each row; shares get the whole scale."""
    for ax in axes:
        ax.set_ylabel(wrapped(label, 2.2, unit))
    values = shown[["mean", "low", "high"]]
    if unit == "%" and not (values.lt(0) | values.gt(100)).any(axis=None):
        axes[0].set_ylim(-3, 103)  # marks at the ends are seen whole
        axes[0].set_yticks(range(0, 101, 20))


def log_ticks(axis: Axis, values: Any) -> None:
    """A logarithmic axis with plain numbers, some of them whatever the span of the values."""
    # matplotlib's Artist.axes is declared without its type.
    axis.axes.set(**{f"{axis.axis_name}scale": "log"})  # type: ignore[attr-defined]
    span = math.log10(np.max(values) / np.min(values))
    if span < 0.7:
        axis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    else:
        axis.set_major_locator(LogLocator(subs=(1, 2, 5) if span < 2.5 else (1,)))
    axis.set_major_formatter(lambda value, _: f"{value:g}".replace("e-0", "e-"))
    axis.set_minor_formatter(NullFormatter())


def legend(figure: Figure, axes: Sequence[Axes], note: str | None) -> None:
    """One legend below all panels, each label once, in as many columns as fit; `note` above it."""
    handles = [zip(*ax.get_legend_handles_labels(), strict=True) for ax in axes]
    entries = {label: handle for own in handles for handle, label in own}
    if not entries and not note:
        return
    title = note and wrapped(note, figure.get_figwidth())
    look: dict[str, Any] = {"loc": "outside lower center", "title": title}
    for columns in range(max(1, len(entries)), 0, -1):
        drawn = figure.legend(list(entries.values()), list(entries), ncols=columns, **look)
        if columns == 1 or drawn.get_window_extent().width <= 0.95 * figure.bbox.width:
            return
        drawn.remove()


def plain(value: Any) -> str:
    r"""Text for matplotlib to show as it is, without reading mathtext in it.

    >>> print(plain("$5"), plain(2.0))
    \$5 2
    """
    return legible(f"{value:g}" if isinstance(value, float) else str(value)).replace("$", r"\$")


def legible(text: str, font: str = "DejaVu Sans") -> str:
    r"""Text with escapes for what the font cannot show.

    >>> print(legible("naïve\t\U00013000"))
    naïve\t\U00013000
    """
    glyphs = get_font(findfont(FontProperties(family=[font])))
    return "".join(
        sign
        if sign.isprintable() and glyphs.get_char_index(ord(sign))
        else sign.encode("unicode_escape").decode()
        for sign in text
    )


def wrapped(text: str, inches: float, unit: str | None = None) -> str:
    """Text, then its unit if it has one, broken into lines that fit into a width."""
    text = f"{text} ({unit})" if unit else text
    return textwrap.fill(text, max(8, int(LETTERS_PER_INCH * inches)))


def ink(background: Any) -> str:
    """Black or white, whichever is read more easily on a colour (WCAG's relative luminance).

    >>> ink("white"), ink("#053061")
    ('black', 'white')
    """
    linear = [
        c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(background)
    ]
    luminance = float(np.dot((0.2126, 0.7152, 0.0722), linear))
    return "black" if (luminance + 0.05) ** 2 > 1.05 * 0.05 else "white"
