"""Can the bundled model be steered? `python -m tools.testbed_evaluation` prints the answer.

Layer and coefficient are chosen on the "selection" prompts among the interior layers, and so are
the layer at which the effect is shown against the coefficient, and its peak; the figures are of the
"test" prompts, of which those of one kind share none with them. One completion a prompt, at
temperature 1; every figure has its n and 95 % interval (Wilson for shares, bootstrap for means).
Sentences of one completion and repeats of one fact count as one. "rises, peaks, falls" is met where
the interval of the peak lies above those of the clean run and of the largest coefficient.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import torch
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from actadd_lens.analysis.facts import answer_ranks
from actadd_lens.analysis.logprobs import next_token_logprobs
from actadd_lens.generation.completions import generate
from actadd_lens.models.base import Bridge
from actadd_lens.models.bridge import BridgeModel
from actadd_lens.models.load import load_model
from actadd_lens.models.tokens import encode
from actadd_lens.statistics import Interval, cluster_mean, mean, proportion
from actadd_lens.testbed.corpus import Corpus
from actadd_lens.testbed.grammar import LEXICON, VALUES, parses, sentences
from actadd_lens.testbed.oracle import Split, facts, prompts
from actadd_lens.testbed.tasks import CHECKPOINT, REVERSED, TASKS, Task
from actadd_lens.vectors.extraction import extract
from actadd_lens.vectors.files import write_atomically
from actadd_lens.vectors.pair import ContrastPair
from actadd_lens.vectors.vector import SteeringVector

COEFFICIENTS: Final = (0.5, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0, 32.0, 64.0)
NEW_TOKENS: Final = 24
RANDOM_SEEDS: Final = (0, 1, 2)
FILLERS: Final = (
    "Everything was rather plain.",
    "It was a small evening for Anna.",
    "My teacher slowly went home.",
    "The guests counted every minute of it.",
    "The children felt awake and quiet.",
    "Everything was quite common.",
    "We felt ready and calm.",
)


# The paper's own pair, without full stops.
BARE: Final = Task(
    "bare",
    ContrastPair("Love", "Hate"),
    "neutral",
    TASKS["sentiment"].success,
    "positive completions of neutral prompts",
)


@dataclass(frozen=True)
class Cell:
    """A layer and a coefficient, with the share of successes that they were chosen for."""

    layer: int
    coefficient: float
    share: Interval


def complete(
    model: Bridge, texts: Sequence[str], vector: SteeringVector | None = None, seed: int = 0
) -> list[str]:
    """One completion of each text."""
    completions = generate(model, texts, vector, max_new_tokens=NEW_TOKENS, seed=seed)
    return [completion.text for completion in completions]


def share(
    model: Bridge, task: Task, split: Split, n: int, vector: SteeringVector | None
) -> Interval:
    """Share of the task's prompts whose completion is a success."""
    return proportion(
        [task.success(t) for t in complete(model, prompts(task.prompts, split, n), vector)]
    )


def grid(model: Bridge, task: Task, n: int) -> list[Cell]:
    """Every interior layer and coefficient, on the selection prompts."""
    layers = range(1, BridgeModel(model).n_layers - 1)
    vectors = extract(model, task.pair, layers)
    return [
        Cell(layer, c, share(model, task, "selection", n, c * vectors[layer]))
        for c in tqdm(COEFFICIENTS, desc=f"{task.name}: choosing", leave=False)
        for layer in layers
    ]


def best(cells: Sequence[Cell]) -> Cell:
    """The cell with most successes; of equals, the least coefficient and then the first layer."""
    return max(cells, key=lambda cell: cell.share.mean)


def most_bent(cells: Sequence[Cell]) -> Cell:
    """The peak of the layer whose effect falls most from there to the largest coefficient."""
    last = {cell.layer: cell.share.mean for cell in cells if cell.coefficient == COEFFICIENTS[-1]}
    return max(cells, key=lambda cell: cell.share.mean - last[cell.layer])


def first_token(model: Bridge, word: str) -> int:
    """Of a word within a sentence."""
    _bos, first, *_ = encode(model, f" {word}")
    return first


def probe(model: Bridge, latent: str, n: int) -> Interval:
    """Probability mass on the true value of a latent after three sentences that carry it.

    Read after "The" for the topic (its nouns) and after "It was a" for the sentiment (its
    adjectives), among the words of all values.
    """
    question, slots = {
        "topic": (" The", ("noun", "nouns")),
        "sentiment": (" It was a", ("adjective",)),
    }[latent]
    values = [v for v in VALUES[latent] if v != "neutral"]
    corpus = Corpus(switch=0, fact=0, fact_document=0, neutral_sentence=0)
    rng = random.Random(f"probe {latent}")
    drawn = []
    for _ in range(n):
        latents = {**corpus.latents(rng), "register": "plain", latent: rng.choice(values)}
        drawn.append((corpus.document(rng, 3, latents) + question, latents[latent]))
    probabilities = next_token_logprobs(model, [text for text, _ in drawn]).exp()
    mass = torch.stack(
        [
            probabilities[:, [first_token(model, w) for s in slots for w in LEXICON[s][v]]].sum(1)
            for v in values
        ],
        dim=1,
    )
    mass = mass / mass.sum(1, keepdim=True)
    return mean([mass[i, values.index(v)].item() for i, (_, v) in enumerate(drawn)])


def recall(
    model: Bridge, vector: SteeringVector | None = None, fillers: Sequence[str] = FILLERS
) -> Interval:
    """Share of facts recalled behind every filler sentence, on which the vector then lands.

    Without fillers it lands on the question itself.
    """
    known = facts()
    openings = [f"{filler} " for filler in fillers] or [""]
    asked = [(f"{opening}{prompt}", answer) for opening in openings for prompt, answer in known]
    ranks = answer_ranks(model, asked, vector)["rank"].tolist()
    return proportion([not any(ranks[i :: len(known)]) for i in range(len(known))])


def validity(texts: Sequence[str]) -> Interval:
    """Share of complete sentences that the grammar produces, over texts that hold any."""
    read = [(parses(s), i) for i, text in enumerate(texts) for s in sentences(text)[0]]
    return cluster_mean([float(valid) for valid, _ in read], [i for _, i in read])


@dataclass(frozen=True)
class Line:
    """One line of the report: a figure beside what is asked of it."""

    what: str
    figure: str
    asked: str
    met: bool | None


def report_model(model: Bridge, n: int) -> Iterator[Line]:
    """The clean model: latents, grammar, facts."""
    for latent in ("topic", "sentiment"):
        p = probe(model, latent, n)
        yield Line(f"latent probe, {latent}", p.percent(), ">= 90", p.mean >= 0.9)
    kinds = ("negative", "positive", "neutral", "rude", "topic_free", "off_topic")
    texts = [
        t for kind in kinds for t in complete(model, prompts(kind, "test", -(-n // len(kinds))))
    ]
    valid = validity(texts)
    yield Line("continuations, valid sentences", valid.percent(), ">= 97", valid.mean >= 0.97)
    known = recall(model)
    yield Line("facts, P@1", known.percent(), ">= 98", known.mean >= 0.98)


def report_task(
    model: Bridge, task: Task, n: int, n_select: int
) -> tuple[list[Line], dict[str, Any]]:
    """Steering for one task, with its controls and side effects, on the test prompts."""
    cells = grid(model, task, n_select)
    cell, bent = best(cells), most_bent(cells)
    vectors = extract(model, task.pair, [cell.layer, bent.layer])
    vector = vectors[cell.layer]
    texts = prompts(task.prompts, "test", n)

    def rate(v: SteeringVector | None) -> Interval:
        return proportion([task.success(t) for t in complete(model, texts, v)])

    steered_texts = complete(model, texts, cell.coefficient * vector)
    steered = proportion([task.success(t) for t in steered_texts])
    clean = rate(None)
    arms = {"negated": rate(-cell.coefficient * vector)} | {
        f"random, seed {s}": rate(cell.coefficient * vector.random_like(s)) for s in RANDOM_SEEDS
    }
    prompted = proportion(
        [task.success(t) for t in complete(model, [f"{task.pair.positive} {t}" for t in texts])]
    )
    at = f"layer {cell.layer}, c = {cell.coefficient:g}"
    pair = f"{task.pair.positive!r} - {task.pair.negative!r}"
    lines = [Line(f"{task.name}: {pair}", at, f"chosen on n={n_select}", None)]
    if task.name == "register":
        gain = steered.mean - clean.mean
        lines += [
            Line("  clean", clean.percent(), "", None),
            Line("  steered", steered.percent(), ">= clean + 40", gain >= 0.4),
        ]
    else:
        lines += [
            Line("  clean", clean.percent(), "<= 12", clean.mean <= 0.12),
            Line("  steered", steered.percent(), ">= 60", steered.mean >= 0.6),
        ]
    for name, arm in arms.items():
        near = abs(arm.mean - clean.mean) <= 0.05
        lines.append(Line(f"  {name}", arm.percent(), "clean +- 5", near))
    lines.append(Line("  prompted with the positive text", prompted.percent(), "", None))
    valid = validity(steered_texts)
    lines.append(Line("  valid sentences, steered", valid.percent(), ">= 95", valid.mean >= 0.95))
    known = recall(model, cell.coefficient * vector)
    lines.append(Line("  facts P@1, steered", known.percent(), ">= 95", known.mean >= 0.95))
    overlapped = recall(model, cell.coefficient * vector, fillers=())
    lines.append(Line("  facts P@1, vector on the question", overlapped.percent(), "", None))
    chosen = {"layer": cell.layer, "coefficient": cell.coefficient}
    curve = {c: rate(c * vectors[bent.layer]) for c in COEFFICIENTS}
    peak, last = curve[bent.coefficient], curve[COEFFICIENTS[-1]]
    lines.append(
        Line(
            f"  effect at layer {bent.layer} by c, peak at {bent.coefficient:g}",
            ", ".join(f"{c:g}: {100 * i.mean:.0f}" for c, i in curve.items()),
            "rises, peaks, falls",
            clean.high < peak.low and peak.low > last.high,
        )
    )
    return lines, chosen


def report_gain(
    model: Bridge, task: Task, n: int, n_select: int, asked: float | None = None
) -> list[Line]:
    """How many more of a task's prompts succeed when steered, prompt by prompt."""
    cell = best(grid(model, task, n_select))
    vector = cell.coefficient * extract(model, task.pair, [cell.layer])[cell.layer]
    texts = prompts(task.prompts, "test", n)
    clean, steered, negated = (
        [task.success(t) for t in complete(model, texts, v)] for v in (None, vector, -vector)
    )
    gain = mean([float(s) - float(c) for s, c in zip(steered, clean, strict=True)])
    at = f"layer {cell.layer}, c = {cell.coefficient:g}"
    pair = f"{task.pair.positive!r} - {task.pair.negative!r}"
    met = None if asked is None else gain.mean >= asked
    wanted = "" if asked is None else f">= {100 * asked:.0f}"
    return [
        Line(f"{task.name}: {pair}", at, f"chosen on n={n_select}", None),
        Line("  clean", proportion(clean).percent(), "", None),
        Line("  steered", proportion(steered).percent(), "", None),
        Line("  negated", proportion(negated).percent(), "", None),
        Line("  gain, points", gain.percent(), wanted, met),
    ]


def evaluate(model: Bridge, n: int, n_select: int) -> tuple[list[Line], dict[str, dict[str, Any]]]:
    """All lines of the report, and the layer and coefficient chosen for each task."""
    lines = list(report_model(model, n))
    chosen = {}
    for task in TASKS.values():
        more, chosen[task.name] = report_task(model, task, n, n_select)
        lines += more
    lines += report_gain(model, BARE, n, n_select, asked=0.2)
    return lines + report_gain(model, REVERSED, n, n_select), chosen


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--checkpoint", default="testbed", help="directory (default: the bundled one)"
    )
    parser.add_argument("--n", type=int, default=400, help="test prompts a figure")
    parser.add_argument("--select", type=int, default=200, help="selection prompts a cell")
    parser.add_argument(
        "--write", action="store_true", help="keep report and cells in the checkpoint"
    )
    arguments = parser.parse_args()
    lines, chosen = evaluate(load_model(arguments.checkpoint), arguments.n, arguments.select)
    table = Table("figure", "value", "asked", "met", box=None)
    for line in lines:
        table.add_row(
            line.what, line.figure, line.asked, {True: "yes", False: "NO", None: ""}[line.met]
        )
    Console(width=140).print(table)
    if arguments.write:
        bundled = arguments.checkpoint == "testbed"
        place = CHECKPOINT if bundled else Path(arguments.checkpoint)
        content = {"recommended": chosen, "lines": [asdict(line) for line in lines]}
        write_atomically(place / "evaluation.json", (json.dumps(content, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
