"""Log-probs of text against a loop over the plain Hugging Face model, one text at a time."""

import math

import pytest
import torch
from conftest import ARCHITECTURES, D_MODEL, N_CTX
from hypothesis import given
from hypothesis import strategies as st
from oracle import Addition, logits, start_of

import actadd_lens as al
from actadd_lens.analysis.logprobs import kl_terms, next_token_logprobs
from actadd_lens.models.tokens import as_prompts

TEXTS = ["I love you and you hate me", "She talks", "The wedding was on a sunny day in May"]
ROWS = 3 * torch.randn(2, D_MODEL, generator=torch.Generator().manual_seed(3))


def vector_of(position="front", layer=1):
    return al.SteeringVector(ROWS, f"blocks.{layer}.hook_resid_pre", position)


def by_hand(hf, architecture, ids, additions=()):
    """log p(token i + 1 | tokens 0 to i)."""
    logprobs = logits(hf, architecture, ids, additions).log_softmax(dim=-1)
    return torch.stack([logprobs[i, token] for i, token in enumerate(ids[1:])])


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_token_logprobs_are_those_of_a_plain_loop(bridge, plain, architecture):
    model, hf = bridge(architecture), plain(architecture)
    ids = as_prompts(model, TEXTS)
    for position in (None, "front", "back"):
        steering = None if position is None else vector_of(position)
        found = al.token_logprobs(model, TEXTS, steering)
        for row, values in zip(ids, found, strict=True):
            additions = []
            if position is not None:
                start = start_of(position, len(row), len(ROWS))
                additions = [Addition(1, "resid_pre", ROWS, start)]
            expected = by_hand(hf, architecture, row, additions)
            torch.testing.assert_close(values, expected, atol=1e-5, rtol=1e-5)


@given(
    texts=st.lists(st.sampled_from([*TEXTS, "Anger", "I hate you"]), min_size=1, max_size=6),
    batch_size=st.integers(1, 4),
)
def test_batching_changes_nothing(neo, texts, batch_size):
    whole = al.token_logprobs(neo, texts, vector_of(0))
    parts = al.token_logprobs(neo, texts, vector_of(0), batch_size=batch_size)
    for text, one, other in zip(texts, whole, parts, strict=True):
        assert one.shape == (len(as_prompts(neo, text)[0]) - 1,)
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


def test_the_shortest_text_has_one_prediction(neo):
    [values] = al.token_logprobs(neo, ["Love"])
    assert values.shape == (1,)
    assert float(values[0]) < 0


@pytest.mark.parametrize("position", ["front", "middle", "back", 1, -2])
def test_a_coefficient_of_zero_is_clean_to_the_bit(neo, position):
    nothing = 0 * vector_of(position)
    clean, steered = (al.token_logprobs(neo, TEXTS, s) for s in (None, nothing))
    assert all(torch.equal(*pair) for pair in zip(clean, steered, strict=True))


def test_a_vector_may_reach_the_last_token(neo, plain):
    """It then changes what is predicted behind the text only, but for its other rows."""
    [ids] = as_prompts(neo, "She talks")
    rows = 3 * torch.randn(len(ids), D_MODEL, generator=torch.Generator().manual_seed(1))
    vector = al.SteeringVector(rows, "blocks.1.hook_resid_pre")
    expected = by_hand(plain("gpt-neo"), "gpt-neo", ids, [Addition(1, "resid_pre", rows, 0)])
    [values] = al.token_logprobs(neo, ["She talks"], vector)
    torch.testing.assert_close(values, expected, atol=1e-5, rtol=1e-5)
    with pytest.raises(al.PositionError, match=f"prompt 0 has {len(ids)} tokens"):
        al.token_logprobs(neo, ["She talks"], 0 * vector.at(1))


@pytest.mark.parametrize("architecture", ["gpt-neo", "llama", "opt", "bloom"])
def test_what_follows_a_prompt_is_read_after_its_last_token(bridge, plain, architecture):
    model, hf = bridge(architecture), plain(architecture)
    found = next_token_logprobs(model, TEXTS, vector_of(), batch_size=2)
    additions = [Addition(1, "resid_pre", ROWS, 0)]
    for ids, row in zip(as_prompts(model, TEXTS), found, strict=True):
        expected = logits(hf, architecture, ids, additions)[-1].log_softmax(dim=-1)
        torch.testing.assert_close(row, expected, atol=1e-5, rtol=1e-5)


def test_the_shift_is_of_both_distributions(neo):
    shift = al.next_token_shift(neo, TEXTS[0], vector_of())
    clean, steered = (next_token_logprobs(neo, TEXTS[0], s)[0] for s in (None, vector_of()))
    assert list(shift.columns) == [
        "token", "token_id", "p_clean", "p_steered", "log_ratio", "kl_contribution",
    ]  # fmt: skip
    for column in ("p_clean", "p_steered"):
        assert float(shift[column].sum()) == pytest.approx(1, abs=1e-5)
    kl = float(torch.nn.functional.kl_div(clean, steered, log_target=True, reduction="sum"))
    assert float(shift["kl_contribution"].sum()) == pytest.approx(kl, rel=1e-4)
    assert shift["kl_contribution"].is_monotonic_decreasing
    row = shift[shift["token_id"] == 7].iloc[0]
    assert row["log_ratio"] == pytest.approx(float(steered[7] - clean[7]), abs=1e-6)
    assert row["token"] == neo.tokenizer.decode([7])


def test_nothing_moves_without_a_vector(neo):
    assert (al.next_token_shift(neo, "She talks", None)["kl_contribution"] == 0).all()


def test_kl_terms_at_probability_zero():
    zero, tiny = -math.inf, -200.0  # tiny is no zero, but its exp is in float32
    p, q = torch.tensor([zero, zero, 0.0, tiny]), torch.tensor([zero, -1.0, zero, zero])
    assert kl_terms(p, q).tolist() == [0, 0, math.inf, math.inf]


def test_bad_texts_are_refused_with_their_index(neo):
    with pytest.raises(al.PromptError, match="empty"):
        al.token_logprobs(neo, [])
    with pytest.raises(al.PromptError, match="prompt 1 is empty"):
        al.token_logprobs(neo, ["Love", ""])
    with pytest.raises(al.PromptError, match=rf"prompt 0 has \d+ tokens.*{N_CTX}"):
        al.token_logprobs(neo, ["love " * N_CTX])
    with pytest.raises(al.PositionError, match="prompt 1 has 2 tokens"):
        al.token_logprobs(neo, [TEXTS[0], "Love"], vector_of(1))
    with pytest.raises(al.PositionError, match="prompt 1 has 2 tokens"):
        next_token_logprobs(neo, [TEXTS[0], "Love"], vector_of(1))
    with pytest.raises(al.PromptError, match="text 1 has 1 token: nothing"):
        al.token_logprobs(neo, [TEXTS[0], neo.tokenizer.bos_token])
    with pytest.raises(al.SamplingError, match="batch_size"):
        al.token_logprobs(neo, ["Love"], batch_size=0)
    with pytest.raises(TypeError, match="batchsize"):
        al.token_logprobs(neo, ["Love"], batchsize=2)


def test_the_model_is_left_as_it_was_by_an_error(neo):
    hooks = {name for name, point in neo.hook_dict.items() if point.fwd_hooks}
    with pytest.raises(al.PositionError):
        al.token_logprobs(neo, TEXTS, vector_of(5))
    assert {name for name, point in neo.hook_dict.items() if point.fwd_hooks} == hooks


def test_progress_is_shown_when_asked_for(neo, capsys):
    al.token_logprobs(neo, TEXTS)
    assert capsys.readouterr().err == ""
    al.token_logprobs(neo, TEXTS, progress=True)
    assert "3/3" in capsys.readouterr().err
