"""Logits that are not finite are an error, which says where it begins; in sweeps they are NaN."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from conftest import D_MODEL, N_LAYERS

import actadd_lens as al
from actadd_lens.models.base import Bridge

POINT = "blocks.1.hook_resid_pre"
PROMPTS = ["I love you", "I hate you because you are late"]
VECTOR = al.SteeringVector(torch.ones(1, D_MODEL), POINT, "all")

USES: dict[str, Callable[[Bridge], object]] = {
    "generate": lambda m: al.generate(m, PROMPTS, max_new_tokens=3),
    "greedy": lambda m: al.generate(m, PROMPTS, temperature=0, top_p=0.9, max_new_tokens=3),
    "compare": lambda m: al.compare(m, PROMPTS, None, top_p=0.9, max_new_tokens=3),
    "token_logprobs": lambda m: al.token_logprobs(m, PROMPTS),
    "next_token_logprobs": lambda m: al.next_token_logprobs(m, PROMPTS),
    "next_token_shift": lambda m: al.next_token_shift(m, PROMPTS[0], VECTOR),
    "perplexity_ratio": lambda m: al.perplexity_ratio(m, PROMPTS, None),
    "answer_ranks": lambda m: al.answer_ranks(m, [("I love", "you")]),
}


def broken(checkpoint, name: str, value: float, dtype: torch.dtype = torch.float32) -> Bridge:
    """A model of one's own, one of whose weights has a value."""
    model = al.load_model(checkpoint("llama"), device="cpu", dtype=dtype)
    parameters = {
        key.replace("_original_component.", ""): p
        for key, p in model.original_model.named_parameters()
    }
    [weight] = [p for key, p in parameters.items() if key.endswith(f"{name}.weight")]
    with torch.no_grad():
        weight[5] = value
    return model


@pytest.fixture(scope="module")
def overflowing(checkpoint) -> Bridge:
    """Its block 1 writes more than float16 holds."""
    return broken(
        checkpoint,
        "layers.1.mlp.down_proj",
        math.inf,
        torch.float16,
    )


@pytest.mark.parametrize("use", USES)
def test_every_use_names_precision_layer_and_remedy(overflowing, use):
    with pytest.raises(al.NumericsError) as caught:
        USES[use](overflowing)
    message = str(caught.value)
    assert "not finite in float16" in message
    assert "the stream that enters layer 2 is the first that is not finite" in message
    assert "load the model in float32 or bfloat16" in message


def test_the_steered_run_is_named(checkpoint):
    model = al.load_model(checkpoint("gpt2"), device="cpu", dtype=torch.bfloat16)
    much = 3e38 * VECTOR
    with pytest.raises(
        al.NumericsError,
        match=r"steered logits after 0 tokens of .* prompt 0 .*"
        r"bfloat16.*: steer with a smaller coefficient",
    ):
        al.generate(model, PROMPTS, much, max_new_tokens=2)
    with pytest.raises(al.NumericsError, match=r"steered logits of text 0"):
        al.token_logprobs(model, PROMPTS, much)
    assert len(al.generate(model, PROMPTS, max_new_tokens=2)) == 2


@pytest.mark.parametrize(
    ("name", "where"),
    [
        ("lm_head", "every stream is finite, so it begins in the final"),
        (
            f"layers.{N_LAYERS - 1}.mlp.down_proj",
            "the stream that leaves the last layer is the first",
        ),
    ],
)
def test_the_end_of_the_model_is_named(checkpoint, name, where):
    with pytest.raises(al.NumericsError, match=where) as caught:
        al.next_token_logprobs(broken(checkpoint, name, math.nan), "I love you")
    assert "float16" not in str(caught.value)
    assert "weights" in str(caught.value)


def test_a_token_that_is_ruled_out_is_no_error(checkpoint):
    # Some models set logits to -inf, of tokens that only their inputs have.
    model = al.load_model(checkpoint("gpt2"), device="cpu")
    head = model.original_model.get_output_embeddings()
    handle = head.register_forward_hook(
        lambda _, __, logits: logits.index_fill(-1, torch.tensor([5]), -math.inf)
    )
    try:
        logprobs = al.next_token_logprobs(model, "I love you")
        assert logprobs[0, 5] == -math.inf
        assert al.generate(model, "I love you", max_new_tokens=3)[0].tokens
        assert al.token_logprobs(model, "I love you")[0].isfinite().all()
    finally:
        handle.remove()


def test_a_sweep_records_nan_and_counts_it(overflowing, caplog):
    result = al.sweep(
        overflowing,
        {"v": VECTOR},
        PROMPTS,
        metrics=["kl", "repetition"],
        samples=1,
        max_new_tokens=3,
        controls=(),
        progress=False,
    )
    assert result.frame["value"].isna().all()
    assert "kl is NaN for 4 of 4 values" in caplog.text
    assert "repetition is NaN for 4 of 4 values" in caplog.text


def test_it_is_found_where_the_vector_acts(checkpoint) -> None:
    """Also at positions that depend on the prompt's words, and at generated tokens."""
    model = al.load_model(checkpoint("llama"), device="cpu")
    huge = al.SteeringVector(torch.full((1, D_MODEL), 3e38), POINT, "generated")
    with pytest.raises(al.NumericsError, match=r"that leaves|that enters layer"):
        al.generate(model, PROMPTS[0], [huge, huge], max_new_tokens=3, stop_at_eos=False)
    with pytest.raises(al.NumericsError, match=r"that leaves|that enters layer"):
        al.next_token_logprobs(model, PROMPTS[0], [huge.at(al.find("love"))] * 2)
