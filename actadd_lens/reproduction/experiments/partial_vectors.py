"""Vectors with a part of their residual dimensions."""

from functools import partial
from math import isnan, nan
from typing import Any, Final

import pandas as pd
from matplotlib.figure import Figure

from actadd_lens import plots
from actadd_lens.models.bridge import BridgeModel
from actadd_lens.reproduction.concepts import Concept
from actadd_lens.reproduction.criteria import Verdict, decide
from actadd_lens.reproduction.measurements import Measurements, format_intervals
from actadd_lens.reproduction.outcome import Measured
from actadd_lens.reproduction.registry import experiment
from actadd_lens.reproduction.setup import BASELINES, Setup
from actadd_lens.reproduction.tables import along_axis, by_part, note
from actadd_lens.sweeps.ablations import CHOICES, orders
from actadd_lens.sweeps.configurations import Configuration, clean_configuration

SHARES = (0.1, 0.25, 0.5, 0.7, 0.8, 0.9, 1.0)
WHOLE: Final[dict[str, Any]] = {"ablation": CHOICES[0], "fraction": 1.0}
AXIS = "share of the dimensions kept"
NAMES = {"first": "first dimensions", "top": "largest dimensions", "random": "random choice"}


@experiment(
    "partial-vectors",
    question="How many of a vector's residual dimensions does its effect need?",
    design="""The vectors of sentiment and of the first topic keep the first n % of their
    dimensions, the others are set to zero, and nothing is rescaled. The first dimensions are
    compared with those of the largest norm and with a random choice. Random vectors have the norms
    of the part that they are compared with, in all dimensions; the negated vector, the prompt in
    words and the mean difference are run whole.""",
    criteria={
        "F1": """The effect grows with n: for both concepts the interval of the paired change of
        success from the first 10 % of the dimensions to all of them lies above 0.""",
        "F2": """Most dimensions are needed: for both concepts the smallest n tried whose mean gain
        over the clean run is at least 90 % of the whole vector's is 70 % or more. Not testable
        where the whole vector gains nothing.""",
    },
    paper="""GPT-2-XL, the first n % of the residual dimensions of " wedding" x4 - " " x4 at layer
    6: the effect grows with n and mostly needs 70 to 80 % of them.""",
    differs="""Two concepts with one word a prompt in place of four; success of completions over
    many prompts, with intervals. The largest dimensions and a random choice are added.""",
)
def partial_vectors(setup: Setup) -> Measured:
    """Measure every part of both vectors."""
    concepts, width = setup.concepts(), BridgeModel(setup.model).d_model
    counts = ", ".join(str(_count(share, width)) for share in SHARES)
    return Measured(
        setup.measure_each(concepts, partial(_cells, setup), "success"),
        facts={**setup.describe_all(concepts), "dimensions": f"{width}; parts of {counts}"},
    )


def _cells(setup: Setup, concept: Concept) -> list[Configuration]:
    """The whole vector with every baseline, then the parts; all choices share the whole vector."""
    layer, c = setup.setting(concept)
    vector = setup.vector(concept.pair, layer)
    _, *whole = setup.baselines(concept)
    cells = [clean_configuration(vector=concept.name, ablation=None, fraction=None)]
    cells += [Configuration({**cell.labels, **WHOLE}, cell.run) for cell in whole]
    for choice, order in orders(vector, setup.seed).items():
        controls = BASELINES[:3] if choice == CHOICES[0] else ()
        for share in SHARES[:-1]:
            part = vector.with_dims(order[: _count(share, len(order))])
            cells += setup.conditions(concept, part, c, controls, ablation=choice, fraction=share)
        if choice != CHOICES[0]:
            cells.append(
                Configuration({**whole[0].labels, **WHOLE, "ablation": choice}, whole[0].run)
            )
    return cells


def _count(share: float, width: int) -> int:
    return max(1, round(share * width))


@partial_vectors.judge
def judge(m: Measured) -> list[Verdict]:
    """Compare the smallest part with the whole, and find the part that is enough."""
    least = {**WHOLE, "fraction": SHARES[0]}
    grown = m.changes("success", than="steered", where=least, **WHOLE)
    needed = {name: _needed(part) for name, part in m.parts.items()}
    return [
        Verdict(
            "F1",
            decide(all(i.low > 0 for i in grown.values()), *grown.values()),
            format_intervals(grown),
        ),
        Verdict(
            "F2",
            None if any(map(isnan, needed.values())) else all(n >= 0.7 for n in needed.values()),
            "; ".join(
                f"{name} {'no gain' if isnan(n) else _percent(n)}" for name, n in needed.items()
            ),
        ),
    ]


def _needed(part: Measurements) -> float:
    """The smallest share of the first dimensions that has 90 % of the whole vector's gain.

    NaN if the whole vector gains nothing.
    """
    gains = {s: part.change("success", **{**WHOLE, "fraction": s}).mean for s in SHARES}
    return min((s for s, gain in gains.items() if gain >= 0.9 * gains[1.0] > 0), default=nan)


@partial_vectors.tabulate
def tabulate(m: Measured) -> pd.DataFrame:
    """A line for each part, then one for each run without parts."""
    lines = {_percent(s): {"fraction": s} for s in SHARES}
    columns = {NAMES[choice]: ("steered", {"ablation": choice}) for choice in CHOICES}
    columns["random vector"] = ("random", {"ablation": CHOICES[0]})
    return by_part(
        {
            name: along_axis(part, "success", "part", lines, columns)
            for name, part in m.parts.items()
        }
    )


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


@partial_vectors.draw
def draw(m: Measured) -> Figure:
    """Success against the share of dimensions, the three choices side by side."""
    summary = m.summary
    kinds = {"steered": "steered", "random": "random vector", "clean": "clean"}
    shown = summary[summary["run"].isin([*kinds])].drop(columns="metric")
    shown = shown.assign(
        run=shown["run"].map(kinds),
        choice=shown["ablation"].map(NAMES),
        _rank=shown["ablation"].map({choice: i for i, choice in enumerate(CHOICES)}),
        **{AXIS: shown["fraction"].map(_percent, na_action="ignore")},
    )
    return plots.bars(
        shown.sort_values(["fraction", "_rank"], kind="stable"),
        x=AXIS,
        group="choice",
        ylabel="completions as wanted",
        unit="%",
        note=f"{note(shown)}; random vectors of the norms of the first dimensions, three draws",
    )
