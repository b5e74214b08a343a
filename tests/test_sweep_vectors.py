"""Sweeps of vectors, interventions and functions of the layer, and controls of one's own."""

import json
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import N_LAYERS

import actadd_lens as al
from actadd_lens import metrics
from actadd_lens.models.hook_points import layer_of
from actadd_lens.sweeps import Steered, register_control
from actadd_lens.sweeps.grid import grid, sources_of
from actadd_lens.sweeps.identity import described

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
        random = (c * mean).random_like(Steered(mean, 2, layer=1, coefficient=c).own_seed)
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
    seed = Steered(project, 3, layer=layer_of(project.hook_point)).own_seed
    assert values(random, run="random") == logprob(neo, project.control("random", seed))
    best = result.best(TOKEN.name, test_prompts="Something else")
    assert best.test is not None
    assert str(best)


def test_an_intervention_makes_its_own_controls_and_takes_no_coefficient(neo):
    sources, layers = sources_of(neo, {"edit": Edit(2.0)}, None)
    made = grid(neo, sources, layers, controls=["negated"])
    labels = [tuple(one.labels.values()) for one in made[1:]]
    assert labels == [("edit", 1, None, "all", "steered"), ("edit", 1, None, "all", "negated")]
    assert [one.run.steering for one in made[1:]] == [(Edit(2.0),), (Edit(-2.0),)]
    moved = grid(neo, sources, layers, positions=["prompt", -1])
    assert [one.labels["position"] for one in moved] == [None, "prompt", -1]
    result = run(neo, {"edit": Edit(2.0)}, controls=())
    assert result.provenance["vectors"] == [["edit", {"1": Edit(2.0).identity()}]]
    with pytest.raises(al.SweepError, match=r"Edit has no control 'random': .*controls=\(\)"):
        grid(neo, sources, layers, controls=["random"])


@pytest.mark.parametrize("late", [1, 2])
def test_a_sweep_of_vectors_and_interventions_has_a_figure(neo, late):
    what = {
        "vector": al.extract(neo, PAIR)[1],
        "edit": Edit(2.0, hook_point=f"blocks.{late}.hook_resid_pre"),
        "project": al.Project(al.extract(neo, PAIR)[1].rows[-1], "blocks.1.hook_resid_pre"),
    }
    result = run(neo, what, metrics="kl")
    assert sorted(result.frame["coefficient"].dropna().unique()) == [1.0]
    assert len(result.plot().axes) == 3
    assert len(result.plot_pareto(result.metrics[0], "dose").axes) >= 1


def scaled_by(factor):
    """A control whose code has the factor in it."""
    space = {}
    exec(f"def twisted(of): return {factor} * of.vector", {"__name__": __name__}, space)
    return space["twisted"]


def test_a_control_whose_code_has_changed_is_another_one(neo, tmp_path):
    vector, store = al.extract(neo, PAIR)[1], tmp_path / "run.sqlite"
    options = {"controls": ["twisted"], "store": store}
    for _ in range(2):
        register_control("twisted")(scaled_by(2.0))
        again = run(neo, {"v": vector}, **options)
    assert values(again, run="twisted") == logprob(neo, 2 * vector)
    register_control("twisted")(scaled_by(3.0))
    with pytest.raises(al.SweepFileError, match="control_code"):
        run(neo, {"v": vector}, **options)
    plain = run(neo, {"v": vector}, controls=["random", "negated"])
    assert "control_code" not in plain.provenance  # a store begun before can be resumed


def test_an_intervention_whose_own_control_has_changed_is_another_one(neo, tmp_path, monkeypatch):
    options = {"controls": ["negated"], "store": tmp_path / "run.sqlite"}
    run(neo, {"edit": al.KeepNorm(Edit(2.0))}, **options)
    run(neo, {"edit": al.KeepNorm(Edit(2.0))}, **options)
    monkeypatch.setattr(Edit, "control", lambda self, name, seed: Edit(-2 * self.strength))
    with pytest.raises(al.SweepFileError, match="control_code"):
        run(neo, {"edit": al.KeepNorm(Edit(2.0))}, **options)


def test_an_ablation_knows_the_code_of_its_controls(neo, tmp_path):
    options = {"controls": ["twisted"], "store": tmp_path / "run.sqlite", "starts": [0]}
    vector = al.extract(neo, PAIR)[1]
    register_control("twisted")(scaled_by(2.0))
    al.position_ablation(neo, vector, TEXTS, metrics=TOKEN, progress=False, **options)
    register_control("twisted")(scaled_by(3.0))
    with pytest.raises(al.SweepFileError, match="control_code"):
        al.position_ablation(neo, vector, TEXTS, metrics=TOKEN, progress=False, **options)


@pytest.fixture
def numpy_allowed(request):
    """Skips where annotations are checked: numpy's integers are not Python's."""
    if request.config.getoption("--jaxtyping-packages", None):
        pytest.skip("run-time types refuse what the functions take")


@pytest.mark.usefixtures("numpy_allowed")
def test_numbers_of_numpy_are_the_same_sweep_as_those_of_python(neo, tmp_path):
    store = tmp_path / "run.sqlite"
    vectors = al.extract(neo, PAIR)
    what = {"own": 3 * vectors[1], "made": lambda layer: vectors[layer].at(1)}
    grid = {"layers": [0, 2], "coefficients": [2.0, 3.0], "positions": [0, 1]}
    expected = run(neo, what, **grid, controls=["random", "negated"], store=store)
    what = {"own": np.int64(3) * vectors[1], "made": lambda layer: vectors[layer].at(np.int64(1))}
    grid = {name: [*np.array(values)] for name, values in grid.items()}
    again = run(neo, what, **grid, controls=["random", "negated"], store=store)
    pd.testing.assert_frame_equal(again.frame, expected.frame)
    json.dumps(again.provenance)
    placed = run(neo, {"edit": Edit(2.0, position=np.int64(1))}, controls=())
    assert placed.frame["position"].dropna().unique().tolist() == [1]
    best = again.best(TOKEN.name, test_prompts="Something else")
    assert json.dumps(best.held_out.provenance)


@pytest.mark.usefixtures("numpy_allowed")
def test_ablations_take_numbers_of_numpy(neo, tmp_path):
    options = {"metrics": TOKEN, "progress": False, "position": np.int64(1)}
    for result in (
        al.layer_transplant(
            neo, PAIR, TEXTS, coefficient=np.float32(2), recorded=np.array([1]),
            injected=[np.int64(2)], store=tmp_path / "layers.sqlite", **options,
        ),
        al.pair_variance(
            neo, [PAIR, ("I", "She")], TEXTS, layer=np.int64(1), coefficient=np.float64(2),
            store=tmp_path / "pairs.sqlite", **options,
        ),
        al.dimension_ablation(
            neo, np.float32(2) * al.extract(neo, PAIR)[1], TEXTS, fractions=np.float32([0.5]),
            seed=np.int64(1), metrics=TOKEN, progress=False,
        ),
    ):  # fmt: skip
        assert set(result.frame["coefficient"].dropna()) <= {2.0}
        result.save(tmp_path / "result.parquet")
        loaded = al.Ablation.load(tmp_path / "result.parquet")
        pd.testing.assert_frame_equal(loaded.frame, result.frame)


def test_metrics_of_numpy_numbers_are_described_as_those_of_python():
    for number, same in [(np.float64(0.5), 0.5), (np.int64(3), 3), (np.bool_(True), True)]:
        assert described(number) == described(same)


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
