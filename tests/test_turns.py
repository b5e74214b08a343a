"""Passes that a hook has to tell apart: turns on a filled cache, chunks, decode steps, threads."""

import random
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import D_MODEL
from hypothesis import given
from hypothesis import strategies as st
from oracle import Addition, greedy, logits, start_of
from torch import Tensor

import actadd_lens as al
from actadd_lens.models.base import Bridge
from actadd_lens.models.hook_points import hooked_points
from actadd_lens.models.tokens import pad_left

ROWS = 2 * torch.randn(3, D_MODEL, generator=torch.Generator().manual_seed(5))
FIRST, SECOND = [1, 20, 33, 45, 60, 71, 80], [90, 25, 31, 77, 41]
WHOLE = FIRST + SECOND
LAYER, N_NEW = 1, 5
Load = Callable[[str], Any]


def vector(position: Any, n_rows: int = 3) -> al.SteeringVector:
    return al.SteeringVector(ROWS[:n_rows], f"blocks.{LAYER}.hook_resid_pre", position)


def ids(tokens: Sequence[int]) -> Tensor:
    return torch.tensor([list(tokens)])


def by_hand(plain: Any, rows: Tensor, start: int) -> Tensor:
    """Log-probs of one pass over both turns, with rows from a position on."""
    additions = [Addition(LAYER, "resid_pre", rows, start)] if len(rows) else []
    return logits(plain, "llama", WHOLE, additions).log_softmax(-1)


def second_turn(model: Bridge, steering: Any, from_the_first: bool = False) -> Tensor:
    """Log-probs of the second turn on the cache of the first, by the bridge."""
    with torch.no_grad():
        if from_the_first:
            with al.steer(model, steering):
                _, cache = model(ids(FIRST), return_type="logits_and_cache", use_cache=True)
                found = model(ids(SECOND), past_key_values=cache)
        else:
            _, cache = model(ids(FIRST), return_type="logits_and_cache", use_cache=True)
            with al.steer(model, steering):
                found = model(ids(SECOND), past_key_values=cache)
    return found[0].log_softmax(-1)


@pytest.mark.parametrize(
    ("position", "n_rows", "rows", "start"),
    [
        ("back", 3, ROWS, len(WHOLE) - 3),
        ("middle", 3, ROWS, len(FIRST) + len(SECOND) // 2 - 1),
        (-4, 3, ROWS, len(WHOLE) - 4),
        (8, 3, ROWS, 8),
        ("prompt", 1, ROWS[:1].repeat(len(SECOND), 1), len(FIRST)),
        ("front", 3, ROWS[:0], 0),
        ("generated", 1, ROWS[:0], 0),
    ],
)
def test_a_chats_next_turn(
    bridge: Load, plain: Load, position: Any, n_rows: int, rows: Tensor, start: int
) -> None:
    found = second_turn(bridge("llama"), vector(position, n_rows))
    expected = by_hand(plain("llama"), rows, start)[len(FIRST) :]
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_both_turns_of_a_chat(bridge: Load, plain: Load) -> None:
    found = second_turn(bridge("llama"), vector("prompt", 1), from_the_first=True)
    expected = by_hand(plain("llama"), ROWS[:1].repeat(len(WHOLE), 1), 0)[len(FIRST) :]
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_a_vector_longer_than_the_turn_is_refused(bridge: Load) -> None:
    with pytest.raises(al.PositionError, match="has 5 tokens"):
        second_turn(bridge("llama"), vector(-6))


def completion(plain: Any, position: Any, tokens: Sequence[int] = WHOLE) -> list[int]:
    row, n = ROWS[:1], len(tokens)
    additions, every = [], []
    if position in ("prompt", "all"):
        additions = [Addition(LAYER, "resid_pre", row.repeat(n, 1))]
    elif position != "generated":
        additions = [Addition(LAYER, "resid_pre", ROWS, start_of(position, n, 3))]
    if position in ("generated", "all"):
        every = [(LAYER, "resid_pre", row)]
    return greedy(plain, "llama", tokens, N_NEW, additions, every)


def placed(position: Any) -> al.SteeringVector:
    return vector(position, 1 if position in ("prompt", "generated", "all") else 3)


@given(
    chunk=st.sampled_from([None, 1, 2, 5, 11]),
    position=st.sampled_from(["front", "middle", "back", 2, -5, "prompt", "generated", "all"]),
    n_padding=st.integers(0, 4),
)
def test_a_prefill_in_chunks(
    bridge: Load, plain: Load, chunk: int | None, position: Any, n_padding: int
) -> None:
    """Also where a vector, or the padding of another row, is cut by the border of a chunk."""
    hf = plain("llama")
    rows = [WHOLE, WHOLE[: len(WHOLE) - n_padding]]
    tokens, mask = pad_left(rows, 0)
    with al.steer(hf, placed(position)):
        made = hf.generate(
            tokens,
            attention_mask=mask,
            prefill_chunk_size=chunk,
            max_new_tokens=N_NEW,
            do_sample=False,
            eos_token_id=None,
            pad_token_id=0,
        )
    expected = [completion(hf, position, row) for row in rows]
    assert made[:, len(WHOLE) :].tolist() == expected


@pytest.mark.parametrize("position", ["front", "back", "generated", "all"])
@pytest.mark.parametrize(
    "options",
    [{"use_cache": False}, {"cache_implementation": "static"}, {"num_return_sequences": 2}],
)
def test_ways_of_transformers_to_generate(
    plain: Load, position: str, options: dict[str, Any]
) -> None:
    hf = plain("llama")
    sampled = {"do_sample": True, "top_k": 1} if "num_return_sequences" in options else {}
    with torch.random.fork_rng(), al.steer(hf, placed(position)):
        made = hf.generate(
            ids(WHOLE),
            attention_mask=torch.ones_like(ids(WHOLE)),
            max_new_tokens=N_NEW,
            eos_token_id=None,
            pad_token_id=0,
            **{"do_sample": False, **sampled, **options},
        )
    want = completion(hf, position)
    assert all(row == want for row in made[:, len(WHOLE) :].tolist())


@pytest.mark.parametrize("position", ["front", "back", "prompt", "generated", "all"])
@pytest.mark.parametrize("options", [{"use_past_kv_cache": False}, {"return_cache": True}])
def test_the_bridge_reads_generated_tokens_again(
    bridge: Load, plain: Load, position: str, options: dict[str, Any]
) -> None:
    model = bridge("llama")
    with al.steer(model, placed(position)):
        made = model.generate(
            ids(WHOLE),
            max_new_tokens=N_NEW,
            do_sample=False,
            stop_at_eos=False,
            verbose=False,
            return_type="tokens",
            **options,
        )
    tokens = made[0] if isinstance(made, tuple) else made
    assert tokens[0, len(WHOLE) :].tolist() == completion(plain("llama"), position)


def test_padding_that_is_not_known_is_an_error(plain: Load) -> None:
    """transformers finds padding by itself; in chunks the first does not show all of it."""
    hf = plain("llama")
    tokens = torch.tensor([WHOLE, [0] * 3 + WHOLE[3:]])
    with (
        pytest.raises(al.PositionError, match="attention_mask"),
        al.steer(hf, vector("back")),
    ):
        hf.generate(tokens, prefill_chunk_size=4, max_new_tokens=2, pad_token_id=0)


def test_a_bare_model_has_no_other_hook_points(plain: Load) -> None:
    hf = plain("llama")
    elsewhere = al.SteeringVector(ROWS[:1], "blocks.1.hook_mlp_out", "all")
    with pytest.raises(al.LayerError, match="hook_resid_pre"), al.steer(hf, elsewhere):
        pass
    beyond = al.SteeringVector(ROWS[:1], "blocks.9.hook_resid_pre", "all")
    with pytest.raises(al.LayerError, match="3 layers"), al.steer(hf, beyond):
        pass
    assert not any(block._forward_pre_hooks for block in hf.modules())


def test_the_last_stream_of_a_bare_model(bridge: Load, plain: Load) -> None:
    last = al.SteeringVector(ROWS[:1], "blocks.2.hook_resid_post", "all")
    with torch.no_grad(), al.steer(plain("llama"), last):
        found = plain("llama")(ids(WHOLE)).logits[0].log_softmax(-1)
    additions = [Addition(2, "resid_post", ROWS[:1].repeat(len(WHOLE), 1))]
    expected = logits(plain("llama"), "llama", WHOLE, additions).log_softmax(-1)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_a_condition_over_a_prompt_in_chunks(plain: Load) -> None:
    hf, here = plain("llama"), f"blocks.{LAYER}.hook_resid_pre"
    always = al.Similarity(ROWS[0], here, -1.0, "back")
    mean = al.Similarity(ROWS[0], here, -1.0, "prompt")
    options: dict[str, Any] = {
        "attention_mask": torch.ones_like(ids(WHOLE)),
        "prefill_chunk_size": 5,
        "max_new_tokens": N_NEW,
        "do_sample": False,
        "eos_token_id": None,
        "pad_token_id": 0,
    }
    with al.steer(hf, al.When(always, vector("generated", 1))):
        made = hf.generate(ids(WHOLE), **options)
    assert made[0, len(WHOLE) :].tolist() == completion(hf, "generated")
    with (
        pytest.raises(al.PositionError, match="in one pass"),
        al.steer(hf, al.When(mean, vector("generated", 1))),
    ):
        hf.generate(ids(WHOLE), **options)


def calls_on(model: Bridge) -> list[Callable[[], Any]]:
    """Calls of every kind on one model."""
    texts, v, w = ["I love you", "She talks about weddings"], vector("front"), vector("all", 1)
    tokens = ids(WHOLE)

    def steered_pass() -> Tensor:
        with torch.no_grad(), al.steer(model, v):
            return model(tokens)[0, -1]

    def clean_pass() -> Tensor:
        with torch.no_grad():
            return model(tokens)[0, -1]

    def own_generation() -> Any:
        with al.steer(model, w):
            return model.generate(tokens, max_new_tokens=4, do_sample=False, verbose=False)

    def swept() -> Any:
        options: dict[str, Any] = {"coefficients": [1.0, 2.0], "metrics": ["kl"], "controls": ()}
        values = al.sweep(model, {"v": v, "w": w}, texts, **options).frame["value"]
        return torch.tensor(values.to_numpy(dtype=float))

    return [
        lambda: al.next_token_logprobs(model, texts),
        lambda: al.next_token_logprobs(model, texts, v),
        lambda: [c.tokens for c in al.generate(model, texts, v, max_new_tokens=4)],
        lambda: [c.tokens for c in al.generate(model, texts, w, max_new_tokens=4)],
        lambda: [c.tokens for c in al.generate(model, texts, max_new_tokens=4)],
        lambda: torch.cat(al.token_logprobs(model, texts, w)),
        lambda: al.extract(model, ("Love", "Hate"))[2].rows,
        steered_pass,
        clean_pass,
        own_generation,
        swept,
    ]


def threads_agree(model: Bridge, n_calls: int) -> None:
    calls = calls_on(model)
    alone = [call() for call in calls]
    order = [index % len(calls) for index in range(n_calls)]
    random.Random(0).shuffle(order)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda index: calls[index](), order))
    for index, value in zip(order, found, strict=True):
        torch.testing.assert_close(value, alone[index], atol=1e-5, rtol=1e-5, equal_nan=True)
    assert not list(hooked_points(model))
    assert "forward" not in vars(model)


def test_calls_in_threads_give_what_they_give_alone(bridge: Load) -> None:
    threads_agree(bridge("llama"), 66)


@pytest.mark.slow
def test_five_hundred_calls_in_eight_threads(bridge: Load) -> None:
    threads_agree(bridge("gpt-neo"), 500)


def test_dropout_stays_off_until_the_last_thread_has_ended(
    checkpoint: Callable[[str], Any],
) -> None:
    model = al.load_model(checkpoint("gpt2"), device="cpu").train()
    expected = al.next_token_logprobs(model, "I love you")
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: al.next_token_logprobs(model, "I love you"), range(40)))
    assert all(torch.equal(value, expected) for value in found)
    assert model.training


def test_a_steered_function_is_steered_in_every_thread(bridge: Load) -> None:
    model, v = bridge("llama"), vector("all", 1)
    with torch.no_grad(), al.steer(model, v):
        expected = model(ids(WHOLE))

    @al.steer(model, v)
    def run(_: int) -> Tensor:
        with torch.no_grad():
            first = model(ids(WHOLE))
            return first if torch.equal(first, model(ids(WHOLE))) else first.new_zeros(1)

    with ThreadPoolExecutor(4) as pool:
        assert all(torch.equal(found, expected) for found in pool.map(run, range(24)))


def test_steering_of_one_thread_costs_another_no_fast_path(bridge: Load) -> None:
    model = bridge("llama")
    with al.steer(model, vector("all", 1)), ThreadPoolExecutor(1) as pool:
        assert hooked_points(model)
        assert pool.submit(hooked_points, model).result() == []


def test_only_causal_models_of_transformers_are_bare() -> None:
    with pytest.raises(al.ModelTypeError, match="load_model"):
        al.steer(torch.nn.Identity(), vector("front"))  # type: ignore[arg-type]


def test_a_vector_of_another_model_warns_on_a_bare_model_too(plain: Load) -> None:
    origin = {"kind": "pair", "model": "another", "n_layers": 3}
    other = al.SteeringVector(ROWS[:1], "blocks.1.hook_resid_pre", "all", provenance=origin)
    with pytest.warns(al.ModelMismatchWarning) as caught, al.steer(plain("llama"), other):
        pass
    assert Path(caught[0].filename).parent.name != "steering"  # it names the line of the caller


def test_a_mask_and_a_cache_may_be_given_by_position(plain: Load) -> None:
    hf, v = plain("llama"), vector("front", 1)
    tokens = torch.tensor([[0] * 4 + WHOLE[:8], WHOLE])
    mask = torch.tensor([[0] * 4 + [1] * 8, [1] * 12])
    with torch.no_grad(), al.steer(hf, v):
        expected = hf(tokens, attention_mask=mask).logits
        torch.testing.assert_close(hf(tokens, mask).logits, expected)
        caches = [hf(ids(FIRST), use_cache=True).past_key_values for _ in range(2)]
        step = hf(ids([5]), past_key_values=caches[0]).logits
        torch.testing.assert_close(hf(ids([5]), None, None, caches[1]).logits, step)


def test_contexts_end_in_any_order_and_thread(bridge: Load) -> None:
    model, v = bridge("llama"), vector("all", 1)
    first, second = al.steer(model, v), al.steer(model.original_model, v)
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    with ThreadPoolExecutor(1) as pool:
        pool.submit(second.__exit__, None, None, None).result()
    for owner in (model, model.original_model):
        assert not {"generate", "forward"} & vars(owner).keys()
    assert not hooked_points(model)


def test_what_runs_later_is_no_function_to_decorate(bridge: Load) -> None:
    async def later() -> None: ...

    with pytest.raises(al.VectorError, match="inside of it"):
        al.steer(bridge("llama"), vector("all", 1))(later)


@pytest.mark.parametrize("position", ["front", "back", "generated"])
def test_assisted_generation(plain: Load, position: str) -> None:
    hf = plain("llama")
    with al.steer(hf, placed(position)):
        made = hf.generate(
            ids(WHOLE),
            attention_mask=torch.ones_like(ids(WHOLE)),
            assistant_early_exit=2,
            max_new_tokens=N_NEW,
            do_sample=False,
            eos_token_id=None,
            pad_token_id=0,
        )
    assert made[0, len(WHOLE) :].tolist() == completion(hf, position)


def test_a_condition_at_the_sink_holds_for_later_turns(bridge: Load, plain: Load) -> None:
    here = f"blocks.{LAYER}.hook_resid_pre"
    when = al.When(al.Similarity(ROWS[0], here, -1.0, "sink"), vector("prompt", 1))
    found = second_turn(bridge("llama"), when, from_the_first=True)
    expected = by_hand(plain("llama"), ROWS[:1].repeat(len(WHOLE), 1), 0)[len(FIRST) :]
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
