"""Every cell of a sweep is what one configuration, one prompt, one run would give."""

import logging
import math
from itertools import product
from weakref import WeakKeyDictionary

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import ARCHITECTURES, N_LAYERS
from hypothesis import given
from hypothesis import strategies as st
from oracle import Addition, logits, start_of

import actadd_lens as al
from actadd_lens import metrics
from actadd_lens.metrics.logits import LogitMetric
from actadd_lens.models import tokens as prompts
from actadd_lens.sweeps.configurations import Run, Steered, as_list, numbers

PAIR = ("Love you", "Hate")
TEXTS = ["I hate you because", "She talks", "The wedding was on a sunny day in May"]
TOKENS = (3, 70, 200)
LOGPROBS = [metrics.TokenLogProb(token) for token in TOKENS]


def run(model, pairs=PAIR, texts=TEXTS, **options):
    """A sweep without controls and progress, unless asked for."""
    settings = {"metrics": LOGPROBS, "controls": (), "progress": False, **options}
    return al.sweep(model, pairs, texts, **settings)


def rows_of(result, **labels):
    """The rows that the labels name."""
    frame = result.frame
    for name, value in labels.items():
        frame = frame[frame[name] == value] if value is not None else frame[frame[name].isna()]
    return frame


def cells(result, **labels):
    """Values of the rows that the labels name, by metric and prompt."""
    return rows_of(result, **labels).set_index(["metric", "prompt_index"])["value"]


@pytest.mark.parametrize("hooked", [False, True])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_cell_is_a_hand_written_hook_on_one_prompt(bridge, plain, architecture, hooked):
    """Resumed where it can be; a hook of the caller's own makes every cell a whole pass."""
    model, hf = bridge(architecture), plain(architecture)
    grid = {"layers": [0, 2], "coefficients": [-2.0, 3.0], "positions": ["front", "back", 1]}
    ids = prompts.as_prompts(model, TEXTS)
    longest = max(map(len, ids))
    point = model.get_hook_point("blocks.0.hook_in")
    if hooked:
        point.add_hook(lambda tensor, hook: None)
    try:
        result = run(model, **grid, batch_tokens=3 * longest)
    finally:
        if hooked:
            point.remove_hooks()
    vectors = al.extract(model, PAIR)
    naive = {None: [logits(hf, architecture, row)[-1].log_softmax(0) for row in ids]}
    for layer, c, position in product(*grid.values()):
        rows = c * vectors[layer].rows
        starts = [start_of(position, len(row), len(rows)) for row in ids]
        naive[layer, c, position] = [
            logits(hf, architecture, row, [Addition(layer, "resid_pre", rows, s)])[-1].log_softmax(
                0
            )
            for row, s in zip(ids, starts, strict=True)
        ]
    for key, rows in naive.items():
        labels = dict(zip(["layer", "coefficient", "position"], key or [None] * 3, strict=True))
        found = cells(result, **labels)
        for prompt, expected in enumerate(rows):
            got = [found[metric.name, prompt] for metric in LOGPROBS]
            assert got == pytest.approx(expected[list(TOKENS)].tolist(), abs=1e-5, rel=1e-5)
    assert len(result.frame) == len(naive) * len(TEXTS) * len(LOGPROBS)


@pytest.mark.slow
@given(
    layers=st.lists(st.integers(0, N_LAYERS - 1), min_size=1, unique=True),
    coefficients=st.lists(st.sampled_from([-3.0, 0.0, 0.5, 4.0]), min_size=1, unique=True),
    positions=st.lists(
        st.sampled_from(["front", "middle", "back", 0, -3]), min_size=1, unique=True
    ),
    texts=st.lists(st.sampled_from(TEXTS), min_size=1, max_size=4),
    batch_tokens=st.sampled_from([1, 20, 4000]),
)
def test_cells_depend_neither_on_the_grid_nor_on_how_it_is_packed(
    neo, layers, coefficients, positions, texts, batch_tokens
):
    grid = {"layers": layers, "coefficients": coefficients, "positions": positions}
    whole = run(neo, texts=texts, **grid, batch_tokens=batch_tokens, controls=["random"])
    one = {name: [values[-1]] for name, values in grid.items()}
    alone = run(neo, texts=texts[-1:], **one, controls=["random"])
    where = {"layer": layers[-1], "coefficient": coefficients[-1], "position": positions[-1]}
    last = len(texts) - 1
    for control in ("steered", "random"):
        here = cells(whole, **where, run=control)
        there = cells(alone, **where, run=control)
        for metric in LOGPROBS:
            assert here[metric.name, last] == pytest.approx(there[metric.name, 0], abs=2e-5)


def test_a_coefficient_of_zero_is_the_clean_run_itself(neo):
    result = run(neo, layers=[1], coefficients=[0.0, 1.0], metrics=["kl", *LOGPROBS])
    clean, zero = cells(result, run="clean"), cells(result, coefficient=0.0)
    assert (clean == zero).all()
    assert (zero["kl"] == 0).all()


def test_completions_are_those_of_generate(bridge):
    """Settings and prompts side by side in wide batches, steered at generated tokens too."""
    model = bridge("llama")
    sampling = {"samples": 2, "max_new_tokens": 5, "seed": 7, "temperature": 0.9, "top_p": 0.95}
    vector = al.extract(model, PAIR)[1]
    result = run(
        model, [PAIR, ("I", "She")], layers=[0, 2], coefficients=[1.0, 4.0],
        metrics=[metrics.WordCount(["e"])], controls=["prompted", "mean_difference", "negated"],
        **sampling,
    )  # fmt: skip
    pairs = result.frame["vector"].dropna().unique()
    average = {layer: al.mean_difference(model, [PAIR, ("I", "She")], layer) for layer in (0, 2)}
    n_cells = 0
    for (pair, layer, c, control), rows in result.frame.groupby(
        ["vector", "layer", "coefficient", "run"], dropna=False
    ):
        n_cells += 1
        texts, steering = TEXTS, None
        if control in ("steered", "negated"):
            vector = al.extract(model, [PAIR, ("I", "She")][list(pairs).index(pair)])[layer]
            steering = (c if control == "steered" else -c) * vector
        elif control == "mean_difference":
            steering = c * average[layer]
        elif control == "prompted":
            texts = [f"{PAIR[0] if pair == pairs[0] else 'I'} {text}" for text in TEXTS]
        expected = al.generate(model, texts, steering, **sampling)
        assert rows["text"].tolist() == [item.text for item in expected]
    assert n_cells == 1 + 2 * 2 * 2 * 4


def seed_of(seed, layer, coefficient=None, draw=0):
    """Of the random vector of a configuration."""
    return Steered(None, seed, draw, layer=layer, coefficient=coefficient).own_seed


def test_a_vector_at_generated_tokens_is_generated_with_anywhere(bridge):
    """Packed decode steps add a row of its own to each completion."""
    model = bridge("gemma2")
    vector = 2 * al.mean_difference(model, [PAIR, ("I", "She")], 1)
    sampling = {"samples": 1, "max_new_tokens": 6, "seed": 3}
    found = al.position_ablation(
        model, vector, TEXTS, metrics=[metrics.WordCount(["e"])], progress=False, **sampling
    )
    for control, steering in {
        "steered": vector,
        "random": vector.random_like(seed_of(3, 1)),
    }.items():
        rows = rows_of(found, ablation="whole", run=control)
        expected = al.generate(model, TEXTS, steering, **sampling)
        assert rows["text"].tolist() == [item.text for item in expected]


class Recorder(LogitMetric):
    """Keeps the rows that it is called with."""

    base = "recorder"

    def values(self, clean, steered):
        return steered[:, TOKENS[0]]


def test_metrics_over_the_text_read_what_is_behind_the_vector(neo):
    result = run(neo, layers=[1], positions=["front", 1], metrics=[Recorder(over="text")])
    vector = al.extract(neo, PAIR)[1]
    ids = prompts.as_prompts(neo, TEXTS)
    for position, behind in {"front": len(vector.rows), 1: 1 + len(vector.rows)}.items():
        values = cells(result, position=position)
        for i, row in enumerate(ids):
            with torch.no_grad(), al.steer(neo, vector.at(position)):
                whole = neo(torch.tensor([row]))[0].log_softmax(-1)
            counted = whole[behind:, TOKENS[0]]
            expected = float(counted.mean()) if len(counted) else math.nan
            assert values["recorder_text", i] == pytest.approx(expected, abs=1e-5, nan_ok=True)
    clean = cells(result, run="clean")
    with torch.no_grad():
        whole = neo(torch.tensor([ids[0]]))[0].log_softmax(-1)[:, TOKENS[0]]
    assert clean["recorder_text", 0] == pytest.approx(float(whole.mean()), abs=1e-5)


def test_prompted_cells_read_the_positive_prompt_before_the_text(neo):
    result = run(
        neo, layers=[0, 1], controls=["prompted"], metrics=[*LOGPROBS, Recorder(over="text")]
    )
    values = cells(result, layer=1, run="prompted")
    [expected] = [al.next_token_logprobs(neo, [f"{PAIR[0]} {text}" for text in TEXTS])]
    for token, metric in zip(TOKENS, LOGPROBS, strict=True):
        assert values[metric.name].tolist() == pytest.approx(expected[:, token].tolist(), abs=1e-5)
    assert cells(result, layer=0, run="prompted").equals(values)
    ids, longer = (
        prompts.as_prompts(neo, TEXTS[:1])[0],
        prompts.as_prompts(neo, f"{PAIR[0]} {TEXTS[0]}")[0],
    )
    alike = next(n for n in range(len(ids), 0, -1) if ids[-n:] == longer[-n:])
    with torch.no_grad():
        whole = neo(torch.tensor([longer]))[0].log_softmax(-1)[-alike:, TOKENS[0]]
    assert values["recorder_text", 0] == pytest.approx(float(whole.mean()), abs=1e-5)


def test_random_controls_are_drawn_anew_for_each_layer_and_coefficient(neo, request):
    """And they do not depend on the rest of the grid."""
    options = {"controls": ["random"], "metrics": ["kl"], "seed": 1}
    whole = run(neo, layers=[0, 1], coefficients=[2.0, 4.0], **options)
    part = run(neo, layers=[1], coefficients=[4.0], **options)
    there = cells(whole, run="random", layer=1, coefficient=4.0)["kl"].tolist()
    assert cells(part, run="random")["kl"].tolist() == pytest.approx(there, abs=1e-5)
    assert len({seed_of(1, layer, c) for layer in (0, 1) for c in (2.0, 4.0)}) == 4
    if not request.config.getoption("--jaxtyping-packages", None):  # types refuse numpy's integers
        assert seed_of(1, 1, 4.0) == seed_of(np.int64(1), np.int64(1), np.float64(4.0))


def test_controls_are_made_of_the_cell_that_they_stand_beside(neo):
    controls = ["random", "random:1", "random:2", "negated", "shuffled"]
    result = run(neo, layers=[1], coefficients=[3.0], controls=controls, seed=5)
    vector = 3 * al.extract(neo, PAIR)[1]
    made = {
        "steered": vector,
        "random": vector.random_like(seed_of(5, 1, 3.0, 0)),
        "random:1": vector.random_like(seed_of(5, 1, 3.0, 1)),
        "random:2": vector.random_like(seed_of(5, 1, 3.0, 2)),
        "negated": -vector,
        "shuffled": vector.shuffled(seed_of(5, 1, 3.0)),
    }
    for control, steering in made.items():
        logprobs = al.next_token_logprobs(neo, TEXTS, steering)
        values = cells(result, run=control)
        for token, metric in zip(TOKENS, LOGPROBS, strict=True):
            assert values[metric.name].tolist() == pytest.approx(
                logprobs[:, token].tolist(), abs=1e-5
            )
        keys = rows_of(result, run=control)[["layer", "coefficient", "position"]]
        assert keys.drop_duplicates().values.tolist() == [[1, 3.0, "front"]]


def test_dose_and_kl_stand_beside_every_cell(neo):
    result = run(neo, layers=[0, 1], coefficients=[2.0], positions=["front", "back"],
                 metrics=["entropy", "kl"], controls=["random", "prompted"])  # fmt: skip
    frame = result.frame
    kl = frame.query("metric == 'kl'")
    assert (kl["kl"] == kl["value"]).all()
    vector = 2 * al.extract(neo, PAIR)[1]
    for position in ("front", "back"):
        doses = al.dose(neo, vector.at(position), TEXTS)
        expected = doses[doses["vector_norm"] > 0].groupby("prompt_index")["dose"].mean()
        for control in ("steered", "random"):
            here = rows_of(result, layer=1, position=position, run=control, metric="kl")
            assert here["dose"].tolist() == pytest.approx(expected.tolist(), rel=1e-5)
    assert (frame.query("run == 'clean'")[["dose", "kl"]] == 0).all(axis=None)
    assert frame.query("run == 'prompted'")["dose"].isna().all()


def test_the_frame_is_tidy(neo):
    result = run(neo, layers=[0, 1], coefficients=[1, 2], controls=["random", "negated"])
    columns = ["vector", "layer", "coefficient", "position", "run", "prompt", "sample", "metric"]
    frame = result.frame
    assert [*frame.columns][:9] == [*columns, "value"]
    assert not frame.duplicated(columns).any()
    clean = frame[frame["run"] == "clean"]
    assert len(clean) == len(TEXTS) * len(LOGPROBS)
    assert clean[["vector", "layer", "coefficient", "position", "sample"]].isna().all(axis=None)
    assert len(frame) == (1 + 4 * 3) * len(TEXTS) * len(LOGPROBS)
    assert set(frame["prompt"]) == {*TEXTS}


def test_a_metric_of_the_callers_own(neo):
    class TopToken:
        name, kind = "top", "logits"

        def __call__(self, clean, steered):
            return (clean.argmax(-1) == steered.argmax(-1)).float()

    class Length:
        name, kind = "length", "completions"

        def __call__(self, completions):
            return [len(c.text) for c in completions]

    result = run(neo, layers=[1], metrics=[TopToken(), Length()], samples=1, max_new_tokens=2)
    lengths = result.frame.query("metric == 'length'")
    assert (lengths["value"] == lengths["text"].str.len()).all()
    assert (cells(result, run="clean")["top"] == 1).all()


def test_one_clean_pass_and_no_block_below_is_run(neo, monkeypatch):
    from actadd_lens.models.plain import PlainModel, fast_model

    for layer in (0, 2):  # are compared with the bridge once, before passes are counted
        assert fast_model(neo).supports("start at a layer", layer)
    seen, whole = [], PlainModel.run

    def counted(self, tokens, mask, *, start=None, **options):
        seen.append((None if start is None else start.layer, len(tokens)))
        return whole(self, tokens, mask, start=start, **options)

    monkeypatch.setattr(PlainModel, "run", counted)
    run(neo, layers=[0, 2], coefficients=[1.0, 2.0, 3.0], controls=["negated"])
    n = 6 * len(TEXTS)
    assert seen == [(None, len(TEXTS)), (0, n), (2, n)]


def test_why_there_is_no_fast_path_is_logged_once(neo, caplog, monkeypatch):
    from actadd_lens.models import plain

    monkeypatch.setattr(plain, "_logged", WeakKeyDictionary())
    vector = al.extract(neo, PAIR)[1]
    with caplog.at_level(logging.INFO), al.steer(neo, vector):
        run(neo, layers=[0, 1], batch_tokens=1)
    [message] = [r.getMessage() for r in caplog.records if "fast path" in r.msg]
    assert message.startswith(f"{neo.cfg.model_name} runs without its fast path, on the bridge")
    assert "hooks are attached to" in message
    assert "blocks.1.hook_in" in message


def test_half_precision_streams_resume_in_their_own_dtype(half):
    model = half(torch.bfloat16)
    result = run(model, layers=[1], coefficients=[2.0], metrics=["kl", *LOGPROBS])
    logprobs = al.next_token_logprobs(model, TEXTS, 2 * al.extract(model, PAIR)[1])
    for token, metric in zip(TOKENS, LOGPROBS, strict=True):
        got = cells(result, run="steered")[metric.name].tolist()
        assert got == pytest.approx(logprobs[:, token].tolist(), abs=0.1)


def test_cuts_are_sweeps(neo):
    layers = al.layer_sweep(neo, PAIR, TEXTS, coefficient=2, metrics="kl", progress=False)
    assert sorted(layers.frame["layer"].dropna().unique()) == [*range(N_LAYERS)]
    curve = al.coefficient_sweep(
        neo, PAIR, TEXTS, layer=1, coefficients=[1, 2], metrics="kl", progress=False
    )
    same = run(neo, layers=[1], coefficients=[1, 2], metrics="kl", controls=("random", "negated"))
    pd.testing.assert_frame_equal(curve.frame, same.frame)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"layers": []}, al.SweepError, "no layers to try"),
        ({"coefficients": ()}, al.SweepError, "no coefficients to try"),
        ({"positions": []}, al.SweepError, "no positions to try"),
        ({"pairs": []}, al.SweepError, "no pairs to try"),
        ({"texts": []}, al.PromptError, "list of prompts is empty"),
        ({"metrics": []}, al.MetricError, "list of metrics is empty"),
        ({"layers": [0, 1, 7, 2]}, al.LayerError, r"layer 7 is out of range.*3 layers"),
        ({"layers": [1, 0, 1]}, al.SweepError, "layers 1 given more than once"),
        ({"coefficients": [1, 2, 1.0]}, al.SweepError, "coefficients 1.0 given more than once"),
        ({"coefficients": [math.inf]}, al.SweepError, "inf, which single precision does not hold"),
        ({"coefficients": [1e39]}, al.SweepError, "1e.39, which single precision does not hold"),
        ({"positions": ["front", "all"]}, al.SweepError, "'all' takes one row, and the vector"),
        ({"positions": ["front", "front"]}, al.SweepError, "positions front given more than once"),
        ({"positions": ["frnt"]}, al.PositionError, "unknown position 'frnt'"),
        ({"positions": "front"}, al.SweepError, r"give a list, \['front'\]"),
        ({"positions": [0, 5]}, al.PositionError, r"vector has \d rows, prompt \d has"),
        ({"pairs": [PAIR, PAIR]}, al.SweepError, "given more than once"),
        ({"controls": ["rndom"]}, al.SweepError, "unknown control 'rndom': choose from random"),
        ({"controls": "random"}, al.SweepError, r"give a list, \['random'\]"),
        ({"controls": ["steered"]}, al.SweepError, "always there"),
        ({"controls": ["negated"] * 2}, al.SweepError, "'negated' given more than once"),
        ({"controls": ["mean_difference"]}, al.SweepError, "over several pairs, the sweep has 1"),
        ({"metrics": ["weddings"]}, al.SweepError, "which generates none: give samples=1"),
        ({"samples": 2}, al.SweepError, "read no completions: give samples=0"),
        ({"samples": -1}, al.SamplingError, "samples is -1"),
        ({"metrics": ["kl", "kl"]}, al.MetricError, "2 metrics are called 'kl'"),
        ({"metrics": ["k"]}, al.MetricError, "unknown metric 'k'"),
        ({"batch_tokens": 0}, al.SamplingError, "batch_tokens is 0"),
        ({"max_tokens": 3}, TypeError, "unexpected keyword argument 'max_tokens'"),
    ],
)  # fmt: skip
def test_bad_input_is_refused_before_anything_runs(neo, monkeypatch, options, error, message):
    from actadd_lens.sweeps import measurement

    monkeypatch.setattr(measurement, "logit_rows", lambda *_: pytest.fail("it ran"))
    with pytest.raises(error, match=message):
        run(neo, **options)


def test_one_value_where_several_belong_is_named():
    with pytest.raises(al.SweepError, match=r"layers is 1: give a list, \[1\]"):
        as_list("layers", 1)


@pytest.mark.parametrize(("kind", "what"), [(int, "an integer"), (float, "a number")])
def test_what_is_no_number_is_named(kind, what):
    with pytest.raises(al.SweepError, match=f"layers has '1': it must be {what}"):
        numbers("layers", ["1"], kind)
    with pytest.raises(al.SweepError, match="layers has None"):
        numbers("layers", [1, None], kind)
    assert numbers("layers", np.arange(2), kind) == [0, 1]


def test_prompts_without_room_for_completions_are_refused_first(neo):
    with pytest.raises(al.PromptError, match=r"prompt 0 has .* with 200 new ones"):
        run(neo, metrics=["weddings"], samples=1, max_new_tokens=200)


def test_a_metric_that_gives_the_wrong_number_of_values_is_refused(neo):
    class Short:
        name, kind = "short", "logits"

        def __call__(self, clean, steered):
            return [0.0]

    with pytest.raises(al.MetricError, match=r"short gave 1 values for \d+ predictions"):
        run(neo, metrics=[Short()])


def test_nan_is_recorded_counted_and_reported(neo, caplog):
    class Moody:
        name, kind = "moody", "logits"

        def __call__(self, clean, steered):
            values = torch.ones(len(steered))
            values[0] = math.nan
            return values

    with caplog.at_level(logging.WARNING):
        result = run(neo, layers=[1], metrics=[Moody(), "kl"])
    assert result.missing == {"moody": 2}
    assert "2 values of moody are NaN" in repr(result)
    assert any("moody is NaN for 2 of 6 values" in r.message for r in caplog.records)
    summary = result.summary().query("metric == 'moody'")
    assert summary["missing"].tolist() == [1, 1]
    assert summary["n"].tolist() == [2, 2]
    assert summary["mean"].tolist() == [1, 1]


def test_a_run_is_clean_if_it_adds_nothing():
    zero = al.SteeringVector(torch.zeros(1, 4), "blocks.0.hook_resid_pre")
    one = al.SteeringVector(torch.ones(1, 4), "blocks.0.hook_resid_pre")
    assert Run().is_clean
    assert Run((zero,)).is_clean
    assert not Run((zero, one)).is_clean
    assert not Run(prefix="Love").is_clean


def test_a_metric_that_edits_its_argument_is_refused(neo):
    class Editing:
        name, kind = "editing", "logits"

        def __call__(self, clean, steered):
            steered -= 1
            return steered.sum(-1)

    with pytest.raises(al.MetricError, match="editing edits the log-probs that it is given"):
        run(neo, metrics=[Editing()])


@pytest.mark.parametrize("values", [None, torch.zeros(9, 2)])
def test_a_metric_that_gives_no_numbers_is_named(neo, values):
    class Odd:
        name, kind = "odd", "logits"

        def __call__(self, clean, steered):
            return values

    with pytest.raises(al.MetricError, match="odd gives no numbers"):
        run(neo, metrics=[Odd()])


def test_steering_that_does_nothing_has_no_divergence_in_half_precision_either(half):
    result = run(half(torch.bfloat16), layers=[0, 1], coefficients=[1e-6], metrics=["kl"])
    assert (result.frame["value"] == 0).all()


def test_a_cell_beyond_half_precision_is_named_before_anything_runs(half):
    with pytest.raises(al.SweepError, match=r"layer 1, coefficient 1000000.0, .* beyond .*float16"):
        run(half(torch.float16), layers=[1], coefficients=[1.0, 1e6], metrics=["kl"])


def test_infinities_of_both_signs_in_a_text_are_nan(neo):
    class Both:
        name, kind, over = "both", "logits", "text"

        def __call__(self, clean, steered):
            values = torch.zeros(len(steered))
            values[-2:] = torch.tensor([math.inf, -math.inf])
            return values

    frame = run(neo, texts=TEXTS[:1], layers=[1], metrics=[Both()]).frame
    assert frame["value"].isna().all()


def test_a_metric_keeps_the_name_that_it_was_given_under(bridge):
    model = bridge("gpt2")
    word = model.tokenizer.decode([70])
    named = metrics.TokenLogProb(word)
    result = run(model, layers=[1], metrics=[named, metrics.TokenLogProb(70)])
    values = [result.frame.query("metric == @name")["value"].tolist() for name in result.metrics]
    assert result.metrics[0] == named.name
    assert values[0] == values[1]
    assert result.best(named.name).searched == 1
