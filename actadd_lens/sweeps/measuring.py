"""Measuring cells: the work that sweeps and ablations share, and the table that comes of it.

What is made is committed to a store as it is made, so an interrupt loses the cells in flight and no
more. Without a file the store is in memory.
"""

import hashlib
import logging
import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from os import PathLike
from typing import TYPE_CHECKING, Any

import torch

from actadd_lens import forward
from actadd_lens.errors import MetricError, SweepError
from actadd_lens.forward import Bridge
from actadd_lens.generation import check_room
from actadd_lens.metrics.registry import Metric, lookup, reads_logits
from actadd_lens.progress import bar
from actadd_lens.prompts import tokenize
from actadd_lens.sampling import Sampling, require_count
from actadd_lens.steering import as_vectors, check_fit
from actadd_lens.sweeps.cells import KEYS, Cell, Run
from actadd_lens.sweeps.reading import Reading, readings
from actadd_lens.sweeps.store import Measured, Store, Text, Value
from actadd_lens.sweeps.writing import Writing, judge, writings
from actadd_lens.vectors import source

if TYPE_CHECKING:
    from pandas import DataFrame
else:
    DataFrame = Any  # pandas takes half a second to import: only where a frame is asked for

_log = logging.getLogger("actadd_lens")

_MOST_TOKENS = 4096
"""More tokens in one pass gain nothing more."""
_SHARE_OF_MEMORY = 0.2
"""Of what is free, for one pass."""

OPTIONS = {f.name for f in fields(Sampling)} - {"samples", "seed"} | {"batch_size"}
"""Sampling options that a sweep hands on."""


@dataclass(frozen=True)
class Measurement:
    """A table, what it was measured with, and whether all of it is there."""

    frame: DataFrame
    provenance: dict[str, Any]
    complete: bool


def measure(
    model: Bridge,
    cells: Sequence[Cell],
    prompts: str | Sequence[str],
    metrics: str | Metric | Sequence[object],
    settings: dict[str, Any],
    *,
    samples: int = 0,
    seed: int = 0,
    store: str | PathLike[str] | None = None,
    progress: bool = True,
    batch_tokens: int | None = None,
    **sampling: Any,
) -> Measurement:
    """Run every cell on every prompt and take every metric.

    Args:
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
    texts = [prompts] if isinstance(prompts, str) else list(prompts)
    found = resolve(model, metrics, samples)
    how, batch_size = _sampling(samples, seed, sampling)
    runs = list(dict.fromkeys(cell.run for cell in cells))
    tokens = _tokens(model, runs, texts)
    reading = [metric for metric in found if reads_logits(metric)]
    writing = [metric for metric in found if not reads_logits(metric)]
    if writing:
        for rows in tokens:
            check_room(model, rows, how.max_new_tokens)
        for metric in writing:
            judge(metric, [])  # one that can't be had says so before anything is generated
    if batch_tokens is not None:
        require_count("batch_tokens", batch_tokens)
    longest = max(len(ids) for rows in tokens for ids in rows)
    budget = batch_tokens or _budget(model, longest, reading)
    config = {
        **settings,
        "model": {"name": str(model.cfg.model_name), "weights": fingerprint(model)},
        "prompts": texts,
        "metrics": [[metric.name, _described(metric)] for metric in found],
        "samples": samples,
        "seed": seed,
        "sampling": {k: v for k, v in asdict(how).items() if k in OPTIONS} if writing else None,
        "versions": source(model)["versions"],
    }
    index = {metric.name: i for i, metric in enumerate(found)}
    everything = [(r, p) for r in range(len(runs)) for p in range(len(texts))]
    complete = True
    with Store.open(store, config) as kept:
        try:
            done = kept.done("logits")
            left = [key for key in everything if key not in done]
            with bar(len(everything), "prompt", "reading", progress and bool(left)) as advance:
                advance(len(everything) - len(left))
                for made in readings(model, runs, tokens, reading, {*left}, budget, advance):
                    kept.add("logits", **_rows_read(made, [index[m.name] for m in reading]))
            done = kept.done("texts")
            left = [key for key in everything if key not in done] if writing else []
            each = samples * how.max_new_tokens
            total, shown = len(everything) * each, progress and bool(left)
            with bar(total, "token", "generating", shown) as advance:
                advance(total - len(left) * each)
                for written in writings(
                    model, runs, tokens, texts, writing, how, left, batch_size, advance
                ):
                    kept.add("texts", **_rows_written(written, [index[m.name] for m in writing]))
        except KeyboardInterrupt:
            if not kept.done("logits"):
                raise
            complete = False
            _log.warning("interrupted: the result has what was done until now")
        frame = _frame(cells, runs, texts, [metric.name for metric in found], kept)
    missing = Counter(frame.loc[frame["value"].isna(), "metric"])
    for name, n in missing.items():
        _log.warning("%s is NaN for %d of %d values", name, n, (frame["metric"] == name).sum())
    return Measurement(frame, config, complete)


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


def resolve(model: Bridge, metrics: object, samples: int) -> list[Metric]:
    """The metrics, looked up and bound to the model.

    Raises:
        MetricError: No metric, an unknown one, or two of one name.
        SweepError: A metric of text without samples, or samples without one.
    """
    several = metrics if isinstance(metrics, Sequence) and not isinstance(metrics, str) else None
    found = [lookup(metric) for metric in ([metrics] if several is None else several)]
    if not found:
        raise MetricError("the list of metrics is empty: give at least one")
    bound: list[Metric] = [m.bind(model) if hasattr(m, "bind") else m for m in found]
    names = [metric.name for metric in found]
    for name in names:
        if names.count(name) > 1:
            raise MetricError(
                f"{names.count(name)} metrics are called {name!r}: give them names of their own"
            )
    if samples != 0:
        require_count("samples", samples)
    of_text = [metric.name for metric in found if not reads_logits(metric)]
    if of_text and not samples:
        raise SweepError(
            f"{', '.join(of_text)}: read off completions, and samples=0 generates none; "
            "give samples=1 or more"
        )
    if samples and not of_text:
        raise SweepError(
            f"samples={samples}, but {', '.join(names)} read no completions: give samples=0, or a "
            "metric of text"
        )
    return bound


def fingerprint(model: Bridge) -> str:
    """A hash that changes with the model's weights, of a few values of each tensor."""
    digest = hashlib.sha256()
    for name, tensor in model.original_model.state_dict().items():
        flat = tensor.detach().reshape(-1)
        few = flat[:: max(1, flat.numel() // 16)][:17].to("cpu", torch.float64)
        digest.update(f"{name} {tuple(tensor.shape)} {few.tolist()}".encode())
    return digest.hexdigest()[:16]


def _described(metric: Metric) -> str:
    """What a metric is, the same in every process."""
    return re.sub(r" at 0x[0-9a-f]+", "", repr(metric))


def _sampling(samples: int, seed: int, options: dict[str, Any]) -> tuple[Sampling, int | None]:
    unknown = sorted(options.keys() - OPTIONS)
    if unknown:
        raise TypeError(
            f"unexpected keyword argument {unknown[0]!r}: sampling options are "
            f"{', '.join(sorted(OPTIONS))}"
        )
    batch_size = options.pop("batch_size", None)
    if batch_size is not None:
        require_count("batch_size", batch_size)
    return Sampling(samples=max(1, samples), seed=seed, **options), batch_size


def _tokens(model: Bridge, runs: Sequence[Run], texts: Sequence[str]) -> list[list[list[int]]]:
    """Token ids of every prompt under every run, and the proof that its vectors fit."""
    bare = tokenize(model, texts)
    tokens = []
    for run in runs:
        rows = tokenize(model, [run.prompted(t) for t in texts]) if run.prefix else bare
        check_fit(rows, as_vectors(model, run.vectors))
        tokens.append(rows)
    return tokens


def _budget(model: Bridge, longest: int, metrics: Sequence[Metric]) -> int:
    """Tokens of one pass: as many as a share of the free memory holds."""
    cfg = model.cfg
    width = 16 * cfg.d_model + 4 * (cfg.d_mlp or 4 * cfg.d_model)
    logits = 6 * cfg.d_vocab  # the model's, log-probs of both runs, and what metrics make of them
    if not any(getattr(metric, "over", "last") == "text" for metric in metrics):
        logits //= longest
    numbers = width + cfg.n_heads * longest + cfg.n_layers * cfg.d_model + logits
    tokens = int(_SHARE_OF_MEMORY * _free_memory(forward.device(model)) / (4 * numbers))
    return max(longest, min(tokens, _MOST_TOKENS))


def _free_memory(device: torch.device) -> int:
    """Bytes."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _frame(
    cells: Sequence[Cell],
    runs: Sequence[Run],
    texts: Sequence[str],
    names: Sequence[str],
    store: Store,
) -> DataFrame:
    """A row for each value of each cell."""
    import pandas as pd

    place = {run: i for i, run in enumerate(runs)}
    labels = pd.DataFrame([{**cell.labels, "run": place[cell.run]} for cell in cells])
    labels["cell"] = range(len(labels))
    values = pd.DataFrame(
        [(v.cell, v.prompt, v.sample, v.metric, v.value) for v in store.values()],
        columns=["run", "prompt_index", "sample", "metric", "value"],
    ).astype({"sample": "Int64", "value": float})
    beside = pd.DataFrame(
        [(m.cell, m.prompt, m.dose, m.kl) for m in store.measured()],
        columns=["run", "prompt_index", "dose", "kl"],
    ).astype({"dose": float, "kl": float})
    written = pd.DataFrame(
        [(t.cell, t.prompt, t.sample, t.text) for t in store.texts()],
        columns=["run", "prompt_index", "sample", "text"],
    ).astype({"sample": "Int64"})
    frame = (
        labels.merge(values, on="run")
        .merge(beside, on=["run", "prompt_index"], how="left")
        .merge(written, on=["run", "prompt_index", "sample"], how="left")
        .sort_values(["cell", "metric", "prompt_index", "sample"], ignore_index=True)
    )
    frame["prompt"] = [texts[i] for i in frame["prompt_index"]]
    frame["metric"] = [names[i] for i in frame["metric"]]
    frame["text"] = frame["text"].where(frame["sample"].notna(), None)
    extra = [name for name in labels if name not in (*KEYS, "run", "cell")]
    columns = [*KEYS, *extra, "prompt", "sample", "metric", "value"]
    types = {"layer": "Int64", "coefficient": "Float64"}
    return frame[[*columns, "prompt_index", "dose", "kl", "text"]].astype(types)
