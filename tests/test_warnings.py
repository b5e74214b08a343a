"""Warnings: a vector of another model, one that is zero, and a context that was never entered."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import D_MODEL

import actadd_lens as al

POINT = "blocks.1.hook_resid_pre"
PROMPT = "I love you"
PAIR = ("Love", "Hate")

USES: dict[str, Callable[..., object]] = {
    "generate": lambda m, v: al.generate(m, [PROMPT] * 3, v, max_new_tokens=2, batch_size=1),
    "compare": lambda m, v: al.compare(m, PROMPT, v, max_new_tokens=2),
    "steer": lambda m, v: al.steer(m, v).__enter__(),
    "fwd_hooks": lambda m, v: al.fwd_hooks(m, v),
    "sweep": lambda m, v: al.sweep(
        m, {"v": v, "w": 2 * v}, [PROMPT, "I"], coefficients=[1, 2], metrics="kl", progress=False
    ),
    "position_ablation": lambda m, v: al.position_ablation(
        m, v, "I love you", metrics="kl", progress=False
    ),
    "token_logprobs": lambda m, v: al.token_logprobs(m, [PROMPT, "I love"], v),
    "next_token_logprobs": lambda m, v: al.next_token_logprobs(m, PROMPT, v),
    "next_token_shift": lambda m, v: al.next_token_shift(m, PROMPT, v),
    "perplexity_ratio": lambda m, v: al.perplexity_ratio(m, ["I love you because you"], v),
    "prompting_ratio": lambda m, v: al.prompting_ratio(m, ["I love you because you"], v, "I"),
    "answer_ranks": lambda m, v: al.answer_ranks(m, [("I love", "you")], v),
    "logit_lens": lambda m, v: al.logit_lens(m, PROMPT, v),
}


def warned(make: Callable[[], object]) -> list[tuple[type[Warning], str]]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        made = make()
    if hasattr(made, "__exit__"):
        made.__exit__(None, None, None)
    return [(c.category, str(c.message)) for c in caught]


@pytest.fixture(scope="module")
def foreign(bridge) -> al.SteeringVector:
    return al.SteeringVector.from_pair(bridge("llama"), PAIR, layer=1)


@pytest.mark.parametrize("use", sorted(USES.keys() - {"steer"}))
def test_a_vector_of_another_model_warns_once_a_call(model, foreign, use):
    [(category, text)] = warned(lambda: USES[use](model, foreign))
    assert category is al.ModelMismatchWarning
    assert "llama" in text
    assert "gpt2" in text


@pytest.mark.parametrize("use", sorted(USES.keys() - {"steer"}))
def test_a_vector_of_the_same_model_is_silent(model, use):
    v = al.SteeringVector.from_pair(model, PAIR, layer=1)
    assert warned(lambda: USES[use](model, v)) == []


def test_contexts_warn_where_they_are_made(model, foreign, tmp_path):
    foreign.save(tmp_path / "v.safetensors")
    loaded = al.SteeringVector.load(tmp_path / "v.safetensors")
    with pytest.warns(al.ModelMismatchWarning), al.steer(model, al.KeepNorm(4 * loaded)):
        pass


def test_vectors_of_two_models_are_added_with_a_warning(model, foreign):
    own = al.SteeringVector.from_pair(model, PAIR, layer=1)
    for combine in (lambda: own + foreign, lambda: foreign - own):
        with pytest.warns(al.ModelMismatchWarning, match=r"gpt2|llama"):
            combine()
    assert warned(lambda: own + own - 2 * own) == []


def test_one_model_by_two_spellings_is_silent(model, checkpoint, monkeypatch):
    v = al.SteeringVector.from_pair(model, PAIR, layer=1)
    monkeypatch.chdir(checkpoint("gpt2").parent)
    for spelling in ("gpt2", "./gpt2/", checkpoint("gpt2") / ".." / "gpt2"):
        again = al.load_model(Path(spelling), device="cpu")
        assert warned(lambda again=again: al.generate(again, PROMPT, v, max_new_tokens=1)) == []


def test_the_testbed_is_itself_by_its_path():
    from actadd_lens.models.load import TESTBED

    v = al.SteeringVector.from_pair(al.load_model("testbed"), PAIR, layer=1)
    by_path = al.load_model(TESTBED)
    assert warned(lambda: al.generate(by_path, PROMPT, v, max_new_tokens=1)) == []
    assert warned(lambda: v + al.SteeringVector.from_pair(by_path, PAIR, layer=1)) == []


# Zero


def zero(**options: object) -> al.SteeringVector:
    return al.SteeringVector(torch.zeros(1, D_MODEL, **options), POINT)


@pytest.mark.parametrize("use", sorted(USES.keys() - {"steer"}))
def test_a_zero_vector_warns_once_a_call(model, use):
    found = warned(lambda: USES[use](model, zero()))
    assert [category for category, _ in found] == [UserWarning] * (1 + (use == "sweep"))
    assert "vector at blocks.1.hook_resid_pre, front, 1 row is zero" in found[0][1]


def test_coefficient_zero_and_vectors_to_be_trained_are_silent(model):
    v = al.SteeringVector.from_pair(model, PAIR, layer=1)
    zeros = (0 * v, -0.0 * v, (0.0 * v).at(1), 1e-300 * v, v - v, zero(requires_grad=True))
    silent = (*zeros, [v, *zeros], al.KeepNorm(0 * v), None)
    for steering in silent:
        assert warned(lambda s=steering: al.generate(model, PROMPT, s, max_new_tokens=1)) == []
    options = {"metrics": "kl", "progress": False, "coefficients": [0, 1]}
    assert warned(lambda: al.sweep(model, {"v": v}, PROMPT, **options)) == []


# A context that is not entered


def test_a_context_that_is_never_entered_warns(model):
    v = al.SteeringVector.from_pair(model, PAIR, layer=1)

    def forgotten() -> None:
        al.steer(model, v)
        gc.collect()

    [(category, text)] = warned(forgotten)
    assert category is UserWarning
    assert "with al.steer(...):" in text


def test_contexts_that_are_used_do_not_warn(model):
    v = al.SteeringVector.from_pair(model, PAIR, layer=1)
    tokens = model.to_tokens(PROMPT)
    clean = model(tokens)

    def used() -> None:
        context = al.steer(model, v)
        for _ in range(2):  # one after the other
            with context:
                assert not torch.equal(model(tokens), clean)
            assert torch.equal(model(tokens), clean)
        with context, context:  # nested, as two
            twice = model(tokens)
        with al.steer(model, 2 * v):
            torch.testing.assert_close(twice, model(tokens))

        @al.steer(model, v)
        def steered() -> torch.Tensor:
            return model(tokens)

        assert not torch.equal(steered(), clean)
        assert torch.equal(model(tokens), clean)
        del context, steered
        gc.collect()

    assert warned(used) == []


@pytest.mark.usefixtures("untyped")
def test_a_context_that_cannot_be_made_does_not_warn(model):
    with pytest.raises(al.VectorError, match="cannot steer with a str"):
        al.steer(model, "v")
    gc.collect()
