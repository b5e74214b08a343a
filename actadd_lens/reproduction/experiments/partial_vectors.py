"""How many of a vector's residual dimensions does its effect need?

The vectors of sentiment and of the first topic keep the first n % of their dimensions, the others
are set to zero, and nothing is rescaled. Beside the first dimensions stand those of the largest
norm and a random choice. Random vectors have the norms of the part that they stand beside, in all
dimensions; the negated vector, the prompt in words and the mean difference are run whole.

Criteria, fixed before the run:

F1. The effect grows with n: for both concepts the interval of the paired change of success from
    the first 10 % of the dimensions to all of them lies above 0.
F2. Most dimensions are needed: for both concepts the smallest n tried whose mean gain over the
    clean run is at least 90 % of the whole vector's is 70 % or more. Not testable where the
    whole vector gains nothing.
"""

from math import isnan, nan
from typing import Any, Final

import pandas as pd
from matplotlib.figure import Figure

from actadd_lens import plots
from actadd_lens.models import bridge
from actadd_lens.reproduction.concepts import Concept
from actadd_lens.reproduction.criteria import Verdict, told
from actadd_lens.reproduction.outcome import Outcome
from actadd_lens.reproduction.readings import Readings, each, text_of
from actadd_lens.reproduction.setup import BASELINES, Setup
from actadd_lens.sweeps.ablations import CHOICES, orders
from actadd_lens.sweeps.configurations import Configuration, clean_configuration

PAPER = (
    'GPT-2-XL, the first n % of the residual dimensions of " wedding" x4 - " " x4 at layer 6: the '
    "effect grows with n and mostly needs 70 to 80 % of them."
)
DIFFERS = (
    "Two concepts with one word a prompt in place of four; success of completions over many "
    "prompts, with intervals. The largest dimensions and a random choice are added."
)
SHARES = (0.1, 0.25, 0.5, 0.7, 0.8, 0.9, 1.0)
WHOLE: Final[dict[str, Any]] = {"ablation": CHOICES[0], "fraction": 1.0}
DRAWS = BASELINES[:3]
AXIS = "share of the dimensions kept"
NAMES = {"first": "first dimensions", "top": "largest dimensions", "random": "random choice"}


def run(setup: Setup) -> Outcome:
    """Measure every part of both vectors."""
    both = {c.name: c for c in map(setup.concept, ("sentiment", setup.material.topics[0]))}
    metric = {name: c.success.name for name, c in both.items()}
    read = {
        name: setup.readings(name, _cells(setup, c), c.test, [c.success])
        for name, c in both.items()
    }
    least = {**WHOLE, "fraction": SHARES[0]}
    grown = {
        name: r.change(metric[name], than="steered", where=least, **WHOLE)
        for name, r in read.items()
    }
    needed = {name: _needed(r, metric[name]) for name, r in read.items()}
    summary = pd.concat([r.summary() for r in read.values()], ignore_index=True)
    lines = [_lines(r, metric[name]) for name, r in read.items()]
    width = bridge.d_model(setup.model)
    return Outcome(
        rows=pd.concat([r.frame for r in read.values()], ignore_index=True),
        summary=summary,
        shown=pd.concat(lines, keys=list(read), names=["concept"]).reset_index("concept"),
        figure=_figure(summary),
        verdicts=[
            Verdict(
                "F1",
                told(all(i.low > 0 for i in grown.values()), *grown.values()),
                each(grown, share=True),
            ),
            Verdict(
                "F2",
                None
                if any(isnan(n) for n in needed.values())
                else all(n >= 0.7 for n in needed.values()),
                "; ".join(
                    f"{name} {'no gain' if isnan(n) else _percent(n)}" for name, n in needed.items()
                ),
            ),
        ],
        facts={
            **{name: "; ".join(setup.said(c).values()) for name, c in both.items()},
            "dimensions": f"{width}; parts of "
            + ", ".join(str(_count(share, width)) for share in SHARES),
        },
    )


def _cells(setup: Setup, concept: Concept) -> list[Configuration]:
    """The whole vector with every baseline, then the parts; all choices have the whole alike."""
    layer, c = setup.cell(concept)
    vector = setup.vector(concept.pair, layer)
    _, *whole = setup.baselines(concept)
    cells = [clean_configuration(pair=concept.name, ablation=None, fraction=None)]
    cells += [Configuration({**cell.labels, **WHOLE}, cell.run) for cell in whole]
    for choice, order in orders(vector, setup.seed).items():
        controls = DRAWS if choice == CHOICES[0] else ()
        for share in SHARES[:-1]:
            part = vector.with_dims(order[: _count(share, len(order))])
            cells += setup.arms(concept, part, c, controls, ablation=choice, fraction=share)
        if choice != CHOICES[0]:
            cells.append(
                Configuration({**whole[0].labels, **WHOLE, "ablation": choice}, whole[0].run)
            )
    return cells


def _count(share: float, width: int) -> int:
    return max(1, round(share * width))


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _needed(read: Readings, metric: str) -> float:
    """The smallest share of the first dimensions that has 90 % of the whole vector's gain.

    NaN if the whole vector gains nothing.
    """
    gains = {s: read.change(metric, **{**WHOLE, "fraction": s}).mean for s in SHARES}
    enough = [s for s, gain in gains.items() if gain >= 0.9 * gains[1.0] > 0]
    return min(enough, default=nan)


def _lines(read: Readings, metric: str) -> pd.DataFrame:
    """The table: a line for each part, then for what has no parts."""

    def shown(run: str, **labels: object) -> str:
        return text_of(read.value(metric, run, **labels), share=True)

    lines = [
        {"part": _percent(s)}
        | {NAMES[choice]: shown("steered", ablation=choice, fraction=s) for choice in CHOICES}
        | {"random vector": shown("random", ablation=CHOICES[0], fraction=s)}
        for s in SHARES
    ]
    others = ("clean", "mean difference", "prompted", "negated")
    lines += [{"part": name, NAMES[CHOICES[0]]: shown(name)} for name in others]
    return pd.DataFrame(lines).fillna("").assign(n=read.value(metric, "clean").n)


def _figure(summary: pd.DataFrame) -> Figure:
    """Success against the share of dimensions, the three choices beside one another."""
    kinds = {"steered": "steered", "random": "random vector", "clean": "clean"}
    drawn = summary[summary["run"].isin(list(kinds))].drop(columns="metric")
    drawn = drawn.assign(
        run=drawn["run"].map(kinds),
        choice=drawn["ablation"].map(NAMES),
        rank=drawn["ablation"].map({choice: i for i, choice in enumerate(CHOICES)}),
        share=drawn["fraction"].map(_percent, na_action="ignore"),
    )
    return plots.bars(
        drawn.sort_values(["fraction", "rank"], kind="stable").rename(columns={"share": AXIS}),
        x=AXIS,
        group="choice",
        ylabel="completions as wanted",
        unit="%",
        note=f"95 % intervals, n = {int(drawn['n'].max())} prompts; random vectors of the norms of "
        "the first dimensions, three draws",
    )
