"""Prompts with the rows of a vector below the tokens on which they land."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from actadd_lens.errors import FigureError
from actadd_lens.plots.cells import table
from actadd_lens.plots.passages import FONT, LEAST_COLUMNS, LETTER_INCHES, Piece, n_lines, pieces
from actadd_lens.plots.style import COLOURS, drawing, ink

LINE_INCHES = 0.34  # a line of tokens and the rows below it
GAP = 0.35  # between strips, in lines
HEAD_INCHES, FOOT_INCHES, MARGIN_INCHES = 0.1, 0.3, 0.1
LEAST_APART = 2.0  # letters between two numbers
NAMED_LETTERS = 12  # room for the name of a strip
BARE, ZERO = "0.93", "0.78"


def placement(frame: pd.DataFrame) -> Figure:
    """Which row of a vector lands on which token: a strip for each prompt and vector.

    The number below a token is the row that is added there. Tokens where a row is added are
    coloured, darker grey where that row is zero, as the row of BOS is in a contrast pair's vector.

    Args:
        frame: what `actadd_lens.placement` returns.

    Raises:
        FigureError: a column is missing, or there are no rows.

    >>> model = load_model("testbed")
    >>> vector = SteeringVector.from_pair(model, ("Love", "Hate"), layer=1)
    >>> [axes] = placement(al.placement(model, vector.at("back"), "I hate you")).axes
    >>> [text.get_text() for text in axes.texts][-1]
    '1'
    """
    give = "what actadd_lens.placement returns"
    frame = table(frame, ["prompt_index", "vector", "row", "norm"], ["token"], give=give)
    if frame.empty:
        raise FigureError(f"the frame has no rows: give {give}")
    several = frame["vector"].nunique() > 1
    with drawing() as figure:
        strips: list[tuple[Any, pd.DataFrame]] = [
            (name, rows.reset_index(drop=True))
            for name, rows in frame.groupby(["prompt_index", "vector"], sort=False)
        ]
        laid = [pieces(rows["token"].tolist()) for _, rows in strips]
        ax = _axes(figure, laid)
        top = 0.0
        for ((prompt, vector), rows), own in zip(strips, laid, strict=True):
            name = f"prompt {prompt:g}" + (f", v{vector:g}" if several else "")
            ax.text(-NAMED_LETTERS, top + 0.42, name, va="baseline", size=7.5, color="0.35")
            _draw(ax, rows, own, top, COLOURS[int(vector) % len(COLOURS)])
            top += n_lines(own) + GAP
        figure.text(
            MARGIN_INCHES / figure.get_figwidth(),
            0.1 / figure.get_figheight(),
            "number: row of the vector that is added there (grey: a row of zeros)",
            size=7.5,
            color="0.35",
        )
    return figure


def _axes(figure: Figure, laid: Sequence[Sequence[Piece]]) -> Axes:
    """Axes in which a letter is 1 wide and a line, with its numbers, 1 high."""
    figure.set_layout_engine("none")  # a letter's width is known: nothing is left to solve
    letters = max(
        LEAST_COLUMNS, *(column + len(text) for own in laid for _, _, column, text in own)
    )
    lines = sum(map(n_lines, laid)) + GAP * (len(laid) - 1)
    wide, high = (letters + NAMED_LETTERS) * LETTER_INCHES, lines * LINE_INCHES
    width, height = wide + 2 * MARGIN_INCHES, high + HEAD_INCHES + FOOT_INCHES
    figure.set_size_inches(width, height)
    box = (MARGIN_INCHES / width, FOOT_INCHES / height, wide / width, high / height)
    ax = figure.add_axes(box)
    ax.set(xlim=(-NAMED_LETTERS, letters), ylim=(lines, 0))
    ax.axis("off")
    return ax


def _draw(ax: Axes, rows: pd.DataFrame, own: Sequence[Piece], top: float, colour: str) -> None:
    mono: dict[str, Any] = {"family": FONT, "size": 8, "parse_math": False, "va": "baseline"}
    numbered: dict[int, tuple[float, float]] = {}  # where the number of each token is
    for index, line, column, text in own:
        row, norm = rows["row"][index], rows["norm"][index]
        landed = not pd.isna(row)
        face = BARE if not landed else colour if norm > 0 else ZERO
        y = top + line
        look: dict[str, Any] = {"facecolor": face, "edgecolor": "white", "linewidth": 0.8}
        ax.add_patch(Rectangle((column, y + 0.02), len(text), 0.56, **look))
        bare = text.lstrip(" ")  # matplotlib would leave out the space in front
        ax.text(column + len(text) - len(bare), y + 0.42, bare, color=ink(face), **mono)
        if landed and index not in numbered:
            place = column + len(text) / 2, y + 0.86
            before = numbered.get(index - 1)
            if before and before[1] == place[1] and place[0] - before[0] < LEAST_APART:
                place = place[0], place[1] + 0.2  # two numbers side by side would read as one
            numbered[index] = place
            ax.text(*place, str(int(row)), ha="center", va="baseline", size=7)
