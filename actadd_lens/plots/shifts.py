"""How steering moves the distribution of the next token, token by token."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from actadd_lens.errors import FigureError
from actadd_lens.plots.cells import table
from actadd_lens.plots.marks import legend, log_ticks
from actadd_lens.plots.style import CLEAN_COLOUR, COLOURS, drawing, plain

ROW_INCHES = 0.21
LEAST = 1e-6  # smaller probabilities are drawn at the edge


def token_shift(frame: pd.DataFrame, *, top: int = 10) -> Figure:
    """The tokens that contribute most to KL(steered || clean) after a prompt.

    On the left the probability of each in both runs, on a logarithmic axis that ends at 1e-6; on
    the right what it contributes, p_steered * log(p_steered / p_clean), in nats. Contributions of
    tokens that lose probability are negative, so the first few may sum to more than the whole.

    Args:
        frame: what `actadd_lens.next_token_shift` returns, of which `token`, `p_clean`,
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
    total, part = frame["kl_contribution"].sum(), shown["kl_contribution"].sum()
    with drawing() as figure:
        figure.set_size_inches(5.6, len(shown) * ROW_INCHES + 1.15)
        left, right = figure.subplots(1, 2, sharey=True, width_ratios=(3, 2))
        _probabilities(left, shown)
        _contributions(right, shown)
        left.set_yticks(range(len(shown)), [plain(repr(token)) for token in shown["token"]])
        left.set_ylim(len(shown) - 0.4, -0.6)
        note = f"KL(steered || clean) = {total:.3g} nats; the tokens shown: {part:.3g}"
        legend(figure, [left], note)
    return figure


def _probabilities(ax: Axes, shown: pd.DataFrame) -> None:
    places = np.arange(len(shown))
    clean, steered = (shown[name].clip(LEAST, 1) for name in ("p_clean", "p_steered"))
    ax.hlines(places, clean, steered, color="0.75", linewidth=1.5, zorder=1.5)
    look: dict[str, Any] = {"linestyle": "", "marker": "o", "markersize": 5, "clip_on": False}
    ax.plot(clean, places, color=CLEAN_COLOUR, markerfacecolor="white", label="clean", **look)
    ax.plot(steered, places, color=COLOURS[0], label="steered", **look)
    log_ticks(ax.xaxis, np.concatenate([clean, steered]))
    ax.set_xlabel("probability of the next token")
    ax.grid(True, axis="x")
    ax.grid(False, axis="y")


def _contributions(ax: Axes, shown: pd.DataFrame) -> None:
    values = shown["kl_contribution"]
    ax.barh(range(len(shown)), values, height=0.55, color=COLOURS[0])
    ax.axvline(0, color="black", linewidth=0.6)
    ax.set_xlabel("contribution to KL (nats)")
    ax.tick_params(axis="y", length=0)
    ax.grid(True, axis="x")
    ax.grid(False, axis="y")
