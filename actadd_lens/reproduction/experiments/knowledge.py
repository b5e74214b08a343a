"""Does a steered model still know the facts that it knew?

P@K is the share of facts whose answer is among the K likeliest tokens behind the question. The
answer's log-probability stands beside it, as P@K says nothing more where all answers come first.
The vectors of a topic, of sentiment and of register are added at their cells, with every baseline,
to two kinds of text: to the bare question, on which the vector then lands, and to the question
behind a sentence of filler and a space, where the vector lands on the filler. The mean difference
is added at every position in both; prompting puts the positive text in front of either.

Criteria, fixed before the run:

F1. Knowledge stays without overlap: for every vector and every K, P@K falls by no more than 5
    points on the mean against the clean run on the same texts. Not testable if an interval
    reaches 10 points below its mean, or less than a tenth is known in the clean run.
F2. It stays with overlap: the same where the vector lands on the question.
Q1. Does the steered model keep as much as the prompted one? Yes if for every vector, with overlap
    and without, the interval of the paired change of P@1, steered minus prompted, does not lie
    wholly below 0.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from actadd_lens.analysis.facts import answer_ranks
from actadd_lens.models.tokens import encode
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
from actadd_lens.reproduction.concepts import Concept, Fact
from actadd_lens.reproduction.criteria import Verdict, all_of, kept, told
from actadd_lens.reproduction.outcome import Outcome
from actadd_lens.reproduction.perplexities import fitting
from actadd_lens.reproduction.readings import Readings, as_readings, text_of
from actadd_lens.reproduction.setup import Setup
from actadd_lens.reproduction.work import Ask
from actadd_lens.statistics import Interval
from actadd_lens.sweeps.configurations import Configuration

PAPER = (
    "GPT-2-XL, the wedding vector, LAMA's ConceptNet, P@K for K from 1 to 100: hardly any change."
)
DIFFERS = (
    "Three vectors instead of one; whether the vector lands on the question itself is told apart."
)
LOGPROB = "answer_logprob"
KS = (1, 2, 5, 10, 20, 50, 100)
TEXTS = {"on the question": False, "on filler in front": True}
"""Where the vector lands, and whether there is filler."""


def run(setup: Setup) -> Outcome:
    """Ask every fact in every run."""
    concepts = [setup.concept(n) for n in (setup.material.topics[0], "sentiment", "register")]
    ks = [k for k in KS if k <= setup.model.cfg.d_vocab]
    given = setup.material.facts(setup.sizes.facts)
    read: dict[tuple[str, str], Readings] = {}
    asked: dict[str, list[int]] = {place: [] for place in TEXTS}
    for concept in concepts:
        cells = setup.baselines(concept)
        for place, behind in TEXTS.items():
            head = f"{setup.material.filler} " if behind else ""
            facts = _fitting(setup, concept, given, head)
            asked[place].append(len(facts))
            read[concept.name, place] = _ranks(setup, cells, facts, head, ks)
    drop = {
        key: {k: (r.change(f"P@{k}"), r.value(f"P@{k}", "clean")) for k in ks}
        for key, r in read.items()
    }
    against = {key: r.change("P@1", than="prompted") for key, r in read.items()}
    rows, summary = (
        pd.concat(
            [part(r).assign(concept=name, lands=place) for (name, place), r in read.items()],
            ignore_index=True,
        )
        for part in (lambda r: r.frame, Readings.summary)
    )
    return Outcome(
        rows=rows,
        summary=summary,
        shown=_table(read),
        figure=_figure(summary, [c.name for c in concepts], ks),
        verdicts=[
            *(
                _stays(key, {n: drop[n, place] for n, at in drop if at == place})
                for key, place in (("F1", "on filler in front"), ("F2", "on the question"))
            ),
            Verdict(
                "Q1",
                told(not any(i.high < 0 for i in against.values()), *against.values()),
                "; ".join(
                    f"{name} {place} {text_of(i, share=True)}"
                    for (name, place), i in against.items()
                ),
            ),
        ],
        facts={
            **{concept.name: setup.said(concept)["vector"] for concept in concepts},
            "facts": "; ".join(
                f"vector {place}: {' and '.join(dict.fromkeys(map(str, counts)))} of {len(given)} "
                "are long enough and fit"
                for place, counts in asked.items()
            ),
        },
    )


def _fitting(setup: Setup, concept: Concept, facts: Sequence[Fact], head: str) -> list[Fact]:
    """Facts whose question is longer than the vector, and has room for the prompt."""
    long = set(fitting(setup, concept, [head + fact.prompt for fact in facts], behind=0))
    return [fact for fact in facts if head + fact.prompt in long]


def _ranks(
    setup: Setup,
    cells: Sequence[Configuration],
    facts: Sequence[Fact],
    head: str,
    ks: Sequence[int],
) -> Readings:
    """Whether each answer is among the K likeliest tokens, in every run."""
    frames = []
    for cell in cells:
        asked = [(cell.run.prompted(head + fact.prompt), fact.answer) for fact in facts]
        found = answer_ranks(setup.model, asked, cell.run.steering)
        labels = {**cell.labels, "prompt": [f"{fact.prompt} {fact.answer}" for fact in facts]}
        frames.append(pd.DataFrame({**labels, "metric": LOGPROB, "value": found["logprob"]}))
        frames += [
            pd.DataFrame({**labels, "metric": f"P@{k}", "value": (found["rank"] < k).astype(float)})
            for k in ks
        ]
    tokens = sum(len(encode(setup.model, head + fact.prompt)) for fact in facts) / len(facts)
    setup.asked.append(Ask("facts", len(cells), len(facts), tokens, "facts"))
    return as_readings(pd.concat(frames, ignore_index=True), [f"P@{k}" for k in ks])


def _stays(key: str, drops: Mapping[str, Mapping[int, tuple[Interval, Interval]]]) -> Verdict:
    """Whether no P@K of any vector falls by more than 5 points."""
    worst = {
        n: min(((k, i) for k, (i, _) in by_k.items()), key=lambda at: at[1].mean)
        for n, by_k in drops.items()
    }
    return Verdict(
        key,
        all_of(kept(*at) for by_k in drops.values() for at in by_k.values()),
        "largest fall: "
        + "; ".join(
            f"{name} P@{k} {text_of(i, share=True, n=True)}" for name, (k, i) in worst.items()
        ),
    )


def _table(read: Mapping[tuple[str, str], Readings]) -> pd.DataFrame:
    """A line for each vector and run, columns for each kind of text."""
    lines: dict[tuple[str, str], dict[str, str]] = {}
    for (name, place), r in read.items():
        for row in r.by_run(["P@1", LOGPROB]).to_dict("records"):
            line = lines.setdefault((name, row["run"]), {"vector": name, "run": row["run"]})
            line |= {f"P@1, {place}": row["P@1"], f"log-prob (nats), {place}": row[LOGPROB]}
    return pd.DataFrame(list(lines.values()))


def _figure(summary: pd.DataFrame, names: Sequence[str], ks: Sequence[int]) -> Figure:
    """P@K against K, a column of panels for each vector, a row for each kind of text."""
    looks: dict[str, dict[str, Any]] = {
        "random": {"color": CONTROL_COLOUR, "linestyle": "--"},
        "mean difference": {"color": COLOURS[2], "marker": "^"},
        "prompted": {"color": COLOURS[1], "marker": "s"},
        "steered": {"color": COLOURS[0], "marker": "o"},
        "clean": {"color": CLEAN_COLOUR, "linestyle": ":"},
    }
    shares = summary[summary["metric"] != LOGPROB]
    with drawing() as figure:
        axes, abreast = panel_axes(figure, len(TEXTS) * len(names), (2.3, 2.4))
        panels = [(name, place) for place in TEXTS for name in names]
        for ax, (name, place) in zip(axes, panels, strict=True):
            here = shares[(shares["lands"] == place) & (shares["concept"] == name)]
            for run, look in looks.items():
                own = 100 * here[here["run"] == run].set_axis(list(ks))[["mean", "low", "high"]]
                at = own.index.to_series()
                band(ax, at, own["low"], own["high"], color=look["color"], alpha=0.15)
                ax.plot(at, own["mean"], label=run, clip_on=False, **look)
            ax.set_title(f"{name},\nvector {place}")
            ax.set_xlabel("K")
            log_ticks(ax.xaxis, ks)
        for ax in axes[::abreast]:
            ax.set_ylabel("P@K (% of facts)")
        axes[0].set_ylim(-3, 103)
        note = f"bands: 95 % intervals, n = {summary['n'].max()} facts"
        legend(figure, axes, note)
    return figure
