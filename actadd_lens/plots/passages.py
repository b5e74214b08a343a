"""A passage whose tokens are coloured by what steering did to them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import CenteredNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from actadd_lens.errors import FigureError
from actadd_lens.plots.style import DIVERGING, drawing, ink, legible, wrapped

COLUMNS = 84  # letters in a line
LEAST_COLUMNS = 48  # leaves room for the colour bar
POINTS = 8
FONT = "DejaVu Sans Mono"
LETTER_INCHES = 0.602 * POINTS / 72
LINE_INCHES = 1.75 * POINTS / 72
MARGIN_INCHES = 0.1
BAR_INCHES = 0.68  # with its labels
UNJUDGED, UNJUDGED_INK = "white", "0.45"
BREAK = "↵"
NOTHING = "·"  # a token without a text of its own

Piece = tuple[int, int, int, str]  # which token, line, column, text


def coloured_text(
    tokens: Sequence[str],
    change: Sequence[float],
    *,
    title: str | None = None,
    limit: float | None = None,
) -> Figure:
    """A passage with each token coloured by how much more or less likely it became.

    Lines break between words where they can. A line break within a token is shown as ↵.

    Args:
        tokens: texts of the tokens, in order, as the tokenizer decodes them one by one.
        change: log-prob of each in the steered run minus that in the clean run, in nats; nan for
            a token that was not judged, such as BOS: grey on white.
        title: a line above the passage.
        limit: change at which the colours end; by default the largest that there is.

    Raises:
        FigureError: no token, as many changes as tokens are not given, or a limit of 0 or less.

    >>> model, text = load_model("testbed"), "Anna loved the concert."
    >>> vector = SteeringVector.from_pair(model, ("Love.", "Hate."), layer=1)
    >>> clean, steered = (al.token_logprobs(model, text, s)[0] for s in (None, 4 * vector))
    >>> tokens = model.to_str_tokens(text, prepend_bos=True)
    >>> figure = coloured_text(tokens, [float("nan"), *(steered - clean).tolist()])
    >>> [axes.get_xlabel() for axes in figure.axes]
    ['', 'change of log-prob, steered − clean (nats)']
    """
    values = np.asarray(change, dtype=float)
    if not len(tokens) or len(tokens) != len(values):
        raise FigureError(
            f"{len(tokens)} tokens and {len(values)} changes: give a change for each token, nan "
            "for one that was not judged"
        )
    largest = float(np.max(np.abs(values), where=np.isfinite(values), initial=0.0))
    if limit is not None and not limit > 0:
        raise FigureError(f"limit is {limit}: give a positive number of nats, or None")
    end = limit or largest or 1.0
    with drawing() as figure:
        laid = pieces(tokens)
        ax, bar = _axes(figure, laid, title)
        colours = ScalarMappable(CenteredNorm(0, end), DIVERGING)
        for piece in laid:
            _draw(ax, piece, np.clip(values[piece[0]], -end, end), colours)
        extend = "both" if largest > end else "neither"
        figure.colorbar(colours, cax=bar, orientation="horizontal", extend=extend)
        bar.set_xlabel("change of log-prob, steered − clean (nats)")
    return figure


def pieces(tokens: Sequence[str]) -> list[Piece]:
    """Where each token stands in the passage; one that is longer than a line is cut."""
    return list(_laid([_shown(token) for token in tokens]))


def n_lines(laid: Sequence[Piece]) -> int:
    """Lines that a passage has."""
    return 1 + max((line for _, line, _, _ in laid), default=0)


def _shown(token: str) -> str:
    return legible(token.replace("\r\n", "\n").replace("\n", BREAK), FONT) or NOTHING


def _laid(texts: Sequence[str]) -> Iterator[Piece]:
    line = column = 0
    for word in _words(texts):
        if column and column + sum(len(text) for _, text in word) > COLUMNS:
            line, column = line + 1, 0
        for index, text in word:
            left = text if column else text.lstrip(" ")
            while left:
                if column == COLUMNS:
                    line, column = line + 1, 0
                piece, left = left[: COLUMNS - column], left[COLUMNS - column :]
                yield index, line, column, piece
                column += len(piece)
            if text.endswith(BREAK):
                line, column = line + 1, 0


def _words(texts: Sequence[str]) -> Iterator[list[tuple[int, str]]]:
    """Tokens that belong together: a space or the end of a line comes before each group."""
    word: list[tuple[int, str]] = []
    for index, text in enumerate(texts):
        if word and (text.startswith(" ") or word[-1][1].endswith((" ", BREAK))):
            yield word
            word = []
        word.append((index, text))
    yield word


def _axes(figure: Figure, laid: Sequence[Piece], title: str | None) -> tuple[Axes, Axes]:
    """Axes for the passage, in which a letter is 1 wide and a line 1 high, and for the bar."""
    figure.set_layout_engine("none")  # a letter's width is known: nothing is left to solve
    columns = max([LEAST_COLUMNS, *(column + len(text) for _, _, column, text in laid)])
    wide, high = columns * LETTER_INCHES, n_lines(laid) * LINE_INCHES
    head = wrapped(title, wide, 9) if title else ""
    top = MARGIN_INCHES + (0.1 + 0.16 * (1 + head.count("\n")) if head else 0)
    width, height = wide + 2 * MARGIN_INCHES, high + top + BAR_INCHES
    figure.set_size_inches(width, height)
    left = MARGIN_INCHES / width
    ax = figure.add_axes((left, BAR_INCHES / height, wide / width, high / height))
    ax.set(xlim=(0, columns), ylim=(n_lines(laid), 0))
    ax.axis("off")
    ax.set_title(head)
    bar = figure.add_axes((0.5 - 1.3 / width, 0.43 / height, 2.6 / width, 0.09 / height))
    bar.grid(False)
    return ax, bar


def _draw(ax: Axes, piece: Piece, value: float, colours: ScalarMappable) -> None:
    _, line, column, text = piece
    colour: Any = UNJUDGED if np.isnan(value) else colours.to_rgba(np.array(value))
    box: dict[str, Any] = {"facecolor": colour, "edgecolor": "white", "linewidth": 0.6}
    ax.add_patch(Rectangle((column, line + 0.04), len(text), 0.92, **box))
    bare = text.lstrip(" ")  # matplotlib would leave out the space in front
    look: dict[str, Any] = {
        "family": FONT,
        "size": POINTS,
        "color": UNJUDGED_INK if np.isnan(value) else ink(colour),
        "parse_math": False,
    }
    ax.text(column + len(text) - len(bare), line + 0.68, bare, va="baseline", **look)
