"""Logit metrics of many runs, at close to the least arithmetic that gives them.

For each batch of prompts there are three steps. ``clean_pass`` reads the prompts once and stores
the stream that enters each layer of the runs. ``group_pass`` stacks runs of one layer along the
batch, up to a budget of tokens, and starts from the stored stream at that layer (``partial``): the
blocks below it never run again. ``score`` calls the metrics. Logits are made after the last token
alone, unless a metric reads the whole text.

Where a pass cannot start at a layer, each group is a whole steered pass instead. That is so while
hooks are attached to the model, for models without a shared-weight plain model, and for steering
that is not added to the stream entering a block.
"""

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from einops import repeat
from jaxtyping import Float, Int
from torch import Tensor

from actadd_lens.errors import MetricError
from actadd_lens.metrics.logits import kl
from actadd_lens.metrics.registry import Metric
from actadd_lens.models import bridge
from actadd_lens.models.memory import batches
from actadd_lens.models.partial import ResumablePass, resumable
from actadd_lens.models.tokens import pad_left
from actadd_lens.steering import positions
from actadd_lens.steering.hooks import add_rows, added, mixed_hooks
from actadd_lens.sweeps.configurations import Run
from actadd_lens.sweeps.measurement import Work
from actadd_lens.vectors.norms import stream_point
from actadd_lens.vectors.vector import SteeringVector

_log = logging.getLogger("actadd_lens")


@dataclass(frozen=True)
class Reading:
    """What was measured of one run after one prompt."""

    run: int
    prompt: int
    """Indices of both."""
    values: tuple[float, ...]
    """Of each logit metric."""
    dose: float
    """Norm of what is added over that of the clean stream there, mean over the tokens where
    something is; NaN where nothing is added to the prompt's stream."""
    kl: float
    """KL(run || clean) of the token after the prompt, in nats."""


@dataclass(frozen=True)
class Batch:
    """Some prompts, padded on the left."""

    prompts: Sequence[int]
    """Their indices."""
    tokens: Int[Tensor, "prompt pos"]
    mask: Int[Tensor, "prompt pos"]
    """1 for a real token."""


@dataclass(frozen=True)
class Clean:
    """What the clean run of a batch gives."""

    logprobs: Float[Tensor, "prompt last vocab"]
    """After the last token, or after every one."""
    streams: dict[str, Float[Tensor, "prompt pos d_model"]]
    """By hook point, at every one where a run acts."""


def readings(
    work: Work,
    pending: set[tuple[int, int]],
    advance: Callable[[int], object] = lambda _: None,
) -> Iterator[list[Reading]]:
    """Logit metrics of the pending (run, prompt) indices, a group of runs at a time."""
    if not pending:
        return
    passes = resumable(work.model)
    if passes is None:
        _log.warning(
            "%s cannot resume a pass at a layer here: every cell is a whole pass",
            work.model.cfg.model_name,
        )
    lengths = [len(ids) for ids in work.tokens[0]]
    for prompts in batches(lengths, at_once=work.budget.sequences):
        wanted = [r for r in range(len(work.runs)) if any((r, p) in pending for p in prompts)]
        if not wanted:
            continue
        batch = padded(work, 0, prompts)
        clean = clean_pass(work, passes, batch, [work.runs[r] for r in wanted])
        at_once = max(1, work.budget.sequences(batch.tokens.shape[1]) // len(prompts))
        for group in groups(work.runs, wanted, at_once, passes):
            logprobs = group_pass(work, passes, batch, clean, group)
            yield score(work, batch, clean, group, logprobs)
            advance(len(group) * len(prompts))


def padded(work: Work, run: int, prompts: Sequence[int]) -> Batch:
    """Prompts as a run reads them; run 0 reads them bare."""
    rows = [work.tokens[run][prompt] for prompt in prompts]
    tokens, mask = pad_left(rows, work.model.tokenizer.pad_token_id)
    device = bridge.device(work.model)
    return Batch(prompts, tokens.to(device), mask.to(device))


def clean_pass(
    work: Work, passes: ResumablePass | None, batch: Batch, runs: Sequence[Run]
) -> Clean:
    """Read the prompts without steering, and store the streams that the runs edit."""
    points = {stream_point(item) for run in runs for item in run.steering}
    layers = {bridge.hook_point(layer): layer for layer in map(bridge.layer_of, points)}
    if passes is None or points != layers.keys():
        logits, streams = bridge.logits_and_streams(
            work.model, batch.tokens, batch.mask, sorted(points), _kept(work)
        )
    else:
        logits, entering = passes.logits_and_streams(
            batch.tokens, batch.mask, sorted(layers.values()), _kept(work)
        )
        streams = {bridge.hook_point(layer): entering[layer] for layer in entering}
    return Clean(logits.float().log_softmax(dim=-1), streams)


def groups(
    runs: Sequence[Run], wanted: Sequence[int], at_once: int, passes: ResumablePass | None
) -> Iterator[list[int]]:
    """Runs that one pass can take, ``at_once`` at most."""
    alike: dict[object, list[int]] = {}
    for index in wanted:
        run = runs[index]
        key: object = ("from", _first_layer(run, passes))
        if run.is_clean or run.prefix:
            key = "clean" if run.is_clean else ("prefix", index)
        alike.setdefault(key, []).append(index)
    for indices in alike.values():
        for start in range(0, len(indices), at_once):
            yield indices[start : start + at_once]


def _first_layer(run: Run, passes: ResumablePass | None) -> int | None:
    """Layer that a pass of the run can start at, if any."""
    layers = {item.layer for item in run.steering if isinstance(item, SteeringVector)}
    points = {item.hook_point for item in run.steering}
    if passes is None or len(layers) != 1 or points != set(map(bridge.hook_point, layers)):
        return None
    return layers.pop()


def group_pass(
    work: Work, passes: ResumablePass | None, batch: Batch, clean: Clean, group: Sequence[int]
) -> Float[Tensor, "row last vocab"]:
    """Log-probs of all prompts under the first run of a group, then under the second, ..."""
    runs, keep = [work.runs[index] for index in group], _kept(work)
    if runs[0].is_clean:
        return _stacked(clean.logprobs, len(runs))
    if runs[0].prefix:
        longer = padded(work, group[0], batch.prompts)
        logits = bridge.logits(work.model, longer.tokens, longer.mask, keep=keep)
        return logits.float().log_softmax(dim=-1)
    tokens, mask = _stacked(batch.tokens, len(runs)), _stacked(batch.mask, len(runs))
    layer = _first_layer(runs[0], passes)
    if passes is None or layer is None:
        each = [run.steering for run in runs for _ in batch.prompts]
        hooks = mixed_hooks(work.model, each, mask)
        logits = bridge.logits(work.model, tokens, mask, hooks, keep)
    else:
        stream, real = clean.streams[bridge.hook_point(layer)], batch.mask.bool()
        entering = torch.cat([add_rows(stream, run.steering, real) for run in runs])
        logits = passes.logits(layer, entering, tokens, mask, keep)
    return logits.float().log_softmax(dim=-1)


def score(
    work: Work,
    batch: Batch,
    clean: Clean,
    group: Sequence[int],
    steered: Float[Tensor, "row last vocab"],
) -> list[Reading]:
    """Every metric of every run of a group after every prompt."""
    width = min(clean.logprobs.shape[1], steered.shape[1])
    reference, steered = _stacked(clean.logprobs[:, -width:], len(group)), steered[:, -width:]
    counted = [n for run in group for n in _counted(work, run, batch.prompts)]
    divergences = kl(reference[:, -1], steered[:, -1]).tolist()
    values = [_values(metric, reference, steered, counted) for metric in work.logit_metrics]
    doses = [dose for run in group for dose in _doses(work.runs[run], batch, clean)]
    keys = [(run, prompt) for run in group for prompt in batch.prompts]
    return [
        Reading(*key, tuple(column[i] for column in values), doses[i], divergences[i])
        for i, key in enumerate(keys)
    ]


def _kept(work: Work) -> int:
    """Columns whose logits are made; 0 for all."""
    return 0 if any(_over(metric) == "text" for metric in work.logit_metrics) else 1


def _stacked(rows: Tensor, n: int) -> Tensor:
    return repeat(rows, "prompt ... -> (run prompt) ...", run=n)


def _counted(work: Work, index: int, prompts: Sequence[int]) -> list[int]:
    """How many of the last predictions of each prompt come after all rows."""
    run, bare = work.runs[index], [work.tokens[0][prompt] for prompt in prompts]
    if run.prefix:
        longer = [work.tokens[index][prompt] for prompt in prompts]
        return [_n_alike(a, b) for a, b in zip(bare, longer, strict=True)]
    lengths = torch.tensor([len(ids) for ids in bare])
    ends = torch.zeros_like(lengths)
    for item in run.steering:
        n_rows = len(item.rows) if isinstance(item, SteeringVector) else 1
        ends = torch.maximum(ends, positions.parse(item.position).ends(lengths, n_rows))
    return [int(n) for n in lengths - ends]


def _doses(run: Run, batch: Batch, clean: Clean) -> list[float]:
    if run.is_clean:
        return [0.0] * len(batch.prompts)
    real = batch.mask.bool()
    ratios = [torch.zeros(len(batch.prompts), 0, dtype=torch.float64)]
    for point in {stream_point(item) for item in run.steering}:
        together = [item for item in run.steering if stream_point(item) == point]
        stream = clean.streams[point]
        if all(isinstance(item, SteeringVector) for item in together):
            change = added(together, real)
        else:  # what else is done to a stream depends on it
            change = add_rows(stream, together, real).float() - stream.float()
        total = _norms(change)
        ratios.append(torch.where(total > 0, total / _norms(stream), math.nan).cpu())
    means: list[float] = torch.cat(ratios, dim=1).nanmean(dim=1).tolist()
    return means


def _norms(rows: Float[Tensor, "prompt pos d_model"]) -> Float[Tensor, "prompt pos"]:
    """In double precision: the square of a large coefficient is beyond single."""
    norms: Tensor = torch.linalg.vector_norm(rows, dim=-1, dtype=torch.float64)
    return norms


def _over(metric: Metric) -> str:
    return getattr(metric, "over", "last")


def _values(
    metric: Metric,
    clean: Float[Tensor, "row last vocab"],
    steered: Float[Tensor, "row last vocab"],
    counted: Sequence[int],
) -> list[float]:
    """One value a row: after the last token, or the mean over the predictions that count."""
    if _over(metric) == "last":
        return _called(metric, clean[:, -1], steered[:, -1])
    columns = torch.arange(clean.shape[1], device=clean.device)
    behind = columns >= clean.shape[1] - torch.tensor(counted, device=clean.device)[:, None]
    found = iter(_called(metric, clean[behind], steered[behind]))
    each = [list(islice(found, n)) for n in behind.sum(dim=1).tolist()]
    return [float(torch.tensor(values).mean()) for values in each]


def _called(
    metric: Metric, clean: Float[Tensor, "row vocab"], steered: Float[Tensor, "row vocab"]
) -> list[float]:
    versions = clean._version, steered._version
    found: Any = metric(clean, steered)
    if (clean._version, steered._version) != versions:
        raise MetricError(f"{metric.name} edits the log-probs that it is given: work on a clone")
    try:
        values = [float(value) for value in getattr(found, "tolist", lambda: found)()]
    except (TypeError, ValueError) as error:
        raise MetricError(f"{metric.name} gives no numbers: {error}") from error
    if len(values) != len(clean):
        raise MetricError(
            f"{metric.name} gave {len(values)} values for {len(clean)} predictions: "
            "it must give one for each"
        )
    return values


def _n_alike(a: Sequence[int], b: Sequence[int]) -> int:
    """Number of tokens at the end that two sequences have in common."""
    alike = (x == y for x, y in zip(reversed(a), reversed(b), strict=False))
    return next((n for n, same in enumerate(alike) if not same), min(len(a), len(b)))
