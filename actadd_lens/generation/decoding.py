"""Completing prompts in batches: one steered prefill, then decode steps.

The prompts of a batch are padded on the left and read once, each steered by its own vectors. Their
key-value cache is repeated for the samples of each prompt, and the rows then go on token by token.
A row that has ended leaves the batch.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from actadd_lens.generation.sampling import (
    Sampling,
    adjusted_logits,
    drawn_tokens,
    exponential_noise,
    greedy_tokens,
    random_stream,
    token_logprobs,
)
from actadd_lens.models import bridge
from actadd_lens.models.bridge import Bridge
from actadd_lens.models.plain import clean_twin
from actadd_lens.models.tokens import pad_left
from actadd_lens.steering.hooks import add_each, decode_hooks, decode_rows, mixed_hooks
from actadd_lens.vectors.vector import SteeringVector

_CACHE_BYTES = 2**31
"""Bound on the key-value caches and logits of one batch, where the caller sets no batch size."""

_MOST_ROWS = 128
"""More rows at once gain next to nothing."""

Step = Callable[
    [Int[Tensor, "batch"], Any, Int[Tensor, "batch total"], Int[Tensor, "batch"]],
    tuple[Float[Tensor, "batch vocab"], Any],
]
"""Appends a token to each row of a cache: (tokens, cache, mask, requests) -> (logits, cache)."""


@dataclass(frozen=True)
class Request:
    """A prompt to be completed, and how it is steered."""

    tokens: Sequence[int]
    """Of the prompt, BOS included."""
    vectors: tuple[SteeringVector, ...]
    """What steers it; the same object for requests that are steered alike, which saves work."""
    prompt_index: int
    """With seed and sample, the key of its completions' random streams."""


@dataclass(frozen=True)
class Row:
    """The tokens of one completion and where they belong."""

    request: int
    """Index of the request."""
    sample_index: int
    tokens: tuple[int, ...]
    """Generated tokens; the last one is EOS where the completion ended by itself."""
    logprobs: tuple[float, ...]
    """Log-probability (nats) of each token under the model's unmodified distribution."""


def complete(
    model: Bridge,
    requests: Sequence[Request],
    sampling: Sampling,
    batch_size: int | None = None,
    advance: Callable[[int], object] = lambda _: None,
) -> Iterator[list[Row]]:
    """Complete prompts, in batches of about ``batch_size`` rows.

    Requests that are steered by different vectors, coefficients or at different layers share a
    batch.

    Args:
        model: In eval mode.
        requests: Whose vectors fit on their prompts.
        sampling: How tokens are drawn.
        batch_size: Rows decoded at once; by default what fits into 2 GiB, 128 at most.
        advance: Called with the number of tokens that each step has settled.

    Yields:
        All rows of some requests at a time, in no particular order.
    """
    longest = max(len(request.tokens) for request in requests) + sampling.max_new_tokens
    n_rows = batch_size or rows_at_once(model, longest)
    # Prompts of like length together, so that little is padded.
    order = sorted(range(len(requests)), key=lambda index: len(requests[index].tokens))
    for group in _chunks(order, max(1, n_rows // sampling.samples)):
        yield list(_complete_group(model, requests, group, sampling, n_rows, advance))


def rows_at_once(model: Bridge, n_tokens: int) -> int:
    """Rows of ``n_tokens`` whose keys, values, attention patterns and logits fit into 2 GiB."""
    cfg = model.cfg
    element = torch.finfo(cfg.dtype).bits // 8
    kv_heads = getattr(cfg, "n_key_value_heads", None) or cfg.n_heads
    cached = 2 * cfg.n_layers * kv_heads * cfg.d_head * n_tokens * element
    patterns = cfg.n_layers * cfg.n_heads * n_tokens**2 * element
    logits = 4 * 4 * cfg.d_vocab  # the model's, and a few float32 copies in the sampler
    return max(1, min(_MOST_ROWS, _CACHE_BYTES // (cached + patterns + logits)))


def _complete_group(
    model: Bridge,
    requests: Sequence[Request],
    group: Sequence[int],
    sampling: Sampling,
    n_rows: int,
    advance: Callable[[int], object],
) -> Iterator[Row]:
    """Read some prompts once, then decode all their samples, ``n_rows`` at a time."""
    device = bridge.device(model)
    asked = [requests[index] for index in group]
    tokens, mask = (
        t.to(device) for t in pad_left([r.tokens for r in asked], model.tokenizer.pad_token_id)
    )
    steerings = [request.vectors for request in asked]
    logits, cache = bridge.prefill(model, tokens, mask, mixed_hooks(model, steerings, mask))
    later = {name: rows.to(device) for name, rows in decode_rows(model, steerings).items()}
    eos = model.tokenizer.eos_token_id if sampling.stop_at_eos else None
    step = _stepper(model, later, padded=not bool(mask.all()))
    keys = [(place, s) for place in range(len(asked)) for s in range(sampling.samples)]
    for chunk in _chunks(keys, n_rows):
        places = torch.tensor([place for place, _ in chunk], device=device)
        streams = [random_stream(sampling.seed, asked[p].prompt_index, s) for p, s in chunk]
        continued = _continue_rows(
            step, places, logits[places], _rows_of(cache, places), mask[places],
            streams, sampling, eos, advance,
        )  # fmt: skip
        for (place, sample), (ids, logprobs) in zip(chunk, continued, strict=True):
            yield Row(group[place], sample, ids, logprobs)


def _stepper(
    model: Bridge, later: Mapping[str, Float[Tensor, "request d_model"]], padded: bool
) -> Step:
    """Decode steps on the clean twin where they can be, else on the bridge."""
    entering = {bridge.hook_point(layer): layer for layer in range(bridge.n_layers(model))}
    twin = clean_twin(model) if later.keys() <= entering.keys() else None

    def step(tokens: Tensor, cache: Any, mask: Tensor, places: Tensor) -> tuple[Tensor, Any]:
        here = {name: rows[places] for name, rows in later.items()}
        if twin is None:
            return bridge.decode_step(model, tokens, cache, mask, decode_hooks(here))
        edits = {entering[name]: partial(_add, rows) for name, rows in here.items()}
        return twin.decode_step(tokens, cache, mask if padded else None, edits)

    return step


def _add(rows: Float[Tensor, "batch d_model"], stream: Tensor) -> Tensor:
    return add_each(stream, rows)


def _continue_rows(
    step: Step,
    places: Int[Tensor, "batch"],
    logits: Float[Tensor, "batch vocab"],
    cache: Any,
    mask: Int[Tensor, "batch pos"],
    streams: Sequence[np.random.Generator],
    sampling: Sampling,
    eos: int | None,
    advance: Callable[[int], object],
) -> list[tuple[tuple[int, ...], tuple[float, ...]]]:
    """Tokens and log-probs of each row, from the logits after its prompt on."""
    n_rows, n_prompt = mask.shape
    n_new = sampling.max_new_tokens
    tokens = torch.zeros(n_rows, n_new, dtype=torch.long, device=mask.device)
    logprobs = torch.zeros(n_rows, n_new, device=mask.device)
    lengths = torch.full((n_rows,), n_new)
    counts = torch.zeros(logits.shape, device=mask.device) if sampling.frequency_penalty else None
    whole_mask = torch.cat([mask, mask.new_ones(n_rows, n_new)], dim=1)
    active = torch.arange(n_rows, device=mask.device)
    for i in range(n_new):
        logits = logits.float()
        adjusted = adjusted_logits(logits, counts, sampling)
        if sampling.greedy:
            chosen = greedy_tokens(adjusted)
        else:
            chosen = drawn_tokens(adjusted, exponential_noise(streams, logits.shape[-1]))
        tokens[active, i] = chosen
        logprobs[active, i] = token_logprobs(logits, chosen)
        advance(len(active))
        if i + 1 == n_new:
            break
        if counts is not None:
            counts.scatter_add_(1, chosen[:, None], torch.ones_like(chosen[:, None]).float())
        ended = None if eos is None else chosen == eos
        if ended is not None and bool(ended.any()):
            lengths[active[ended].cpu()] = i + 1
            advance(int(ended.sum()) * (n_new - i - 1))
            if bool(ended.all()):
                break
            going = (~ended).nonzero()[:, 0]
            active, chosen, whole_mask = active[going], chosen[going], whole_mask[going]
            counts = None if counts is None else counts[going]
            streams = [streams[row] for row in going.tolist()]
            cache.batch_select_indices(going)
        mask = whole_mask[:, : n_prompt + i + 1]
        logits, cache = step(chosen, cache, mask, places[active])
    rows = zip(lengths.tolist(), tokens.tolist(), logprobs.tolist(), strict=True)
    return [(tuple(ids[:n]), tuple(values[:n])) for n, ids, values in rows]


def _rows_of(cache: Any, rows: Int[Tensor, "batch"]) -> Any:
    """A key-value cache made of some rows of another, which stays as it is."""
    selected = copy(cache)
    selected.layers = [copy(layer) for layer in cache.layers]
    selected.batch_select_indices(rows)
    return selected


def _chunks(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
