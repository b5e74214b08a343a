"""Norms, shifts and passages: what is drawn token by token is what was measured."""

from __future__ import annotations

import math

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

import actadd_lens as al
from actadd_lens import plots
from actadd_lens.errors import FigureError

NAN = math.nan


def dots(axes: Axes, label: str) -> Line2D:
    (found,) = [line for line in axes.get_lines() if line.get_label() == label]
    return found


def norms() -> pd.DataFrame:
    """Two layers, five tokens; BOS a thousand times larger."""
    rows = [
        (layer, position, 1000.0 if position == 0 else (layer + 1.0) * position)
        for layer in (0, 1)
        for position in range(6)
    ]
    return pd.DataFrame(rows, columns=["layer", "position", "norm"])


def test_bos_is_apart_from_the_median_of_other_tokens():
    (axes,) = plots.norm_profile(norms()).axes
    np.testing.assert_allclose(dots(axes, "BOS").get_ydata(), [1000, 1000])
    np.testing.assert_allclose(dots(axes, "other tokens").get_ydata(), [3, 6])
    assert axes.get_yscale() == "log"
    assert axes.get_ylabel() == "L2 norm of the residual stream"
    heights = axes.collections[0].get_paths()[0].vertices[:, 1]
    assert (heights.min(), heights.max()) == pytest.approx((1.4, 9.2))


def test_vectors_are_drawn_by_their_rows_that_are_not_zero(model):
    vector = al.SteeringVector.from_pair(model, ("Love", "Hate"), layer=1)
    assert vector.norms()[0] == 0
    (axes,) = plots.norm_profile(norms(), vectors={1: 3 * vector, 0: 7}).axes
    drawn = dots(axes, "steering vector")
    expected = [7, 3 * float(vector.norms()[1:].median())]
    np.testing.assert_allclose(drawn.get_xdata(), [0, 1])
    np.testing.assert_allclose(drawn.get_ydata(), expected, rtol=1e-5)


def test_norms_of_a_model_are_drawn(model):
    frame = al.residual_norms(model, ["The sun", "Rain on the roof"])
    (axes,) = plots.norm_profile(frame).axes
    layers = sorted(frame["layer"].unique())
    np.testing.assert_array_equal(dots(axes, "BOS").get_xdata(), layers)
    assert len(axes.get_yticks()) > 1


@pytest.mark.parametrize("scale", [1.0, 1e-5, 1e5])
def test_one_layer_of_one_norm_is_drawn(scale):
    frame = norms().query("layer == 0 and position == 0").assign(norm=scale)
    figure = plots.norm_profile(frame, vectors={0: 0.0})
    figure.draw_without_rendering()
    assert [line.get_label() for line in figure.axes[0].get_lines()] == ["BOS"]


def test_bad_norms_are_refused(request):
    with pytest.raises(FigureError, match=r"lacks the columns \['position'\].*residual_norms"):
        plots.norm_profile(norms().drop(columns="position"))
    with pytest.raises(FigureError, match="none of the frame's 12 norms is positive"):
        plots.norm_profile(norms().assign(norm=0.0))
    if request.config.getoption("--jaxtyping-packages", None):
        return  # run-time types refuse what follows
    with pytest.raises(FigureError, match=r"vectors\[2\] is 'big': give a SteeringVector"):
        plots.norm_profile(norms(), vectors={2: "big"})


def shift() -> pd.DataFrame:
    tokens = [" $5 or $6", "\n", " love", "$", "中"]
    clean, steered = np.array([0.1, 0.4, 1e-9, 0.2, 0.3]), np.array([0.2, 0.1, 0.4, 0.2, 0.1])
    contributions = steered * np.log(steered / clean)
    columns = {"token": tokens, "p_clean": clean, "p_steered": steered}
    return pd.DataFrame({**columns, "kl_contribution": contributions})


def test_the_largest_contributions_are_shown_from_the_top():
    figure = plots.token_shift(shift(), top=3)
    left, right = figure.axes
    assert [label.get_text() for label in left.get_yticklabels()] == [
        "' love'",
        r"' \$5 or \$6'",
        r"'\$'",
    ]
    np.testing.assert_allclose(dots(left, "clean").get_xdata(), [1e-6, 0.1, 0.2])
    np.testing.assert_allclose(dots(left, "steered").get_xdata(), [0.4, 0.2, 0.2])
    widths = [patch.get_width() for patch in right.patches]
    np.testing.assert_allclose(widths, shift()["kl_contribution"].nlargest(3))
    assert left.get_ylim()[0] > left.get_ylim()[1]
    assert right.get_xlabel() == "contribution to KL (nats)"
    total = shift()["kl_contribution"].sum()
    assert f"= {total:.3g} nats" in figure.legends[0].get_title().get_text()


def test_tokens_show_their_spaces_and_what_the_font_lacks(recwarn):
    figure = plots.token_shift(shift(), top=9)
    figure.draw_without_rendering()
    names = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert {r"'\n'", r"'\u4e2d'"} <= {*names}
    assert not recwarn.list


@pytest.mark.parametrize("top", [1, 5])
def test_the_shift_of_a_model_is_drawn(model, top):
    vector = al.SteeringVector.from_pair(model, ("Love", "Hate"), layer=1)
    frame = al.next_token_shift(model, "The sun", 20 * vector)
    left, _ = plots.token_shift(frame, top=top).axes
    np.testing.assert_allclose(
        dots(left, "steered").get_xdata(), frame["p_steered"][:top].clip(1e-6)
    )


def test_nothing_shifted_is_drawn():
    still = shift().assign(p_clean=0.2, p_steered=0.2, kl_contribution=0.0)
    plots.token_shift(still).draw_without_rendering()


def test_bad_shifts_are_refused():
    with pytest.raises(FigureError, match=r"lacks the columns \['p_clean'\].*next_token_shift"):
        plots.token_shift(shift().drop(columns="p_clean"))
    with pytest.raises(FigureError, match="top is 0"):
        plots.token_shift(shift(), top=0)
    with pytest.raises(FigureError, match="not finite"):
        plots.token_shift(shift().assign(kl_contribution=math.inf))
    with pytest.raises(FigureError, match="not finite in every row, or there is none"):
        plots.token_shift(shift().iloc[:0])


def boxes(axes: Axes) -> list[Rectangle]:
    return [patch for patch in axes.patches if isinstance(patch, Rectangle)]


def luminance(colour: object) -> float:
    parts = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)]
    return float(np.dot((0.2126, 0.7152, 0.0722), parts))


WORDS = st.text(st.sampled_from("ab $\\_\n"), min_size=1, max_size=9)


@pytest.mark.slow
@settings(max_examples=25)
@given(st.lists(st.tuples(WORDS, st.floats(-9, 9) | st.just(NAN)), min_size=1, max_size=30))
def test_a_passage_is_all_there_within_its_lines_and_readable(pairs):
    tokens, change = (list(column) for column in zip(*pairs, strict=True))
    figure = plots.coloured_text(tokens, change)
    figure.draw_without_rendering()
    axes, _ = figure.axes
    written = "".join(text.get_text() for text in axes.texts)
    assert written.replace(" ", "") == "".join(tokens).replace("\n", "↵").replace(" ", "")
    assert all(not text.get_parse_math() for text in axes.texts)
    assert all(box.get_x() + box.get_width() <= axes.get_xlim()[1] <= 84 for box in boxes(axes))
    for text, box in zip(axes.texts, boxes(axes), strict=True):
        low, high = sorted(luminance(c) for c in (text.get_color(), box.get_facecolor()))
        assert (high + 0.05) / (low + 0.05) > 4.5


def test_tokens_have_the_colours_of_their_change():
    figure = plots.coloured_text(["<s>", "A", " b", " c"], [NAN, -2.0, 0.0, 4.0], title="$A$")
    axes, bar = figure.axes
    colours = mpl.colormaps["RdBu_r"]
    found = [box.get_facecolor() for box in boxes(axes)]
    assert to_rgb(found[0]) == (1, 1, 1)
    np.testing.assert_allclose(found[1:], [colours(x) for x in (0.25, 0.5, 1.0)], atol=0.01)
    assert bar.get_xlim() == (-4, 4)
    assert bar.get_xlabel() == "change of log-prob, steered − clean (nats)"


def test_a_limit_ends_the_colours():
    axes, bar = plots.coloured_text(["A", " b"], [-2.0, math.inf], limit=1).axes
    assert bar.get_xlim() == (-1, 1)
    colours = mpl.colormaps["RdBu_r"]
    found = [box.get_facecolor() for box in boxes(axes)]
    np.testing.assert_allclose(found, [colours(0.0), colours(1.0)])


def test_lines_break_between_words():
    tokens = ["Anna", *[" lo", "ved"] * 30]
    axes, _ = plots.coloured_text(tokens, [0.1] * 61).axes
    first = [text.get_text() for text in axes.texts if text.get_position()[0] == 0]
    assert first == ["Anna", "lo", "lo"]


def test_a_change_of_nothing_and_a_token_of_nothing_are_drawn():
    for token, change in (("A", 0.0), ("A", NAN), ("", 0.1), (" ", 0.1)):
        plots.coloured_text([token], [change]).draw_without_rendering()


def test_bad_passages_are_refused():
    with pytest.raises(FigureError, match="2 tokens and 1 changes"):
        plots.coloured_text(["A", "b"], [0.1])
    with pytest.raises(FigureError, match="0 tokens"):
        plots.coloured_text([], [])
    with pytest.raises(FigureError, match="limit is -1"):
        plots.coloured_text(["A"], [0.1], limit=-1)
