"""Generated text against the hand-written oracle, and the laws that every completion keeps."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import oracle
import pytest
import torch
from conftest import ARCHITECTURES, N_CTX
from hypothesis import given
from hypothesis import strategies as st

import actadd_lens as al
from actadd_lens.generation.sampling import drawn_tokens, exponential_noise, random_stream
from actadd_lens.models.base import Bridge
from actadd_lens.models.tokens import as_prompts

PROMPTS = ["I hate you because", "I love", "The wedding was on a sunny day in May"]
LAYER = 1
N_NEW = 8

seeds = st.integers(0, 2**64 - 1)
options = st.fixed_dictionaries(
    {
        "temperature": st.sampled_from([0.0, 0.7, 1.0, 1.5]),
        "top_k": st.sampled_from([None, 1, 20]),
        "top_p": st.sampled_from([1.0, 0.8]),
        "frequency_penalty": st.sampled_from([0.0, 1.0]),
        "seed": seeds,
    }
)


def two_rows(model: Bridge, seed: int = 0, size: float = 3.0) -> al.SteeringVector:
    generator = torch.Generator().manual_seed(seed)
    rows = size * torch.randn(2, model.cfg.d_model, generator=generator)
    return al.SteeringVector(rows, f"blocks.{LAYER}.hook_resid_pre")


def generate(model: Bridge, prompts: str | Sequence[str] = PROMPTS, *args: Any, **kwargs: Any
             ) -> al.Completions:  # fmt: skip
    return al.generate(model, prompts, *args, **{"max_new_tokens": N_NEW, **kwargs})


def tokens(completions: Sequence[al.Completion]) -> list[tuple[int, ...]]:
    return [completion.tokens for completion in completions]


@pytest.fixture
def own_hook(model: Bridge) -> Iterator[None]:
    """A caller's hook that changes nothing but that the bridge has to decode for."""
    point = model.blocks[0].hook_resid_pre
    point.add_hook(lambda tensor, hook: None)
    yield
    point.remove_hooks()


# Against the oracle: plain model, no cache, one prompt at a time


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_greedy_is_the_oracles(
    bridge: Callable[[str], Bridge], plain: Callable[[str], Any], architecture: str
) -> None:
    model = bridge(architecture)
    vector = two_rows(model)
    prompts = PROMPTS[::2]
    found = generate(model, prompts, vector, temperature=0, stop_at_eos=False)
    for ids, completion in zip(as_prompts(model, prompts), found, strict=True):
        added = [oracle.Addition(LAYER, "resid_pre", vector.rows)]
        expected = oracle.greedy(plain(architecture), architecture, ids, N_NEW, added)
        assert list(completion.tokens) == expected


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_sampled_is_the_oracles_with_the_same_random_numbers(
    bridge: Callable[[str], Bridge], plain: Callable[[str], Any], architecture: str
) -> None:
    model, hf = bridge(architecture), plain(architecture)
    vector = two_rows(model)
    prompts = PROMPTS[::2]
    found = generate(model, prompts, vector, seed=5, samples=2, stop_at_eos=False)
    for completion in found:
        ids = [*as_prompts(model, completion.prompt)[0]]
        stream = random_stream(5, completion.prompt_index, completion.sample_index)
        added = [oracle.Addition(LAYER, "resid_pre", vector.rows)]
        for token, logprob in zip(completion.tokens, completion.logprobs, strict=True):
            logits = oracle.logits(hf, architecture, ids, added)[-1:]
            noise = exponential_noise([stream], logits.shape[-1])
            assert token == int(drawn_tokens(logits, noise))
            assert logprob == pytest.approx(float(logits.log_softmax(-1)[0, token]), abs=1e-4)
            ids.append(token)


@pytest.mark.parametrize("position", ["generated", "all"])
def test_generated_tokens_are_steered_where_the_position_says_so(
    neo: Bridge, plain: Callable[[str], Any], position: str
) -> None:
    row = two_rows(neo).rows[:1]
    vector = al.SteeringVector(row, f"blocks.{LAYER}.hook_resid_pre", position)
    found = generate(neo, PROMPTS[0], vector, temperature=0, stop_at_eos=False)
    ids = as_prompts(neo, PROMPTS[0])[0]
    on_prompt = [oracle.Addition(LAYER, "resid_pre", row.repeat(len(ids), 1))]
    expected = oracle.greedy(
        plain("gpt-neo"), "gpt-neo", ids, N_NEW,
        on_prompt if position == "all" else (), [(LAYER, "resid_pre", row[0])],
    )  # fmt: skip
    assert list(found[0].tokens) == expected


# Laws


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_completion_depends_neither_on_batch_size_nor_on_neighbours(
    bridge: Callable[[str], Bridge], architecture: str
) -> None:
    model = bridge(architecture)
    vector = two_rows(model)
    together = generate(model, PROMPTS, vector, samples=3)
    for batch_size in (1, 2, 4):
        apart = generate(model, PROMPTS, vector, samples=3, batch_size=batch_size)
        assert tokens(apart) == tokens(together)
    fewer = generate(model, PROMPTS[:1], vector, samples=2)
    assert tokens(fewer) == tokens(together[:2])


@pytest.mark.slow
@given(options, st.integers(1, 9), st.booleans())
def test_batching_changes_no_result(
    model: Bridge, chosen: dict[str, Any], batch_size: int, steered: bool
) -> None:
    vector = two_rows(model) if steered else None
    together = generate(model, PROMPTS, vector, samples=2, **chosen)
    apart = generate(model, PROMPTS, vector, samples=2, batch_size=batch_size, **chosen)
    assert tokens(apart) == tokens(together)


@given(options)
def test_a_coefficient_of_zero_is_the_clean_run_bit_for_bit(
    model: Bridge, chosen: dict[str, Any]
) -> None:
    steered = generate(model, PROMPTS, 0 * two_rows(model), samples=2, **chosen)
    assert steered == generate(model, PROMPTS, None, samples=2, **chosen)


@given(options, st.integers(1, N_NEW))
def test_fewer_tokens_are_the_beginning_of_more(
    model: Bridge, chosen: dict[str, Any], n: int
) -> None:
    long = generate(model, PROMPTS, two_rows(model), **chosen)
    short = generate(model, PROMPTS, two_rows(model), **{**chosen, "max_new_tokens": n})
    assert tokens(short) == [completion[:n] for completion in tokens(long)]


@given(options)
def test_the_bridge_decodes_what_the_twin_does(model: Bridge, chosen: dict[str, Any]) -> None:
    vector = two_rows(model)
    by_twin = generate(model, PROMPTS, vector, **chosen)
    point = model.blocks[0].hook_resid_pre
    point.add_hook(lambda tensor, hook: None)
    try:
        by_bridge = generate(model, PROMPTS, vector, **chosen)
    finally:
        point.remove_hooks()
    assert tokens(by_bridge) == tokens(by_twin)


@pytest.mark.slow
@given(seeds)
def test_seeds_repeat_and_differ(model: Bridge, seed: int) -> None:
    first, second = (generate(model, seed=seed, samples=2) for _ in range(2))
    assert first == second
    assert tokens(first) != tokens(generate(model, seed=(seed + 1) % 2**64, samples=2))


def test_samples_of_a_prompt_and_equal_prompts_differ(model: Bridge) -> None:
    found = generate(model, ["I love you"] * 2, samples=3)
    assert len(set(tokens(found))) == 6


def test_fewer_samples_are_the_first_of_more(model: Bridge) -> None:
    more = generate(model, samples=3)
    fewer = generate(model, samples=2)
    assert tokens(fewer) == [c.tokens for c in more if c.sample_index < 2]


@pytest.mark.parametrize("fails", [False, True])
def test_hooks_and_modes_after_are_those_before(
    model: Bridge, own_hook: None, monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    def state() -> list[Any]:
        modules = {**dict(model.named_modules()), **dict(model.original_model.named_modules())}
        return [
            (name, m.training, *m._forward_hooks.values(), *m._forward_pre_hooks.values(),
             *getattr(m, "fwd_hooks", ()))
            for name, m in modules.items()
        ]  # fmt: skip

    generate(model)
    model.train()
    before = state()
    try:
        if fails:
            monkeypatch.setattr("actadd_lens.generation.decoding.token_logprobs", _interrupted)
            with pytest.raises(KeyboardInterrupt):
                generate(model, PROMPTS, two_rows(model))
        else:
            generate(model, PROMPTS, two_rows(model))
        assert state() == before
        assert "forward" not in model.__dict__
    finally:
        model.eval()


def _interrupted(*_: Any, **__: Any) -> Any:
    raise KeyboardInterrupt


def test_dropout_of_a_model_in_train_mode_is_off(model: Bridge) -> None:
    expected = generate(model)
    model.train()
    try:
        assert generate(model) == expected
    finally:
        model.eval()


# Options


def test_frequency_penalty_counts_what_was_generated_and_nothing_else(
    model: Bridge, plain: Callable[[str], Any]
) -> None:
    """By hand, greedy: not the prompt, not BOS."""
    prompt = "you you you because"
    ids = as_prompts(model, prompt)[0]
    generated: list[int] = []
    for _ in range(N_NEW):
        logits = oracle.logits(plain("gpt2"), "gpt2", [*ids, *generated])[-1].clone()
        for token in generated:
            logits[token] -= 1.5
        generated.append(int(logits.argmax()))
    found = generate(model, prompt, temperature=0, frequency_penalty=1.5, stop_at_eos=False)
    assert list(found[0].tokens) == generated
    assert generated != list(generate(model, prompt, temperature=0, stop_at_eos=False)[0].tokens)


def test_logprobs_are_those_of_the_unmodified_distribution(model: Bridge) -> None:
    changed = {"temperature": 0.5, "top_k": 5, "top_p": 0.9, "frequency_penalty": 0.5}
    for completion in generate(model, PROMPTS, stop_at_eos=False, **changed):
        ids = as_prompts(model, completion.prompt)[0]
        whole = torch.tensor([[*ids, *completion.tokens]])
        with torch.no_grad():
            logprobs = model(whole)[0].log_softmax(-1)[len(ids) - 1 : -1]
        expected = logprobs.gather(-1, torch.tensor(completion.tokens)[:, None])[:, 0]
        torch.testing.assert_close(torch.tensor(completion.logprobs), expected, atol=1e-4, rtol=0)


def test_eos_ends_a_row_and_is_not_in_its_text(model: Bridge) -> None:
    """Also where rows end at different steps and leave the batch."""
    eos = model.tokenizer.eos_token_id
    endless = generate(model, PROMPTS, samples=40, max_new_tokens=30, stop_at_eos=False)
    ended = generate(model, PROMPTS, samples=40, max_new_tokens=30)
    n_ended = 0
    for long, short in zip(endless, ended, strict=True):
        stop = long.tokens.index(eos) + 1 if eos in long.tokens else 30
        assert short.tokens == long.tokens[:stop]
        assert len(short.logprobs) == len(short.tokens)
        assert model.tokenizer.eos_token not in short.text
        n_ended += stop < 30
    assert 0 < n_ended < len(ended)


@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
def test_text_is_the_raw_text_behind_the_prompt(
    bridge: Callable[[str], Bridge], architecture: str
) -> None:
    model = bridge(architecture)
    for completion in generate(model, PROMPTS, samples=2, stop_at_eos=False):
        assert completion.text == model.tokenizer.decode(list(completion.tokens))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(checkpoint: Callable[[str], Any], dtype: torch.dtype) -> None:
    model = al.load_model(checkpoint("llama"), device="cpu", dtype=dtype)
    vector = al.SteeringVector.from_pair(model, ("Love", "Hate"), LAYER)
    found = generate(model, PROMPTS, 4 * vector, samples=2)
    assert len(found) == 6
    assert found == generate(model, PROMPTS, 4 * vector, samples=2)


def test_no_progress_bar_unless_asked_for(
    model: Bridge, capsys: pytest.CaptureFixture[str]
) -> None:
    generate(model)
    assert capsys.readouterr().err == ""
    generate(model, samples=2, stop_at_eos=False, progress=True)
    assert f"{2 * len(PROMPTS) * N_NEW}/{2 * len(PROMPTS) * N_NEW}" in capsys.readouterr().err


# Results


def test_completions_are_a_sequence_in_the_order_of_the_prompts(model: Bridge) -> None:
    found = generate(model, PROMPTS, samples=2)
    keys = [(c.prompt_index, c.sample_index) for c in found]
    assert keys == [(p, s) for p in range(3) for s in range(2)]
    assert [c.prompt for c in found] == [p for p in PROMPTS for _ in range(2)]
    assert isinstance(found[1:3], al.Completions)
    assert len(found[1:3]) == 2
    assert found[-1] == list(found)[-1]


def test_the_frame_has_the_fields(model: Bridge) -> None:
    found = generate(model, PROMPTS, samples=2)
    frame = found.frame
    assert list(frame.columns) == [
        "prompt", "text", "tokens", "logprobs", "prompt_index", "sample_index",
    ]  # fmt: skip
    assert frame["text"].tolist() == [c.text for c in found]


def test_repr_shows_some_and_says_how_many(model: Bridge) -> None:
    shown = repr(generate(model, PROMPTS, samples=4))
    assert shown.startswith("Completions(n=12, prompts=3)\n  [0.0] 'I hate you because' -> ")
    assert shown.endswith("... and 4 more")


def test_provenance_is_enough_to_run_again(model: Bridge) -> None:
    vector = al.SteeringVector.from_pair(model, ("Love", "Hate"), LAYER)
    first = generate(model, PROMPTS, vector, seed=3, temperature=0.5)
    assert first.provenance["model"] == model.cfg.model_name
    assert first.provenance["steering"][0]["hook_point"] == vector.hook_point
    assert al.generate(model, PROMPTS, vector, **first.provenance["sampling"]) == first


# Bad input


def test_a_prompt_beyond_the_context_is_named_before_anything_runs(model: Bridge) -> None:
    prompts = ["I", "you " * 20]
    n = len(as_prompts(model, prompts)[1])
    n_new = N_CTX - n
    assert len(generate(model, prompts, max_new_tokens=n_new)) == 2
    with pytest.raises(al.PromptError, match=rf"prompt 1 has {n} .* {n_new + 1} new .* {N_CTX}"):
        generate(model, prompts, max_new_tokens=n_new + 1)


def test_a_vector_that_does_not_fit_is_refused_before_anything_runs(
    model: Bridge, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("actadd_lens.models.bridge.BridgeModel.run", _interrupted)
    vector = al.SteeringVector(torch.ones(5, model.cfg.d_model), "blocks.1.hook_resid_pre")
    with pytest.raises(al.PositionError, match="vector has 5 rows, prompt 1 has 2 tokens"):
        generate(model, [PROMPTS[2], "I"], vector, batch_size=1)


@pytest.mark.parametrize("prompts", [[], "", ["I", ""]])
def test_empty_prompts_are_refused(model: Bridge, prompts: Any) -> None:
    with pytest.raises(al.PromptError, match="empty"):
        generate(model, prompts)


@pytest.mark.parametrize(
    "bad", [{"temperature": -1.0}, {"top_p": 2.0}, {"samples": 0}, {"batch_size": 0}, {"seed": -1}]
)
def test_bad_options_are_refused(model: Bridge, bad: dict[str, Any]) -> None:
    (name,) = bad
    with pytest.raises(al.SamplingError, match=name):
        generate(model, **bad)


def test_a_misspelt_option_is_refused(model: Bridge) -> None:
    with pytest.raises(TypeError, match="temprature"):
        generate(model, temprature=1.0)
