"""Facts that the model knows."""

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from actadd_lens.analysis.facts import answer_ranks
from actadd_lens.models.bridge import BridgeModel
from actadd_lens.plots.style import (
    CLEAN_COLOUR,
    COLOURS,
    CONTROL_COLOUR,
    band,
    drawing,
    legend,
    log_ticks,
    panel_axes,
)
from actadd_lens.reproduction.concepts import Fact
from actadd_lens.reproduction.criteria import Verdict, all_of, decide, preserved
from actadd_lens.reproduction.measurements import (
    Measurements,
    as_measurements,
    format_intervals,
    note,
    percent,
)
from actadd_lens.reproduction.outcome import Measured
from actadd_lens.reproduction.registry import experiment
from actadd_lens.reproduction.setup import Setup
from actadd_lens.sweeps.configurations import Configuration

LOGPROB = "answer_logprob"
KS = (1, 2, 5, 10, 20, 50, 100)
LOOKS: dict[str, dict[str, Any]] = {
    "random": {"color": CONTROL_COLOUR, "linestyle": "--"},
    "mean difference": {"color": COLOURS[2], "marker": "^"},
    "prompted": {"color": COLOURS[1], "marker": "s"},
    "steered": {"color": COLOURS[0], "marker": "o"},
    "clean": {"color": CLEAN_COLOUR, "linestyle": ":"},
}
ON_QUESTION, ON_FILLER = "on the question", "on filler in front"


@experiment(
    "knowledge",
    question="Does a steered model still know the facts that it knew?",
    design="""P@K is the share of facts whose answer is among the K likeliest tokens after the
    question. The answer's log-probability is given as well, as P@K says nothing more where all
    answers come first. The vectors of a topic, of sentiment and of register are added at their
    settings, with every baseline, to two kinds of text: to the bare question, so that the vector is
    added to it, and to the question after a sentence of filler and a space, so that the vector is
    added to the filler. The mean difference is added at every position in both; prompting puts the
    positive text in front of either.""",
    criteria={
        "F1": """Knowledge stays without overlap: for every vector and every K, P@K falls by no more
        than 5 points on the mean against the clean run on the same texts. Not testable if an
        interval reaches 10 points below its mean, or less than a tenth is known in the clean run.
        """,
        "F2": "It stays with overlap: the same where the vector is added to the question.",
        "Q1": """Does the steered model keep as much as the prompted one? Yes if for every vector,
        with overlap and without, the interval of the paired change of P@1, steered minus prompted,
        does not lie wholly below 0.""",
    },
    paper="""GPT-2-XL, the wedding vector, LAMA's ConceptNet, P@K for K from 1 to 100: hardly any
    change.""",
    differs="""Three vectors instead of one; texts where the vector is added to the question itself
    are distinguished from others.""",
)
def knowledge(setup: Setup) -> Measured:
    """Ask every fact in every run."""
    concepts = setup.concepts(setup.data.topics[0], "sentiment", "register")
    ks = [k for k in KS if k <= BridgeModel(setup.model).d_vocab]
    given = setup.data.facts(setup.sizes.facts)
    parts: dict[str, Measurements] = {}
    counts: dict[str, list[int]] = {ON_QUESTION: [], ON_FILLER: []}
    for name, concept in concepts.items():
        cells = setup.baselines(concept)
        for place, head in ((ON_QUESTION, ""), (ON_FILLER, f"{setup.data.filler} ")):
            # Facts whose question is longer than the vector and fits with the prompt.
            long = set(setup.fitting(concept, [head + fact.prompt for fact in given], after=0))
            facts = [fact for fact in given if head + fact.prompt in long]
            counts[place].append(len(facts))
            parts[f"{name} {place}"] = _ranks(setup, cells, facts, head, ks)
    return Measured(
        parts,
        notes={"concepts": [*concepts], "ks": ks},
        facts={
            **{name: setup.describe(concept)["vector"] for name, concept in concepts.items()},
            "facts": "; ".join(
                f"vector {place}: {' and '.join(dict.fromkeys(map(str, own)))} of {len(given)} "
                "are long enough and fit"
                for place, own in counts.items()
            ),
        },
    )


def _ranks(
    setup: Setup,
    cells: Sequence[Configuration],
    facts: Sequence[Fact],
    head: str,
    ks: Sequence[int],
) -> Measurements:
    """Whether each answer is among the K likeliest tokens, in every run."""
    frames = []
    for cell in cells:
        questions = [(cell.run.prompted(head + fact.prompt), fact.answer) for fact in facts]
        found = answer_ranks(setup.model, questions, cell.run.steering)
        labels = {**cell.labels, "prompt": [f"{fact.prompt} {fact.answer}" for fact in facts]}
        frames.append(pd.DataFrame({**labels, "metric": LOGPROB, "value": found["logprob"]}))
        frames += [
            pd.DataFrame({**labels, "metric": f"P@{k}", "value": (found["rank"] < k).astype(float)})
            for k in ks
        ]
    return as_measurements(pd.concat(frames, ignore_index=True), [f"P@{k}" for k in ks])


@knowledge.judge
def judge(m: Measured) -> list[Verdict]:
    """Compare with the clean run, and with prompting."""
    prompting = m.changes("P@1", than="prompted")
    return [
        _stays("F1", _at(m, ON_FILLER), m.notes["ks"]),
        _stays("F2", _at(m, ON_QUESTION), m.notes["ks"]),
        Verdict(
            "Q1",
            decide(not any(i.high < 0 for i in prompting.values()), *prompting.values()),
            format_intervals(prompting),
        ),
    ]


def _at(m: Measured, place: str) -> dict[str, Measurements]:
    """The measurements of each concept on one kind of text."""
    return {name: m.parts[f"{name} {place}"] for name in m.notes["concepts"]}


def _stays(key: str, parts: Mapping[str, Measurements], ks: Sequence[int]) -> Verdict:
    """Whether no P@K of any vector falls by more than 5 points."""
    held, largest = [], []
    for name, part in parts.items():
        falls = {f"P@{k}": part.change(f"P@{k}") for k in ks}
        held += [preserved(fall, part.value(metric, "clean")) for metric, fall in falls.items()]
        metric = min(falls, key=lambda metric: falls[metric].mean)
        largest.append(f"{name} {metric} {percent(falls[metric], n=True)}")
    return Verdict(key, all_of(held), f"largest fall: {'; '.join(largest)}")


@knowledge.tabulate
def tabulate(m: Measured) -> pd.DataFrame:
    """A line for each vector and run, columns for each kind of text."""
    lines: dict[tuple[str, str], dict[str, str]] = {}
    for place in (ON_QUESTION, ON_FILLER):
        for name, part in _at(m, place).items():
            for row in part.by_run(["P@1", LOGPROB]).to_dict("records"):
                line = lines.setdefault((name, row["run"]), {"vector": name, "run": row["run"]})
                line |= {f"P@1, {place}": row["P@1"], f"log-prob (nats), {place}": row[LOGPROB]}
    return pd.DataFrame(list(lines.values()))


@knowledge.draw
def draw(m: Measured) -> Figure:
    """P@K against K, a column of panels for each vector, a row for each kind of text."""
    ks, panels = m.notes["ks"], [*product((ON_QUESTION, ON_FILLER), m.notes["concepts"])]
    with drawing() as figure:
        axes, per_row = panel_axes(figure, len(panels), (2.3, 2.4))
        for ax, (place, name) in zip(axes, panels, strict=True):
            summary = _at(m, place)[name].summary
            here = summary[summary["metric"] != LOGPROB]
            for run, look in LOOKS.items():
                own = 100 * here[here["run"] == run].set_axis(ks)[["mean", "low", "high"]]
                at = own.index.to_series()
                band(ax, at, own["low"], own["high"], color=look["color"], alpha=0.15)
                ax.plot(at, own["mean"], label=run, clip_on=False, **look)
            ax.set(title=f"{name},\nvector {place}", xlabel="K")
            log_ticks(ax.xaxis, ks)
        for ax in axes[::per_row]:
            ax.set_ylabel("P@K (% of facts)")
        axes[0].set_ylim(-3, 103)
        legend(figure, axes, f"bands: {note(m.summary, 'facts')}")
    return figure
