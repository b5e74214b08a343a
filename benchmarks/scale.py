"""Print the tables of docs/scale.md: ``python -m benchmarks.scale [--counted DIR]``.

Without DIR the cost model is checked: experiments run small on the testbed while PyTorch counts the
operations. With it, the model is applied at the paper's scale, to what a whole run on the testbed
was asked (``actadd-lens reproduce --all --out DIR``), with its counts scaled to the paper's.
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
from actadd_lens.reproduction.bundled import Bundled
from actadd_lens.reproduction.catalogue import NAMES, experiment
from actadd_lens.reproduction.cost import H100, ROWS, cost
from actadd_lens.reproduction.footprint import footprint
from actadd_lens.reproduction.presets import PRESETS, shape_of
from actadd_lens.reproduction.real import DOCUMENT_TOKENS, PROMPT_TOKENS
from actadd_lens.reproduction.setup import Setup
from actadd_lens.reproduction.sizes import PAPER, TESTBED, Sizes
from actadd_lens.reproduction.work import Ask
from actadd_lens.vectors.files import prepare_directory

SMALL = Sizes(prompts=16, new_tokens=8, documents=320, facts=16, draws=3, repeats=2)
MODELS = ("gpt2-xl", "facebook/opt-6.7b", "meta-llama/Meta-Llama-3-8B")
SEARCH = "search_"
GIVEN = ("sentiment", "weddings", "register")
UNJUDGED = ("timings", "later")
"""Completions that no metric reads."""
LENGTHS = {"prompts": PROMPT_TOKENS, "documents": DOCUMENT_TOKENS, "facts": 12, "repeats": 32}
"""Tokens of what is read, in real data."""
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
            # Searches are kept beside an experiment's directory, so each has one to itself.
            own = prepare_directory(Path(place) / name)
            setup = Setup(model, Bundled(), SMALL, own, progress=False)
            with FlopCounterMode(display=False) as counter:
                experiment(name).run(setup)
        counted, by_model = counter.get_total_flops(), cost(setup.asked, shape).flops
        ratio = by_model / counted if counted else float("nan")
        yield f"| {name} | {counted / 1e9:.2f} | {by_model / 1e9:.2f} | {ratio:.2f} |"


def planned(counted: Path) -> Iterator[str]:
    """Every experiment at the paper's scale: a line each, a column for each of the models.

    Searches for layer and coefficient are shared by all experiments, and have a line of their own.
    """
    yield f"| experiment | {' | '.join(MODELS)} |"
    yield "|---" * (1 + len(MODELS)) + "|"
    lines: dict[str, list[Ask]] = {}
    searches: dict[str, Ask] = {}
    for name in NAMES:
        kept = json.loads((counted / name / "outcome.json").read_text())
        asked = [Ask(**fields) for fields in kept["asked"]]
        lines[name] = [ask for ask in asked if not ask.name.startswith(SEARCH)]
        searches |= {ask.name: ask for ask in asked if ask.name.startswith(SEARCH)}
    # The testbed's own cells are given, those of other models are not.
    example = next(ask for name, ask in searches.items() if name.startswith("search_reversed"))
    given = [replace(example, name=f"{SEARCH}{name}") for name in GIVEN]
    lines["searches, once for all"] = [*searches.values(), *given]
    lines["**all**"] = [ask for asks in lines.values() for ask in asks]
    for name, asks in lines.items():
        yield f"| {name} | {' | '.join(_told(asks, model) for model in MODELS)} |"


def _told(asked: Sequence[Ask], model: str) -> str:
    """At the paper's scale, with completions that the model judges."""
    shape, few = PRESETS[model].shape, shape_of("testbed").n_layers
    found = cost(
        [
            replace(
                _spread(ask).scaled(TESTBED, PAPER, few, shape.n_layers),
                tokens=LENGTHS[ask.counts],
                judged=ask.samples > 0 and ask.name not in UNJUDGED,
            )
            for ask in asked
        ],
        shape,
    )
    return (
        f"{found.work.passes / 1e3:,.0f} k; {found.work.decoded / 1e6:.1f} M; "
        f"{found.flops / 1e15:,.0f}; {found.seconds / 3600:.2f} h"
    )


def _spread(ask: Ask) -> Ask:
    """Mean differences are tried at as many layers of any model."""
    return replace(ask, layers=1) if ask.name.startswith(f"{SEARCH}mean_") else ask


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
        "--counted", type=Path, metavar="DIR", help="of a whole run: print the paper's scale alone"
    )
    asked = parser.parse_args()
    torch.set_num_threads(1)
    logging.disable_progress_bar()
    if asked.counted is None or asked.names:
        for line in checked(asked.names or NAMES):
            print(line, flush=True)
    if asked.counted is not None:
        print(f"\n{H100}\n")
        for line in (*held(), "", *planned(asked.counted)):
            print(line, flush=True)


if __name__ == "__main__":
    main()
