"""Print the tables of docs/scale.md: ``python -m benchmarks.scale [EXPERIMENT ...] [--plan FILE]``.

Experiments run on the testbed while this script counts what they make the model compute: it wraps
``Setup.measure``, and reads the rest off what was measured. Without ``--plan`` they run small, and
the cost model is compared with the operations that PyTorch counts. With it they run at their usual
sizes, FILE gets the counts, and the cost model is applied to them, scaled to the paper's sizes; if
FILE is there, its counts are used and nothing is run.
"""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import argparse
import json
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers.utils import logging

import actadd_lens as al
from actadd_lens.models.footprint import ROWS, footprint
from actadd_lens.models.presets import PRESETS, shape_of
from actadd_lens.reproduction.bundled import Bundled
from actadd_lens.reproduction.measurements import Measurements
from actadd_lens.reproduction.real import DOCUMENT_TOKENS, PROMPT_TOKENS
from actadd_lens.reproduction.registry import check_names, named, names
from actadd_lens.reproduction.setup import Setup
from actadd_lens.reproduction.sizes import PAPER, TESTBED, Sizes
from actadd_lens.sweeps.configurations import Configuration, Run
from actadd_lens.vectors.files import prepare_directory
from benchmarks.workload import H100, Workload, cost

SMALL = Sizes(prompts=16, new_tokens=8, documents=320, facts=16, draws=3, repeats=2)
MODELS = ("gpt2-xl", "facebook/opt-6.7b", "meta-llama/Meta-Llama-3-8B")
SEARCH = "search_"
GIVEN = ("sentiment", "weddings", "register")
UNJUDGED = ("timings", "later")
"""Completions that no metric judges."""
LENGTHS = {"prompts": PROMPT_TOKENS, "documents": DOCUMENT_TOKENS, "facts": 12, "repeats": 32}
"""Tokens of what is read, in real data."""
LONGEST = 128
"""Tokens of a prompt and its completion at the paper's scale, at most."""
LAYER_AXES = ("layer", "recorded")
"""Labels that have more values in a model of more layers."""


def counted(name: str, setup: Setup) -> list[Workload]:
    """Run what an experiment measures, and count it."""
    found: list[Workload] = []
    measure = Setup.measure

    def counting(
        self: Setup, what: str, cells: Sequence[Configuration], prompts: Sequence[str],
        metrics: Any, *, samples: int | None = None, **options: Any,
    ) -> Measurements:  # fmt: skip
        n = self.sizes.samples if samples is None else samples
        found.append(_of_cells(self, what, cells, prompts, n))
        return measure(self, what, cells, prompts, metrics, samples=samples, **options)

    with patch.object(Setup, "measure", counting):
        measured = named(name).measure(setup)
    return found + _elsewhere(name, measured.parts, setup)


def _of_cells(
    setup: Setup, name: str, cells: Sequence[Configuration], prompts: Sequence[str], samples: int
) -> Workload:
    runs = list(dict.fromkeys(cell.run for cell in cells))
    layers = [run.steering[0].layer if run.steering else 0 for run in runs]
    by_layer = max((_by_label(cells, axis) for axis in LAYER_AXES), key=len)
    # A prompt in words is the same run at every layer.
    shared = set.intersection(*by_layer.values()) if by_layer else set()
    return Workload(
        name,
        len(runs),
        len(prompts),
        _mean_length(setup, prompts),
        "prompts",
        samples,
        setup.sizes.new_tokens if samples else 0,
        len(by_layer),
        min((len(own - shared) for own in by_layer.values()), default=0),
        1 - sum(layers) / len(layers) / setup.n_layers,
    )


def _by_label(cells: Sequence[Configuration], name: str) -> dict[Any, set[Run]]:
    """Runs by the value of a label, those of configurations that have one."""
    found: dict[Any, set[Run]] = {}
    for cell in cells:
        if cell.labels.get(name) is not None:
            found.setdefault(cell.labels[name], set()).add(cell.run)
    return found


def _mean_length(setup: Setup, texts: Sequence[str]) -> float:
    return sum(map(setup.length, texts)) / len(texts)


def _elsewhere(name: str, parts: Any, setup: Setup) -> list[Workload]:
    """What does not go through ``Setup.measure``, from what was measured."""
    found = []
    for which, part in parts.items():
        frame, new = part.frame, setup.sizes.new_tokens
        prompts = [str(prompt) for prompt in frame["prompt"].unique()]
        runs, n = len(frame[part.result.keys].drop_duplicates()), len(prompts)
        tokens = _mean_length(setup, prompts)
        match name, which:
            case "perplexity-by-relevance" | "prompting-comparison", _:
                found.append(
                    Workload("documents", runs + 2, n, tokens, "documents", all_logits=True)
                )
            case "knowledge", _:
                filler = setup.length(setup.data.filler) if "filler" in which else 0
                found.append(Workload("facts", runs, n, tokens - 1 + filler, "facts"))
            case "norms", _:
                found.append(Workload("norms", 1, n, tokens, "prompts"))
            case "composition", _:
                conditions = frame.loc[frame["vector"] == which, "draw"].nunique()
                found.append(Workload("shifts", 1 + 3 * conditions, n, tokens, "prompts"))
            case "random-vectors", "later":
                samples = setup.sizes.samples
                found.append(Workload("later", runs + 1, n, tokens, "prompts", samples, new))
                found.append(
                    Workload(
                        "later, read", 2 * runs + 2, n * samples, tokens, "prompts",
                        new_tokens=new, all_logits=True,
                    )
                )  # fmt: skip
            case "inference-cost", _:
                length = _mean_length(setup, setup.concept("sentiment").test)
                own = frame[frame["kind"] == "own"]
                for batch, timed in own.groupby("batch"):
                    sequences = int(batch) * setup.sizes.repeats
                    found.append(
                        Workload(
                            "timings", timed["run"].nunique(), sequences, length, "repeats", 1, new
                        )
                    )
    return found


def on_testbed(name: str, sizes: Sizes, place: Path, *, flops: bool) -> tuple[list[Workload], int]:
    """The workloads of an experiment, and the operations that PyTorch counts."""
    model = al.load_model("testbed", device="cpu")
    setup = Setup(model, Bundled(), sizes, prepare_directory(place / name), progress=False)
    if not flops:
        return counted(name, setup), 0
    with FlopCounterMode(display=False) as counter:
        found = counted(name, setup)
    return found, counter.get_total_flops()


def checked(chosen: Sequence[str]) -> Iterator[str]:
    """The operations of the cost model against those that are counted."""
    shape = shape_of("testbed")
    yield "| experiment | counted, GFLOP | cost model | ratio |"
    yield "|---|---|---|---|"
    for name in chosen:
        # Searches are stored next to an experiment's directory, so each has one to itself.
        with tempfile.TemporaryDirectory() as place:
            found, by_torch = on_testbed(name, SMALL, Path(place), flops=True)
        by_model = cost(found, shape).flops
        ratio = by_model / by_torch if by_torch else float("nan")
        yield f"| {name} | {by_torch / 1e9:.2f} | {by_model / 1e9:.2f} | {ratio:.2f} |"


def counts_in(file: Path) -> dict[str, list[Workload]]:
    """The workloads of all experiments at their usual sizes, counted once and stored."""
    if not file.exists():
        counts = {}
        with tempfile.TemporaryDirectory() as place:
            for name in names():
                found, _ = on_testbed(name, TESTBED, Path(place, name), flops=False)
                counts[name] = [asdict(workload) for workload in found]
        file.write_text(json.dumps(counts, indent=1))
    read = json.loads(file.read_text())
    return {name: [Workload(**fields) for fields in own] for name, own in read.items()}


def planned(counts: dict[str, list[Workload]]) -> Iterator[str]:
    """Every experiment at the paper's scale: a line each, a column for each of the models.

    Searches for layer and coefficient are shared by all experiments, and have a line of their own.
    """
    yield f"| experiment | {' | '.join(MODELS)} |"
    yield "|---" * (1 + len(MODELS)) + "|"
    searches = {w.name: w for own in counts.values() for w in own if w.name.startswith(SEARCH)}
    lines = {
        name: [workload for workload in own if not workload.name.startswith(SEARCH)]
        for name, own in counts.items()
    }
    # The testbed's own settings are given, those of other models are not.
    example = next(w for name, w in searches.items() if name.startswith("search_reversed"))
    given = [replace(example, name=f"{SEARCH}{name}") for name in GIVEN]
    lines["searches, once for all"] = [*searches.values(), *given]
    lines["**all**"] = [workload for own in lines.values() for workload in own]
    for name, own in lines.items():
        yield f"| {name} | {' | '.join(_at_scale(own, model) for model in MODELS)} |"


def _at_scale(workloads: Sequence[Workload], model: str) -> str:
    """At the paper's scale, with completions that the model judges."""
    shape, few = PRESETS[model].shape, shape_of("testbed").n_layers
    found = cost(
        [
            replace(
                _spread(workload).scaled(TESTBED, PAPER, few, shape.n_layers),
                tokens=LENGTHS[workload.counts],
                judged=workload.samples > 0 and workload.name not in UNJUDGED,
            )
            for workload in workloads
        ],
        shape,
    )
    return (
        f"{found.counts.passes / 1e3:,.0f} k; {found.counts.decoded / 1e6:.1f} M; "
        f"{found.flops / 1e15:,.0f}; {found.seconds / 3600:.2f} h"
    )


def _spread(workload: Workload) -> Workload:
    """Mean differences are tried at as many layers of any model."""
    return replace(workload, layers=1) if workload.name.startswith(f"{SEARCH}mean_") else workload


def held() -> Iterator[str]:
    """Memory of each model."""
    yield f"| model | parameters | memory for {ROWS} rows of {LONGEST} tokens |"
    yield "|---|---|---|"
    for name in MODELS:
        preset = PRESETS[name]
        needed = footprint(preset.shape, preset.half, rows=ROWS, tokens=LONGEST)
        yield f"| {name} | {preset.shape.n_params:,} | {needed} |"


def main() -> None:
    """Print Markdown, line by line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale")
    parser.add_argument("names", nargs="*", metavar="EXPERIMENT", help="to check; all by default")
    parser.add_argument("--plan", type=Path, metavar="FILE", help="print the paper's scale instead")
    given = parser.parse_args()
    check_names(given.names)
    torch.set_num_threads(1)
    logging.disable_progress_bar()
    if given.plan is None:
        lines = checked(given.names or names())
    else:
        lines = iter([H100.name, "", *held(), "", *planned(counts_in(given.plan))])
    for line in lines:
        print(line, flush=True)


if __name__ == "__main__":
    main()
