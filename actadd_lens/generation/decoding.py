"""Completing prompts in batches: one steered prefill, then decode steps.

The prompts of a batch are padded on the left and read once, each steered by its own vectors. Their
cache is repeated for the samples of each prompt, and the rows then go on token by token. A row that
has ended leaves the batch.

Not every model can do this. One that does not understand padding reads prompts of equal length
together. One without a cache, or whose cache does not continue a prompt as a whole pass would,
reads all tokens anew at each step (``BridgeModel.supports``).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
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
from actadd_lens.models import kv_cache
from actadd_lens.models.base import Bridge
from actadd_lens.models.bridge import BridgeModel
from actadd_lens.models.memory import batches, rows_at_once
from actadd_lens.models.plain import fast_model
from actadd_lens.models.tokens import completion_text, end_tokens, left_padded
from actadd_lens.steering.edits import decode_edits, joined_edits, prompt_edits
from actadd_lens.steering.interventions import Intervention

Step = Callable[
    [Int[Tensor, "batch"], Any, Int[Tensor, "batch total"], Int[Tensor, "batch"]],
    tuple[Float[Tensor, "batch vocab"], Any],
]
"""Appends a token to each row of a cache: (tokens, cache, mask, requests) -> (logits, cache).

For a model without a cache, the tokens read so far are in its place."""


_CONTEXT = 8
"""Tokens of the prompt that a completion is decoded behind while it is written."""


@dataclass(frozen=True)
class Request:
    """A prompt to be completed, and how it is steered."""

    tokens: Sequence[int]
    """Of the prompt, BOS included."""
    steering: tuple[Intervention, ...]
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
    """Generated tokens; the last one is that which ended the completion, if one did."""
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
    at_once, lengths = max(1, n_rows // sampling.samples), [len(r.tokens) for r in requests]
    equal = not BridgeModel(model).supports("padding")
    for group in batches(lengths, lambda _: at_once, similar=False, equal=equal):
        yield list(_complete_group(model, requests, group, sampling, n_rows, advance))


def _complete_group(
    model: Bridge,
    requests: Sequence[Request],
    group: Sequence[int],
    sampling: Sampling,
    n_rows: int,
    advance: Callable[[int], object],
) -> Iterator[Row]:
    """Read some prompts once, then decode all their samples, ``n_rows`` at a time."""
    chosen = [requests[index] for index in group]
    steerings = [request.steering for request in chosen]
    prompts = [request.tokens for request in chosen]
    tokens, mask = left_padded(model, prompts)
    own, edits = BridgeModel(model), prompt_edits(model, steerings, mask, prompts)
    cached = own.supports("cache")
    run = own.run(tokens, mask, edits=edits.by_point, keep=1, use_cache=cached)
    later = decode_edits(model, steerings, edits.holds)
    first = run.last_logits.to(tokens.device)  # the last layer's may be another
    runner, padded = fast_model(model, later.points), not bool(mask.all())
    begun = run.cache if cached else tokens

    def next_step(ids: Tensor, cache: Any, mask: Tensor, places: Tensor) -> tuple[Tensor, Any]:
        # No mask is quicker than one full of ones.
        mask_or_none = mask if padded or isinstance(runner, BridgeModel) else None
        after = runner.run(ids[:, None], mask_or_none, edits=later.of(places), cache=cache, keep=1)
        return after.last_logits, after.cache

    def whole_pass(ids: Tensor, read: Tensor, so_far: Tensor, places: Tensor) -> tuple[Tensor, Any]:
        read = torch.cat([read, ids[:, None]], dim=1)
        rows = places.tolist()
        again = prompt_edits(
            model, [steerings[row] for row in rows], mask[places], [prompts[row] for row in rows]
        ).by_point
        both = joined_edits(again, later.of(places), mask.shape[1])
        return fast_model(model, both).run(read, so_far, edits=both, keep=1).last_logits, read

    step = next_step if cached else whole_pass
    ends = tokens.new_tensor(sorted(end_tokens(model)) if sampling.stop_at_eos else [])
    ended = partial(_ended, model, prompts, sampling, ends)
    keys = [(place, s) for place in range(len(chosen)) for s in range(sampling.samples)]
    for chunk in _chunks(keys, n_rows):
        places = torch.tensor([place for place, _ in chunk], device=tokens.device)
        streams = [random_stream(sampling.seed, chosen[p].prompt_index, s) for p, s in chunk]
        continued = _continue_rows(
            step, places, first[places], kv_cache.selected(begun, places),
            mask[places], streams, sampling, ended, advance,
        )  # fmt: skip
        for (place, sample), (ids, logprobs) in zip(chunk, continued, strict=True):
            yield Row(group[place], sample, ids, logprobs)


def _continue_rows(
    step: Step,
    places: Int[Tensor, "batch"],
    logits: Float[Tensor, "batch vocab"],
    cache: Any,
    mask: Int[Tensor, "batch pos"],
    streams: Sequence[np.random.Generator],
    sampling: Sampling,
    ended_by: Callable[[Int[Tensor, "row new"], Int[Tensor, "row"]], Bool[Tensor, "row"] | None],
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
        logits = logits.to(mask.device, torch.float32)
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
        ended = ended_by(tokens[active, : i + 1], places[active])
        if ended is not None and bool(ended.any()):
            lengths[active[ended].cpu()] = i + 1
            advance(int(ended.sum()) * (n_new - i - 1))
            if bool(ended.all()):
                break
            going = (~ended).nonzero()[:, 0]
            active, chosen, whole_mask = active[going], chosen[going], whole_mask[going]
            counts = None if counts is None else counts[going]
            streams = [streams[row] for row in going.tolist()]
            cache = kv_cache.keep_only(cache, going)
        mask = whole_mask[:, : n_prompt + i + 1]
        logits, cache = step(chosen, cache, mask, places[active])
    rows = zip(lengths.tolist(), tokens.tolist(), logprobs.tolist(), strict=True)
    return [(tuple(ids[:n]), tuple(values[:n])) for n, ids, values in rows]


def _ended(
    model: Bridge,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling,
    ends: Int[Tensor, "end"],
    tokens: Int[Tensor, "row new"],
    places: Int[Tensor, "row"],
) -> Bool[Tensor, "row"] | None:
    """Which rows end with the last of their tokens; None where nothing ends them early."""
    if not len(ends) and not sampling.stop:
        return None
    ended = torch.isin(tokens[:, -1], ends)
    if sampling.stop:
        texts = (
            completion_text(model, prompts[place][-_CONTEXT:], row)
            for place, row in zip(places.tolist(), tokens.tolist(), strict=True)
        )
        found = [any(stop in text for stop in sampling.stop) for text in texts]
        ended |= torch.tensor(found, device=tokens.device)
    return ended


def written(model: Bridge, prompt: Sequence[int], tokens: Sequence[int], sampling: Sampling) -> str:
    """Raw text of a completion, without what ended it: a token, or a stop string."""
    if sampling.stop_at_eos and tokens[-1] in end_tokens(model):
        tokens = tokens[:-1]
    text = completion_text(model, prompt, tokens)
    return text[: min([len(text), *(text.find(s) for s in sampling.stop or () if s in text)])]


def _chunks(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
