"""Reading a sweep: means with intervals, the best cell, the front, and the file."""

import math
import pickle
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure

import actadd_lens as al
from actadd_lens import statistics
from actadd_lens.sweeps import Result
from actadd_lens.sweeps.results import interval_of

KEYS = ["vector", "layer", "coefficient", "position", "run"]
TEXTS = ["I hate you because", "She talks", "The wedding was on a sunny day in May"]


def result_of(values, **more):
    """A result of one pair, from {(layer, coefficient, control): {metric: a value a prompt}}."""
    lines = [
        {
            "vector": "p" if layer is not None else None, "layer": layer, "coefficient": c,
            "position": "front" if layer is not None else None, "run": control,
            "prompt": f"prompt {i}", "sample": None, "metric": metric, "value": value,
            "prompt_index": i, "dose": 0.5, "kl": 0.1, "text": None,
        }
        for (layer, c, control), figures in values.items()
        for metric, each in figures.items()
        for i, value in enumerate(each)
    ]  # fmt: skip
    frame = pd.DataFrame(lines).astype(
        {"layer": "Int64", "coefficient": "Float64", "sample": "Int64", "value": float}
    )
    names = list(dict.fromkeys(frame["metric"]))  # "good" says that it is a share
    return al.SweepResult(
        frame, {"metrics": [[name, "", name == "good"] for name in names]}, **more
    )


CLEAN = {(None, None, "clean"): {"good": [0.0, 0.2], "bad": [0.0, 0.0]}}


def grid(figures):
    """Steered cells (layer, coefficient) -> (good, bad), the same for two prompts."""
    cells = {
        (layer, c, "steered"): {"good": [good, good], "bad": [bad, bad]}
        for (layer, c), (good, bad) in figures.items()
    }
    return result_of({**CLEAN, **cells, (1, 1.0, "random"): {"good": [9, 9], "bad": [0, 0]}})


def test_a_summary_has_a_line_for_each_cell_and_metric_with_the_bootstrap_over_prompts(neo):
    result = al.sweep(
        neo, ("Love", "Hate"), TEXTS, layers=[0, 1], metrics=["kl", "entropy"], progress=False
    )
    summary = result.summary(confidence=0.9)
    assert [*summary.columns] == [
        *KEYS,
        "metric",
        "mean",
        "low",
        "high",
        "n",
        "missing",
        "dose",
        "kl",
    ]
    assert len(summary) == (1 + 2 * 3) * 2
    for _, line in summary.iterrows():
        own = result.frame[result.frame["metric"] == line["metric"]]
        for key in KEYS:
            own = own[own[key].isna() if pd.isna(line[key]) else own[key] == line[key]]
        expected = statistics.cluster_mean(own["value"], own["prompt_index"], 0.9)
        assert line[["mean", "low", "high"]].tolist() == pytest.approx(
            [expected.mean, expected.low, expected.high]
        )
        assert (line["n"], line["missing"]) == (3, 0)
        assert line["dose"] == pytest.approx(own["dose"].mean())
        assert line["kl"] == pytest.approx(own["kl"].mean())
    assert summary.dtypes[KEYS].equals(result.frame.dtypes[KEYS])


@pytest.mark.parametrize(
    ("values", "mean", "n", "missing"),
    [
        ([math.nan, math.nan], math.nan, 0, 2),
        ([math.inf, 1.0], math.inf, 2, 0),
        ([math.nan, 3.0], 3.0, 1, 1),
    ],
)
def test_cells_without_an_interval_say_so(values, mean, n, missing):
    found = interval_of(pd.Series(values), pd.Series([0, 1]))
    assert (found.n, found.missing) == (n, missing)
    assert found.mean == pytest.approx(mean, nan_ok=True)
    assert math.isnan(found.low)
    assert math.isnan(found.high)


def test_the_best_cell_is_the_highest_that_keeps_to_the_limits():
    result = grid({(1, 1.0): (0.5, 1), (1, 2.0): (0.9, 5), (2, 1.0): (0.7, 2), (2, -1.0): (0.7, 2)})
    best = result.best("good")
    assert (best.layer, best.coefficient, best.position, best.vector) == (1, 2.0, "front", "p")
    assert (best.searched, best.allowed, best.value.mean, best.value.n) == (4, 4, 0.9, 2)
    limited = result.best("good", subject_to=["bad <= 2", "kl < 1"])
    assert (limited.layer, limited.coefficient) == (2, 1.0)
    assert (limited.searched, limited.allowed, limited.tied) == (4, 3, 2)
    lowest = result.best("bad", lowest=True, subject_to="good>=.6")
    assert (lowest.layer, lowest.coefficient) == (2, 1.0)
    assert "best of 3 configurations with bad <= 2, kl < 1 (4 tried) by good: 0.7" in str(limited)


def test_of_equal_cells_the_least_coefficient_and_then_the_lowest_layer_is_best():
    result = grid({(2, 8.0): (1, 0), (2, -2.0): (1, 0), (1, 4.0): (1, 0), (0, 2.0): (1, 0)})
    best = result.best("good")
    assert (best.layer, best.coefficient) == (0, 2.0)


def test_best_and_summary_have_one_mean_also_of_a_prompt_that_is_given_twice():
    values = {(0, 1.0, "steered"): [1.0, 1.0, 0.0], (0, 2.0, "steered"): [0.1, 0.1, 1.0]}
    made = result_of({key: {"m": each} for key, each in values.items()})
    frame = made.frame.assign(prompt=made.frame["prompt_index"].map({0: "a", 1: "a", 2: "b"}))
    result = al.SweepResult(frame, made.provenance)
    means = result.summary().set_index("coefficient")["mean"]
    assert means.tolist() == pytest.approx([0.5, 0.55])
    best = result.best("m")
    assert (best.coefficient, best.value.mean) == (2.0, pytest.approx(0.55))


def test_cells_without_a_value_are_never_best():
    result = grid({(1, 1.0): (math.nan, 0), (2, 1.0): (0.1, 0)})
    assert result.best("good").layer == 2


def test_the_chosen_cell_is_measured_on_held_out_prompts(neo):
    options = {"metrics": ["kl", "entropy"], "controls": ["random", "prompted"], "progress": False}
    held = ["A quite different text", "Another one"]
    result = al.sweep(
        neo, [("Love", "Hate"), ("I", "She")], TEXTS, layers=[0, 1], coefficients=[1, 2], **options
    )
    best = result.best("kl", test_prompts=held)
    assert best.searched == 8
    pair = {"'Love' - 'Hate'": ("Love", "Hate"), "'I' - 'She'": ("I", "She")}[best.vector]
    alone = al.sweep(
        neo, pair, held, layers=[best.layer], coefficients=[best.coefficient], **options
    )
    assert best.held_out is not None
    pd.testing.assert_frame_equal(best.held_out.frame, alone.frame)
    assert best.test is not None
    assert best.test.mean == pytest.approx(
        alone.frame.query("run == 'steered' and metric == 'kl'")["value"].mean()
    )
    assert "on held-out prompts" in str(best)
    with pytest.raises(al.SweepError, match="1 of 2 test prompts were searched on, 'She talks'"):
        result.best("kl", test_prompts=["She talks", "Other"])


def test_mean_differences_on_held_out_prompts_are_still_over_all_pairs(neo):
    result = al.sweep(
        neo, [("Love", "Hate"), ("I", "She")], TEXTS, layers=[1], metrics="kl",
        controls=["mean_difference"], progress=False,
    )  # fmt: skip
    best = result.best("kl", test_prompts=["Something else"])
    vector = al.mean_difference(neo, [("Love", "Hate"), ("I", "She")], 1)
    shift = al.next_token_shift(neo, "Something else", vector)
    found = best.held_out.frame.query("run == 'mean_difference'")["value"]
    assert found.tolist() == pytest.approx([shift["kl_contribution"].sum()], rel=1e-3)


@given(
    st.lists(
        st.tuples(st.sampled_from([0.0, 0.5, 1.0]), st.sampled_from([0.0, 1.0, 2.0])),
        min_size=1,
        max_size=6,
    )
)
def test_the_front_is_what_no_cell_beats(figures):
    result = grid({(layer, 1.0): both for layer, both in enumerate(figures)})
    table = result.pareto("good", "bad")
    steered = table[table["run"] == "steered"]
    clean = (0.1, 0.0)
    for (good, bad), on_front in zip(figures, steered["on_front"], strict=True):
        beaten = any(g >= good and b <= bad and (g > good or b < bad) for g, b in [clean, *figures])
        assert on_front == (not beaten)
    assert not table[table["run"] == "clean"]["on_front"].any()
    assert len(table) == len(figures) + 1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda r: r.best("godo"), "no metric 'godo': there are good, bad, dose, kl"),
        (
            lambda r: r.best("good", subject_to=["bad < -1"]),
            "none of 1 configurations has a mean good and keeps to bad < -1",
        ),
        (lambda r: r.best("good", subject_to=["bad"]), "cannot read the limit 'bad'"),
        (lambda r: r.best("good", subject_to=["bad < x"]), "cannot read the limit 'bad < x'"),
        (lambda r: r.best("good", subject_to=["bda < 1"]), "no metric 'bda'"),
        (lambda r: r.best("good", test_prompts=["x"]), "a result that was loaded has no model"),
        (lambda r: r.pareto("good", "cost"), "no metric 'cost'"),
        (lambda r: r.plot("cost"), "no metric 'cost'"),
    ],
)
def test_bad_questions_are_refused(call, message):
    with pytest.raises(al.SweepError, match=message):
        call(grid({(1, 1.0): (0.5, 1)}))


def test_an_interrupted_sweep_has_no_best_cell():
    result = result_of({**CLEAN, (1, 1.0, "steered"): {"good": [1.0]}}, complete=False)
    with pytest.raises(
        al.SweepError, match="interrupted, so not every configuration has every prompt"
    ):
        result.best("good")
    assert "interrupted" in repr(result)


@pytest.mark.parametrize("positions", [["front"], [0, 1], ["front", -2, 1]])
def test_a_result_comes_back_from_its_file(neo, tmp_path: Path, positions):
    result = al.sweep(
        neo, ("Love", "Hate"), TEXTS, layers=[0, 1], positions=positions,
        metrics=["kl", "weddings"], samples=1, max_new_tokens=2, progress=False,
    )  # fmt: skip
    result.save(tmp_path / "sweep.parquet")
    loaded = al.SweepResult.load(tmp_path / "sweep.parquet")
    pd.testing.assert_frame_equal(loaded.frame, result.frame)
    assert loaded.provenance == result.provenance
    assert loaded.complete == result.complete
    assert loaded.best("kl") == result.best("kl")
    assert set(loaded.frame["position"]) == {None, *positions}
    assert result.best("kl", test_prompts="Something else").test is not None
    assert [*tmp_path.iterdir()] == [tmp_path / "sweep.parquet"]
    assert repr(loaded) == repr(result)


def test_foreign_files_are_refused(tmp_path: Path):
    path = tmp_path / "x.parquet"
    with pytest.raises(al.SweepFileError, match="cannot read"):
        al.SweepResult.load(path)
    path.write_bytes(b"PAR1 not really")
    with pytest.raises(al.SweepFileError, match="cannot read"):
        al.SweepResult.load(path)
    pq.write_table(pa.table({"position": ["a"]}), path)
    with pytest.raises(al.SweepFileError, match="is not a SweepResult: it says format None"):
        al.SweepResult.load(path)
    grid({(1, 1.0): (1, 0)}).save(path)
    with pytest.raises(al.SweepFileError, match=r"kind 'SweepResult'; expected .*'Result'"):
        Result.load(path)
    with pytest.raises(al.OutputError, match="cannot write"):
        grid({(1, 1.0): (1, 0)}).save(tmp_path / "missing" / "x.parquet")


@pytest.mark.parametrize(
    ("figures", "xlabel"),
    [
        ({(1, 1.0): (0.5, 1), (2, 1.0): (0.7, 1)}, "injection layer"),
        ({(1, 1.0): (0.5, 1), (1, 2.0): (0.7, 1)}, "injection coefficient"),
        ({(1, 1.0): (0.5, 1), (2, 2.0): (0.7, 1)}, "injection layer"),
    ],
)
def test_a_sweep_draws_the_figure_that_fits_its_axes(figures, xlabel):
    figure = grid(figures).plot("good", unit="%")
    assert isinstance(figure, Figure)
    assert figure.axes[0].get_xlabel().startswith(xlabel)


def test_shares_on_which_all_prompts_agree_have_an_interval_all_the_same():
    """Ten failures in ten do not show that there are none; a divergence of 0 is exact.

    "good" says that it is a share.
    """
    ten = {"good": [0.0] * 10, "bad": [0.0] * 10}
    result = result_of(
        {
            (None, None, "clean"): ten,
            (1, 1.0, "steered"): {"good": [1.0] * 5 + [0.0] * 5, "bad": [0.5] * 10},
        }
    )
    clean = result.summary().query("run == 'clean'").set_index("metric")
    wilson = statistics.proportion([False] * 10)
    assert clean.loc["good", ["low", "high"]].tolist() == pytest.approx([wilson.low, wilson.high])
    assert clean.loc["bad", ["low", "high"]].tolist() == [0, 0]


def test_a_cell_without_a_value_is_on_no_front():
    table = grid({(1, 1.0): (math.nan, 0), (2, 1.0): (1, 1)}).pareto("good", "bad")
    assert table.query("run == 'steered'")["on_front"].tolist() == [False, True]


def test_a_string_is_one_test_prompt(neo):
    result = al.sweep(neo, ("Love", "Hate"), TEXTS, layers=[1], metrics="kl", progress=False)
    best = result.best("kl", test_prompts="Something else")
    assert best.held_out.frame["prompt"].unique().tolist() == ["Something else"]


def test_a_model_that_has_changed_measures_no_test_prompts(checkpoint):
    own = al.load_model(checkpoint("gpt2"), device="cpu")
    result = al.sweep(own, ("Love", "Hate"), TEXTS, layers=[1], metrics="kl", progress=False)
    own.original_model.lm_head.weight.data[3:5] += 1
    with pytest.raises(al.SweepError, match="its weights have changed"):
        result.best("kl", test_prompts=["Something else"])


def test_a_result_can_be_pickled(neo):
    result = al.sweep(neo, ("Love", "Hate"), TEXTS, layers=[1], metrics="kl", progress=False)
    again = pickle.loads(pickle.dumps(result))
    pd.testing.assert_frame_equal(again.frame, result.frame)
    with pytest.raises(al.SweepError, match="has no model"):
        again.best("kl", test_prompts=["Something else"])


def test_a_prompt_that_was_given_twice_counts_once(neo):
    options = {"layers": [1], "metrics": "kl", "progress": False}
    once, often = (
        al.sweep(neo, ("Love", "Hate"), texts, **options).summary() for texts in (TEXTS, TEXTS * 5)
    )
    for name in ("mean", "low", "high", "n"):
        assert once[name].tolist() == pytest.approx(often[name].tolist(), abs=1e-6)


def test_one_cell_is_drawn_beside_its_controls():
    figure = grid({(1, 1.0): (0.5, 1)}).plot("good", unit="%")
    assert [t.get_text() for t in figure.axes[0].get_xticklabels()] == ["steered", "random"]


def test_figures_of_an_interrupted_sweep_say_so():
    result = result_of(
        {**CLEAN, (1, 1.0, "steered"): {"good": [1.0]}, (2, 1.0, "steered"): {"good": [1.0]}},
        complete=False,
    )
    assert "interrupted" in result.plot("good").legends[0].get_title().get_text()


def test_the_clean_run_competes_on_the_front_of_every_pair(neo):
    class Zero:
        name, kind = "zero", "logits"

        def __call__(self, clean, steered):
            return [0.0] * len(clean)

    pairs = [("Love", "Hate"), ("I", "She")]
    result = al.sweep(neo, pairs, TEXTS, layers=[1], metrics=[Zero()], progress=False)
    assert not result.pareto("zero", "kl")["on_front"].any()
