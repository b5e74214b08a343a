"""Sweeps of vectors, interventions and functions of the layer, and controls of one's own."""

from dataclasses import dataclass, replace

import pandas as pd
import pytest
import torch
from conftest import N_LAYERS

import actadd_lens as al
from actadd_lens import metrics
from actadd_lens.sweeps import Steered, register_control
from actadd_lens.sweeps.configurations import Grid, sources_of

PAIR = ("Love you", "Hate")
TEXTS = ["I hate you because", "She talks"]
TOKEN = metrics.TokenLogProb(70)


def run(model, what, **options):
    return al.sweep(model, what, TEXTS, **{"metrics": TOKEN, "progress": False, **options})


def values(result, **labels):
    frame = result.frame
    for name, value in labels.items():
        frame = frame[frame[name] == value]
    return frame["value"].tolist()


def logprob(model, steering):
    return pytest.approx(al.next_token_logprobs(model, TEXTS, steering)[:, 70].tolist(), abs=1e-5)


def test_a_vector_keeps_its_layer_and_position_unless_told(neo):
    mean = al.mean_difference(neo, [PAIR, ("I", "She")], 1)
    result = run(neo, {"mean": mean}, coefficients=[1, 3], controls=["random", "negated"], seed=2)
    keys = result.frame.query("run == 'steered'")[["vector", "layer", "position"]]
    assert keys.drop_duplicates().values.tolist() == [["mean", 1, "all"]]
    for c in (1, 3):
        assert values(result, coefficient=c, run="steered") == logprob(neo, c * mean)
        random = (c * mean).random_like(2)
        assert values(result, coefficient=c, run="random") == logprob(neo, random)
    moved = run(neo, {"mean": mean}, positions=["prompt", -1], controls=())
    for position in ("prompt", -1):
        assert values(moved, position=position) == logprob(neo, mean.at(position))


def test_a_function_of_the_layer_is_called_for_each(neo):
    vectors = al.extract(neo, PAIR)
    what = {"last": lambda layer: vectors[layer].collapse("last").at("all"), "pair": PAIR}
    result = run(neo, what, layers=[0, 2], coefficients=[2], controls=["negated"])
    for layer in (0, 2):
        last = 2 * vectors[layer].collapse("last").at("all")
        assert values(result, vector="last", layer=layer, run="steered") == logprob(neo, last)
        assert values(result, vector="last", layer=layer, run="negated") == logprob(neo, -last)
        pair = 2 * vectors[layer]
        assert values(result, vector="pair", layer=layer, run="steered") == logprob(neo, pair)
    every = run(neo, {"all": lambda layer: vectors[layer]}, controls=())
    assert sorted(every.frame["layer"].dropna().unique()) == [*range(N_LAYERS)]


def test_what_was_given_is_measured_on_held_out_prompts(neo):
    vectors = al.extract(neo, PAIR)
    what = {"own": 3 * vectors[1], "made": lambda layer: vectors[layer].at("back")}
    result = run(neo, what, layers=[0, 2], coefficients=[1, 2], metrics="kl")
    for lowest in (False, True):
        best = result.best("kl", lowest=lowest, test_prompts="Something else")
        vector = 3 * vectors[1] if best.vector == "own" else vectors[best.layer].at("back")
        kl = al.next_token_shift(neo, "Something else", best.coefficient * vector)
        assert best.test.mean == pytest.approx(kl["kl_contribution"].sum(), rel=1e-3)
        assert set(best.held_out.frame["run"]) == {"clean", "steered", "random", "negated"}


def test_a_store_knows_the_vector(neo, tmp_path):
    vector = al.extract(neo, PAIR)[1]
    store = tmp_path / "run.sqlite"
    first, again = (run(neo, {"v": vector}, store=store) for _ in range(2))
    pd.testing.assert_frame_equal(first.frame, again.frame)
    for other in (2 * vector, vector.at("back")):
        with pytest.raises(al.SweepFileError, match="vectors"):
            run(neo, {"v": other}, store=store)


def test_a_control_of_ones_own_runs_in_sweeps_and_ablations(neo):
    @register_control("scaled", draws=True)
    def scaled(of: Steered) -> al.SteeringVector:
        return (1 + of.draw) * of.vector

    @register_control("prefixed", needs="pair")
    def prefixed(of: Steered) -> str:
        return of.pair.negative

    vector = al.extract(neo, PAIR)[1]
    result = run(neo, PAIR, layers=[1], controls=["scaled:2", "prefixed"])
    assert values(result, run="scaled:2") == logprob(neo, 3 * vector)
    longer = al.next_token_logprobs(neo, [f"Hate {text}" for text in TEXTS])[:, 70]
    assert values(result, run="prefixed") == pytest.approx(longer.tolist(), abs=1e-5)
    parts = al.position_ablation(
        neo, vector, TEXTS, metrics=TOKEN, controls=["scaled:1"], starts=[0], progress=False
    )
    assert values(parts, run="scaled:1", ablation="whole") == logprob(neo, 2 * vector)
    with pytest.raises(al.SweepError, match="'prefixed' can't be made of a part"):
        al.position_ablation(neo, vector, TEXTS, metrics=TOKEN, controls=["prefixed"])
    with pytest.raises(al.SweepError, match="'random' exists already"):
        register_control("random")(scaled)


@dataclass(frozen=True)
class Edit:
    """An intervention that no coefficient multiplies."""

    strength: float
    hook_point: str = "blocks.1.hook_resid_pre"
    position: str = "all"
    additive = False

    def apply(self, stream, at):
        return torch.where(at[..., None], self.strength * stream, stream)

    def identity(self):
        return {"kind": "edit", "strength": self.strength, "position": self.position}

    def at(self, position):
        return replace(self, position=position)

    def control(self, name, seed):
        return Edit(-self.strength) if name == "negated" else None


def test_interventions_run_as_in_a_pass_of_their_own(neo):
    direction = al.extract(neo, PAIR)[1].rows[-1]
    project = al.Project(direction, "blocks.1.hook_resid_pre", "all")
    what = {
        "project": project,
        "edit": Edit(2.0),
        "late": Edit(2.0, hook_point="blocks.1.hook_attn_out"),
        "vector": al.extract(neo, PAIR)[1],
    }
    result = run(neo, what, controls=())
    for label, steering in what.items():
        assert values(result, vector=label) == logprob(neo, steering)
    doses = result.frame.groupby("vector")["dose"].mean()
    assert doses["edit"] == pytest.approx(1, rel=1e-5)
    assert doses["late"] != doses["late"]
    assert 0 < doses["project"] < 1
    random = run(neo, {"project": project}, controls=["random"], seed=3)
    assert values(random, run="random") == logprob(neo, project.control("random", 3))
    best = result.best(TOKEN.name, test_prompts="Something else")
    assert best.test is not None
    assert str(best)


def test_an_intervention_makes_its_own_controls_and_takes_no_coefficient(neo):
    sources, layers = sources_of(neo, {"edit": Edit(2.0)}, None)
    made = list(Grid(sources, layers, None, None, ("negated",)).configurations(neo, seed=0))
    labels = [tuple(one.labels.values()) for one in made[1:]]
    assert labels == [("edit", 1, None, "all", "steered"), ("edit", 1, None, "all", "negated")]
    assert [one.run.steering for one in made[1:]] == [(Edit(2.0),), (Edit(-2.0),)]
    moved = Grid(sources, layers, None, ("prompt", -1)).configurations(neo, seed=0)
    assert [one.labels["position"] for one in moved] == [None, "prompt", -1]
    assert Grid(sources, layers).settings["vectors"] == [["edit", {"1": Edit(2.0).identity()}]]
    with pytest.raises(al.SweepError, match=r"Edit has no control 'random': .*controls=\(\)"):
        list(Grid(sources, layers, None, None, ("random",)).configurations(neo, seed=0))


@pytest.mark.parametrize(
    ("what", "options", "message"),
    [
        ({"e": Edit(1.0)}, {"coefficients": [1.0]}, "e is a Edit, which no coefficient multiplies"),
        ({"e": Edit(1.0)}, {"layers": [1]}, "layers is .1., but e have their own"),
        ({"e": lambda layer: layer}, {}, "e gave a int for layer 0"),
        ({"e": Edit(1.0)}, {"controls": ["prompted"]}, "'prompted' is made from a contrast pair"),
        ({}, {}, "no pairs to try"),
    ],
)  # fmt: skip
def test_axes_that_do_not_fit_are_refused(neo, what, options, message):
    with pytest.raises(al.SweepError, match=message):
        run(neo, what, **options)


def test_by_default_an_intervention_gets_the_controls_that_it_has(neo):
    direction = al.extract(neo, PAIR)[1].rows[-1]

    def project(layer):
        return al.Project(direction, f"blocks.{layer}.hook_resid_pre", "all")

    result = al.sweep(
        neo, {"project": project, "edit": Edit(2.0)}, TEXTS, layers=[0, 1], metrics="kl",
        progress=False,
    )  # fmt: skip
    runs = result.frame.groupby("vector")["run"].unique()
    assert list(runs["project"]) == ["steered", "random"]
    assert list(runs["edit"]) == ["steered", "negated"]
    figure = al.sweep(
        neo, {"project": project}, TEXTS, layers=[0, 1], metrics="kl", progress=False
    ).plot()
    assert len(figure.axes) == 1
    with pytest.raises(al.SweepError, match="Project has no control 'negated'"):
        al.sweep(neo, {"project": project}, TEXTS, metrics="kl", controls=["negated"])
