"""The position of a vector in the prompt."""

from functools import partial

import pandas as pd
from matplotlib.figure import Figure

from actadd_lens import plots
from actadd_lens.reproduction.concepts import Concept
from actadd_lens.reproduction.criteria import Verdict, at_least, decide
from actadd_lens.reproduction.measurements import format_intervals
from actadd_lens.reproduction.outcome import Measured
from actadd_lens.reproduction.registry import experiment
from actadd_lens.reproduction.setup import OF_VECTOR, Setup
from actadd_lens.reproduction.tables import by_part, note
from actadd_lens.steering.positions import ANCHORS
from actadd_lens.sweeps.configurations import Configuration, clean_configuration

FRONT, BACK = "front", "back"


@experiment(
    "positions",
    question="Does it matter where in the prompt the vector is added?",
    design="""The vectors of sentiment and of the first topic start at the front of a prompt, are
    centred on its middle, or end at its last token. Random and negated vectors have the same
    positions; prompting is text in front, and the mean difference is added everywhere, so neither
    has a position to vary.""",
    criteria={
        "F1": """The front works: for both concepts the interval of the paired change of success
        there against the clean run lies above 0.""",
        "F2": """The back is less coherent: for at least one concept the interval of the paired
        change of coherence from front to back lies below 0.""",
        "Q1": """Is the front best? Yes if for both concepts neither the middle's nor the back's
        mean success is higher than the front's by more than 5 points.""",
    },
    paper="""The same vector at the front, in the middle and at the back of prompts, layer 6 of
    GPT-2-XL: at the back the text is less coherent. The paper uses the front throughout.""",
    differs="Success and coherence of completions over many prompts, with intervals and controls.",
)
def positions(setup: Setup) -> Measured:
    """Measure both vectors at every position."""
    concepts = setup.concepts()
    parts = setup.measure_each(concepts, partial(_cells, setup), "success", "coherence")
    return Measured(parts, facts=setup.describe_all(concepts))


def _cells(setup: Setup, concept: Concept) -> list[Configuration]:
    """The front with every baseline, the other positions with those that a vector has there."""
    layer, c = setup.setting(concept)
    vector = setup.vector(concept.pair, layer)
    moved = [
        cell
        for place in ANCHORS
        if place != FRONT
        for cell in setup.conditions(concept, vector.at(place), c, OF_VECTOR)
    ]
    _, *front = setup.baselines(concept)
    return [clean_configuration(vector=concept.name), *front, *moved]


@positions.judge
def judge(m: Measured) -> list[Verdict]:
    """Compare the positions with the clean run and with one another."""
    gain = m.changes("success", position=FRONT)
    spoilt = m.changes("coherence", than="steered", where={"position": FRONT}, position=BACK)
    reached = {
        name: {place: part.value("success", position=place) for place in ANCHORS}
        for name, part in m.parts.items()
    }
    ahead = max(own[place].mean - own[FRONT].mean for own in reached.values() for place in ANCHORS)
    return [
        Verdict(
            "F1",
            decide(all(i.low > 0 for i in gain.values()), *gain.values()),
            format_intervals(gain),
        ),
        Verdict(
            "F2",
            decide(any(i.high < 0 for i in spoilt.values()), *spoilt.values()),
            format_intervals(spoilt),
        ),
        Verdict(
            "Q1",
            decide(at_least(0.05, ahead), *(i for own in reached.values() for i in own.values())),
            "; ".join(f"{name}: {format_intervals(own)}" for name, own in reached.items()),
        ),
    ]


@positions.tabulate
def tabulate(m: Measured) -> pd.DataFrame:
    """Every run, by position."""
    return by_part({name: _in_order(part.by_run()) for name, part in m.parts.items()})


@positions.draw
def draw(m: Measured) -> Figure:
    """Success and coherence at each position, a panel for each concept and measure."""
    summary = m.summary
    shown = summary[summary["run"].isin(["steered", "clean", "random", "negated"])]
    panels = shown["part"] + ": " + shown["metric"]
    return plots.bars(
        _in_order(shown.drop(columns="metric").assign(vector=panels)),
        x="position",
        ylabel="share of completions",
        unit="%",
        note=note(shown),
    )


def _in_order(table: pd.DataFrame) -> pd.DataFrame:
    """Lines by position: the clean run, front, middle, back, everywhere."""
    rank = {place: i for i, place in enumerate(ANCHORS)}
    places = table["position"].map(lambda p: rank.get(p, len(rank) if p == "all" else -1))
    return table.iloc[places.argsort(kind="stable")]
