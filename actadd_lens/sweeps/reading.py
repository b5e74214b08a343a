"""Logit metrics of many runs, at close to the least arithmetic that gives them.

Each batch of prompts is read once, clean, and the stream that enters each layer of the runs is
kept. Runs of one layer are then stacked along the batch, up to a budget of tokens, and go on from
that layer only (``resuming``): the blocks below it are never run again. Logits are made after the
last token alone, unless a metric reads the whole text.

Where a pass can't begin at a layer, each chunk is a whole steered pass instead. That is so while
hooks are attached to the model, for models without a clean twin, and for vectors that are not added
to the stream entering a block.
"""

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import Any

import torch
from einops import repeat
from jaxtyping import Bool, Float, Int
from torch import Tensor

from actadd_lens.errors import MetricError
from actadd_lens.metrics.logits import kl
from actadd_lens.metrics.registry import Metric
from actadd_lens.models import bridge
from actadd_lens.models.base import Bridge
from actadd_lens.models.memory import batches
from actadd_lens.models.partial import ResumablePass, resumable
from actadd_lens.models.tokens import pad_left
from actadd_lens.steering import positions
from actadd_lens.steering.hooks import add_rows, added, mixed_hooks
from actadd_lens.sweeps.budget import Budget
from actadd_lens.sweeps.cells import Run
from actadd_lens.vectors.norms import stream_point

_log = logging.getLogger("actadd_lens")


@dataclass(frozen=True)
class Reading:
    """What was read of one run after one prompt."""

    run: int
    prompt: int
    """Indices of both."""
    values: tuple[float, ...]
    """Of each metric."""
    dose: float
    """Norm of what is added over that of the clean stream there, mean over the tokens where
    something is; NaN where nothing is added to the prompt's stream."""
    kl: float
    """KL(run || clean) of the token after the prompt, in nats."""


def readings(
    model: Bridge,
    runs: Sequence[Run],
    tokens: Sequence[Sequence[Sequence[int]]],
    metrics: Sequence[Metric],
    pending: set[tuple[int, int]],
    bound: Budget,
    advance: Callable[[int], object] = lambda _: None,
) -> Iterator[list[Reading]]:
    """Read the runs that are pending, a chunk at a time.

    Args:
        model: In eval mode.
        runs: Whose vectors fit the model and the prompts.
        tokens: For each run the token ids of every prompt; run 0 has those of the bare prompts.
        metrics: Logit metrics, bound to the model.
        pending: (index of the run, index of the prompt) of what is still to be read.
        bound: What one pass may hold.
        advance: Called with the number of readings made.
    """
    if not pending:
        return
    passes = resumable(model)
    if passes is None:
        _log.warning(
            "%s cannot resume a pass at a layer here: every cell is a whole pass",
            model.cfg.model_name,
        )
    lengths = [len(ids) for ids in tokens[0]]
    for prompts in batches(lengths, at_once=bound.sequences):
        here = [r for r in range(len(runs)) if any((r, p) in pending for p in prompts)]
        if not here:
            continue
        batch = _Batch(model, passes, runs, tokens, prompts, here, metrics)
        at_once = bound.sequences(batch.tokens.shape[1]) // len(prompts)
        for chunk in batch.chunks(max(1, at_once)):
            yield batch.read(chunk)
            advance(len(chunk) * len(prompts))


@dataclass(frozen=True)
class _Batch:
    """Some prompts, read once."""

    model: Bridge
    passes: ResumablePass | None
    runs: Sequence[Run]
    all_tokens: Sequence[Sequence[Sequence[int]]]
    prompts: Sequence[int]
    wanted: Sequence[int]
    """Indices of the runs to be read."""
    metrics: Sequence[Metric]

    @cached_property
    def _padded(self) -> tuple[Int[Tensor, "prompt pos"], Int[Tensor, "prompt pos"]]:
        return self._pad(0)

    @property
    def tokens(self) -> Int[Tensor, "prompt pos"]:
        """The bare prompts, padded on the left."""
        return self._padded[0]

    @property
    def mask(self) -> Int[Tensor, "prompt pos"]:
        """1 for a real token."""
        return self._padded[1]

    @property
    def real(self) -> Bool[Tensor, "prompt pos"]:
        """Whether a token is real."""
        return self.mask.bool()

    def _pad(self, run: int) -> tuple[Int[Tensor, "prompt pos"], Int[Tensor, "prompt pos"]]:
        rows = [self.all_tokens[run][p] for p in self.prompts]
        tokens, mask = pad_left(rows, self.model.tokenizer.pad_token_id)
        device = bridge.device(self.model)
        return tokens.to(device), mask.to(device)

    @property
    def keep(self) -> int:
        """Columns whose logits are made; 0 for all."""
        return 0 if any(_over(metric) == "text" for metric in self.metrics) else 1

    @cached_property
    def _clean(
        self,
    ) -> tuple[Float[Tensor, "prompt kept vocab"], dict[str, Float[Tensor, "prompt pos d_model"]]]:
        points = {stream_point(v) for r in self.wanted for v in self.runs[r].vectors}
        layers = {bridge.hook_point(layer): layer for layer in map(bridge.layer_of, points)}
        if self.passes is None or points != layers.keys():
            logits, streams = bridge.logits_and_streams(
                self.model, self.tokens, self.mask, sorted(points), self.keep
            )
        else:
            logits, entering = self.passes.logits_and_streams(
                self.tokens, self.mask, sorted(layers.values()), self.keep
            )
            streams = {bridge.hook_point(layer): entering[layer] for layer in entering}
        return logits.float().log_softmax(dim=-1), streams

    def chunks(self, at_once: int) -> Iterator[list[int]]:
        """Runs that one pass can read, ``at_once`` at most."""
        alike: dict[object, list[int]] = {}
        for index in self.wanted:
            run = self.runs[index]
            key = ("clean",) if run.is_clean else ("prefix", index) if run.prefix else None
            alike.setdefault(key or ("from", self._begins(run)), []).append(index)
        for indices in alike.values():
            for start in range(0, len(indices), at_once):
                yield indices[start : start + at_once]

    def _begins(self, run: Run) -> int | None:
        """Layer that a pass of the run can begin at, if any."""
        points = {vector.hook_point for vector in run.vectors}
        layers = {vector.layer for vector in run.vectors}
        if self.passes is None or points != {bridge.hook_point(layer) for layer in layers}:
            return None
        return layers.pop() if len(layers) == 1 else None

    def read(self, chunk: Sequence[int]) -> list[Reading]:
        """All prompts under all runs of a chunk."""
        clean, _ = self._clean
        steered = self._logits(chunk)
        steered = clean if steered is None else steered.float().log_softmax(dim=-1)
        width = min(clean.shape[1], steered.shape[1])
        clean, steered = clean[:, -width:], steered[:, -width:]
        clean = repeat(clean, "prompt kept vocab -> (run prompt) kept vocab", run=len(chunk))
        if len(steered) < len(clean):  # several clean runs, read once
            steered = clean
        counted = [n for run in chunk for n in self._counted(run)]
        divergences = kl(clean[:, -1], steered[:, -1]).tolist()
        values = [_values(metric, clean, steered, counted) for metric in self.metrics]
        keys = [(run, prompt) for run in chunk for prompt in self.prompts]
        doses = [dose for run in chunk for dose in self._doses(run)]
        return [
            Reading(*key, tuple(column[i] for column in values), doses[i], divergences[i])
            for i, key in enumerate(keys)
        ]

    def _logits(self, chunk: Sequence[int]) -> Tensor | None:
        """Logits of a chunk, [run x prompt, kept, vocab]; None for clean runs."""
        first = self.runs[chunk[0]]
        if first.is_clean:
            return None
        if first.prefix:
            tokens, mask = self._pad(chunk[0])
            return bridge.logits(self.model, tokens, mask, keep=self.keep)
        steerings = [self.runs[index].vectors for index in chunk]
        tokens, mask = (
            repeat(t, "prompt pos -> (run prompt) pos", run=len(chunk))
            for t in (self.tokens, self.mask)
        )
        layer = self._begins(first)
        if self.passes is None or layer is None:
            each = [vectors for vectors in steerings for _ in self.prompts]
            hooks = mixed_hooks(self.model, each, mask)
            return bridge.logits(self.model, tokens, mask, hooks, self.keep)
        stream = self._clean[1][bridge.hook_point(layer)]
        entering = torch.cat([add_rows(stream, vectors, self.real) for vectors in steerings])
        return self.passes.logits(layer, entering, tokens, mask, self.keep)

    def _counted(self, index: int) -> list[int]:
        """How many of the last predictions of each prompt are behind all rows."""
        run, bare = self.runs[index], [self.all_tokens[0][p] for p in self.prompts]
        if run.prefix:
            longer = [self.all_tokens[index][p] for p in self.prompts]
            return [_n_alike(a, b) for a, b in zip(bare, longer, strict=True)]
        lengths = torch.tensor([len(ids) for ids in bare])
        ends = torch.zeros_like(lengths)
        for vector in run.vectors:
            plan = positions.parse(vector.position)
            ends = torch.maximum(ends, plan.ends(lengths, len(vector.rows)))
        return [int(n) for n in lengths - ends]

    def _doses(self, index: int) -> list[float]:
        run = self.runs[index]
        if run.is_clean:
            return [0.0] * len(self.prompts)
        ratios = [torch.zeros(len(self.prompts), 0, dtype=torch.float64)]
        for point in {stream_point(vector) for vector in run.vectors}:
            together = [vector for vector in run.vectors if stream_point(vector) == point]
            total = _norms(added(together, self.real))
            there = _norms(self._clean[1][point])
            ratios.append(torch.where(total > 0, total / there, math.nan).cpu())
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
    clean: Float[Tensor, "row kept vocab"],
    steered: Float[Tensor, "row kept vocab"],
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
    n = 0
    for x, y in zip(reversed(a), reversed(b), strict=False):
        if x != y:
            break
        n += 1
    return n
