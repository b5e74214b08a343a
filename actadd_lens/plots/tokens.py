"""Figures of tokens: what steering does to the next one, to a passage, and where its rows go.

Passages and prompts are set letter by letter in a font of one width, so that boxes fit their
tokens; matplotlib's layout would have nothing left to decide there.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import CenteredNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from actadd_lens.errors import FigureError
from actadd_lens.plots import style
from actadd_lens.plots.frames import table

LEAST_PROBABILITY = 1e-6  # smaller ones are drawn at the edge
MOST_COLUMNS = 84  # letters in a line
LEAST_COLUMNS = 48  # the colour bar fits below them
POINTS = 8
FONT = "DejaVu Sans Mono"
LETTER_INCHES = 0.602 * POINTS / 72
MARGIN_INCHES = 0.1
NAME_LETTERS = 12  # for "prompt 0, v1"
GAP = 0.35  # between prompts, in lines
NEAREST = 2.0  # letters between two numbers in one line
GREY = "0.35"
LINE_BREAK, NOTHING = "↵", "·"  # the latter is a token that decodes to no text

Piece = tuple[int, int, int, str]  # index of the token, line, column, text


def token_shift(frame: pd.DataFrame, *, top: int = 10) -> Figure:
    """The tokens that contribute most to KL(steered || clean) after a prompt.

    On the left the probability of each in both runs, on a logarithmic axis that ends at 1e-6; on
    the right what it contributes, p_steered * log(p_steered / p_clean), in nats. Contributions of
    tokens that lose probability are negative, so the first few may sum to more than the whole.

    Args:
        frame: what `actadd_lens.next_token_shift` returns; the columns `token`, `p_clean`,
            `p_steered` and `kl_contribution` are read.
        top: how many tokens.

    Raises:
        FigureError: a column is missing, a number is not finite, or `top` is less than 1.

    >>> model = load_model("testbed")
    >>> vector = SteeringVector.from_pair(model, ("Love.", "Hate."), layer=1)
    >>> figure = token_shift(al.next_token_shift(model, "It was a", 4 * vector), top=3)
    >>> [len(axes.get_yticks()) for axes in figure.axes]
    [3, 3]
    """
    numbers = ["p_clean", "p_steered", "kl_contribution"]
    give = "what actadd_lens.next_token_shift returns"
    frame = table(frame, numbers, ["token"], give=give)
    if top < 1:
        raise FigureError(f"top is {top}: show at least one token")
    if not np.isfinite(frame[numbers]).all(axis=None) or frame.empty:
        raise FigureError(f"{numbers} are not finite in every row, or there is none: give {give}")
    shown = frame.nlargest(top, "kl_contribution")
    places = np.arange(len(shown))
    clean, steered = (shown[name].clip(LEAST_PROBABILITY, 1) for name in numbers[:2])
    look: dict[str, Any] = {"linestyle": "", "marker": "o", "markersize": 5, "clip_on": False}
    with style.drawing() as figure:
        figure.set_size_inches(5.6, len(shown) * 0.21 + 1.15)
        left, right = figure.subplots(1, 2, sharey=True, width_ratios=(3, 2))
        left.hlines(places, clean, steered, color="0.75", linewidth=1.5, zorder=1.5)
        left.plot(
            clean, places, color=style.CLEAN_COLOUR, markerfacecolor="white", label="clean", **look
        )
        left.plot(steered, places, color=style.COLOURS[0], label="steered", **look)
        style.log_ticks(left.xaxis, np.concatenate([clean, steered]))
        left.set_xlabel("probability of the next token")
        right.barh(places, shown["kl_contribution"], height=0.55, color=style.COLOURS[0])
        right.axvline(0, color="black", linewidth=0.6)
        right.set_xlabel("contribution to KL (nats)")
        right.tick_params(axis="y", length=0)
        for ax in (left, right):
            ax.grid(True, axis="x")
            ax.grid(False, axis="y")
        left.set_yticks(places, [style.plain(repr(token)) for token in shown["token"]])
        left.set_ylim(len(shown) - 0.4, -0.6)
        total, part = frame["kl_contribution"].sum(), shown["kl_contribution"].sum()
        note = f"KL(steered || clean) = {total:.3g} nats; the tokens shown: {part:.3g}"
        style.legend(figure, [left], note)
    return figure


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
        FigureError: there is no token, there are more or fewer changes than tokens, or the limit
            is 0 or less.

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
    colours = ScalarMappable(CenteredNorm(0, end), style.DIVERGING)
    laid, columns, n_lines = _laid_out(tokens)
    head = style.wrapped(title, columns * LETTER_INCHES) if title else ""
    top = MARGIN_INCHES + (0.1 + 0.16 * (1 + head.count("\n")) if head else 0)
    with style.drawing() as figure:
        ax = _page(figure, 0, columns, n_lines, 0.194, top=top, bottom=0.68)
        ax.set_title(head)
        for index, line, column, text in laid:
            value = np.clip(values[index], -end, end)
            judged = not np.isnan(value)
            face = colours.to_rgba(np.array(value)) if judged else "white"
            ink = style.ink(face) if judged else "0.45"
            _box(ax, text, (column, line), face, ink, high=0.92, baseline=0.68)
        width, height = figure.get_size_inches()
        bar = figure.add_axes((0.5 - 1.3 / width, 0.43 / height, 2.6 / width, 0.09 / height))
        bar.grid(False)
        extend = "both" if largest > end else "neither"
        figure.colorbar(colours, cax=bar, orientation="horizontal", extend=extend)
        bar.set_xlabel("change of log-prob, steered − clean (nats)")
    return figure


def placement(frame: pd.DataFrame) -> Figure:
    """Which row of a vector is added to which token: a strip for each prompt and vector.

    The number below a token is the row that is added there. Tokens where a row is added are
    coloured, or darker grey where that row is zero, as the row of BOS is in a contrast pair's
    vector.

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
    strips = [
        (f"prompt {prompt:g}" + (f", v{vector:g}" if several else ""), rows.reset_index(drop=True))
        for (prompt, vector), rows in frame.groupby(["prompt_index", "vector"], sort=False)
    ]
    laid = [_laid_out(rows["token"].tolist()) for _, rows in strips]
    columns = max(wide for _, wide, _ in laid)
    n_lines = sum(high for _, _, high in laid) + GAP * (len(laid) - 1)
    with style.drawing() as figure:
        ax = _page(figure, NAME_LETTERS, columns, n_lines, 0.34, top=0.1, bottom=0.3)
        note = "number: row of the vector that is added there (grey: a row of zeros)"
        ax.annotate(note, (0, 0), (0, -14), "axes fraction", "offset points", size=7.5, color=GREY)
        top = 0.0
        for (name, rows), (pieces, _, high) in zip(strips, laid, strict=True):
            ax.text(-NAME_LETTERS, top + 0.42, name, size=7.5, color=GREY)
            _strip(ax, rows, pieces, top)
            top += high + GAP
    return figure


def _strip(ax: Axes, rows: pd.DataFrame, pieces: Sequence[Piece], top: float) -> None:
    """The tokens of a prompt, and below them the rows of the vector."""
    colour = style.COLOURS[int(rows["vector"].iloc[0]) % len(style.COLOURS)]
    numbered: dict[int, tuple[float, float]] = {}  # where the number of each token is
    for index, line, column, text in pieces:
        row, norm = rows["row"][index], rows["norm"][index]
        steered, y = not pd.isna(row), top + line
        face = "0.93" if not steered else colour if norm > 0 else "0.78"
        _box(ax, text, (column, y), face, style.ink(face), high=0.56, baseline=0.42)
        if steered and index not in numbered:
            place = column + len(text) / 2, y + 0.86
            before = numbered.get(index - 1)
            if before and before[1] == place[1] and place[0] - before[0] < NEAREST:
                place = place[0], place[1] + 0.2  # two numbers side by side would read as one
            numbered[index] = place
            ax.text(*place, str(int(row)), ha="center", size=7)


def _box(
    ax: Axes, text: str, at: tuple[int, float], face: Any, ink: str, *, high: float, baseline: float
) -> None:
    """A token in its box."""
    column, line = at
    ax.add_patch(Rectangle((column, line + 0.03), len(text), high, fc=face, ec="white", lw=0.7))
    bare = text.lstrip(" ")  # matplotlib would leave out the space in front
    place = column + len(text) - len(bare), line + baseline
    ax.text(*place, bare, family=FONT, size=POINTS, color=ink, parse_math=False)


def _page(
    figure: Figure,
    left: int,
    columns: int,
    n_lines: float,
    inches: float,
    top: float,
    bottom: float,
) -> Axes:
    """Axes in which a letter is 1 wide and a line, of so many inches, 1 high."""
    figure.set_layout_engine("none")
    wide, high = (left + columns) * LETTER_INCHES, n_lines * inches
    width, height = wide + 2 * MARGIN_INCHES, high + top + bottom
    figure.set_size_inches(width, height)
    place = MARGIN_INCHES / width, bottom / height, wide / width, high / height
    ax = figure.add_axes(place, xlim=(-left, columns), ylim=(n_lines, 0))
    ax.axis("off")
    return ax


def _laid_out(tokens: Sequence[str]) -> tuple[list[Piece], int, int]:
    """Line and column of each token, and how many there are; a token longer than a line is cut."""
    texts = [
        style.legible(token.replace("\r\n", "\n").replace("\n", LINE_BREAK), FONT) or NOTHING
        for token in tokens
    ]
    begins = [  # a word: a space or the end of a line comes before it
        not before or text.startswith(" ") or before.endswith((" ", LINE_BREAK))
        for before, text in pairwise(["", *texts])
    ]
    words = np.cumsum(begins)
    lengths = np.bincount(words, [len(text) for text in texts])
    laid: list[Piece] = []
    line = column = 0
    for index, left in enumerate(texts):
        if begins[index] and column and column + lengths[words[index]] > MOST_COLUMNS:
            line, column = line + 1, 0
        if not column:
            left = left.lstrip(" ")
        while left:
            if column == MOST_COLUMNS:
                line, column = line + 1, 0
            piece, left = left[: MOST_COLUMNS - column], left[MOST_COLUMNS - column :]
            laid.append((index, line, column, piece))
            column += len(piece)
        if texts[index].endswith(LINE_BREAK):
            line, column = line + 1, 0
    columns = max([LEAST_COLUMNS, *(column + len(text) for _, _, column, text in laid)])
    return laid, columns, 1 + max((line for _, line, _, _ in laid), default=0)
