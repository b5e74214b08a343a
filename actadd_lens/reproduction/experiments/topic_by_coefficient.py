"""Do the vectors of several topics bring their topic, and does a larger coefficient bring more?

Each topic has a pair, a noun of it against a space, whose vector is added at the layer that suits
the topic, at the coefficients 0.5, 1, 2, 4 and 8. Success is the share of completions on the topic,
of prompts on anything else. Every third test prompt is taken, as there are many runs. Every
baseline stands beside every coefficient. The mean difference has the coefficients of the pair; the
table has the best of them, which favours it. Gains are paired changes of success against the
clean run.

Criteria, fixed before the run:

F1. Topics come at the paper's coefficient of 2: for more than half of the topics the interval of
    the gain lies above 0.
F2. The gain is of the paper's size or larger: its mean over topics at coefficient 2 is at least 5
    points (the paper: 5 to 20).
Q1. Do all topics come? The paper has one exception. Yes if for every topic the interval of the gain
    at coefficient 2 lies above 0.
Q2. Does more coefficient help up to 8? Yes if the mean success over topics rises from each
    coefficient to the next.
"""

from collections.abc import Mapping
from functools import partial
from itertools import pairwise
from statistics import fmean

import pandas as pd

from actadd_lens import plots
from actadd_lens.reproduction.criteria import Verdict, at_least, told
from actadd_lens.reproduction.outcome import Outcome
from actadd_lens.reproduction.readings import Change, Readings, each, text_of
from actadd_lens.reproduction.setup import Setup

PAPER = (
    "GPT-2-XL, vectors of several topics (weddings, finance, music, politics, science, art and "
    "others), relevance judged by GPT-3.5: 5 to 20 points more completions on the topic at "
    "coefficient 2, art excepted."
)
DIFFERS = (
    "Success is read by the material's judge rather than GPT-3.5. Each topic has the layer that a "
    "search on prompts of their own found; the paper's topics have one in common. Baselines beside "
    "the clean run are shown."
)
COEFFICIENTS = (0.5, 1.0, 2.0, 4.0, 8.0)
AT = 2.0
"""The coefficient that the paper reports."""
THINNED = 3
RUNS = ("steered", "negated", "random")


def run(setup: Setup) -> Outcome:
    """Measure every topic at every coefficient."""
    concepts = {name: setup.concept(name).thinned(THINNED) for name in setup.material.topics}
    layers = {name: setup.cell(concept)[0] for name, concept in concepts.items()}
    read = {
        name: setup.readings(
            name,
            setup.grid(concept, [layers[name]], COEFFICIENTS),
            concept.test,
            [concept.success, setup.material.coherence],
        )
        for name, concept in concepts.items()
    }
    success = {name: concept.success.name for name, concept in concepts.items()}
    gains = {name: r.change(success[name], coefficient=AT) for name, r in read.items()}
    came = [name for name, gain in gains.items() if gain.low > 0]
    lacking = ", ".join(name for name in gains if name not in came)
    gain = fmean(gain.mean for gain in gains.values())
    means = [
        fmean(r.value(success[name], coefficient=c).mean for name, r in read.items())
        for c in COEFFICIENTS
    ]
    # The clean run belongs to a topic too: what it is judged by differs.
    summary = pd.concat([r.summary().assign(pair=n) for n, r in read.items()], ignore_index=True)
    return Outcome(
        rows=pd.concat([r.frame.assign(topic=n) for n, r in read.items()], ignore_index=True),
        summary=summary,
        shown=_shown(read, success, gains),
        figure=plots.coefficient_curve(
            summary[summary["metric"].isin(success.values())].drop(columns="metric"),
            ylabel="completions on the topic",
            unit="%",
            note=f"95 % intervals, n = {max(gain.n for gain in gains.values())} prompts a topic",
        ),
        verdicts=[
            Verdict(
                "F1",
                told(len(came) > len(gains) / 2, *gains.values()),
                f"{len(came)} of {len(gains)} topics: {each(gains, share=True)}",
            ),
            Verdict(
                "F2",
                told(at_least(gain, 0.05), *gains.values()),
                f"mean gain {100 * gain:+.0f} points, of {len(gains)} topics",
            ),
            Verdict(
                "Q1",
                told(not lacking, *gains.values()),
                f"interval not above 0: {lacking}" if lacking else "above 0 for every topic",
            ),
            Verdict(
                "Q2",
                told(all(low < high for low, high in pairwise(means)), *gains.values()),
                "; ".join(
                    f"c = {c:g}: {100 * m:.0f} %" for c, m in zip(COEFFICIENTS, means, strict=True)
                ),
            ),
        ],
        facts={
            name: f"{concept.pair.positive!r} - {concept.pair.negative!r} at layer {layers[name]} "
            f"of {setup.n_layers} ({'given' if concept.cell else 'chosen on selection prompts'}); "
            f"{len(concept.test)} prompts, for {concept.wanted}; mean difference of "
            f"{len(concept.pairs)} pairs"
            for name, concept in concepts.items()
        },
    )


def _shown(
    read: Mapping[str, Readings], success: Mapping[str, str], gains: Mapping[str, Change]
) -> pd.DataFrame:
    """Every run of every topic at the paper's coefficient; the mean difference at its best."""
    lines = []
    for name, r in read.items():
        value = partial(r.value, success[name])
        means = [value("mean difference", coefficient=c) for c in COEFFICIENTS]
        runs = {
            "clean": value("clean"),
            **{f"{run}, c = {AT:g}": value(run, coefficient=AT) for run in RUNS},
            "prompted": value("prompted", coefficient=AT),
            "mean difference, best c": max(means, key=lambda mean: mean.mean),
        }
        shown = {run: text_of(interval, share=True) for run, interval in runs.items()}
        lines.append({"topic": name, **shown, "gain": text_of(gains[name], share=True)})
    return pd.DataFrame(lines)
