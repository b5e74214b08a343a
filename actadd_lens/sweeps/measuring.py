"""Measuring cells: the work that sweeps and ablations share, and the table that comes of it.

What is made is committed to a store as it is made, so an interrupt loses the cells in flight and no
more. Without a file the store is in memory.
"""

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from os import PathLike
from typing import TYPE_CHECKING, Any

import torch

from actadd_lens.errors import MetricError, SweepError
from actadd_lens.generation.completions import check_room
from actadd_lens.generation.sampling import Sampling, require_count
from actadd_lens.metrics.registry import Metric, lookup
from actadd_lens.models import bridge
from actadd_lens.models.bridge import Bridge
from actadd_lens.models.plain import hooked_points
from actadd_lens.models.tokens import as_texts, tokenize
from actadd_lens.progress import bar
from actadd_lens.steering.hooks import as_vectors, check_fit
from actadd_lens.sweeps.budget import budget
from actadd_lens.sweeps.cells import Cell, Run
from actadd_lens.sweeps.identity import fingerprint, hashed, metric_described, plain
from actadd_lens.sweeps.reading import Reading, readings
from actadd_lens.sweeps.store import Measured, Store, Text, Value
from actadd_lens.sweeps.tables import tabulated
from actadd_lens.sweeps.writing import Writing, judge, writings
from actadd_lens.vectors.provenance import source

if TYPE_CHECKING:
    from pandas import DataFrame
else:
    DataFrame = Any  # pandas takes half a second to import: only where a frame is asked for

_log = logging.getLogger("actadd_lens")

OPTIONS = {f.name for f in fields(Sampling)} - {"samples", "seed"} | {"batch_size"}
"""Sampling options that a sweep hands on."""


@dataclass(frozen=True)
class Named:
    """A metric, bound to the model, under the name that the caller knows it by."""

    name: str
    metric: Metric

    @property
    def of_text(self) -> bool:
        """Whether it reads completions."""
        return self.metric.kind == "completions"


def measure(
    kind: Callable[[DataFrame, dict[str, Any], bool], Any],
    model: Bridge,
    cells: Sequence[Cell],
    prompts: str | Sequence[str],
    metrics: object,
    settings: dict[str, Any],
    *,
    samples: int = 0,
    seed: int = 0,
    store: str | PathLike[str] | None = None,
    progress: bool = True,
    batch_tokens: int | None = None,
    **sampling: Any,
) -> Any:
    """Run every cell on every prompt, take every metric, and make a result of ``kind``.

    Args:
        kind: Class of the result: called with frame, provenance, and whether all is there.
        model: Any TransformerBridge with a tokenizer.
        cells: What to run, the clean cell first.
        prompts: Texts to read or continue.
        metrics: Metrics, or names of built-in ones.
        settings: What the cells were made of, as plain JSON: with the rest of the arguments it
            says whether a store is of the same measurement.
        samples: Completions of each prompt; 0 for logit metrics alone.
        seed: Of the completions' random streams.
        store: A file to commit rows to as they are made, and to go on from.
        progress: Whether to show progress.
        batch_tokens: Tokens in one pass; by default what fits into a fifth of the free memory.
        **sampling: As of ``generate``.
    """
    texts = as_texts(prompts)
    found = resolve(model, metrics, samples)
    how, batch_size = sampling_of(samples, seed, sampling)
    runs = list(dict.fromkeys(cell.run for cell in cells))
    tokens = _tokens(model, cells, runs, texts)
    reading = [i for i, named in enumerate(found) if not named.of_text]
    writing = [i for i, named in enumerate(found) if named.of_text]
    if writing:
        for rows in tokens:
            check_room(model, rows, how.max_new_tokens)
        for i in writing:
            judge(found[i].metric, [])  # one that can't be had says so before anything is generated
    if batch_tokens is not None:
        require_count("batch_tokens", batch_tokens)
    config = plain(
        {
            **settings,
            **_described(model, tokens, texts, found, store is not None),
            "samples": samples,
            "seed": seed,
            "sampling": {k: v for k, v in asdict(how).items() if k in OPTIONS} if writing else None,
            "versions": source(model)["versions"],
        }
    )
    logit_metrics, text_metrics = ([found[i].metric for i in some] for some in (reading, writing))
    bound = budget(model, logit_metrics, batch_tokens)
    everything = [(r, p) for r in range(len(runs)) for p in range(len(texts))]
    complete = True
    with Store.open(store, config) as kept, bridge.eval_mode(model):
        _tell_versions(kept.settings(), config)
        try:
            left = _left(everything, kept, "logits")
            with _bar(len(everything), len(left), 1, "prompt", "reading", progress) as advance:
                for made in readings(model, runs, tokens, logit_metrics, {*left}, bound, advance):
                    kept.add("logits", **_rows_read(made, reading))
            left = _left(everything, kept, "texts") if writing else []
            each = how.samples * how.max_new_tokens
            with _bar(len(everything), len(left), each, "token", "generating", progress) as advance:
                for written in writings(
                    model, runs, tokens, texts, text_metrics, how, left, batch_size, advance
                ):
                    kept.add("texts", **_rows_written(written, writing))
        except KeyboardInterrupt:
            if not kept.done("logits"):
                raise
            complete = False
            _log.warning("interrupted: the result has what was done until now")
        frame = tabulated(cells, runs, texts, [named.name for named in found], kept)
        provenance = kept.settings()
    for name, n in Counter(frame.loc[frame["value"].isna(), "metric"]).items():
        _log.warning("%s is NaN for %d of %d values", name, n, (frame["metric"] == name).sum())
    return kind(frame, provenance, complete)


def _left(everything: Sequence[tuple[int, int]], store: Store, phase: Any) -> list[tuple[int, int]]:
    done = store.done(phase)
    return [key for key in everything if key not in done]


def _bar(n: int, n_left: int, each: int, unit: str, doing: str, shown: bool) -> Any:
    """A bar over ``n`` keys of ``each`` units, of which some are done; none if all are."""
    return bar(n * each, unit, doing, shown and n_left > 0, done=(n - n_left) * each)


def _rows_read(made: Sequence[Reading], metrics: Sequence[int]) -> dict[str, Any]:
    """What a store adds for a chunk of readings; ``metrics`` are the indices of theirs."""
    return {
        "keys": [(r.run, r.prompt) for r in made],
        "values": [
            Value(r.run, r.prompt, None, metric, value)
            for r in made
            for metric, value in zip(metrics, r.values, strict=True)
        ],
        "measured": [Measured(r.run, r.prompt, r.dose, r.kl) for r in made],
    }


def _rows_written(written: Sequence[Writing], metrics: Sequence[int]) -> dict[str, Any]:
    """What a store adds for a batch of completions; ``metrics`` are the indices of theirs."""
    return {
        "keys": list(dict.fromkeys((w.run, w.prompt) for w in written)),
        "values": [
            Value(w.run, w.prompt, w.sample, metric, value)
            for w in written
            for metric, value in zip(metrics, w.values, strict=True)
        ],
        "texts": [Text(w.run, w.prompt, w.sample, w.text) for w in written],
    }


def resolve(model: Bridge, metrics: object, samples: int) -> list[Named]:
    """The metrics, looked up and bound to the model.

    Raises:
        MetricError: No metric, an unknown one, or two of one name.
        SweepError: A metric of text without samples, or samples without one.
    """
    several = metrics if isinstance(metrics, Sequence) and not isinstance(metrics, str) else None
    found = [lookup(metric) for metric in ([metrics] if several is None else several)]
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
    named = [Named(m.name, m.bind(model) if hasattr(m, "bind") else m) for m in found]
    if samples != 0:
        require_count("samples", samples)
    of_text = [metric.name for metric in named if metric.of_text]
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
    return named


def sampling_of(samples: int, seed: int, options: dict[str, Any]) -> tuple[Sampling, int | None]:
    """How completions are drawn, and how many at once.

    Raises:
        TypeError: An unknown option.
        SamplingError: One out of its range.
    """
    unknown = sorted(options.keys() - OPTIONS)
    if unknown:
        raise TypeError(
            f"unexpected keyword argument {unknown[0]!r}: beside those of the function there are "
            f"store, progress, batch_tokens, samples, seed and {', '.join(sorted(OPTIONS))}"
        )
    rest = {name: value for name, value in options.items() if name != "batch_size"}
    batch_size = options.get("batch_size")
    if batch_size is not None:
        require_count("batch_size", batch_size)
    return Sampling(samples=max(1, samples), seed=seed, **rest), batch_size


def _described(
    model: Bridge,
    tokens: Sequence[Sequence[Sequence[int]]],
    texts: Sequence[str],
    metrics: Sequence[Named],
    stored: bool,
) -> dict[str, Any]:
    """What decides the values beside the settings and the sampling."""
    hooks = sorted(hooked_points(model))
    if hooks and stored:
        _log.warning(
            "hooks are attached to %s: a store can't tell them from others there", ", ".join(hooks)
        )
    return {
        "model": {
            "name": str(model.cfg.model_name),
            "weights": fingerprint(model),
            "hooks": hooks,
        },
        "prompts": list(texts),
        "tokens": hashed(tokens),
        "metrics": [
            [m.name, metric_described(m.metric), bool(getattr(m.metric, "share", False))]
            for m in metrics
        ],
    }


def _tokens(
    model: Bridge, cells: Sequence[Cell], runs: Sequence[Run], texts: Sequence[str]
) -> list[list[list[int]]]:
    """Token ids of every prompt under every run, and the proof that its vectors fit."""
    bare = tokenize(model, texts)
    largest = torch.finfo(model.cfg.dtype).max
    labels = {cell.run: cell.labels for cell in reversed(cells)}
    tokens = []
    for run in runs:
        rows = tokenize(model, [run.prompted(t) for t in texts]) if run.prefix else bare
        check_fit(rows, as_vectors(model, run.vectors))
        reach = max((float(v.rows.abs().max()) for v in run.vectors), default=0.0)
        if reach > largest:
            where = ", ".join(f"{k} {v}" for k, v in labels[run].items() if v is not None)
            raise SweepError(
                f"the vector of {where} reaches {reach:.3g}, beyond {model.cfg.dtype}'s "
                f"{largest:.3g}: leave the cell out, or load the model in another precision"
            )
        tokens.append(rows)
    return tokens


def _tell_versions(old: dict[str, Any], new: dict[str, Any]) -> None:
    """Say in the log if a store was begun by other versions than go on with it."""
    for name, version in new["versions"].items():
        before = old["versions"].get(name)
        if before != version:
            _log.warning("the store was begun with %s %s, this is %s", name, before, version)
