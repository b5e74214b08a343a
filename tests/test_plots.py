"""Figures show the numbers they are given, in panels, with controls, and leave matplotlib alone."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import matplotlib.colors
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from actadd_lens import plots
from actadd_lens.errors import FigureError, OutputError

SHARES = st.lists(st.floats(0.05, 0.95), min_size=1, max_size=6)


def cells(
    means: list[float], *, run: str = "steered", pair: str = "a", layer: int = 2
) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "vector": pair,
            "run": run,
            "layer": layer,
            "coefficient": [float(c) for c in range(len(means))],
            "mean": means,
            "low": [m - 0.05 for m in means],
            "high": [m + 0.05 for m in means],
        }
    )


def clean(mean: float, *, pair: str = "a") -> pd.DataFrame:
    empty = {"layer": np.nan, "coefficient": np.nan}
    return cells([mean], run="clean", pair=pair).assign(**empty)


def line(axes: Axes, label: str) -> Line2D:
    (found,) = [line for line in axes.get_lines() if line.get_label() == label]
    return found


@pytest.mark.slow
@given(SHARES, st.randoms())
def test_the_line_is_the_means_whatever_the_order_of_the_rows(means, random):
    frame = cells(means)
    order = list(frame.index)
    random.shuffle(order)
    (axes,) = plots.coefficient_curve(frame.loc[order], unit="%").axes
    np.testing.assert_allclose(line(axes, "steered").get_ydata(), 100 * np.array(means))
    np.testing.assert_array_equal(line(axes, "steered").get_xdata(), range(len(means)))


@given(SHARES)
def test_the_band_is_the_interval(means):
    (axes,) = plots.coefficient_curve(cells(means)).axes
    (band,) = axes.collections
    heights = band.get_paths()[0].vertices[:, 1]
    assert heights.min() == pytest.approx(min(means) - 0.05)
    assert heights.max() == pytest.approx(max(means) + 0.05)


def test_the_clean_run_is_a_level_line_and_controls_are_grey():
    frame = pd.concat([cells([0.1, 0.7]), cells([0.1, 0.1], run="random"), clean(0.1)])
    (axes,) = plots.coefficient_curve(frame).axes
    assert list(line(axes, "clean").get_ydata()) == [0.1, 0.1]
    red, green, blue = matplotlib.colors.to_rgb(line(axes, "random").get_color())
    assert red == green == blue
    assert line(axes, "random").get_linewidth() < line(axes, "steered").get_linewidth()


def test_several_layers_are_several_lines_told_apart_by_colour_and_marker():
    frame = pd.concat([cells([0.1, 0.7], layer=1), cells([0.1, 0.5], layer=2)])
    (axes,) = plots.coefficient_curve(frame).axes
    one, two = line(axes, "steered, layer 1"), line(axes, "steered, layer 2")
    assert one.get_color() != two.get_color()
    assert one.get_marker() != two.get_marker()


def test_draws_of_one_control_look_alike_and_share_a_legend_entry():
    draws = [cells([0.1, 0.2], run=name) for name in ("random", "random:1", "random:2")]
    frame = pd.concat([cells([0.1, 0.7]), *draws, cells([0.3, 0.1], run="negated")])
    figure = plots.coefficient_curve(frame)
    lines = [line for line in figure.axes[0].get_lines() if line.get_label() == "random"]
    assert len(lines) == 3
    assert len({str(line._unscaled_dash_pattern) for line in lines}) == 1
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        "steered",
        "negated",
        "random",
    ]


def test_a_control_without_a_layer_is_a_level_line():
    words = cells([0.4], run="prompted").assign(layer=np.nan, coefficient=np.nan)
    (axes,) = plots.coefficient_curve(pd.concat([cells([0.1, 0.7]), words])).axes
    assert list(line(axes, "prompted").get_ydata()) == [0.4, 0.4]


@pytest.mark.parametrize("empty", [None, np.nan, pd.NA, ""])
def test_a_clean_run_without_a_pair_is_in_every_panel(empty):
    frame = pd.concat([cells([0.1, 0.7]), cells([0.2, 0.3], pair="b")])
    frame = pd.concat([frame.assign(position="front"), clean(0.05).assign(vector=empty)])
    for axes in plots.coefficient_curve(frame).axes:
        assert list(line(axes, "clean").get_ydata()) == [0.05, 0.05]


def test_every_position_has_its_panel():
    frame = pd.concat([cells([0.1, 0.7]).assign(position=where) for where in ("front", -1)])
    titles = [axes.get_title(loc="left") for axes in plots.coefficient_curve(frame).axes]
    assert titles == [
        "position\N{NO-BREAK SPACE}front, layer 2",
        "position\N{NO-BREAK SPACE}-1, layer 2",
    ]


def test_a_row_of_another_pair_is_in_no_panel():
    frame = pd.concat([cells([0.1, 0.7]), clean(0.05), clean(0.6, pair="b")])
    (axes,) = plots.coefficient_curve(frame).axes
    assert list(line(axes, "clean").get_ydata()) == [0.05, 0.05]


@pytest.mark.parametrize("n", [1, 2])
def test_missing_intervals_are_left_out(n: int):
    frame = pd.concat([cells([0.1, 0.7][:n]), cells([0.1], run="random"), clean(0.1)])
    figure = plots.coefficient_curve(frame.assign(low=np.nan, high=None), unit="%")
    figure.draw_without_rendering()
    (axes,) = figure.axes
    assert not axes.collections
    assert not axes.patches
    assert len(line(axes, "steered").get_ydata()) == n


def test_a_dollar_is_a_dollar():
    frame = pd.concat([cells([0.1], pair=pair) for pair in ("$a$", "b")])
    figure = plots.coefficient_curve(frame)
    figure.draw_without_rendering()
    assert figure.axes[0].get_title(loc="left") == r"\$a\$, layer 2"


def test_effects_beyond_0_and_1_get_their_own_scale():
    (axes,) = plots.coefficient_curve(cells([-0.5, 0.5]), unit="%").axes
    assert axes.get_ylim()[0] < -50
    (axes,) = plots.coefficient_curve(cells([0.2, 0.5]), unit="%").axes
    assert axes.get_ylim() == (-3, 103)


def test_every_pair_has_its_panel_and_names_its_cut():
    frame = pd.concat([cells([0.1, 0.7]), cells([0.1, 0.2], pair="b", layer=4)])
    figure = plots.coefficient_curve(frame, ylabel="KL", unit="nats")
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["a, layer 2", "b, layer 4"]
    assert figure.axes[0].get_ylabel() == "KL (nats)"


def test_a_layer_profile_has_whole_layers_on_its_axis():
    frame = pd.concat([cells([0.4], layer=layer) for layer in range(6)])
    (axes,) = plots.layer_profile(frame, note="95% intervals").axes
    assert list(line(axes, "steered").get_xdata()) == list(range(6))
    assert all(float(tick).is_integer() for tick in axes.get_xticks())


def test_nothing_global_is_touched():
    before = dict(mpl.rcParams)
    plots.layer_profile(cells([0.1]))
    assert dict(mpl.rcParams) == before


def test_a_figure_looks_the_same_whatever_the_callers_settings():
    with mpl.rc_context({"font.size": 30, "xtick.labelsize": 30, "axes.grid": False}):
        figure = plots.layer_profile(cells([0.1, 0.2]).iloc[:1])
        figure.draw_without_rendering()
        (axes,) = figure.axes
        assert {label.get_size() for label in axes.get_xticklabels()} == {8.0}
        assert axes.xaxis.label.get_size() == 8.5


def test_the_style_file_is_there_for_the_callers_own_figures():
    settings = mpl.rc_params_from_file(plots.STYLE, use_default_template=False)
    assert settings["svg.fonttype"] == "none"
    with mpl.style.context(plots.STYLE):
        assert mpl.rcParams["axes.grid.axis"] == "y"


@pytest.mark.parametrize("suffix", ["png", "svg", "pdf"])
def test_figures_are_written_in_raster_and_vector_formats(tmp_path: Path, suffix: str):
    path = plots.save(plots.coefficient_curve(cells([0.1, 0.7])), tmp_path / f"curve.{suffix}")
    assert path.stat().st_size > 1000
    assert list(tmp_path.iterdir()) == [path]


def test_text_stays_text_in_vector_output(tmp_path: Path):
    path = plots.save(plots.coefficient_curve(cells([0.1, 0.7])), tmp_path / "curve.svg")
    assert "injection coefficient" in path.read_text()


@pytest.mark.parametrize("name", ["curve.unknown", "missing/curve.png"])
def test_a_figure_that_cannot_be_written_leaves_nothing_behind(tmp_path: Path, name: str):
    with pytest.raises(OutputError, match="cannot write"):
        plots.save(plots.coefficient_curve(cells([0.1])), tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_a_frame_without_its_columns_is_refused():
    with pytest.raises(FigureError, match=r"lacks the columns \['low'\]"):
        plots.layer_profile(cells([0.1]).drop(columns="low"))


def test_a_frame_without_steered_cells_is_refused():
    with pytest.raises(FigureError, match="none of the frame's 1 rows is a steered configuration"):
        plots.layer_profile(clean(0.1))


def test_nullable_columns_are_read_like_plain_ones():
    frame = pd.concat([cells([0.1, 0.7]), clean(0.1)])
    nullable = frame.astype({"layer": "Int64", "coefficient": "Float64"})
    (plain,), (same,) = (plots.coefficient_curve(f).axes for f in (frame, nullable))
    for label in ("steered", "clean"):
        np.testing.assert_array_equal(
            line(plain, label).get_xydata(), line(same, label).get_xydata()
        )


def test_several_metrics_are_refused():
    frame = pd.concat([cells([0.1]).assign(metric=name) for name in ("kl", "success")])
    with pytest.raises(FigureError, match=r"metrics \['kl', 'success'\]: choose one"):
        plots.layer_profile(frame)


def test_two_cells_of_one_place_are_refused():
    with pytest.raises(FigureError, match=r"several steered rows have .*'layer': 2"):
        plots.layer_profile(pd.concat([cells([0.1]), cells([0.2])]))


def test_a_steered_cell_without_a_layer_is_refused():
    with pytest.raises(FigureError, match="'layer' is empty in a steered row"):
        plots.layer_profile(cells([0.1]).assign(layer=None))


def test_a_column_of_words_is_refused():
    with pytest.raises(FigureError, match="'mean' does not hold numbers"):
        plots.layer_profile(cells([0.1]).assign(mean="much"))


def test_a_notebook_shows_a_figure_by_itself():
    figure = plots.coefficient_curve(cells([0.1, 0.7]))
    png, size = figure._repr_png_()
    assert png.startswith(b"\x89PNG")
    assert size["width"] == round(100 * figure.get_figwidth())
