"""Measuring configurations, prompts and metrics: the work that sweeps and ablations share.

Logit metrics are taken at close to the least arithmetic that gives them. ``clean_pass`` reads a
batch of prompts once and stores the stream that enters each layer of the runs. ``group_pass``
stacks runs of one layer along the batch, up to a budget of tokens, and starts from the stored
stream: the blocks below never run again. Where a pass cannot start at a layer (hooks are attached
to the model, it has no plain model, or steering is not added to the stream entering a block), each
group is a whole steered pass. ``score`` calls the metrics. Completions are decoded together.

What is made is committed to a store as it is made, so an interrupt loses what was in flight and no
more. Without a file the store is in memory.
"""

import logging
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, fields
from itertools import product
from os import PathLike
from typing import Any, TypeVar

import torch
from einops import repeat
from jaxtyping import Float, Int
from torch import Tensor
from torch.linalg import vector_norm
from torch.nn.functional import pad

from actadd_lens.analysis.logprobs import rows_end
from actadd_lens.display import bar
from actadd_lens.errors import MetricError, SweepError, require_count, unexpected_option
from actadd_lens.generation.completions import Completion, check_room, completions
from actadd_lens.generation.decoding import Request
from actadd_lens.generation.sampling import Sampling
from actadd_lens.metrics.logits import kl
from actadd_lens.metrics.registry import Kind, Metric, lookup
from actadd_lens.models.base import Bridge, Model, Pass, Start
from actadd_lens.models.bridge import BridgeModel
from actadd_lens.models.hook_points import entered_layer, eval_mode, hooked_points
from actadd_lens.models.memory import Budget, batches, budget
from actadd_lens.models.plain import fast_model
from actadd_lens.models.tokens import Prompt, Prompts, as_prompts, left_padded, prefixed
from actadd_lens.steering.checks import as_interventions, check_fit, tokens_edited
from actadd_lens.steering.edits import prompt_edits
from actadd_lens.steering.interventions import added, applied, conditions_of, own_point
from actadd_lens.sweeps.configurations import Configuration, Run
from actadd_lens.sweeps.identity import fingerprint, hashed, metric_described, n_alike, plain
from actadd_lens.sweeps.results import Result, tabulated
from actadd_lens.sweeps.store import Key, Measured, Phase, Row, Store, Text, Value
from actadd_lens.vectors.geometry import stream_point
from actadd_lens.vectors.provenance import source

_log = logging.getLogger("actadd_lens")

Made = TypeVar("Made", bound=Result)
OPTIONS = {f.name for f in fields(Sampling)} - {"samples", "seed"} | {"batch_size"}
"""Sampling options of a measurement."""


@dataclass(frozen=True, eq=False)
class Measurement:
    """Configurations x prompts x metrics that have been checked: all that the passes need."""

    model: Bridge
    runs: Sequence[Run]
    """Each once, the clean one first."""
    texts: Sequence[str]
    tokens: Sequence[Sequence[Prompt]]
    """For each run every prompt."""
    metrics: Mapping[str, Metric]
    """Bound to the model, by the names that the caller knows them by."""
    sampling: Sampling
    batch_size: int | None
    """Completions decoded at once."""
    n_logits: int
    """Tokens at the end of a prompt whose logits are made; 0 for all."""
    budget: Budget
    """What one pass may hold."""
    config: Mapping[str, Any]
    """All that the values depend on, as plain JSON."""

    def of_kind(self, kind: Kind) -> dict[int, Metric]:
        """The metrics of a kind, by their index among all."""
        return {i: m for i, m in enumerate(self.metrics.values()) if m.kind == kind}


def measure(
    model: Bridge,
    configurations: Sequence[Configuration],
    prompts: Prompts,
    metrics: object,
    settings: Mapping[str, Any],
    kind: type[Made] = Result,  # type: ignore[assignment]
    *,
    store: str | PathLike[str] | None = None,
    progress: bool | None = None,
    **options: Any,
) -> Made:
    """Run every configuration on every prompt, take every metric, and make a result of ``kind``.

    Args:
        model, prompts, metrics, store, progress: As of ``sweep``.
        configurations: The clean one first.
        settings: What the configurations were made from, as plain JSON: with the other arguments
            it says whether a store is of the same measurement.
        kind: Class of the result.
        **options: ``samples``, ``seed``, ``batch_tokens`` and options of ``generate``.
    """
    m = checked(model, configurations, prompts, metrics, settings, **options)
    hooks = m.config["model"]["hooks"]
    if hooks and store is not None:
        _log.warning(
            "hooks are attached to %s: a store cannot distinguish them from others there",
            ", ".join(hooks),
        )
    for metric in m.of_kind("completions").values():
        judge(metric, [])  # one that cannot work says so before anything is generated
    complete = True
    with Store.open(store, m.config) as kept, eval_mode(model):
        before = kept.settings()["versions"]
        for name, version in m.config["versions"].items():
            if before.get(name) != version:
                _log.warning(
                    "the store was begun with %s %s, this is %s", name, before.get(name), version
                )
        try:
            _fill(m, kept, "logits", progress)
            if m.of_kind("completions"):
                _fill(m, kept, "texts", progress)
        except KeyboardInterrupt:
            if not kept.done("logits"):
                raise
            complete = False
            _log.warning("interrupted: the result has what was done until now")
        frame = tabulated(configurations, m.runs, m.texts, list(m.metrics), kept)
        provenance = kept.settings()
    for name, n in Counter(frame.loc[frame["value"].isna(), "metric"]).items():
        _log.warning("%s is NaN for %d of %d values", name, n, (frame["metric"] == name).sum())
    return kind(frame, provenance, complete)


def checked(
    model: Bridge,
    configurations: Sequence[Configuration],
    prompts: Prompts,
    metrics: object,
    settings: Mapping[str, Any],
    *,
    samples: int = 0,
    seed: int = 0,
    batch_tokens: int | None = None,
    **options: Any,
) -> Measurement:
    """A measurement, its prompts tokenized and its metrics bound; see ``measure``."""
    own, given = BridgeModel(model), as_prompts(model, prompts)
    texts = _labels(given)
    bound = resolve(model, metrics, samples)
    sampling, batch_size = sampling_of(samples, seed, options)
    runs = list(dict.fromkeys(configuration.run for configuration in configurations))
    tokens = _tokens(model, configurations, runs, given)
    of_text = any(metric.kind == "completions" for metric in bound.values())
    for rows in tokens if of_text else ():
        check_room(model, rows, sampling.max_new_tokens)
    if batch_tokens is not None:
        require_count("batch_tokens", batch_tokens)
    drawn = {name: value for name, value in asdict(sampling).items() if name in OPTIONS}
    config = {
        **settings,
        "model": {
            "name": own.name,
            "weights": fingerprint(model),
            "hooks": sorted(hooked_points(model)),
        },
        "prompts": list(texts),
        "tokens": hashed([[list(prompt) for prompt in rows] for rows in tokens]),
        "metrics": [
            [name, metric_described(metric), bool(getattr(metric, "share", False))]
            for name, metric in bound.items()
        ],
        "samples": samples,
        "seed": seed,
        "sampling": drawn if of_text else None,
        "versions": source(model)["versions"],
    }
    of_logits = [metric for metric in bound.values() if metric.kind == "logits"]
    n_logits = 0 if any(getattr(m, "over", "last") == "text" for m in of_logits) else 1
    held = budget(
        model,
        logits="last" if n_logits else "all",
        copies=8,  # the model's, log-probs of both runs, and what metrics make of them
        points=own.n_layers,
        batch_tokens=batch_tokens,
    )
    how = sampling, batch_size, n_logits, held
    return Measurement(model, runs, texts, tokens, bound, *how, plain(config))


def resolve(model: Bridge, metrics: object, samples: int) -> dict[str, Metric]:
    """The metrics bound to the model, by the names that the caller knows them by."""
    given = metrics if isinstance(metrics, Sequence) and not isinstance(metrics, str) else [metrics]
    found = [lookup(metric) for metric in given]
    if not found:
        raise MetricError("the list of metrics is empty: give at least one")
    names = [metric.name for metric in found]
    for metric in found:
        if names.count(metric.name) > 1:
            raise MetricError(
                f"{names.count(metric.name)} metrics are called {metric.name!r}: "
                "give them names of their own"
            )
        over = getattr(metric, "over", "last")
        if over not in ("last", "text"):
            raise MetricError(f"{metric.name} has over={over!r}: it must be 'last' or 'text'")
    bound = {m.name: m.bind(model) if hasattr(m, "bind") else m for m in found}
    if samples != 0:
        require_count("samples", samples)
    of_text = [name for name, metric in bound.items() if metric.kind == "completions"]
    if of_text and not samples:
        raise SweepError(
            f"metrics that read completions ({', '.join(of_text)}) and samples=0, which generates "
            "none: give samples=1 or more"
        )
    if samples and not of_text:
        raise SweepError(
            f"samples={samples}, but {', '.join(names)} read no completions: give samples=0, or a "
            "metric of text"
        )
    return bound


def sampling_of(samples: int, seed: int, options: Mapping[str, Any]) -> tuple[Sampling, int | None]:
    """How completions are drawn, and how many at once."""
    unknown = sorted(options.keys() - OPTIONS)
    if unknown:
        own = {
            "model",
            "prompts",
            "metrics",
            "samples",
            "seed",
            "store",
            "progress",
            "batch_tokens",
        }
        raise unexpected_option(unknown[0], OPTIONS | own)
    options = dict(options)
    batch_size = options.pop("batch_size", None)
    if batch_size is not None:
        require_count("batch_size", batch_size)
    return Sampling(samples=max(1, samples), seed=seed, **options), batch_size


def _labels(prompts: Sequence[Prompt]) -> list[str]:
    """What frames call prompts; different chats with the same last message are numbered."""
    known: dict[str, list[Prompt]] = {}
    found = []
    for prompt in prompts:
        alike = known.setdefault(prompt.label, [])
        if prompt not in alike:
            alike.append(prompt)
        place = alike.index(prompt)
        found.append(f"{prompt.label} [{place + 1}]" if place else prompt.label)
    return found


def _tokens(
    model: Bridge,
    configurations: Sequence[Configuration],
    runs: Sequence[Run],
    bare: Sequence[Prompt],
) -> list[Sequence[Prompt]]:
    """Every prompt under every run, and the proof that its vectors fit."""
    dtype = BridgeModel(model).dtype
    largest = torch.finfo(dtype).max
    labels = {c.run: c.labels for c in reversed(configurations)}
    tokens: list[Sequence[Prompt]] = []
    for run in runs:
        rows = bare
        if run.prefix:
            longer = [prefixed(model, run.prompted(""), prompt) for prompt in bare]
            rows = as_prompts(model, longer)
        check_fit(rows, as_interventions(model, run.steering, warn=False))
        vectors = [item.rows for item in run.steering if hasattr(item, "rows")]
        reach = max((own.abs().max().item() for own in vectors), default=0.0)
        if reach > largest:
            where = ", ".join(f"{k} {v}" for k, v in labels[run].items() if v is not None)
            raise SweepError(
                f"the vector of {where} reaches {reach:.3g}, beyond {dtype}'s "
                f"{largest:.3g}: leave the configuration out, or load the model in another "
                "precision"
            )
        tokens.append(rows)
    return tokens


def _fill(m: Measurement, store: Store, phase: Phase, progress: bool | None) -> None:
    """Add what a store lacks in a phase; a bar is over all keys, of which some are done."""
    done = store.done(phase)
    keys = [(run, prompt) for run in range(len(m.runs)) for prompt in range(len(m.texts))]
    left = [key for key in keys if key not in done]
    if not left:
        return
    each, unit, doing, rows_of = 1, "prompt", "reading", logit_rows
    if phase == "texts":
        each, unit, doing = m.sampling.samples * m.sampling.max_new_tokens, "token", "generating"
        rows_of = completion_rows
    n_done = (len(keys) - len(left)) * each
    with bar(len(keys) * each, unit, doing, progress, done=n_done) as advance:
        for rows in rows_of(m, left, advance):
            store.add(phase, rows)


@dataclass(frozen=True)
class Batch:
    """Some prompts, padded on the left, and their clean run."""

    prompts: Sequence[int]
    """Their indices."""
    contents: Sequence[Prompt]
    tokens: Int[Tensor, "prompt pos"]
    mask: Int[Tensor, "prompt pos"]
    """1 for a real token."""
    logprobs: Float[Tensor, "prompt last vocab"]
    """After the last token, or after every one."""
    streams: Mapping[str, Float[Tensor, "prompt pos d_model"]]
    """By hook point, at every one where a run acts."""


def logit_rows(
    m: Measurement, pending: Sequence[Key], advance: Callable[[int], object]
) -> Iterator[list[Row]]:
    """Logit metrics, relative norm and KL of the pending keys, a group of runs at a time."""
    todo, model = set(pending), fast_model(m.model)
    lengths = [len(ids) for ids in m.tokens[0]]
    equal = not BridgeModel(m.model).supports("padding")
    for prompts in batches(lengths, m.budget.sequences, similar=False, equal=equal):
        wanted = [r for r in range(len(m.runs)) if any((r, p) in todo for p in prompts)]
        if not wanted:
            continue
        batch = clean_pass(m, prompts, wanted)
        at_once = max(1, m.budget.sequences(batch.tokens.shape[1]) // len(prompts))
        for group in groups(m, model, wanted, at_once):
            yield score(m, batch, group, group_pass(m, model, batch, group))
            advance(len(group) * len(prompts))


def clean_pass(m: Measurement, prompts: Sequence[int], wanted: Sequence[int]) -> Batch:
    """Read the prompts without steering, and store the streams that the wanted runs edit."""
    contents = [m.tokens[0][prompt] for prompt in prompts]
    tokens, mask = left_padded(m.model, contents)
    points = sorted({stream_point(item) for run in wanted for item in m.runs[run].steering})
    clean = fast_model(m.model, points).run(tokens, mask, read=points, keep=m.n_logits)
    return Batch(prompts, contents, tokens, mask, _logprobs(clean), clean.streams)


def groups(
    m: Measurement, model: Model, wanted: Sequence[int], at_once: int
) -> Iterator[list[int]]:
    """Runs that one pass can take, ``at_once`` at most."""
    alike: dict[object, list[int]] = {}
    for index in wanted:
        run = m.runs[index]
        key: object = ("from", _own_start(m, model, run))
        if run.is_clean or run.prefix:
            key = "clean" if run.is_clean else ("prefix", index)
        alike.setdefault(key, []).append(index)
    for indices in alike.values():
        for start in range(0, len(indices), at_once):
            yield indices[start : start + at_once]


def _own_start(m: Measurement, model: Model, run: Run) -> str | None:
    """The hook point whose clean stream a pass of the run can start from, if any."""
    point = own_point(run.steering)
    layer = None if point is None else entered_layer(m.model, point)
    if layer is None or conditions_of(run.steering):
        return None
    return point if model.supports("start at a layer", layer) else None


def group_pass(
    m: Measurement, model: Model, batch: Batch, group: Sequence[int]
) -> Float[Tensor, "row last vocab"]:
    """Log-probs of all prompts under the first run of a group, then under the second, ..."""
    runs, keep = [m.runs[index] for index in group], m.n_logits
    if runs[0].is_clean:
        return _stacked(batch.logprobs, len(runs))
    if runs[0].prefix:
        own, rows = BridgeModel(m.model), [m.tokens[group[0]][p] for p in batch.prompts]
        if own.supports("padding"):
            return _logprobs(own.run(*left_padded(m.model, rows), keep=keep))
        alone = [_logprobs(own.run(*left_padded(m.model, [row]), keep=keep)) for row in rows]
        width = max(found.shape[1] for found in alone)
        return torch.cat([pad(found, (0, 0, width - found.shape[1], 0)) for found in alone])
    tokens, mask = _stacked(batch.tokens, len(runs)), _stacked(batch.mask, len(runs))
    point = _own_start(m, model, runs[0])
    if point is None:
        each = [run.steering for run in runs for _ in batch.prompts]
        edits = prompt_edits(m.model, each, mask, [*batch.contents] * len(runs)).by_point
        return _logprobs(BridgeModel(m.model).run(tokens, mask, edits=edits, keep=keep))
    layer, stream, real = entered_layer(m.model, point), batch.streams[point], batch.mask.bool()
    assert layer is not None
    entering = torch.cat(
        [
            applied(
                stream,
                run.steering,
                tokens_edited(run.steering, real.to(stream.device), batch.prompts, batch.contents),
            )
            for run in runs
        ]
    )
    return _logprobs(model.run(tokens, mask, keep=keep, start=Start(layer, entering)))


def score(
    m: Measurement, batch: Batch, group: Sequence[int], steered: Float[Tensor, "row last vocab"]
) -> list[Row]:
    """Every metric of every run of a group after every prompt."""
    width = min(batch.logprobs.shape[1], steered.shape[1])
    clean, steered = _stacked(batch.logprobs[:, -width:], len(group)), steered[:, -width:]
    counted = [n for run in group for n in _counted(m, run, batch.prompts)]
    doses = [dose for run in group for dose in _doses(m.runs[run], batch)]
    divergences = kl(clean[:, -1], steered[:, -1]).tolist()
    columns = {
        i: _values(metric, clean, steered, counted) for i, metric in m.of_kind("logits").items()
    }
    rows: list[Row] = []
    for place, key in enumerate(product(group, batch.prompts)):
        rows.append(Measured(*key, doses[place], divergences[place]))
        rows += [Value(*key, None, i, values[place]) for i, values in columns.items()]
    return rows


def _logprobs(found: Pass) -> Float[Tensor, "row last vocab"]:
    assert found.logits is not None
    return found.logits.float().log_softmax(dim=-1)


def _stacked(rows: Tensor, n: int) -> Tensor:
    return repeat(rows, "prompt ... -> (run prompt) ...", run=n)


def _counted(m: Measurement, index: int, prompts: Sequence[int]) -> list[int]:
    """How many of the last predictions of each prompt come after all rows."""
    run, bare = m.runs[index], [m.tokens[0][prompt] for prompt in prompts]
    if run.prefix:
        longer = [m.tokens[index][prompt] for prompt in prompts]
        return [n_alike(a[::-1], b[::-1]) for a, b in zip(bare, longer, strict=True)]
    ends = rows_end(bare, run.steering)
    return [len(ids) - end for ids, end in zip(bare, ends, strict=True)]


def _doses(run: Run, batch: Batch) -> list[float]:
    if run.is_clean:
        return [0.0] * len(batch.prompts)
    ratios = [torch.zeros(len(batch.prompts), 0, dtype=torch.float64)]
    for point in {stream_point(item) for item in run.steering}:
        together = [item for item in run.steering if stream_point(item) == point]
        stream = batch.streams[point]
        of_stream = all(item.additive or item.hook_point == point for item in together)
        if not of_stream or conditions_of(together):
            # It edits a tensor that is not the stream, or may not edit anything.
            return [math.nan] * len(batch.prompts)
        at = tokens_edited(
            together, batch.mask.bool().to(stream.device), batch.prompts, batch.contents
        )
        if all(item.additive for item in together):
            change = added(together, at, stream.shape[-1])
        else:  # what else is done to a stream depends on it
            change = applied(stream, together, at).float() - stream.float()
        # In double precision: the square of a large coefficient is beyond single.
        total, there = (vector_norm(x, dim=-1, dtype=torch.float64) for x in (change, stream))
        ratios.append(torch.where(total > 0, total / there, math.nan).cpu())
    means: list[float] = torch.cat(ratios, dim=1).nanmean(dim=1).tolist()
    return means


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
    counts = columns >= clean.shape[1] - torch.tensor(counted, device=clean.device)[:, None]
    found = torch.tensor(_called(metric, clean[counts], steered[counts]))
    return [float(own.mean()) for own in torch.split(found, counts.sum(dim=1).tolist())]


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


def completion_rows(
    m: Measurement, pending: Sequence[Key], advance: Callable[[int], object]
) -> Iterator[list[Row]]:
    """Completions of the pending keys, with the random numbers of ``generate``, and their metrics.

    All samples of a key come together; ``advance`` gets the number of tokens settled by each step.
    """
    requests = [Request(m.tokens[r][p], m.runs[r].steering, p) for r, p in pending]
    shown = [m.texts[p] for _, p in pending]
    made = completions(m.model, requests, shown, m.sampling, m.batch_size, advance)
    with closing(made):
        for batch in made:
            written = [completion for _, completion in batch]
            columns = {i: judge(own, written) for i, own in m.of_kind("completions").items()}
            rows: list[Row] = []
            for place, (index, completion) in enumerate(batch):
                key = (*pending[index], completion.sample_index)
                rows.append(Text(*key, completion.text))
                rows += [Value(*key, i, values[place]) for i, values in columns.items()]
            yield rows


def judge(metric: Metric, items: Sequence[Completion]) -> list[float]:
    """One value of a completion metric for each completion; NaN if its logits were not finite."""
    values = [float(value) for value in metric(items)]
    if len(values) != len(items):
        raise MetricError(
            f"{metric.name} gave {len(values)} values for {len(items)} completions: "
            "it must give one for each"
        )
    finite = [all(map(math.isfinite, item.logprobs)) for item in items]
    return [value if fine else math.nan for value, fine in zip(values, finite, strict=True)]
