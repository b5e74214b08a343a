"""Does it matter where in the prompt the vector is added?

The vectors of sentiment and of the first topic start at the front of a prompt, stand around its
middle, or end at its last token. Random and negated vectors stand at the same places; prompting is
text in front, and the mean difference is added everywhere, so that neither has a place to vary.

Criteria, fixed before the run:

F1. The front works: for both concepts the interval of the paired change of success there against
    the clean run lies above 0.
F2. The back is less coherent: for at least one concept the interval of the paired change of
    coherence from front to back lies below 0.
Q1. Is the front best? Yes if for both concepts neither the middle's nor the back's mean success is
    higher than the front's by more than 5 points.
"""

import pandas as pd
from matplotlib.figure import Figure

from actadd_lens import plots
from actadd_lens.reproduction.concepts import Concept
from actadd_lens.reproduction.criteria import Verdict, at_least, told
from actadd_lens.reproduction.outcome import Outcome
from actadd_lens.reproduction.readings import each
from actadd_lens.reproduction.setup import BASELINES, Setup
from actadd_lens.steering.positions import ANCHORS
from actadd_lens.sweeps.configurations import Configuration, clean_configuration

PAPER = (
    "The same vector at the front, in the middle and at the back of prompts, layer 6 of GPT-2-XL: "
    "at the back the text is less coherent. The paper uses the front throughout."
)
DIFFERS = "Success and coherence of completions over many prompts, with intervals and controls."
FRONT, _, BACK = ANCHORS
OF_VECTOR = tuple(name for name in BASELINES if name not in ("prompted", "mean_difference"))


def run(setup: Setup) -> Outcome:
    """Measure both vectors at every place."""
    sound = setup.material.coherence
    both = {c.name: c for c in map(setup.concept, ("sentiment", setup.material.topics[0]))}
    metric = {name: c.success.name for name, c in both.items()}
    read = {
        name: setup.readings(name, _cells(setup, c), c.test, [c.success, sound])
        for name, c in both.items()
    }
    gain = {name: r.change(metric[name], position=FRONT) for name, r in read.items()}
    spoilt = {
        name: r.change(sound.name, than="steered", where={"position": FRONT}, position=BACK)
        for name, r in read.items()
    }
    reached = {
        name: {place: r.value(metric[name], position=place) for place in ANCHORS}
        for name, r in read.items()
    }
    ahead = [
        own[place].mean - own[FRONT].mean
        for own in reached.values()
        for place in ANCHORS
        if place != FRONT
    ]
    summary = pd.concat([r.summary() for r in read.values()], ignore_index=True)
    names = {sound.name: "coherence", **dict.fromkeys(metric.values(), "success")}
    tables = [_in_order(r.by_run().rename(columns=names)) for r in read.values()]
    return Outcome(
        rows=pd.concat([r.frame for r in read.values()], ignore_index=True),
        summary=summary,
        shown=pd.concat(tables, keys=list(read), names=["concept"]).reset_index("concept"),
        figure=_figure(summary.assign(measure=summary["metric"].map(names))),
        verdicts=[
            Verdict(
                "F1",
                told(all(i.low > 0 for i in gain.values()), *gain.values()),
                each(gain, share=True),
            ),
            Verdict(
                "F2",
                told(any(i.high < 0 for i in spoilt.values()), *spoilt.values()),
                each(spoilt, share=True),
            ),
            Verdict(
                "Q1",
                told(
                    at_least(0.05, max(ahead)),
                    *(i for own in reached.values() for i in own.values()),
                ),
                "; ".join(f"{name}: {each(own, share=True)}" for name, own in reached.items()),
            ),
        ],
        facts={name: "; ".join(setup.said(c).values()) for name, c in both.items()},
    )


def _cells(setup: Setup, concept: Concept) -> list[Configuration]:
    """The front with every baseline, the other places with those that a vector has there."""
    layer, c = setup.cell(concept)
    vector = setup.vector(concept.pair, layer)
    others = [place for place in ANCHORS if place != FRONT]
    moved = [
        cell for place in others for cell in setup.arms(concept, vector.at(place), c, OF_VECTOR)
    ]
    _, *front = setup.baselines(concept)
    return [clean_configuration(pair=concept.name), *front, *moved]


def _in_order(table: pd.DataFrame) -> pd.DataFrame:
    """Lines by place: the clean run, front, middle, back, everywhere."""
    rank = {place: i for i, place in enumerate(ANCHORS)}
    places = table["position"].map(lambda p: rank.get(p, len(rank) if p == "all" else -1))
    return table.iloc[places.argsort(kind="stable")]


def _figure(summary: pd.DataFrame) -> Figure:
    """Success and coherence at each place, a panel for each concept and measure."""
    controls = {
        "steered": "steered",
        "clean": "clean",
        "random": "random",
        "negated": "negated",
    }
    drawn = summary[summary["run"].isin(list(controls))]
    drawn = drawn.drop(columns="metric").assign(
        run=drawn["run"].map(controls), pair=drawn["pair"] + ": " + drawn["measure"]
    )
    return plots.bars(
        _in_order(drawn),
        x="position",
        ylabel="share of completions",
        unit="%",
        note=f"95 % intervals, n = {int(drawn['n'].max())} prompts",
    )
