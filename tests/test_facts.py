"""Ranks of answers against the plain model, and P@K from them."""

import pytest
import torch
from conftest import D_MODEL
from oracle import Addition, logits

import actadd_lens as al
from actadd_lens.analysis.facts import answer_ranks, precision_at_k
from actadd_lens.models.tokens import as_prompts

FACTS = [("The wedding was on a sunny", "day"), ("I love", "you"), ("She talks about", "weddings")]
ROWS = 3 * torch.randn(2, D_MODEL, generator=torch.Generator().manual_seed(4))


@pytest.mark.parametrize("architecture", ["gpt-neo", "llama", "bloom"])
def test_ranks_are_those_of_the_plain_model(bridge, plain, architecture):
    model, hf = bridge(architecture), plain(architecture)
    vector = al.SteeringVector(ROWS, "blocks.1.hook_resid_pre")
    for steering, additions in ((None, []), (vector, [Addition(1, "resid_pre", ROWS)])):
        found = answer_ranks(model, FACTS, steering, batch_size=2)
        for i, (prompt, answer) in enumerate(FACTS):
            [ids] = as_prompts(model, prompt)
            logprobs = logits(hf, architecture, ids, additions)[-1].log_softmax(dim=-1)
            token = model.tokenizer(f" {answer}", add_special_tokens=False)["input_ids"][0]
            order = logprobs.argsort(descending=True).tolist()
            assert found["rank"][i] == order.index(token)
            assert found["logprob"][i] == pytest.approx(float(logprobs[token]), abs=1e-5)


def test_precision_counts_ranks_below_k(neo):
    ranks = answer_ranks(neo, FACTS)["rank"].tolist()
    ks = sorted({1, *(rank + 1 for rank in ranks), neo.cfg.d_vocab})
    frame = precision_at_k(neo, FACTS, ks)
    assert frame["mean"].tolist() == [sum(rank < k for rank in ranks) / 3 for k in ks]
    assert frame["mean"].is_monotonic_increasing
    assert (frame["n"] == 3).all()
    assert ((frame["low"] <= frame["mean"]) & (frame["mean"] <= frame["high"])).all()


def test_bad_input_is_told(neo):
    with pytest.raises(al.PromptError, match="list of facts is empty"):
        answer_ranks(neo, [])
    with pytest.raises(al.PromptError, match="answer of fact 1 is empty"):
        answer_ranks(neo, [("I love", "you"), ("I love", " ")])
    with pytest.raises(al.PromptError, match="end the prompt in a word"):
        answer_ranks(neo, [("I love ", "you")])
    with pytest.raises(al.PromptError, match=r"K is \[0\]"):
        precision_at_k(neo, FACTS, [0])
