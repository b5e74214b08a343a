"""Gradients flow to rows that require them, as through a hand-written hook on the plain model."""

from __future__ import annotations

import oracle
import pytest
import torch
from conftest import D_MODEL
from hypothesis import given
from hypothesis import strategies as st

import actadd_lens as al

LAYER = 1
POINT = f"blocks.{LAYER}.hook_resid_pre"
PROMPT = "I love you"


def rows_of(n: int, start: float, seed: int = 0) -> torch.Tensor:
    made = start * torch.randn(n, D_MODEL, generator=torch.Generator().manual_seed(seed))
    return made.requires_grad_()


def expected(hf, tokens, rows, position, target) -> torch.Tensor:
    """Gradient of a next token's log-prob with respect to rows, by a hook on the plain model."""
    places = range(len(tokens)) if position == "all" else range(len(rows))
    own = rows.detach().clone().requires_grad_()

    def add(activation: torch.Tensor) -> torch.Tensor:
        whole = torch.zeros(len(tokens), D_MODEL)
        for place in places:
            whole = whole.index_add(0, torch.tensor([place]), own[[place % len(own)]])
        return activation + whole.reshape(activation.shape)

    with oracle.edited(hf, "gpt2", LAYER, "resid_pre", add):
        logits = hf(torch.tensor([tokens]), use_cache=False).logits[0, -1]
    (found,) = torch.autograd.grad(logits.log_softmax(dim=0)[target], own)
    return found


@pytest.mark.parametrize("start", [0.0, 0.5])
@pytest.mark.parametrize(("position", "n_rows"), [("front", 2), ("all", 1)])
@pytest.mark.parametrize("by", ["steer", "fwd_hooks", "next_token_logprobs", "token_logprobs"])
def test_the_gradient_is_that_of_a_hand_written_hook(model, plain, by, position, n_rows, start):
    rows = rows_of(n_rows, start)
    v = al.SteeringVector(rows, POINT, position)
    tokens = model.to_tokens(PROMPT, prepend_bos=True)[0].tolist()
    target, read = 7, tokens
    if by == "steer":
        with al.steer(model, v):
            value = model(torch.tensor([tokens]))[0, -1].log_softmax(dim=0)[target]
    elif by == "fwd_hooks":
        logits = model.run_with_hooks(torch.tensor([tokens]), fwd_hooks=al.fwd_hooks(model, v))
        value = logits[0, -1].log_softmax(dim=0)[target]
    elif by == "next_token_logprobs":
        value = al.next_token_logprobs(model, PROMPT, v, grad=True)[0, target]
    else:
        value = al.token_logprobs(model, PROMPT, v, grad=True)[0][-1]
        read, target = tokens[:-1], tokens[-1]
    (found,) = torch.autograd.grad(value, rows)
    wanted = expected(plain("gpt2"), read, rows, position, target)
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-3)
    assert found.any()


@given(c=st.floats(-4, 4, width=32), chosen=st.lists(st.integers(0, 2), min_size=1))
def test_the_algebra_is_differentiated(c, chosen):
    rows, other = rows_of(3, 1.0), torch.ones(3, D_MODEL)
    fixed = al.SteeringVector(other, POINT)
    v = al.SteeringVector(rows, POINT)
    made = (c * (v - fixed).with_rows(chosen) + v).at(1).with_dims(slice(0, 5)).collapse("mean")
    made.to_hook_point("blocks.2.hook_resid_pre").rows.sum().backward()
    weight = torch.ones(3)
    weight[chosen] += c
    want = torch.zeros(3, D_MODEL)
    want[:, :5] = weight[:, None] / 3
    torch.testing.assert_close(rows.grad, want)


def test_no_graph_is_made_where_none_is_asked_for(model):
    v = al.SteeringVector(rows_of(1, 1.0), POINT, "all")
    assert not al.next_token_logprobs(model, PROMPT, v).requires_grad
    assert not al.token_logprobs(model, PROMPT, v)[0].requires_grad
    assert not al.SteeringVector.from_pair(model, ("Love", "Hate"), 1).rows.requires_grad
    _, cache = model.run_with_cache(PROMPT)
    cache = {POINT: cache[POINT].requires_grad_()}
    assert not al.SteeringVector.from_caches(cache, cache, POINT).rows.requires_grad


def test_what_is_trained_does_all_that_a_vector_does(model, tmp_path):
    v = al.SteeringVector(rows_of(1, 1.0), POINT)
    fixed = al.SteeringVector(v.rows.detach(), POINT)
    v.save(tmp_path / "v.safetensors")
    assert al.SteeringVector.load(tmp_path / "v.safetensors") == fixed == v
    assert v.identity() == fixed.identity()
    assert v.random_like(1) == fixed.random_like(1)
    assert v._repr_html_() == fixed._repr_html_()
    texts = [al.generate(model, PROMPT, w, max_new_tokens=4)[0].text for w in (v, fixed)]
    assert texts[0] == texts[1]
    frames = [
        al.sweep(model, {"v": w}, PROMPT, metrics="kl", progress=False).frame for w in (v, fixed)
    ]
    assert frames[0].equals(frames[1])
    assert al.dose(model, v, PROMPT).equals(al.dose(model, fixed, PROMPT))


def test_a_vector_is_trained_from_zero(model):
    rows = torch.zeros(1, D_MODEL, requires_grad=True)
    optimizer = torch.optim.Adam([rows], lr=0.1)
    losses = []
    for _ in range(5):
        optimizer.zero_grad()
        v = al.SteeringVector(rows, POINT, "all")
        loss = -al.next_token_logprobs(model, PROMPT, al.KeepNorm(2 * v), grad=True)[0, 7]
        loss.backward(inputs=[rows])
        optimizer.step()
        losses.append(loss.item())
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < losses[0]
