"""A topic's vector at every layer, and the vectors of several topics at several coefficients."""

from dataclasses import replace
from itertools import pairwise
from statistics import fmean

import pandas as pd
from matplotlib.figure import Figure

from actadd_lens import plots
from actadd_lens.reproduction.criteria import Verdict, at_least, decide, moves
from actadd_lens.reproduction.measurements import NAMES, format_intervals, percent
from actadd_lens.reproduction.outcome import Measured
from actadd_lens.reproduction.registry import experiment
from actadd_lens.reproduction.setup import BASELINES, Setup
from actadd_lens.sweeps.configurations import CLEAN, STEERED

AVERAGED = BASELINES[-1]
COEFFICIENTS = (0.5, 1.0, 2.0, 4.0, 8.0)
AT = 2.0
"""The coefficient that the paper reports."""
THINNED = 3


@experiment(
    "topic-by-layer",
    question="""At which layer does a topic's vector work best, and how often does the topic come
    there?""",
    design="""The vector of the first topic's pair is added at every layer in turn, at the one
    coefficient of the concept. Success is the share of completions on the topic. The best layer is
    the one of the most successes on the selection prompts, where the steered runs alone are
    measured, the lowest of equal ones; everything else is reported on the test prompts. Random
    vectors, the negated vector and the positive prompt as text are run at every layer. The mean
    difference is measured at the chosen layer alone, with the coefficient that suits it there: it
    is added at every position, so that the pair's coefficient would not be fair to it.""",
    criteria={
        "F1": """The topic comes: at the chosen layer the interval of the paired change of success
        against the clean run lies above 0, and against the random vectors too.""",
        "F2": """Most completions are on the topic there: the mean is above 90 %, the paper's figure
        at its best layer.""",
        "F3": """An early layer is best: the chosen layer is in the first half of the layers (the
        paper: about 6 of 48). Not testable if all layers tie.""",
        "F4": """It falls off later: the interval of the paired change of success from the chosen
        layer to the last layer lies below 0.""",
    },
    paper="""GPT-2-XL, " weddings" - " " at each of 48 layers: completions with wedding words in
    more than 90 % at the best layer, about 6, against about 2 % clean; the effect falls off later
    (figure 3).""",
    differs="""The layer is chosen on prompts of its own and reported on others; the paper has one
    set. Success is judged by the data set's judge. Random vectors, the negated vector, prompting
    and the mean difference are compared with it.""",
)
def topic_by_layer(setup: Setup) -> Measured:
    """Measure every layer on both splits, the baselines on the test prompts."""
    concept = setup.topic()
    _, c = setup.setting(concept)
    cells = setup.grid(concept, setup.layers, [c])
    grid = [cell for cell in cells if cell.labels["run"] != AVERAGED]
    steered = [cell for cell in grid if cell.labels["run"] in (STEERED, CLEAN)]
    success = setup.scores(concept, "success")
    searched = setup.measure("selection", steered, concept.selection, success)
    best = searched.best("success")
    *_, mean = setup.baselines(replace(concept, setting=(best.layer, c)))
    scores = success | setup.scores(concept, "coherence")
    tested = setup.measure("test", [*grid, mean], concept.test, scores)
    return Measured(
        {"selection": searched, "test": tested},
        notes={
            "best": best.layer, "tied": best.tied, "searched": best.searched,
            "last": setup.layers[-1], "n_layers": setup.n_layers,
        },
        facts={
            "vector": f"{concept.pair.positive!r} - {concept.pair.negative!r}, front",
            "prompts": setup.describe(concept)["prompts"],
            "layers": f"{len(setup.layers)} of {setup.n_layers} tried, each at coefficient {c:g}; "
            f"chosen on {len(concept.selection)} selection prompts",
            "mean difference": f"of {len(concept.pairs)} pairs, at layer {best.layer}",
        },
    )  # fmt: skip


@topic_by_layer.judge
def judge_layers(m: Measured) -> list[Verdict]:
    """Decide by the layer that was chosen on the selection prompts."""
    part, best, last = m.parts["test"], m.notes["best"], m.notes["last"]
    tied, searched, n_layers = (m.notes[name] for name in ("tied", "searched", "n_layers"))
    there = part.value("success", layer=best)
    later = part.change("success", than="steered", where={"layer": best}, layer=last)
    return [
        moves("F1", part, "success", f"layer {best}: ", layer=best),
        Verdict("F2", decide(there.mean > 0.9, there), percent(there)),
        Verdict(
            "F3",
            best < n_layers / 2 if tied < searched else None,
            f"layer {best} of 0 to {n_layers - 1}; {tied} of {searched} layers have the best mean "
            "on the selection prompts",
        ),
        Verdict(
            "F4", decide(later.high < 0, later), f"from layer {best} to {last}: {percent(later)}"
        ),
    ]


@topic_by_layer.tabulate
def tabulate_layers(m: Measured) -> pd.DataFrame:
    """The clean run, then every other at the chosen layer and at the last."""
    table = m.parts["test"].by_run().rename(columns={"success": "on the topic"})
    table = table[table["layer"].isin(["", m.notes["best"], m.notes["last"]])]
    return table.sort_values("layer", key=lambda layer: layer != "", kind="stable")


@topic_by_layer.draw
def draw_layers(m: Measured) -> Figure:
    """Success against the layer."""
    part, best = m.parts["test"], m.notes["best"]
    shown = part.summary[part.summary["metric"] == "success"]
    # Without a layer for what was measured at one layer only, so that it is drawn as a level.
    shown = shown.assign(layer=shown["layer"].mask(shown["run"] == NAMES[AVERAGED]))
    n = part.value("success", layer=best).n
    return plots.layer_profile(
        shown,
        ylabel="completions on the topic",
        unit="%",
        note=f"95 % intervals, n = {n} prompts; the mean difference, drawn as a level, "
        f"is at layer {best} only",
    )


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
def judge_coefficients(m: Measured) -> list[Verdict]:
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
def tabulate_coefficients(m: Measured) -> pd.DataFrame:
    """Every run of every topic at the paper's coefficient; the mean difference at its best."""
    lines = []
    for name, part in m.parts.items():
        heads = {run: f"{run}, c = {AT:g}" for run in ("steered", "negated", "random")}
        heads["prompted"] = "prompted"
        means = [part.value("success", "mean difference", coefficient=c) for c in COEFFICIENTS]
        values = {
            "clean": part.value("success", "clean"),
            **{head: part.value("success", run, coefficient=AT) for run, head in heads.items()},
            "mean difference, best c": max(means, key=lambda mean: mean.mean),
            "gain": part.change("success", coefficient=AT),
        }
        lines.append({"topic": name, **{head: percent(i) for head, i in values.items()}})
    return pd.DataFrame(lines)


@topic_by_coefficient.draw
def draw_coefficients(m: Measured) -> Figure:
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
