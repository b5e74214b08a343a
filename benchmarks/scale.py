"""Print the tables of docs/scale.md: ``python -m benchmarks.scale [--counted DIR]``.

The first table checks the cost model: experiments run small on the testbed while PyTorch counts the
operations. The second applies it at the paper's scale, to what a whole run on the testbed was asked
(``actadd-lens reproduce --all``), with its counts scaled to the paper's.
"""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import argparse
import json
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers.utils import logging

import actadd_lens as al
from actadd_lens.experiments.catalogue import NAMES, experiment
from actadd_lens.footprint import footprint
from actadd_lens.harness.bundled import Bundled
from actadd_lens.harness.cost import H100, ROWS, cost
from actadd_lens.harness.setup import Setup
from actadd_lens.harness.sizes import PAPER, TESTBED, Sizes
from actadd_lens.harness.work import Ask
from actadd_lens.presets import PRESETS, shape_of

SMALL = Sizes(prompts=10, new_tokens=8, documents=40, facts=10, draws=3, repeats=2)
MODELS = ("gpt2-xl", "facebook/opt-6.7b", "meta-llama/Meta-Llama-3-8B")
LONGEST = 128
"""Tokens of a prompt and its completion at the paper's scale, at most."""


def checked(names: Sequence[str]) -> Iterator[str]:
    """The operations of the cost model against those that are counted."""
    model = al.load_model("testbed", device="cpu")
    shape = shape_of("testbed")
    yield "| experiment | counted, GFLOP | cost model | ratio |"
    yield "|---|---|---|---|"
    for name in names:
        with tempfile.TemporaryDirectory() as place:
            setup = Setup(model, Bundled(), SMALL, Path(place), progress=False)
            with FlopCounterMode(display=False) as counter:
                experiment(name).run(setup)
        counted, by_model = counter.get_total_flops(), cost(setup.asked, shape).flops
        ratio = by_model / counted if counted else float("nan")
        yield f"| {name} | {counted / 1e9:.2f} | {by_model / 1e9:.2f} | {ratio:.2f} |"


def planned(counted: Path) -> Iterator[str]:
    """Every experiment at the paper's scale on each of the models."""
    yield "| experiment | model | sequences read | tokens decoded | PFLOP | hours |"
    yield "|---|---|---|---|---|---|"
    totals = dict.fromkeys(MODELS, 0.0)
    few = shape_of("testbed").n_layers
    for name in NAMES:
        kept = json.loads((counted / name / "outcome.json").read_text())
        for model in MODELS:
            shape = PRESETS[model].shape
            asks = [
                replace(ask.scaled(TESTBED, PAPER, few, shape.n_layers), judged=ask.samples > 0)
                for ask in (Ask(**fields) for fields in kept["asked"])
            ]
            found = cost(asks, shape)
            totals[model] += found.seconds
            yield (
                f"| {name} | {model} | {found.work.passes:,.0f} | {found.work.decoded:,.0f} | "
                f"{found.flops / 1e15:,.1f} | {found.seconds / 3600:.2f} |"
            )
    for model, seconds in totals.items():
        yield f"| all | {model} | | | | {seconds / 3600:.1f} |"


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
    parser.add_argument(
        "--counted", type=Path, metavar="DIR", help="of a whole run, for the paper's scale"
    )
    asked = parser.parse_args()
    torch.set_num_threads(1)
    logging.disable_progress_bar()
    for line in checked(asked.names or NAMES):
        print(line, flush=True)
    if asked.counted is not None:
        print(f"\n{H100}\n")
        for line in (*held(), "", *planned(asked.counted)):
            print(line, flush=True)


if __name__ == "__main__":
    main()
