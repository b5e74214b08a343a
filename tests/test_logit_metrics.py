"""Logit metrics against scipy and torch, at probability 0, and on tokens by name."""

import math
from dataclasses import replace

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given
from hypothesis import strategies as st

import actadd_lens as al
from actadd_lens.metrics import DistinctN
from actadd_lens.metrics import logits as m

V = 6


@st.composite
def distributions(draw, zeros=True):
    """Log-probabilities over V tokens, some of them -inf."""
    weights = draw(st.lists(st.integers(0 if zeros else 1, 9), min_size=V, max_size=V))
    if not sum(weights):
        weights[0] = 1
    p = torch.tensor(weights, dtype=torch.float64)
    return (p / p.sum()).log()[None]


def p_of(logprobs):
    return logprobs[0].exp().numpy()


@given(clean=distributions(), steered=distributions())
def test_divergences_are_scipys(clean, steered):
    p, q = p_of(clean), p_of(steered)
    kl = scipy.stats.entropy(q, p)
    assert float(m.kl(clean, steered)) == pytest.approx(kl, abs=1e-9)
    assert float(m.reverse_kl(clean, steered)) == pytest.approx(scipy.stats.entropy(p, q), abs=1e-9)
    assert float(m.entropy(clean, steered)) == pytest.approx(scipy.stats.entropy(q), abs=1e-9)
    tv = np.abs(p - q).sum() / 2
    assert float(m.total_variation(clean, steered)) == pytest.approx(tv, abs=1e-9)
    relative = float(m.relative_kl(clean, steered))
    entropy = scipy.stats.entropy(p)
    if entropy > 0:
        assert relative == pytest.approx(kl / entropy, abs=1e-9)
    else:
        assert math.isnan(relative)


@given(same=distributions())
def test_no_change_is_no_divergence(same):
    for metric in (m.kl, m.reverse_kl, m.total_variation, m.Effectiveness([1, 2]), m.Disruption(1)):
        assert float(metric(same, same)) == 0


@given(clean=distributions(zeros=False), steered=distributions(zeros=False))
def test_effect_and_disruption_split_the_divergence(clean, steered):
    """Chain rule: KL = disruption + KL between the weights of the set and of the rest."""
    tokens = (0, 3)
    p, q = (float(p_of(x)[list(tokens)].sum()) for x in (clean, steered))
    binary = scipy.stats.entropy([q, 1 - q], [p, 1 - p])
    total = float(m.Disruption(tokens)(clean, steered)) + binary
    assert total == pytest.approx(float(m.kl(clean, steered)), abs=1e-9)
    assert float(m.Effectiveness(tokens)(clean, steered)) == pytest.approx(math.log(q / p))


@given(clean=distributions(), steered=distributions())
def test_no_token_is_zero_effect_and_all_of_the_divergence(clean, steered):
    assert float(m.Effectiveness(())(clean, steered)) == 0
    kl = float(m.kl(clean, steered))
    assert float(m.Disruption(())(clean, steered)) == pytest.approx(kl, abs=1e-9)
    everything = m.Disruption(range(V))
    assert float(everything(clean, steered)) == pytest.approx(kl, abs=1e-9)


@given(clean=distributions(), steered=distributions(), tokens=st.sets(st.integers(0, V - 1)))
def test_probability_zero_is_never_nan(clean, steered, tokens):
    for kind in (m.Effectiveness, m.Disruption, m.TokenLogProb):
        assert not math.isnan(float(kind(tuple(tokens))(clean, steered)))


@given(
    clean=st.lists(st.sampled_from([-math.inf, -300.0, -1.0, 0.0]), min_size=V, max_size=V),
    steered=st.lists(st.sampled_from([-math.inf, -300.0, -1.0, 0.0]), min_size=V, max_size=V),
)
def test_what_underflows_is_never_nan(clean, steered):
    rows = [torch.tensor([values]) for values in (clean, steered)]
    if any(bool((row == -math.inf).all()) for row in rows):
        return
    rows = [row.log_softmax(dim=-1) for row in rows]
    for metric in (m.kl, m.reverse_kl, m.total_variation, m.Disruption((1, 2)), m.Effectiveness(0)):
        assert not math.isnan(float(metric(*rows))), metric


def test_effectiveness_from_and_to_nothing_is_infinite():
    nothing, half = torch.tensor([[0.0, -math.inf]]), torch.tensor([[0.5, 0.5]]).log()
    assert float(m.Effectiveness(1)(nothing, half)) == math.inf
    assert float(m.Effectiveness(1)(half, nothing)) == -math.inf
    assert float(m.kl(nothing, half)) == math.inf


def test_tokens_by_hand():
    clean = torch.tensor([[0.5, 0.3, 0.2], [0.1, 0.2, 0.7]]).log()
    steered = torch.tensor([[0.2, 0.5, 0.3], [0.6, 0.3, 0.1]]).log()
    expected = {
        m.TokenLogProb(1): [math.log(0.5), math.log(0.3)],
        m.TokenLogProb((1, 2)): [math.log(0.8), math.log(0.4)],
        m.TokenRank(2): [1, 2],
        m.TokenRank((0, 2)): [1, 0],
        m.LogitDifference((0, 1)): [math.log(0.4), math.log(2)],
    }
    for metric, values in expected.items():
        torch.testing.assert_close(metric(clean, steered), torch.tensor(values).float())


def test_a_string_is_one_token_of_the_model(model):
    token = model.tokenizer("Love", add_special_tokens=False)["input_ids"]
    assert len(token) == 1
    bound = m.TokenLogProb("Love").bind(model)
    assert bound == m.TokenLogProb(token[0])
    assert m.kl.bind(model) is m.kl
    with pytest.raises(al.MetricError, match=r"tokens \[.*not one"):
        m.TokenLogProb("Love Hate").bind(model)
    with pytest.raises(al.MetricError, match="bind the metric"):
        m.TokenLogProb("Love")(torch.zeros(1, V), torch.zeros(1, V))


def test_names_tell_metrics_apart():
    metrics = [m.kl, m.KL(over="text"), m.TokenLogProb(1), m.TokenLogProb(2), m.Effectiveness(" a")]
    assert [metric.name for metric in metrics] == [
        "kl", "kl_text", "token_logprob(1)", "token_logprob(2)", "effectiveness(' a')",
    ]  # fmt: skip


def test_a_name_that_was_given_outlives_the_binding(model):
    for metric, name in {
        m.TokenLogProb("Love", name="love"): "love",
        m.TokenLogProb("Love"): f"token_logprob({m.TokenLogProb('Love').bind(model).members[0]})",
        m.KL(over="text", name="divergence"): "divergence",
    }.items():
        assert metric.bind(model).name == name
        assert eval(repr(metric), vars(m)) == metric
    assert replace(m.KL(), over="text").name == "kl_text"
    assert replace(m.KL(name="mine"), over="text").name == "mine"
    assert replace(DistinctN(1), n=2) == DistinctN(2)


def test_misuse_is_told():
    with pytest.raises(al.MetricError, match="over is 'all'"):
        m.KL(over="all")
    with pytest.raises(al.MetricError, match="2 tokens, not 3"):
        m.LogitDifference((1, 2, 3))
    with pytest.raises(al.MetricError, match=f"{V} is not an id"):
        m.TokenRank(V)(torch.zeros(1, V), torch.zeros(1, V))
    with pytest.raises(al.MetricError, match="at least one"):
        m.TokenRank(())(torch.zeros(1, V), torch.zeros(1, V))
    with pytest.raises(al.MetricError, match=r"clean is \(1, 6\), steered \(2, 6\)"):
        m.kl(torch.zeros(1, V), torch.zeros(2, V))
