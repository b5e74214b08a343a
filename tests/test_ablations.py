"""Each part of a vector does what that part, made by hand, does."""

import pandas as pd
import pytest
import torch
from conftest import D_MODEL, N_LAYERS
from matplotlib.figure import Figure

import actadd_lens as al
from actadd_lens import metrics
from actadd_lens.models import tokens as prompts
from actadd_lens.sweeps import Steered
from actadd_lens.sweeps.ablations import described
from actadd_lens.vectors.provenance import label_of

TEXTS = ["I hate you because", "She talks about weddings", "The wedding was on a sunny day"]
PAIR = ("Love you", "Hate")
TOKEN = metrics.TokenLogProb(70)


@pytest.fixture(scope="module")
def vector(neo):
    return 3 * al.extract(neo, PAIR)[1]


def value_of(model, steering, texts=TEXTS):
    return al.next_token_logprobs(model, texts, steering)[:, 70].tolist()


def found(result, **labels):
    frame = result.frame
    for name, value in labels.items():
        frame = frame[frame[name] == value]
    return pytest.approx(frame["value"].tolist(), abs=1e-5)


def test_rows_alone_left_out_and_moved(neo, vector):
    result = al.position_ablation(neo, vector, TEXTS, metrics=TOKEN, progress=False)
    n_rows = len(vector.rows)
    kept = range(1, n_rows)  # row 0, BOS's, is zero
    assert value_of(neo, vector) == found(result, ablation="whole", run="steered")
    for row in kept:
        alone = vector.with_rows([row])
        rest = vector.with_rows([r for r in range(n_rows) if r != row])
        assert value_of(neo, alone) == found(
            result, ablation="alone", part=f"row {row}", run="steered"
        )
        assert value_of(neo, rest) == found(
            result, ablation="left out", part=f"row {row}", run="steered"
        )
        assert value_of(neo, alone.random_like(seed_of(0, vector))) == found(
            result, ablation="alone", part=f"row {row}", run="random"
        )
    shortest = min(map(len, prompts.as_prompts(neo, TEXTS)))
    for start in range(shortest - n_rows + 1):
        here = {"ablation": "moved", "position": start, "run": "steered"}
        assert value_of(neo, vector.at(start)) == found(result, **here)
    parts = 1 + 2 * len(kept) + shortest - n_rows + 1
    assert len(result.summary()) == 1 + 2 * parts


def test_a_vector_of_one_row_everywhere_is_not_moved(neo):
    vector = al.mean_difference(neo, [PAIR, ("I", "She")], 1)
    result = al.position_ablation(neo, vector, TEXTS, metrics=TOKEN, progress=False)
    assert set(result.frame["ablation"].dropna()) == {"whole", "alone", "left out"}
    clean = found(result, run="clean")
    assert value_of(neo, None) == clean
    left = result.frame.query("ablation == 'left out' and run == 'steered'")["value"].tolist()
    assert left == clean
    with pytest.raises(
        al.PositionError, match=r"'all' goes to many tokens and can't start at \[2\]"
    ):
        al.position_ablation(neo, vector, TEXTS, metrics=TOKEN, starts=[2], progress=False)


def seed_of(seed, vector):
    """Of the random vector of a configuration."""
    return Steered(vector, seed, layer=vector.layer).own_seed


def test_fractions_of_dimensions(neo, vector):
    result = al.dimension_ablation(
        neo, vector, TEXTS, fractions=[0.25, 1.0], metrics=TOKEN, progress=False, seed=4
    )
    n = D_MODEL // 4
    norms = torch.linalg.vector_norm(vector.rows, dim=0)
    largest = vector.with_dims(norms.argsort(descending=True)[:n].tolist())
    first = vector.with_dims(slice(n))
    for choice, part in {"first": first, "top": largest}.items():
        here = {"ablation": choice, "fraction": 0.25}
        assert value_of(neo, part) == found(result, **here, run="steered")
        assert value_of(neo, part.random_like(seed_of(4, vector))) == found(
            result, **here, run="random"
        )
    for choice in ("first", "top", "random"):
        whole = {"ablation": choice, "fraction": 1.0, "run": "steered"}
        assert value_of(neo, vector) == found(result, **whole)
    again = al.dimension_ablation(
        neo, vector, TEXTS, fractions=[0.25], metrics=TOKEN, progress=False, seed=5
    )
    chosen = [r.frame.query("ablation == 'random' and fraction == 0.25 and run == 'steered'")
              for r in (result, again)]  # fmt: skip
    assert chosen[0]["value"].tolist() != chosen[1]["value"].tolist()


@pytest.mark.parametrize("norm_matched", [False, True])
def test_vectors_of_one_layer_at_another(neo, norm_matched):
    result = al.layer_transplant(
        neo, PAIR, TEXTS, coefficient=2, metrics=TOKEN, norm_matched=norm_matched, progress=False
    )
    vectors = al.extract(neo, PAIR)
    for s in range(N_LAYERS):
        for t in range(N_LAYERS):
            rows = vectors[s].rows
            if norm_matched:
                old, new = vectors[s].norms(), vectors[t].norms()
                norms = zip(rows, old, new, strict=True)
                rows = torch.stack([r * (b / a if a else 0) for r, a, b in norms])
            moved = al.SteeringVector(2 * rows, f"blocks.{t}.hook_resid_pre")
            here = {"recorded": s, "layer": t, "run": "steered"}
            assert value_of(neo, moved) == found(result, **here)


def test_the_spread_over_pairs(neo):
    pairs = {"one": PAIR, "two": ("I", "She"), "three": ("Love", "Hate")}
    result = al.pair_variance(
        neo, pairs, TEXTS, layer=1, coefficient=2, metrics=TOKEN, progress=False
    )
    vectors = {label: al.extract(neo, pair)[1] for label, pair in pairs.items()}
    for label, vector in vectors.items():
        assert value_of(neo, 2 * vector) == found(result, vector=label, run="steered")
    pd.testing.assert_frame_equal(result.cosines, al.cosines(vectors), atol=1e-5)
    with pytest.raises(al.SweepError, match="needs two at least, not 1"):
        al.pair_variance(neo, PAIR, TEXTS, layer=1, coefficient=2, metrics=TOKEN, progress=False)


@pytest.mark.slow
@pytest.mark.parametrize("position", ["front", "back", "all"])
def test_reach_is_the_divergence_at_every_generated_token(neo, position):
    vector = 3 * al.extract(neo, PAIR)[1]
    vector = (vector.collapse("last") if position == "all" else vector).at(position)
    options = {"max_new_tokens": 4, "samples": 2, "seed": 3, "stop_at_eos": False}
    result = al.steering_reach(neo, vector, TEXTS, progress=False, **options)
    written = al.generate(neo, TEXTS, vector, **options)
    ids = prompts.as_prompts(neo, TEXTS)
    for completion in written:
        own = result.frame.query(
            f"run == 'steered' and prompt_index == {completion.prompt_index} "
            f"and sample == {completion.sample_index}"
        )
        assert own["step"].tolist() == [0, 1, 2, 3]
        for step, value in enumerate(own["value"]):
            behind = completion.tokens[:step]
            row = [*ids[completion.prompt_index], *behind]
            clean = neo(torch.tensor([row]))[0, -1].detach().log_softmax(0)
            steered = steered_after(neo, ids[completion.prompt_index], behind, vector)
            expected = (steered.exp() * (steered - clean)).sum()
            assert value == pytest.approx(float(expected), abs=1e-5)
    assert isinstance(result.plot(), Figure)


def steered_after(model, prompt, behind, vector):
    """Log-probs after a prompt read with a vector, and tokens fed to its cache one by one."""
    from actadd_lens.models.bridge import BridgeModel
    from actadd_lens.steering.edits import decode_edits, prompt_edits

    mask = torch.ones(1, len(prompt), dtype=torch.long)
    tokens = torch.tensor([prompt])
    own, edits = BridgeModel(model), prompt_edits(model, [vector], mask).by_point
    run = own.run(tokens, mask, edits=edits, keep=1, use_cache=True)
    edits = decode_edits(model, [vector]).of(torch.arange(1))
    for token in behind:
        mask = torch.cat([mask, torch.ones(1, 1, dtype=torch.long)], dim=1)
        run = own.run(torch.tensor([[token]]), mask, edits=edits, cache=run.cache, keep=1)
    return run.last_logits[0].log_softmax(0)


def test_ablations_generate_resume_and_come_back_from_their_file(neo, vector, tmp_path):
    options = {"metrics": ["kl", "weddings"], "samples": 1, "max_new_tokens": 3, "starts": [0]}
    store = tmp_path / "run.sqlite"
    results = [
        al.position_ablation(neo, vector, TEXTS, **options, store=store, progress=False)
        for _ in range(2)
    ]
    pd.testing.assert_frame_equal(results[0].frame, results[1].frame)
    results[0].save(tmp_path / "a.parquet")
    loaded = al.Ablation.load(tmp_path / "a.parquet")
    pd.testing.assert_frame_equal(loaded.frame, results[0].frame)
    with pytest.raises(al.SweepFileError, match=r"vector\.rows"):
        al.position_ablation(neo, -vector, TEXTS, **options, store=store, progress=False)
    with pytest.raises(al.SweepError, match="position_ablation compares no pairs"):
        _ = loaded.cosines


@pytest.mark.slow
def test_every_ablation_has_a_figure(neo, vector):
    quick = {"metrics": ["kl"], "progress": False}
    results = [
        al.position_ablation(neo, vector, TEXTS, **quick),
        al.dimension_ablation(neo, vector, TEXTS, fractions=[0.5, 1.0], **quick),
        al.layer_transplant(neo, PAIR, TEXTS, coefficient=2, **quick),
        al.pair_variance(neo, [PAIR, ("I", "She")], TEXTS, layer=1, coefficient=2, **quick),
    ]
    for result in results:
        assert isinstance(result.plot("kl", ylabel="KL", unit="nats"), Figure)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m, v: al.dimension_ablation(m, v, TEXTS, fractions=[0.0], metrics="kl"),
         r"fraction 0 is out of range"),
        (lambda m, v: al.dimension_ablation(m, v, TEXTS, fractions=[], metrics="kl"),
         "no fractions to try"),
        (lambda m, v: al.position_ablation(m, v, TEXTS, controls=["prompted"], metrics="kl"),
         "'prompted' can't be made of a part of a vector"),
        (lambda m, v: al.layer_transplant(m, PAIR, TEXTS, coefficient=1, recorded=[1, 1],
                                          metrics="kl"), "recorded 1 given more than once"),
    ],
)  # fmt: skip
def test_bad_input_is_refused(neo, vector, call, message):
    with pytest.raises(al.SweepError, match=message):
        call(neo, vector)


def test_a_start_where_the_rows_do_not_fit_is_refused(neo, vector):
    with pytest.raises(al.PositionError, match="does not fit"):
        al.position_ablation(neo, vector, TEXTS, starts=[0, 40], metrics="kl", progress=False)


def test_what_a_vector_is_called(neo, vector):
    assert label_of(vector.provenance) == "'Love you' - 'Hate'"
    assert label_of(al.SteeringVector(vector.rows, vector.hook_point).provenance) == "vector"
    assert described(vector) == described(vector.at("front")) | {"provenance": vector.provenance}
    assert described(vector)["rows"] != described(-vector)["rows"]
