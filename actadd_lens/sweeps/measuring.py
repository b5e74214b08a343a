"""Measuring configurations: the work that sweeps and ablations share.

What is made is committed to a store as it is made, so an interrupt loses what was in flight and no
more. Without a file the store is in memory.
"""

import logging
from collections import Counter
from collections.abc import Mapping
from typing import Any, TypeVar

from actadd_lens.display import bar
from actadd_lens.models import bridge
from actadd_lens.sweeps.completions import judge, writings
from actadd_lens.sweeps.logits import readings
from actadd_lens.sweeps.measurement import Measurement, Work, checked
from actadd_lens.sweeps.results import Result, tabulated
from actadd_lens.sweeps.store import Key, Measured, Phase, Store, Text, Value

_log = logging.getLogger("actadd_lens")

Kind = TypeVar("Kind", bound=Result)


def measure(measurement: Measurement, kind: type[Kind] = Result) -> Kind:  # type: ignore[assignment]
    """Run every configuration on every prompt, take every metric, and make a result of ``kind``.

    Raises:
        SweepError, MetricError, PromptError, PositionError, VectorError, LayerError,
        SamplingError: From the checks, before anything runs.
        SweepFileError, OutputError: The store is of something else, or cannot be written.
    """
    work = checked(measurement)
    for metric in work.text_metrics:
        judge(metric, [])  # one that cannot work says so before anything is generated
    complete = True
    with Store.open(measurement.store, work.config) as store, bridge.eval_mode(work.model):
        _report_versions(store.settings(), work.config)
        try:
            _read(work, store, measurement.progress)
            if work.text_metrics:
                _write(work, store, measurement.progress)
        except KeyboardInterrupt:
            if not store.done("logits"):
                raise
            complete = False
            _log.warning("interrupted: the result has what was done until now")
        names = [named.name for named in work.metrics]
        frame = tabulated(measurement.configurations, work.runs, work.texts, names, store)
        provenance = store.settings()
    for name, n in Counter(frame.loc[frame["value"].isna(), "metric"]).items():
        _log.warning("%s is NaN for %d of %d values", name, n, (frame["metric"] == name).sum())
    return kind(frame, provenance, complete)


def _read(work: Work, store: Store, progress: bool | None) -> None:
    left = _left(work, store, "logits")
    metrics = [i for i, named in enumerate(work.metrics) if not named.of_text]
    with _bar(work, len(left), 1, "prompt", "reading", progress) as advance:
        for made in readings(work, {*left}, advance):
            values = [
                Value(r.run, r.prompt, None, metric, value)
                for r in made
                for metric, value in zip(metrics, r.values, strict=True)
            ]
            measured = [Measured(r.run, r.prompt, r.dose, r.kl) for r in made]
            store.add("logits", [(r.run, r.prompt) for r in made], values, measured)


def _write(work: Work, store: Store, progress: bool | None) -> None:
    left = _left(work, store, "texts")
    metrics = [i for i, named in enumerate(work.metrics) if named.of_text]
    each = work.sampling.samples * work.sampling.max_new_tokens
    with _bar(work, len(left), each, "token", "generating", progress) as advance:
        for written in writings(work, left, advance):
            keys = dict.fromkeys((w.run, w.prompt) for w in written)
            values = [
                Value(w.run, w.prompt, w.sample, metric, value)
                for w in written
                for metric, value in zip(metrics, w.values, strict=True)
            ]
            texts = [Text(w.run, w.prompt, w.sample, w.text) for w in written]
            store.add("texts", keys, values, texts=texts)


def _left(work: Work, store: Store, phase: Phase) -> list[Key]:
    done = store.done(phase)
    everything = ((r, p) for r in range(len(work.runs)) for p in range(len(work.texts)))
    return [key for key in everything if key not in done]


def _bar(work: Work, n_left: int, each: int, unit: str, doing: str, shown: bool | None) -> Any:
    """A bar over all keys of ``each`` units, of which some are done; none if all are."""
    n = len(work.runs) * len(work.texts)
    return bar(n * each, unit, doing, shown if n_left else False, done=(n - n_left) * each)


def _report_versions(old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    """Say in the log if other versions began the store."""
    for name, version in new["versions"].items():
        before = old["versions"].get(name)
        if before != version:
            _log.warning("the store was begun with %s %s, this is %s", name, before, version)
