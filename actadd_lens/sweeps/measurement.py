"""What is measured: the value that sweeps and ablations hand over, and its checked form."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from os import PathLike
from typing import Any

import torch

from actadd_lens.errors import MetricError, SweepError, require_count, unexpected_option
from actadd_lens.generation.completions import check_room
from actadd_lens.generation.sampling import Sampling
from actadd_lens.metrics.registry import Metric, lookup
from actadd_lens.models.base import Bridge
from actadd_lens.models.bridge import BridgeModel
from actadd_lens.models.memory import Budget, budget
from actadd_lens.models.plain import hooked_points
from actadd_lens.models.tokens import as_texts, tokenize
from actadd_lens.steering.hooks import as_interventions, check_fit
from actadd_lens.sweeps.configurations import Configuration, Run
from actadd_lens.sweeps.identity import fingerprint, hashed, metric_described, plain
from actadd_lens.vectors.provenance import source

_log = logging.getLogger("actadd_lens")

OPTIONS = {f.name for f in fields(Sampling)} - {"samples", "seed"} | {"batch_size"}
"""Sampling options of a measurement."""


@dataclass(frozen=True, eq=False)
class Measurement:
    """Configurations x prompts x metrics, and how they are measured."""

    model: Bridge
    configurations: Sequence[Configuration]
    """The clean one first."""
    prompts: str | Sequence[str]
    """Texts to read or continue."""
    metrics: object
    """Metrics, or names of built-in ones."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """What the configurations were made from, as plain JSON: with the other fields it says whether
    a store is of the same measurement."""
    samples: int = 0
    """Completions of each prompt; 0 for logit metrics alone."""
    seed: int = 0
    """Of the completions' random streams."""
    sampling: Mapping[str, Any] = field(default_factory=dict)
    """Options of ``generate``."""
    store: str | PathLike[str] | None = None
    """A file that rows are committed to as they are made, and from which work is resumed."""
    progress: bool | None = None
    batch_tokens: int | None = None
    """Tokens in one pass; by default what fits into a fifth of the free memory."""

    @classmethod
    def of(
        cls,
        model: Bridge,
        configurations: Sequence[Configuration],
        prompts: str | Sequence[str],
        metrics: object,
        settings: Mapping[str, Any],
        **options: Any,
    ) -> "Measurement":
        """A measurement whose options are keywords: what is not a field is of sampling."""
        own = {f.name: options.pop(f.name) for f in fields(cls) if f.name in options}
        return cls(model, configurations, prompts, metrics, settings, sampling=options, **own)


@dataclass(frozen=True)
class Named:
    """A metric, bound to the model, under the name that the caller knows it by."""

    name: str
    metric: Metric

    @property
    def of_text(self) -> bool:
        """Whether it reads completions."""
        return self.metric.kind == "completions"


@dataclass(frozen=True, eq=False)
class Work:
    """A measurement that has been checked: everything that the passes need."""

    model: Bridge
    runs: Sequence[Run]
    """Each once, the clean one first."""
    texts: Sequence[str]
    tokens: Sequence[Sequence[Sequence[int]]]
    """For each run the token ids of every prompt."""
    metrics: Sequence[Named]
    sampling: Sampling
    batch_size: int | None
    """Completions decoded at once."""
    batch_tokens: int | None
    config: Mapping[str, Any]
    """All that the values depend on, as plain JSON."""

    @property
    def logit_metrics(self) -> list[Metric]:
        """Those that read next-token distributions."""
        return [named.metric for named in self.metrics if not named.of_text]

    @property
    def text_metrics(self) -> list[Metric]:
        """Those that read completions."""
        return [named.metric for named in self.metrics if named.of_text]

    @property
    def n_logits(self) -> int:
        """Tokens at the end of a prompt whose logits are made; 0 for all."""
        return 0 if any(getattr(m, "over", "last") == "text" for m in self.logit_metrics) else 1

    @cached_property
    def budget(self) -> Budget:
        """What one pass may hold."""
        return budget(
            self.model,
            logits="last" if self.n_logits else "all",
            copies=8,  # the model's, log-probs of both runs, and what metrics make of them
            points=BridgeModel(self.model).n_layers,
            batch_tokens=self.batch_tokens,
        )


def checked(measurement: Measurement) -> Work:
    """The measurement with its prompts tokenized and its metrics bound.

    Raises:
        SweepError, MetricError, PromptError, PositionError, VectorError, LayerError,
        SamplingError: Something does not fit the model, the prompts or the rest.
    """
    m = measurement
    texts = as_texts(m.prompts)
    metrics = resolve(m.model, m.metrics, m.samples)
    sampling, batch_size = sampling_of(m.samples, m.seed, m.sampling)
    runs = list(dict.fromkeys(configuration.run for configuration in m.configurations))
    tokens = _tokens(m.model, m.configurations, runs, texts)
    of_text = any(named.of_text for named in metrics)
    if of_text:
        for rows in tokens:
            check_room(m.model, rows, sampling.max_new_tokens)
    if m.batch_tokens is not None:
        require_count("batch_tokens", m.batch_tokens)
    drawn = asdict(sampling)
    config = {
        **m.settings,
        **_described(m, tokens, texts, metrics),
        "samples": m.samples,
        "seed": m.seed,
        "sampling": {k: drawn[k] for k in drawn if k in OPTIONS} if of_text else None,
        "versions": source(m.model)["versions"],
    }
    batching = batch_size, m.batch_tokens
    return Work(m.model, runs, texts, tokens, metrics, sampling, *batching, plain(config))


def resolve(model: Bridge, metrics: object, samples: int) -> list[Named]:
    """The metrics, looked up and bound to the model.

    Raises:
        MetricError: No metric, an unknown one, or two of one name.
        SweepError: A metric of text without samples, or samples without one.
    """
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


def sampling_of(samples: int, seed: int, options: Mapping[str, Any]) -> tuple[Sampling, int | None]:
    """How completions are drawn, and how many at once.

    Raises:
        TypeError: An unknown option.
        SamplingError: One out of its range.
    """
    unknown = sorted(options.keys() - OPTIONS)
    if unknown:
        own = {f.name for f in fields(Measurement)} - {"configurations", "settings", "sampling"}
        raise unexpected_option(unknown[0], OPTIONS | own)
    rest = {name: value for name, value in options.items() if name != "batch_size"}
    batch_size = options.get("batch_size")
    if batch_size is not None:
        require_count("batch_size", batch_size)
    return Sampling(samples=max(1, samples), seed=seed, **rest), batch_size


def _described(
    m: Measurement,
    tokens: Sequence[Sequence[Sequence[int]]],
    texts: Sequence[str],
    metrics: Sequence[Named],
) -> dict[str, Any]:
    """What decides the values besides the settings and the sampling."""
    own, hooks = BridgeModel(m.model), sorted(hooked_points(m.model))
    if hooks and m.store is not None:
        _log.warning(
            "hooks are attached to %s: a store cannot distinguish them from others there",
            ", ".join(hooks),
        )
    return {
        "model": {"name": own.name, "weights": fingerprint(m.model), "hooks": hooks},
        "prompts": list(texts),
        "tokens": hashed(tokens),
        "metrics": [
            [n.name, metric_described(n.metric), bool(getattr(n.metric, "share", False))]
            for n in metrics
        ],
    }


def _tokens(
    model: Bridge,
    configurations: Sequence[Configuration],
    runs: Sequence[Run],
    texts: Sequence[str],
) -> list[list[list[int]]]:
    """Token ids of every prompt under every run, and the proof that its vectors fit."""
    bare = tokenize(model, texts)
    dtype = BridgeModel(model).dtype
    largest = torch.finfo(dtype).max
    labels = {c.run: c.labels for c in reversed(configurations)}
    tokens = []
    for run in runs:
        rows = tokenize(model, [run.prompted(t) for t in texts]) if run.prefix else bare
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
