"""Logit metrics of many runs, at close to the least arithmetic that gives them.

For each batch of prompts there are three steps. ``clean_pass`` reads the prompts once and stores
the stream that enters each layer of the runs. ``group_pass`` stacks runs of one layer along the
batch, up to a budget of tokens, and starts from the stored stream at that layer (``plain``): the
blocks below it never run again. ``score`` calls the metrics. Logits are made after the last token
alone, unless a metric reads the whole text.

Where a pass cannot start at a layer, each group is a whole steered pass instead. That is so while
hooks are attached to the model, for models without a shared-weight plain model, and for steering
that is not added to the stream entering a block.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, product
from typing import Any

import torch
from einops import repeat
from jaxtyping import Bool, Float, Int
from torch import Tensor

from actadd_lens.errors import MetricError
from actadd_lens.metrics.logits import kl
from actadd_lens.metrics.registry import Metric
from actadd_lens.models.base import Model, Start
from actadd_lens.models.bridge import BridgeModel, entered_layer
from actadd_lens.models.memory import batches
from actadd_lens.models.plain import fast_model
from actadd_lens.models.tokens import left_padded
from actadd_lens.steering import positions
from actadd_lens.steering.hooks import prompt_edits, tokens_edited
from actadd_lens.steering.interventions import added, applied, conditions_of, n_rows, own_point
from actadd_lens.sweeps.configurations import Run
from actadd_lens.sweeps.identity import n_alike
from actadd_lens.sweeps.measurement import Work
from actadd_lens.vectors.norms import stream_point


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

    @property
    def real(self) -> Bool[Tensor, "prompt pos"]:
        """Whether a token is real."""
        return self.mask.bool()


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
    model = fast_model(work.model)
    lengths = [len(ids) for ids in work.tokens[0]]
    for prompts in batches(lengths, work.budget.sequences, similar=False):
        wanted = [r for r in range(len(work.runs)) if any((r, p) in pending for p in prompts)]
        if not wanted:
            continue
        batch = padded(work, 0, prompts)
        clean = clean_pass(work, batch, [work.runs[r] for r in wanted])
        at_once = max(1, work.budget.sequences(batch.tokens.shape[1]) // len(prompts))
        for group in groups(work, model, wanted, at_once):
            logprobs = group_pass(work, model, batch, clean, group)
            yield score(work, batch, clean, group, logprobs)
            advance(len(group) * len(prompts))


def padded(work: Work, run: int, prompts: Sequence[int]) -> Batch:
    """Prompts as a run reads them; run 0 reads them bare."""
    rows = [work.tokens[run][prompt] for prompt in prompts]
    return Batch(prompts, *left_padded(work.model, rows))


def clean_pass(work: Work, batch: Batch, runs: Sequence[Run]) -> Clean:
    """Read the prompts without steering, and store the streams that the runs edit."""
    points = sorted({stream_point(item) for run in runs for item in run.steering})
    model = fast_model(work.model, points)
    clean = model.run(batch.tokens, batch.mask, read=points, keep=work.n_logits)
    assert clean.logits is not None
    return Clean(clean.logits.float().log_softmax(dim=-1), dict(clean.streams))


def groups(work: Work, model: Model, wanted: Sequence[int], at_once: int) -> Iterator[list[int]]:
    """Runs that one pass can take, ``at_once`` at most."""
    alike: dict[object, list[int]] = {}
    for index in wanted:
        run = work.runs[index]
        key: object = ("from", _own_start(work, model, run))
        if run.is_clean or run.prefix:
            key = "clean" if run.is_clean else ("prefix", index)
        alike.setdefault(key, []).append(index)
    for indices in alike.values():
        for start in range(0, len(indices), at_once):
            yield indices[start : start + at_once]


def _own_start(work: Work, model: Model, run: Run) -> str | None:
    """The hook point whose clean stream a pass of the run can start from, if any."""
    point = own_point(run.steering)
    possible = model.supports("start at a layer") and not conditions_of(run.steering)
    if point is None or not possible or entered_layer(work.model, point) is None:
        return None
    return point


def group_pass(
    work: Work, model: Model, batch: Batch, clean: Clean, group: Sequence[int]
) -> Float[Tensor, "row last vocab"]:
    """Log-probs of all prompts under the first run of a group, then under the second, ..."""
    runs, keep = [work.runs[index] for index in group], work.n_logits
    if runs[0].is_clean:
        return _stacked(clean.logprobs, len(runs))
    if runs[0].prefix:
        longer = padded(work, group[0], batch.prompts)
        found = BridgeModel(work.model).run(longer.tokens, longer.mask, keep=keep)
    else:
        tokens, mask = _stacked(batch.tokens, len(runs)), _stacked(batch.mask, len(runs))
        point = _own_start(work, model, runs[0])
        if point is None:
            each = [run.steering for run in runs for _ in batch.prompts]
            edits = prompt_edits(work.model, each, mask).by_point
            found = BridgeModel(work.model).run(tokens, mask, edits=edits, keep=keep)
        else:
            layer, stream, real = entered_layer(work.model, point), clean.streams[point], batch.real
            assert layer is not None
            edited = [
                applied(stream, run.steering, tokens_edited(run.steering, real.to(stream.device)))
                for run in runs
            ]
            found = model.run(tokens, mask, keep=keep, start=Start(layer, torch.cat(edited)))
    assert found.logits is not None
    return found.logits.float().log_softmax(dim=-1)


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
    return [
        Reading(*key, tuple(column[i] for column in values), doses[i], divergences[i])
        for i, key in enumerate(product(group, batch.prompts))
    ]


def _stacked(rows: Tensor, n: int) -> Tensor:
    return repeat(rows, "prompt ... -> (run prompt) ...", run=n)


def _counted(work: Work, index: int, prompts: Sequence[int]) -> list[int]:
    """How many of the last predictions of each prompt come after all rows."""
    run, bare = work.runs[index], [work.tokens[0][prompt] for prompt in prompts]
    if run.prefix:
        longer = [work.tokens[index][prompt] for prompt in prompts]
        return [n_alike(a[::-1], b[::-1]) for a, b in zip(bare, longer, strict=True)]
    lengths = torch.tensor([len(ids) for ids in bare])
    ends = torch.zeros_like(lengths)
    for item in run.steering:
        ends = torch.maximum(ends, positions.parse(item.position).ends(lengths, n_rows(item)))
    return [int(n) for n in lengths - ends]


def _doses(run: Run, batch: Batch, clean: Clean) -> list[float]:
    if run.is_clean:
        return [0.0] * len(batch.prompts)
    ratios = [torch.zeros(len(batch.prompts), 0, dtype=torch.float64)]
    for point in {stream_point(item) for item in run.steering}:
        together = [item for item in run.steering if stream_point(item) == point]
        stream = clean.streams[point]
        beside = not all(item.additive or item.hook_point == point for item in together)
        if beside or conditions_of(together):
            # It edits a tensor that is not the stream, or may not edit anything.
            return [math.nan] * len(batch.prompts)
        at = tokens_edited(together, batch.real.to(stream.device))  # a block's may be its own
        if all(item.additive for item in together):
            change = added(together, at, stream.shape[-1])
        else:  # what else is done to a stream depends on it
            change = applied(stream, together, at).float() - stream.float()
        total = _norms(change)
        ratios.append(torch.where(total > 0, total / _norms(stream), math.nan).cpu())
    means: list[float] = torch.cat(ratios, dim=1).nanmean(dim=1).tolist()
    return means


def _norms(rows: Float[Tensor, "prompt pos d_model"]) -> Float[Tensor, "prompt pos"]:
    """In double precision: the square of a large coefficient is beyond single."""
    norms: Tensor = torch.linalg.vector_norm(rows, dim=-1, dtype=torch.float64)
    return norms


def _values(
    metric: Metric,
    clean: Float[Tensor, "row last vocab"],
    steered: Float[Tensor, "row last vocab"],
    counted: Sequence[int],
) -> list[float]:
    """One value a row: after the last token, or the mean over the predictions that count."""
    if getattr(metric, "over", "last") == "last":
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
