"""Several topics, at several coefficients."""

from itertools import pairwise
from statistics import fmean

import pandas as pd
from matplotlib.figure import Figure

from actadd_lens import plots
from actadd_lens.reproduction.criteria import Verdict, at_least, decide
from actadd_lens.reproduction.measurements import format_intervals, percent
from actadd_lens.reproduction.outcome import Measured
from actadd_lens.reproduction.registry import experiment
from actadd_lens.reproduction.setup import Setup

COEFFICIENTS = (0.5, 1.0, 2.0, 4.0, 8.0)
AT = 2.0
"""The coefficient that the paper reports."""
THINNED = 3


@experiment(
    "topic-by-coefficient",
    question="""Do the vectors of several topics bring their topic, and does a larger coefficient
    bring more?""",
    design="""Each topic has a pair, a noun of it against a space, whose vector is added at the
    layer that suits the topic, at the coefficients 0.5, 1, 2, 4 and 8. Success is the share of
    completions on the topic, of prompts on anything else. Every third test prompt is taken, as
    there are many runs. Every baseline is run at every coefficient. The mean difference has the
    coefficients of the pair; the table has the best of them, which favours it. Gains are paired
    changes of success against the clean run.""",
    criteria={
        "F1": """Topics come at the paper's coefficient of 2: for more than half of the topics the
        interval of the gain lies above 0.""",
        "F2": """The gain is of the paper's size or larger: its mean over topics at coefficient 2 is
        at least 5 points (the paper: 5 to 20).""",
        "Q1": """Do all topics come? The paper has one exception. Yes if for every topic the
        interval of the gain at coefficient 2 lies above 0.""",
        "Q2": """Does more coefficient help up to 8? Yes if the mean success over topics rises from
        each coefficient to the next.""",
    },
    paper="""GPT-2-XL, vectors of several topics (weddings, finance, music, politics, science, art
    and others), relevance judged by GPT-3.5: 5 to 20 points more completions on the topic at
    coefficient 2, art excepted.""",
    differs="""Success is judged by the data set's judge rather than GPT-3.5. Each topic has the
    layer that a search on prompts of their own found; the paper's topics have one in common.
    Baselines other than the clean run are shown.""",
)
def topic_by_coefficient(setup: Setup) -> Measured:
    """Measure every topic at every coefficient."""
    concepts = {n: c.thinned(THINNED) for n, c in setup.concepts(*setup.data.topics).items()}
    layers = {name: setup.setting(c)[0] for name, c in concepts.items()}
    parts = setup.measure_each(
        concepts, lambda c: setup.grid(c, [layers[c.name]], COEFFICIENTS), "success", "coherence"
    )
    facts = {
        name: f"{c.pair.positive!r} - {c.pair.negative!r} at layer {layers[name]} of "
        f"{setup.n_layers} ({'given' if c.setting else 'chosen on selection prompts'}); "
        f"{len(c.test)} prompts, for {c.wanted}; mean difference of {len(c.pairs)} pairs"
        for name, c in concepts.items()
    }
    return Measured(parts, facts=facts)


@topic_by_coefficient.judge
def judge(m: Measured) -> list[Verdict]:
    """Decide by the gains at the paper's coefficient, and by the means at all of them."""
    gains = m.changes("success", coefficient=AT)
    came = [name for name, gain in gains.items() if gain.low > 0]
    lacking = ", ".join(name for name in gains if name not in came)
    gain = fmean(gain.mean for gain in gains.values())
    means = {
        c: fmean(i.mean for i in m.values("success", coefficient=c).values()) for c in COEFFICIENTS
    }
    return [
        Verdict(
            "F1",
            decide(len(came) > len(gains) / 2, *gains.values()),
            f"{len(came)} of {len(gains)} topics: {format_intervals(gains)}",
        ),
        Verdict(
            "F2",
            decide(at_least(gain, 0.05), *gains.values()),
            f"mean gain {100 * gain:+.0f} points, of {len(gains)} topics",
        ),
        Verdict(
            "Q1",
            decide(not lacking, *gains.values()),
            f"interval not above 0: {lacking}" if lacking else "above 0 for every topic",
        ),
        Verdict(
            "Q2",
            decide(all(low < high for low, high in pairwise(means.values())), *gains.values()),
            "; ".join(f"c = {c:g}: {100 * mean:.0f} %" for c, mean in means.items()),
        ),
    ]


@topic_by_coefficient.tabulate
def tabulate(m: Measured) -> pd.DataFrame:
    """Every run of every topic at the paper's coefficient; the mean difference at its best."""
    lines = []
    for name, part in m.parts.items():
        at = {
            run: part.value("success", run, coefficient=AT)
            for run in ("steered", "negated", "random", "prompted")
        }
        means = [part.value("success", "mean difference", coefficient=c) for c in COEFFICIENTS]
        values = {
            "clean": part.value("success", "clean"),
            **{run if run == "prompted" else f"{run}, c = {AT:g}": i for run, i in at.items()},
            "mean difference, best c": max(means, key=lambda mean: mean.mean),
            "gain": part.change("success", coefficient=AT),
        }
        texts = {head: percent(i) for head, i in values.items()}
        lines.append({"topic": name, **texts})
    return pd.DataFrame(lines)


@topic_by_coefficient.draw
def draw(m: Measured) -> Figure:
    """Success against the coefficient, a panel for each topic."""
    # The clean run belongs to a topic too: each topic has its own judge.
    summary = m.summary.assign(vector=m.summary["part"])
    n = max(i.n for i in m.changes("success", coefficient=AT).values())
    return plots.coefficient_curve(
        summary[summary["metric"] == "success"].drop(columns="metric"),
        ylabel="completions on the topic",
        unit="%",
        note=f"95 % intervals, n = {n} prompts a topic",
    )
