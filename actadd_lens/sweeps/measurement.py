"""What is measured: configurations, prompts and metrics, checked and made ready to run."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch

from actadd_lens.errors import MetricError, SweepError, require_count
from actadd_lens.generation.completions import check_room
from actadd_lens.generation.sampling import Sampling
from actadd_lens.metrics.registry import Kind, Metric, lookup
from actadd_lens.models.base import Bridge
from actadd_lens.models.bridge import BridgeModel
from actadd_lens.models.memory import Budget, budget
from actadd_lens.models.plain import hooked_points
from actadd_lens.models.tokens import as_texts, tokenize
from actadd_lens.steering.hooks import as_interventions, check_fit
from actadd_lens.sweeps.configurations import Configuration, Run
from actadd_lens.sweeps.identity import fingerprint, hashed, metric_described, plain
from actadd_lens.vectors.provenance import source

OPTIONS = {f.name for f in fields(Sampling)} - {"samples", "seed"} | {"batch_size"}
"""Sampling options of a measurement."""


@dataclass(frozen=True, eq=False)
class Measurement:
    """Configurations x prompts x metrics that have been checked: all that the passes need."""

    model: Bridge
    runs: Sequence[Run]
    """Each once, the clean one first."""
    texts: Sequence[str]
    tokens: Sequence[Sequence[Sequence[int]]]
    """For each run the token ids of every prompt."""
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


def checked(
    model: Bridge,
    configurations: Sequence[Configuration],
    prompts: str | Sequence[str],
    metrics: object,
    settings: Mapping[str, Any],
    *,
    samples: int = 0,
    seed: int = 0,
    batch_tokens: int | None = None,
    **options: Any,
) -> Measurement:
    """A measurement, its prompts tokenized and its metrics bound; see ``measure``."""
    own, texts = BridgeModel(model), as_texts(prompts)
    bound = resolve(model, metrics, samples)
    sampling, batch_size = sampling_of(samples, seed, options)
    runs = list(dict.fromkeys(configuration.run for configuration in configurations))
    tokens = _tokens(model, configurations, runs, texts)
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
        "tokens": hashed(tokens),
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
        raise TypeError(
            f"unexpected keyword argument {unknown[0]!r}: beside those of the function there are "
            f"store, progress, batch_tokens, samples, seed and {', '.join(sorted(OPTIONS))}"
        )
    options = dict(options)
    batch_size = options.pop("batch_size", None)
    if batch_size is not None:
        require_count("batch_size", batch_size)
    return Sampling(samples=max(1, samples), seed=seed, **options), batch_size


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
        check_fit(rows, as_interventions(model, run.steering))
        vectors = [item.rows for item in run.steering if hasattr(item, "rows")]
        reach = max((float(own.abs().max()) for own in vectors), default=0.0)
        if reach > largest:
            where = ", ".join(f"{k} {v}" for k, v in labels[run].items() if v is not None)
            raise SweepError(
                f"the vector of {where} reaches {reach:.3g}, beyond {dtype}'s "
                f"{largest:.3g}: leave the configuration out, or load the model in another "
                "precision"
            )
        tokens.append(rows)
    return tokens
