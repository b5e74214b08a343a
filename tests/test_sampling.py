"""The sampler draws what it should, from streams that depend on nothing but their key."""

import math
from itertools import accumulate

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from actadd_lens.errors import SamplingError
from actadd_lens.generation.sampling import (
    Sampling,
    adjusted_logits,
    drawn_tokens,
    exponential_noise,
    random_stream,
    token_logprobs,
)

VOCAB = 37
indices = st.integers(0, 2**31)


def some_logits(seed: int, rows: int = 2, vocab: int = VOCAB) -> torch.Tensor:
    return 2 * torch.randn(rows, vocab, generator=torch.Generator().manual_seed(seed))


def draws(logits: torch.Tensor, n: int, seed: int = 0) -> torch.Tensor:
    """``n`` tokens of one distribution, each from a stream of its own."""
    noise = exponential_noise([random_stream(seed, 0, i) for i in range(n)], logits.shape[-1])
    return drawn_tokens(logits.expand(n, -1), noise)


@given(st.integers(0, 2**64 - 1), indices, indices)
def test_a_stream_repeats(seed: int, prompt: int, sample: int) -> None:
    first, second = (random_stream(seed, prompt, sample).random(4) for _ in range(2))
    assert (first == second).all()


def test_streams_of_different_keys_differ() -> None:
    keys = [(s, p, i) for s in (0, 1, 2**64 - 1) for p in (0, 1, 2) for i in (0, 1, 2)]
    assert len({random_stream(*key).random() for key in keys}) == len(keys)


def test_noise_of_a_row_does_not_depend_on_the_others() -> None:
    alone = exponential_noise([random_stream(0, 3, 1)], VOCAB)
    among = exponential_noise([random_stream(0, p, 1) for p in range(5)], VOCAB)
    assert torch.equal(alone[0], among[3])


@pytest.mark.parametrize("vocab", [1, 2, 10, VOCAB, 307])
def test_frequencies_are_the_probabilities(vocab: int) -> None:
    """Pearson's chi-squared statistic, whose standard deviation is sqrt(2 (vocab - 1))."""
    logits = some_logits(vocab, rows=1, vocab=vocab)
    n = 20_000
    expected = n * logits[0].double().softmax(-1)
    observed = torch.bincount(draws(logits, n), minlength=vocab)
    statistic = float(((observed - expected) ** 2 / expected).sum())
    assert abs(statistic - (vocab - 1)) <= 5 * math.sqrt(2 * vocab)


def test_rounding_errors_hardly_change_a_draw() -> None:
    """Also over a flat distribution, where a cumulative one would be far more sensitive."""
    flat = torch.zeros(1, 5_000)
    disturbed = flat + 1e-6 * some_logits(0, rows=1, vocab=5_000)
    changed = draws(flat, 2_000) != draws(disturbed, 2_000)
    assert int(changed.sum()) <= 1


@given(st.integers(0, 99), st.integers(1, VOCAB))
def test_top_k_keeps_the_k_likeliest(seed: int, k: int) -> None:
    logits = some_logits(seed)
    kept = adjusted_logits(logits, None, Sampling(top_k=k)).isfinite()
    assert kept.sum(-1).tolist() == [k, k]
    assert (logits.masked_fill(~kept, math.inf).amin(-1) >= logits.masked_fill(kept, -math.inf)
            .amax(-1)).all()  # fmt: skip


@given(st.integers(0, 99), st.floats(0.01, 0.999))
def test_top_p_keeps_the_smallest_set_of_that_mass(seed: int, p: float) -> None:
    logits = some_logits(seed)
    kept = adjusted_logits(logits, None, Sampling(top_p=p)).isfinite()
    for row, chosen in zip(logits.double().softmax(-1), kept, strict=True):
        totals = accumulate(sorted(row.tolist(), reverse=True))
        n_kept = 1 + sum(total < p for total in totals)
        assert int(chosen.sum()) == n_kept
        assert set(row.topk(n_kept).indices.tolist()) == set(chosen.nonzero()[:, 0].tolist())


def test_top_k_comes_before_top_p() -> None:
    logits = torch.tensor([[0.4, 0.3, 0.2, 0.1]]).log()
    both = adjusted_logits(logits, None, Sampling(top_k=2, top_p=0.5))
    assert both.isfinite().tolist() == [[True, False, False, False]]  # 4/7 reaches .5 alone


def test_temperature_divides_and_penalty_counts() -> None:
    logits = torch.tensor([[1.0, 2.0, 3.0]])
    counts = torch.tensor([[0.0, 1.0, 2.0]])
    adjusted = adjusted_logits(logits, counts, Sampling(frequency_penalty=0.5, temperature=2.0))
    assert (adjusted - adjusted[0, 0]).tolist() == [[0.0, 0.25, 0.5]]
    greedy = adjusted_logits(logits, counts, Sampling(frequency_penalty=2.0, temperature=0))
    assert greedy.tolist() == [[1.0, 0.0, -1.0]]


def test_a_tiny_temperature_takes_the_likeliest() -> None:
    logits = torch.tensor([[1.0, 3.0, 2.0]])
    adjusted = adjusted_logits(logits, None, Sampling(temperature=1e-40))
    assert drawn_tokens(adjusted, exponential_noise([random_stream(0, 0, 0)], 3)).tolist() == [1]


def test_logprobs_are_of_the_softmax() -> None:
    logits = some_logits(1)
    tokens = torch.tensor([3, 7])
    expected = logits.log_softmax(-1)[torch.arange(2), tokens]
    torch.testing.assert_close(token_logprobs(logits, tokens), expected)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_new_tokens", 0),
        ("max_new_tokens", True),
        ("samples", -1),
        ("samples", 2**32),
        ("temperature", -0.1),
        ("temperature", math.nan),
        ("temperature", math.inf),
        ("top_p", 0.0),
        ("top_p", 1.1),
        ("top_k", 0),
        ("frequency_penalty", math.inf),
        ("seed", -1),
        ("seed", 2**64),
    ],
)
def test_an_option_out_of_range_is_named_with_value_and_range(name: str, value: object) -> None:
    with pytest.raises(SamplingError, match=rf"^{name} is .*: it must be .*\d"):
        Sampling(**{name: value})


def test_the_global_random_state_is_left_alone() -> None:
    before = np.random.get_state()[1].copy()  # noqa: NPY002 - the state that must not be used
    draws(some_logits(0, rows=1), 10)
    assert (np.random.get_state()[1] == before).all()  # noqa: NPY002 - likewise
