"""Agreement of halves and separability, by hand and by their laws."""

import math

import numpy as np
import pytest
import torch
from conftest import D_MODEL, N_LAYERS
from hypothesis import given
from hypothesis import strategies as st
from oracle import stream

import actadd_lens as al
from actadd_lens.models.tokens import as_prompts, encode
from actadd_lens.vectors import activations
from actadd_lens.vectors.geometry import separability, split_half

PAIRS = [
    ("I love you", "I hate you"),
    ("Love", "Hate"),
    ("a sunny day", "a day"),
    ("Calm", "Anger"),
    ("She talks", "He does not talk"),
]
POSITIVE, NEGATIVE = ([pair[i] for pair in PAIRS] for i in (0, 1))


def vector_of(seed=0, point="blocks.1.hook_resid_pre", n_rows=1):
    rows = torch.randn(n_rows, D_MODEL, generator=torch.Generator().manual_seed(seed))
    return al.SteeringVector(rows, point)


def differences(hf, model, layer, token=-1):
    def row(text):
        return stream(hf, "gpt-neo", encode(model, text), layer, "resid_pre")[token].double()

    return [row(positive) - row(negative) for positive, negative in PAIRS]


def test_two_pairs_have_one_split(neo, plain):
    found = split_half(neo, PAIRS[:2], 1)
    one, other = differences(plain("gpt-neo"), neo, 1)[:2]
    expected = float(torch.cosine_similarity(one, other, dim=0))
    assert (found.mean, found.low, found.high) == pytest.approx([expected] * 3, abs=1e-5)
    assert found.n == 2


def test_the_mean_over_many_splits_is_that_over_all_of_them(neo, plain):
    from itertools import combinations

    rows = differences(plain("gpt-neo"), neo, 2)[:4]
    every = []
    for chosen in combinations(range(4), 2):
        halves = [[rows[i] for i in range(4) if (i in chosen) == inside] for inside in (0, 1)]
        means = [torch.stack(half).mean(dim=0) for half in halves]
        every.append(float(torch.cosine_similarity(*means, dim=0)))
    found = split_half(neo, PAIRS[:4], 2, splits=2000)
    assert found.mean == pytest.approx(np.mean(every), abs=4 * np.std(every) / 2000**0.5 + 1e-5)
    # There are three splits, each drawn more often than the percentiles leave out.
    assert (found.low, found.high) == pytest.approx((min(every), max(every)), abs=1e-5)


def test_pairs_of_one_direction_agree(neo):
    found = split_half(neo, [PAIRS[0]] * 5, 1, splits=10)
    assert (found.low, found.mean, found.high) == pytest.approx((1, 1, 1), abs=1e-6)


def test_splits_are_keyed_by_the_seed_and_read_the_model_once(neo, monkeypatch):
    passes = []
    plain = activations.capture
    monkeypatch.setattr(activations, "capture", lambda *args: passes.append(args) or plain(*args))
    found = [split_half(neo, PAIRS, 1, splits=20, seed=seed) for seed in (0, 0, 1)]
    assert found[0] == found[1] != found[2]
    # Three calls read every prompt once, however many splits they draw.
    assert sum(len(tokens) for _, tokens, *_ in passes) == 3 * 2 * len(PAIRS)


def test_halves_without_a_difference_have_no_agreement(neo):
    found = split_half(neo, [("Love", "Love"), ("Love", "Hate")], 0)
    assert all(map(math.isnan, (found.mean, found.low, found.high)))


@pytest.mark.parametrize("token", [-1, 1])
def test_separability_by_hand(neo, plain, token):
    vector = vector_of()
    unit = vector.rows[0].double() / vector.rows[0].double().norm()
    positive, negative = (
        [
            float(stream(plain("gpt-neo"), "gpt-neo", ids, 1, "resid_pre")[token].double() @ unit)
            for ids in as_prompts(neo, texts)
        ]
        for texts in (POSITIVE[:3], NEGATIVE)
    )
    found = separability(neo, POSITIVE[:3], NEGATIVE, vector, token=token)
    assert found.positive == pytest.approx(positive, abs=1e-3)
    assert found.negative == pytest.approx(negative, abs=1e-3)
    assert (found.n_positive, found.n_negative) == (3, 5)
    # At token 1 the prompts of the first pair are still the same: a tie, up to round-off.
    wins = [0.5 if abs(p - n) < 1e-4 else float(p > n) for p in positive for n in negative]
    assert (0.5 in wins) == (token == 1)
    assert found.auc == pytest.approx(np.mean(wins))
    pooled = (2 * np.var(positive, ddof=1) + 4 * np.var(negative, ddof=1)) / 6
    d_prime = (np.mean(positive) - np.mean(negative)) / pooled**0.5
    assert found.d_prime == pytest.approx(d_prime, abs=1e-3)


@given(seed=st.integers(0, 99), factor=st.floats(0.01, 100), n=st.integers(1, 5))
def test_separability_sees_the_direction_alone(neo, seed, factor, n):
    vector = vector_of(seed)
    found, scaled, turned, swapped = (
        separability(neo, *sides, v)
        for v, sides in [
            (vector, (POSITIVE[:n], NEGATIVE)),
            (factor * vector, (POSITIVE[:n], NEGATIVE)),
            (-vector, (POSITIVE[:n], NEGATIVE)),
            (vector, (NEGATIVE, POSITIVE[:n])),
        ]
    )
    assert (scaled.auc, scaled.d_prime) == pytest.approx((found.auc, found.d_prime), abs=1e-3)
    for opposite in (turned, swapped):
        assert opposite.auc == pytest.approx(1 - found.auc)
        assert opposite.d_prime == pytest.approx(-found.d_prime, abs=1e-3)


def test_prompts_that_do_not_differ_tie(neo):
    same = separability(neo, POSITIVE, POSITIVE[::-1], vector_of())
    assert (same.auc, same.d_prime) == pytest.approx((0.5, 0))
    # All have BOS first: what the batches' round-off makes of it is no difference.
    bos = separability(neo, POSITIVE, NEGATIVE, vector_of(), token=0)
    assert bos.auc == 0.5
    assert math.isnan(bos.d_prime)


def test_one_prompt_a_side_has_no_spread(neo):
    found = separability(neo, ["Love"], ["Hate"], vector_of())
    assert found.auc in (0, 1)
    assert math.isnan(found.d_prime)


def test_the_direction_of_the_pairs_separates_them(neo):
    vector = al.mean_difference(neo, [("Love", "Hate")], 1)
    found = separability(neo, ["Love"] * 2, ["Hate"] * 3, vector)
    assert found.auc == 1
    gap = np.mean(found.positive) - np.mean(found.negative)
    assert gap == pytest.approx(float(vector.norms()[0]), rel=1e-4)


def test_another_hook_point_is_read_there(neo, plain):
    vector = vector_of(point="blocks.2.hook_mlp_out")
    [ids] = as_prompts(neo, "Love")
    row = stream(plain("gpt-neo"), "gpt-neo", ids, 2, "mlp_out")[-1]
    expected = float(row @ vector.rows[0] / vector.norms()[0])
    assert separability(neo, ["Love"], ["Hate"], vector).positive[0] == pytest.approx(
        expected, abs=1e-3
    )


def test_bad_input_is_refused(neo):
    with pytest.raises(al.PromptError, match="1 contrast pairs cannot be split"):
        split_half(neo, PAIRS[:1], 1)
    with pytest.raises(al.LayerError, match=f"layer {N_LAYERS} is out of range"):
        split_half(neo, PAIRS, N_LAYERS)
    with pytest.raises(al.SamplingError, match="splits"):
        split_half(neo, PAIRS, 1, splits=0)
    with pytest.raises(al.PositionError, match="the positive prompt of pair 1 has 2 tokens"):
        split_half(neo, PAIRS, 1, token=2)
    with pytest.raises(al.PositionError, match="negative prompt 1 has 2 tokens, token -3"):
        separability(neo, POSITIVE[:1], NEGATIVE, vector_of(), token=-3)
    with pytest.raises(al.VectorError, match="vector has 2 rows"):
        separability(neo, POSITIVE, NEGATIVE, vector_of(n_rows=2))
    with pytest.raises(al.VectorError, match="vector is zero"):
        separability(neo, POSITIVE, NEGATIVE, 0 * vector_of())
    with pytest.raises(al.PromptError, match="empty"):
        separability(neo, POSITIVE, [], vector_of())
