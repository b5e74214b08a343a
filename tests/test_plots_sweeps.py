"""Maps, bars and fronts show the cells they are given, and the chosen ones where they are."""

from __future__ import annotations

from itertools import product

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.text import Text

from actadd_lens import plots
from actadd_lens.errors import FigureError

pytestmark = pytest.mark.slow  # many figures

COEFFICIENTS = (1.0, 4.0, 16.0)
CLEAN = {"run": "clean", "mean": 0.05, "low": 0.01, "high": 0.1}


def sweep(
    means: np.ndarray | None = None, *, layers: int = 4, pair: str = "a", position: str = "front"
) -> pd.DataFrame:
    """A grid with a value of its own in every cell, and the clean run as sweeps have it."""
    if means is None:
        means = np.linspace(0.1, 0.9, layers * 3).reshape(3, layers)
    rows = [
        {"layer": layer, "coefficient": c, "mean": means[row, layer], "run": "steered"}
        for (row, c), layer in product(enumerate(COEFFICIENTS), range(means.shape[1]))
    ]
    frame = pd.DataFrame(rows).assign(vector=pair, position=position)
    frame = frame.assign(low=frame["mean"] - 0.05, high=frame["mean"] + 0.05)
    frame = pd.concat([frame, pd.DataFrame([CLEAN])], ignore_index=True)
    return frame.astype({"layer": "Int64", "coefficient": "Float64"})


def shown(axes: Axes) -> np.ndarray:
    """The values of a map's cells, nan where there is none."""
    (mesh,) = axes.collections
    return np.ma.filled(mesh.get_array(), np.nan)


def frames(axes: Axes) -> list[tuple[float, float]]:
    """Middles of the framed cells, in cells."""
    patches = [patch for patch in axes.patches if isinstance(patch, Rectangle)]
    return [(p.get_x() + 0.5, p.get_y() + 0.5) for p in patches if not p.get_fill()]


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


def dots(axes: Axes, label: str) -> Line2D:
    (found,) = [line for line in axes.get_lines() if line.get_label() == label]
    return found


@pytest.mark.slow
@settings(max_examples=20)
@given(st.lists(st.floats(-2, 2), min_size=12, max_size=12), st.randoms())
def test_a_map_shows_the_means_whatever_the_order_of_the_rows(values, random):
    means = np.array(values).reshape(3, 4)
    frame = sweep(means)
    order = list(frame.index)
    random.shuffle(order)
    axes, bar = plots.heat_map(frame.loc[order], label="KL", unit="nats").axes
    np.testing.assert_allclose(shown(axes), means)
    assert axes.get_xlabel() == "injection layer"
    assert axes.get_ylabel() == "coefficient (× vector)"
    assert bar.get_ylabel() == "KL (nats)"


def test_percentages_and_their_annotations():
    axes, _ = plots.heat_map(sweep(np.full((3, 4), 0.731)), unit="%").axes
    np.testing.assert_allclose(shown(axes), 73.1)
    assert {text.get_text() for text in axes.texts} == {"73"}


def test_signed_values_are_centred_at_zero_and_others_are_not():
    signed, _ = plots.heat_map(sweep(np.linspace(-1, 3, 12).reshape(3, 4))).axes
    (mesh,) = signed.collections
    assert (mesh.norm.vmin, mesh.norm.vmax) == (-3, 3)
    (mesh,) = plots.heat_map(sweep()).axes[0].collections
    assert (mesh.norm.vmin, mesh.norm.vmax) == pytest.approx((0.05, 0.9))  # the clean run's, too


def test_values_are_written_where_they_fit():
    few, _ = plots.heat_map(sweep(layers=12)).axes
    many, _ = plots.heat_map(sweep(layers=48)).axes
    assert len(few.texts) == 36
    assert not many.texts
    assert len(many.get_xticks()) < 48


def test_no_zero_is_negative():
    axes, _ = plots.heat_map(sweep(np.full((3, 4), -0.001)), unit="%").axes
    assert "-" not in "".join(text.get_text() for text in axes.texts)
    axes, _ = plots.heat_map(sweep(np.array([[-1e-9, 0.5, -0.5, 0.1]] * 3))).axes
    assert [text.get_text() for text in axes.texts][:3] == ["0.00", "0.50", "\N{MINUS SIGN}0.50"]


def test_the_chosen_cell_is_framed_where_it_is():
    figure = plots.heat_map(sweep(), chosen=(2, 4.0))
    assert frames(figure.axes[0]) == [(2, 1)]
    assert "chosen" in texts(figure)
    assert frames(plots.heat_map(sweep()).axes[0]) == []


@pytest.mark.parametrize(
    ("chosen", "framed"),
    [
        ({"a": (0, 1.0)}, [[(0, 0)], [(0, 0)], [], []]),
        ({"a": (0, 1.0), "b": (3, 16)}, [[(0, 0)], [(0, 0)], [(3, 2)], [(3, 2)]]),
        ({"back": (1, 4)}, [[], [(1, 1)], [], [(1, 1)]]),
        ({("b", "back"): (1, 4)}, [[], [], [], [(1, 1)]]),
        ((1, 4), [[(1, 1)]] * 4),
    ],
)
def test_panels_have_chosen_cells_of_their_own(chosen, framed):
    parts = [sweep(pair=pair, position=where) for pair in "ab" for where in ("front", "back")]
    figure = plots.heat_map(pd.concat(parts), chosen=chosen)
    assert [frames(axes) for axes in figure.axes[:4]] == framed
    assert len({axes.collections[0].norm.vmax for axes in figure.axes[:4]}) == 1


def test_a_chosen_cell_that_is_not_there_is_refused():
    with pytest.raises(
        FigureError, match=r"layer and coefficient \(9, 4.0\) are not a steered row"
    ):
        plots.heat_map(sweep(), chosen=(9, 4.0))
    with pytest.raises(FigureError, match=r"chosen names \['b'\], the panels are \[\('a', 'front'"):
        plots.heat_map(sweep(), chosen={"b": (2, 4.0)})


def test_the_clean_value_is_in_the_title_and_on_the_colour_bar():
    figure = plots.heat_map(sweep(), unit="%")
    axes, bar = figure.axes
    assert axes.get_title(loc="left") == "clean\N{NO-BREAK SPACE}5%"
    assert [5.0, 5.0] in [list(line.get_ydata()) for line in bar.get_lines()]
    assert texts(figure) == ["clean, on the colour bar"]


def test_a_cell_that_was_not_run_is_left_empty():
    frame = sweep().drop(index=5)
    frame.loc[0, "mean"] = np.nan
    axes, _ = plots.heat_map(frame).axes
    assert np.isnan(shown(axes)).sum() == 2
    assert len(axes.texts) == 10


@pytest.mark.parametrize("mean", [0.5, 0.0, np.nan])
def test_a_single_cell_is_drawn(mean):
    frame = sweep().iloc[[0]].assign(mean=mean, low=np.nan, high=np.nan)
    figure = plots.heat_map(frame, chosen=(0, 1))
    figure.draw_without_rendering()
    assert frames(figure.axes[0]) == [(0, 0)]


def test_infinite_values_are_drawn_as_missing():
    frame = sweep()
    frame.loc[[0, len(frame) - 1], "mean"] = np.inf
    figure = plots.heat_map(frame)
    figure.draw_without_rendering()
    assert np.isnan(shown(figure.axes[0])).sum() == 1
    assert not figure.legends
    for draw in (plots.layer_profile, plots.coefficient_curve):
        draw(frame).draw_without_rendering()
    cells = trade([(0.1, 0.2), (np.inf, 0.6)], [True, True])
    plots.pareto(cells).draw_without_rendering()


def test_the_rows_of_a_map_can_be_another_column():
    frame = sweep().rename(columns={"coefficient": "recorded"})
    axes, _ = plots.heat_map(frame, y="recorded").axes
    assert axes.get_ylabel() == "recording layer"
    with pytest.raises(FigureError, match=r"lacks the columns \['coefficient'\]"):
        plots.heat_map(frame)


def rows(group: str | None, control: str, means: list[float]) -> pd.DataFrame:
    names = [f"{i}: token" for i in range(len(means))]
    frame = pd.DataFrame({"row": names, "use": group, "run": control, "mean": means})
    return frame.assign(low=frame["mean"] - 0.05, high=frame["mean"] + 0.05)


def ablation() -> pd.DataFrame:
    parts = [rows("left out", "steered", [0.8, 0.1]), rows("alone", "steered", [0.1, 0.7])]
    controls = [rows(use, "random", [0.2, 0.3]) for use in ("left out", "alone")]
    return pd.concat([*parts, *controls, pd.DataFrame([CLEAN])], ignore_index=True)


def test_bars_are_in_order_of_appearance_and_coloured_by_group():
    figure = plots.bars(ablation(), x="row", group="use", ylabel="success", unit="%", note="95%")
    (axes,) = figure.axes
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0: token", "1: token"]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("row", "success (%)")
    left_out, alone = dots(axes, "left out"), dots(axes, "alone")
    np.testing.assert_allclose(left_out.get_ydata(), [80, 10])
    np.testing.assert_allclose(alone.get_ydata(), [10, 70])
    np.testing.assert_array_equal(np.round(alone.get_xdata().astype(float)), [0, 1])
    assert (left_out.get_xdata() < alone.get_xdata()).all()
    assert left_out.get_color() != alone.get_color()
    assert texts(figure) == ["left out", "alone", "random", "clean"]
    assert list(dots(axes, "clean").get_ydata()) == [5, 5]


def test_controls_are_grey_and_stand_beside_their_group():
    (axes,) = plots.bars(ablation(), x="row", group="use").axes
    of_left_out, of_alone = (line for line in axes.get_lines() if line.get_label() == "random")
    red, green, blue = to_rgb(of_alone.get_color())
    assert red == green == blue
    gaps = of_left_out.get_xdata() - dots(axes, "left out").get_xdata()
    assert ((gaps > 0) & (gaps < dots(axes, "alone").get_xdata() - [0, 1] + 0.5)).all()


def test_dots_are_centred_on_their_category():
    frame = pd.concat([ablation(), rows("alone", "steered", [0.3]).assign(row="2: token")])
    (axes,) = plots.bars(frame, x="row", group="use").axes
    places = pd.Series(np.concatenate([d.get_xdata() for d in axes.get_lines()[:-1]]).astype(float))
    np.testing.assert_allclose(places.groupby(places.round()).mean(), [0, 1, 2])


def test_the_intervals_are_drawn():
    (axes,) = plots.bars(rows(None, "steered", [0.5, 0.6]), x="row").axes
    (lines,) = axes.collections
    ends = [[y for _, y in segment] for segment in lines.get_segments()]
    np.testing.assert_allclose(ends, [[0.45, 0.55], [0.55, 0.65]])


def test_a_group_that_is_called_like_a_control_is_told_apart():
    frame = pd.concat([rows("random", "steered", [0.5]), rows("random", "random:1", [0.1])])
    figure = plots.bars(frame, x="row", group="use")
    assert texts(figure) == ["random", "random (control)"]


def test_a_position_that_goes_with_the_category_makes_no_panels():
    frame = rows(None, "steered", [0.5, 0.6]).assign(position=["front", 3], vector="a")
    assert len(plots.bars(frame, x="row").axes) == 1
    assert len(plots.bars(frame, x="position").axes) == 1
    twice = pd.concat([frame, frame.assign(vector="b")])
    assert [axes.get_title(loc="left") for axes in plots.bars(twice, x="row").axes] == ["a", "b"]


def test_bars_without_intervals_are_drawn():
    frame = ablation().assign(low=np.nan, high=np.nan)
    figure = plots.bars(frame, x="row", group="use")
    figure.draw_without_rendering()
    assert not figure.axes[0].collections


def test_long_and_many_categories_are_slanted_and_thinned():
    names = [f"number {i} of many" for i in range(90)]
    frame = rows(None, "steered", [0.5] * 90).assign(row=names)
    (axes,) = plots.bars(frame, x="row").axes
    assert axes.get_xticklabels()[0].get_rotation() > 0
    assert len(axes.get_xticks()) < 90


def test_bad_ablations_are_refused():
    with pytest.raises(FigureError, match=r"lacks the columns \['part', 'kind'\]"):
        plots.bars(ablation(), x="part", group="kind")
    with pytest.raises(FigureError, match=r"\['row'\] are empty in a row other than the clean"):
        plots.bars(
            pd.concat([ablation(), rows("alone", "random", [0.1]).assign(row=None)]),
            x="row",
            group="use",
        )
    with pytest.raises(FigureError, match="several steered rows have"):
        plots.bars(ablation(), x="row")


def trade(points: list[tuple[float, float]], on_front: list[bool]) -> pd.DataFrame:
    frame = pd.DataFrame(points, columns=["cost", "success"]).assign(run="steered", layer=3)
    frame["coefficient"] = np.arange(len(frame)) + 1.0
    frame["on_front"] = on_front
    for name in ("success", "cost"):
        frame[f"{name}_low"], frame[f"{name}_high"] = frame[name] - 0.01, frame[name] + 0.01
    return frame


def front_of(points: list[tuple[float, float]]) -> list[bool]:
    return [
        not any(
            other[0] <= cost and other[1] >= success and other != (cost, success)
            for other in points
        )
        for cost, success in points
    ]


POINTS = st.tuples(st.integers(0, 40), st.integers(0, 40)).map(lambda p: (p[0] / 40, p[1] / 40))


@pytest.mark.slow
@settings(max_examples=25)
@given(st.lists(POINTS, min_size=1, max_size=12))
def test_the_step_line_is_the_best_that_a_cost_buys(points):
    frame = trade(points, front_of(points))
    (axes,) = plots.pareto(frame, success="S", cost="C", cost_unit="nats").axes
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("C (nats)", "S")
    step = next(line for line in axes.get_lines() if line.get_linestyle() == "-")
    x, y = step.get_data()
    assert (np.diff(x) >= 0).all()
    assert (np.diff(y) >= 0).all()
    assert ((np.diff(x) == 0) | (np.diff(y) == 0)).all()
    corners = {*zip(x, y, strict=True)}
    assert {point for point, on in zip(points, frame["on_front"], strict=True) if on} <= corners
    assert all(any(a <= c and s <= b for a, b in corners) for c, s in points)


def test_every_steered_cell_and_the_clean_run_are_drawn():
    frame = trade([(0.1, 0.2), (0.3, 0.6), (0.9, 0.5)], [True, True, False])
    clean = {"run": "clean", "success": 0.05, "cost": 0.0}
    control = {"run": "random:1", "success": 0.1, "cost": 0.2}
    frame = pd.concat([frame, pd.DataFrame([clean, control])], ignore_index=True)
    figure = plots.pareto(frame, success_unit="%")
    (axes,) = figure.axes
    np.testing.assert_allclose(dots(axes, "steered, on the Pareto front").get_ydata(), [20, 60])
    np.testing.assert_allclose(dots(axes, "steered").get_xydata(), [[0.9, 50]])
    np.testing.assert_allclose(dots(axes, "clean").get_xydata(), [[0, 5]])
    np.testing.assert_allclose(dots(axes, "random").get_xydata(), [[0.2, 10]])
    assert [t.get_text() for t in axes.texts] == ["layer 3, c = 1", "layer 3, c = 2"]
    assert len(texts(figure)) == 4


@pytest.mark.slow
def test_labels_of_a_front_do_not_cover_one_another():
    points = [*((0.01 * i, 0.005 * i) for i in range(7)), (1.0, 1.0)]
    figure = plots.pareto(trade(points, [True] * 8))
    figure.draw_without_rendering()
    boxes = [Text.get_window_extent(text) for text in figure.axes[0].texts]
    assert len(boxes) == 8
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


def test_a_long_front_is_labelled_by_numbers():
    points = [(i / 20, i / 20) for i in range(12)]
    figure = plots.pareto(trade(points, [True] * 12))
    assert figure.axes[0].texts[0].get_text() == "3, 1"
    assert texts(figure)[0] == "steered, on the Pareto front (layer, c)"


def test_positions_are_named_where_there_are_several_and_pairs_have_panels():
    frame = trade([(0.1, 0.2), (0.3, 0.6)], [True, True]).assign(position=["front", -1])
    (axes,) = plots.pareto(frame).axes
    assert axes.texts[1].get_text() == "layer 3, c = 2, -1"
    both = pd.concat([frame.assign(vector=pair) for pair in ("$a$", "b")])
    titles = [axes.get_title(loc="left") for axes in plots.pareto(both).axes]
    assert titles == [r"\$a\$", "b"]


def test_a_front_without_intervals_or_of_one_cell_is_drawn():
    bare = trade([(0.1, 0.2)], [True])
    ends = [f"{name}_{end}" for name in ("success", "cost") for end in ("low", "high")]
    for on_front in (True, False, None):
        figure = plots.pareto(bare.assign(on_front=on_front, **dict.fromkeys(ends)))
        figure.draw_without_rendering()
        assert not figure.axes[0].collections


def test_a_front_that_is_none_is_refused():
    with pytest.raises(FigureError, match=r"on_front marks .*'coefficient': 2\.0.*cost more"):
        plots.pareto(trade([(0.1, 0.9), (0.3, 0.6)], [True, True]))
    with pytest.raises(FigureError, match=r"lacks the columns \['on_front', 'cost_low'\]"):
        plots.pareto(trade([(0.1, 0.9)], [True]).drop(columns=["on_front", "cost_low"]))
