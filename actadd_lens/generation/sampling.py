"""How the next token is drawn from the logits, with a random stream for every completion.

A token is drawn by the Gumbel-max trick in its exponential form: with independent
E_i ~ Exp(1), the token argmax_i p_i / E_i has distribution p. Noise of the order 1e-6 in the
logits, which padding and other batch shapes bring, then changes a token with a probability of
the same order; the inverse of a cumulative distribution over 50,000 tokens would be several
hundred times as sensitive. To need few random numbers, the vocabulary is cut into blocks: first
a block is drawn by its total probability, then a token within the block.

The random numbers of a completion come from a counter-based generator (Philox4x64-10: Salmon,
Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3", 2011) keyed by the seed and
the indices of the prompt and the sample, the same count of them a token. So a completion depends
neither on the batch it sits in nor on how many tokens are asked for, and a steered and a clean run
of one key meet the same numbers.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float, Float64, Int
from torch import Tensor
from torch.nn.functional import pad

from actadd_lens.errors import SamplingError, require_count

_SEEDS = 2**64
_INDICES = 2**32
_MOST_PENALTY = 1000


@dataclass(frozen=True)
class Sampling:
    """How completions are drawn: the options of ``generate``, checked when it is made.

    Raises:
        SamplingError: an option is out of its range; the message has its name, value and range.

    >>> Sampling(temperature=0).greedy
    True
    """

    max_new_tokens: int = 40
    """Tokens generated at most, >= 1."""
    samples: int = 1
    """Completions of each prompt, >= 1."""
    temperature: float = 1.0
    """The logits are divided by it; 0 takes the likeliest token."""
    top_p: float = 1.0
    """Nucleus sampling (Holtzman et al. 2019): the fewest likeliest tokens of this total mass."""
    top_k: int | None = None
    """Only the k likeliest tokens; None keeps all. With top_p, top_k is applied first."""
    frequency_penalty: float = 0.0
    """Subtracted from a token's logit each time the completion already has it (OpenAI's)."""
    seed: int = 0
    """Keys the random streams, 0 <= seed < 2**64."""
    stop_at_eos: bool = True
    """Whether a completion ends at an end-of-sequence token."""
    stop: str | Sequence[str] | None = None
    """Strings that end a completion; a tuple of them once it is made."""

    def __post_init__(self) -> None:
        require_count("max_new_tokens", self.max_new_tokens)
        require_count("samples", self.samples, below=_INDICES)
        if self.top_k is not None:
            require_count("top_k", self.top_k, neutral="None keeps all")
        if not (_is_real(self.temperature) and self.temperature >= 0):
            raise _error("temperature", self.temperature, "a finite number >= 0 (0 is greedy)")
        if not (_is_real(self.top_p) and 0 < self.top_p <= 1):
            raise _error("top_p", self.top_p, "a number with 0 < top_p <= 1 (1 keeps all)")
        if not (_is_real(self.frequency_penalty) and abs(self.frequency_penalty) <= _MOST_PENALTY):
            allowed = f"a number from -{_MOST_PENALTY} to {_MOST_PENALTY} (0 is none)"
            raise _error("frequency_penalty", self.frequency_penalty, allowed)
        if not (_is_integer(self.seed) and 0 <= self.seed < _SEEDS):
            raise _error("seed", self.seed, "an integer with 0 <= seed < 2**64")
        if not isinstance(self.stop_at_eos, bool):
            raise _error("stop_at_eos", self.stop_at_eos, "True or False")
        given = self.stop
        stop = (given,) if isinstance(given, str) else () if given is None else given
        if not isinstance(stop, (list, tuple)) or not all(isinstance(s, str) and s for s in stop):
            raise _error("stop", given, "a string, or a list of strings, none of them empty")
        object.__setattr__(self, "stop", tuple(stop))

    @property
    def greedy(self) -> bool:
        """Whether the likeliest token is taken, without random numbers."""
        return self.temperature == 0


def random_stream(seed: int, prompt_index: int, sample_index: int) -> np.random.Generator:
    """The random stream of one completion: Philox under the key (seed, prompt, sample).

    >>> a, b = random_stream(0, 1, 2), random_stream(0, 1, 2)
    >>> bool(a.random() == b.random())
    True
    """
    key = np.array([seed, prompt_index * _INDICES + sample_index], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key))


def exponential_noise(
    streams: Sequence[np.random.Generator], vocab_size: int
) -> Float64[Tensor, "batch noise"]:
    """The random numbers of one step: Exp(1), one per block of the vocabulary and per place in one.

    Every stream gives the same count each step, whatever the options are.

    >>> exponential_noise([random_stream(0, 0, 0)], 50257).shape
    torch.Size([1, 449])
    """
    width, blocks = _blocks(vocab_size)
    return torch.from_numpy(
        np.stack([stream.standard_exponential(blocks + width) for stream in streams])
    )


def adjusted_logits(
    logits: Float[Tensor, "batch vocab"],
    counts: Float[Tensor, "batch vocab"] | None,
    sampling: Sampling,
) -> Float[Tensor, "batch vocab"]:
    """Apply the frequency penalty, the temperature, top-k and top-p, in this order.

    At a temperature other than 0 and 1 the largest logit is 0; tokens that are ruled out get -inf.
    ``counts`` says how often each token has been generated in the row's completion; None stands for
    zeros. The penalty is OpenAI's: logit - penalty * count.

    >>> logits = torch.tensor([[2.0, 1.0, 0.0]])
    >>> adjusted_logits(logits, None, Sampling(top_k=2, temperature=0.5))
    tensor([[ 0., -2., -inf]])
    """
    if counts is not None and sampling.frequency_penalty:
        logits = logits - sampling.frequency_penalty * counts
    if sampling.greedy:
        return logits
    if sampling.temperature != 1:
        # The largest is 0 then, so that no temperature, however small, overflows.
        logits = (logits - logits.amax(dim=-1, keepdim=True)) / sampling.temperature
    if sampling.top_k is not None and sampling.top_k < logits.shape[-1]:
        lowest_kept = logits.topk(sampling.top_k, dim=-1).values[:, -1:]
        logits = logits.masked_fill(logits < lowest_kept, -math.inf)
    if sampling.top_p < 1:
        logits = _nucleus(logits, sampling.top_p)
    return logits


def greedy_tokens(logits: Float[Tensor, "batch vocab"]) -> Int[Tensor, "batch"]:
    """The likeliest token of each row; the first of equals.

    >>> greedy_tokens(torch.tensor([[0.0, 3.0, 1.0]]))
    tensor([1])
    """
    return logits.argmax(dim=-1)


def drawn_tokens(
    logits: Float[Tensor, "batch vocab"], noise: Float64[Tensor, "batch noise"]
) -> Int[Tensor, "batch"]:
    """Draw a token of softmax(logits) for each row, by the noise of ``exponential_noise``.

    >>> noise = exponential_noise([random_stream(0, 0, 0)], 3)
    >>> drawn_tokens(torch.tensor([[-20.0, 0.0, -20.0]]), noise)
    tensor([1])
    """
    width, blocks = _blocks(logits.shape[-1])
    weights = (logits - logits.amax(dim=-1, keepdim=True)).exp()
    weights = pad(weights, (0, width * blocks - logits.shape[-1]))
    weights = rearrange(weights, "batch (block place) -> batch block place", block=blocks)
    noise = noise.to(logits.device, torch.float32)
    block = (weights.sum(dim=-1) / noise[:, :blocks]).argmax(dim=-1)
    rows = torch.arange(len(block), device=logits.device)
    place = (weights[rows, block] / noise[:, blocks:]).argmax(dim=-1)
    tokens: Tensor = block * width + place
    return tokens


def token_logprobs(
    logits: Float[Tensor, "batch vocab"], tokens: Int[Tensor, "batch"]
) -> Float[Tensor, "batch"]:
    """Log-probability (nats) of each row's token under softmax(logits).

    >>> token_logprobs(torch.zeros(1, 4), torch.tensor([2])).exp()
    tensor([0.2500])
    """
    chosen = logits.gather(-1, tokens[:, None])[:, 0]
    return chosen - logits.logsumexp(dim=-1)


def _nucleus(logits: Float[Tensor, "batch vocab"], top_p: float) -> Float[Tensor, "batch vocab"]:
    """Keep the smallest set of likeliest tokens whose mass reaches top_p, one at least."""
    ranked, order = logits.sort(dim=-1, descending=True, stable=True)
    mass = ranked.softmax(dim=-1)
    mass_before = mass.cumsum(dim=-1) - mass
    ranked = ranked.masked_fill(mass_before >= top_p, -math.inf)
    return torch.empty_like(logits).scatter_(-1, order, ranked)


def _blocks(vocab_size: int) -> tuple[int, int]:
    """Width and number of the vocabulary's blocks: about its square root each."""
    width = math.isqrt(vocab_size - 1) + 1
    return width, -(-vocab_size // width)


def _is_integer(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _is_real(value: Any) -> bool:
    return not isinstance(value, bool) and isinstance(value, Real) and math.isfinite(value)


def _error(name: str, value: object, allowed: str) -> SamplingError:
    return SamplingError(f"{name} is {value!r}: it must be {allowed}")
