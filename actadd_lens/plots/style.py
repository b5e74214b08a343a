"""The look of figures: the style file, colours, panels on a page, text shown as it is."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font

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
FONT = "DejaVu Sans"  # comes with matplotlib, so that text is as wide everywhere
LETTER_EM = 0.55  # mean width of its letters
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
    figure: Figure,
    n: int,
    inches: tuple[float, float] = PANEL_INCHES,
    *,
    abreast: int = 3,
) -> tuple[list[Axes], int]:
    """Axes for n panels that share y, and how many stand abreast: three at most."""
    abreast = 2 if n == 4 and abreast >= 2 else min(n, abreast, 3)
    rows = -(-n // abreast)
    figure.set_size_inches(min(inches[0], PAGE_INCHES / abreast) * abreast, inches[1] * rows)
    axes = list(figure.subplots(rows, abreast, sharey=True, squeeze=False).flat)
    for spare in axes[n:]:
        spare.remove()
    return axes[:n], abreast


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


def plain(value: Any) -> str:
    r"""Text for matplotlib to show as it is, without reading mathtext in it.

    >>> print(plain("$5"), plain(2.0))
    \$5 2
    """
    return legible(f"{value:g}" if isinstance(value, float) else str(value)).replace("$", r"\$")


def legible(text: str, font: str = FONT) -> str:
    r"""Text with escapes for what the font cannot show.

    >>> print(legible("naïve\t\U00013000"))
    naïve\t\U00013000
    """
    signs = get_font(findfont(FontProperties(family=[font])))
    return "".join(
        sign
        if sign.isprintable() and signs.get_char_index(ord(sign))
        else sign.encode("unicode_escape").decode()
        for sign in text
    )


def wrapped(text: str, inches: float, points: float = 8.5) -> str:
    """Text broken into lines that fit into a width at a size in points."""
    return textwrap.fill(text, max(8, int(inches * 72 / (LETTER_EM * points))))


def labelled(label: str, unit: str | None) -> str:
    """A label with its unit behind it."""
    return f"{label} ({unit})" if unit else label


def ink(background: Any) -> str:
    """Black or white, whichever is read more easily on a colour (WCAG's relative luminance).

    >>> ink("white"), ink("#053061")
    ('black', 'white')
    """
    linear = [
        c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(background)
    ]
    luminance = sum(
        weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True)
    )
    return "black" if (luminance + 0.05) ** 2 > 1.05 * 0.05 else "white"
