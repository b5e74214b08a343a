"""A topic's vector at every layer."""

from dataclasses import replace

import pandas as pd
from matplotlib.figure import Figure

from actadd_lens import plots
from actadd_lens.reproduction.criteria import Verdict, decide
from actadd_lens.reproduction.measurements import NAMES, percent
from actadd_lens.reproduction.outcome import Measured
from actadd_lens.reproduction.registry import experiment
from actadd_lens.reproduction.setup import Setup
from actadd_lens.sweeps.configurations import CLEAN, STEERED

AVERAGED = "mean_difference"


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
    at_best = setup.baselines(replace(concept, setting=(best.layer, c)))
    mean = [cell for cell in at_best if cell.labels["run"] == AVERAGED]
    scores = success | setup.scores(concept, "coherence")
    tested = setup.measure("test", [*grid, *mean], concept.test, scores)
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
def judge(m: Measured) -> list[Verdict]:
    """Decide by the layer that was chosen on the selection prompts."""
    part, best, last = m.parts["test"], m.notes["best"], m.notes["last"]
    there, clean = part.value("success", layer=best), part.value("success", "clean")
    gain = part.change("success", layer=best)
    over = part.change("success", than="random", layer=best)
    later = part.change("success", than="steered", where={"layer": best}, layer=last)
    tied, searched, n_layers = (m.notes[name] for name in ("tied", "searched", "n_layers"))
    return [
        Verdict(
            "F1",
            decide(gain.low > 0 and over.low > 0, gain, over),
            f"layer {best}: {percent(clean)} -> "
            f"{percent(there, n=True)}; change "
            f"{percent(gain)}, over random {percent(over)}",
        ),
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
def tabulate(m: Measured) -> pd.DataFrame:
    """The clean run, then every other at the chosen layer and at the last."""
    table = m.parts["test"].by_run().rename(columns={"success": "on the topic"})
    table = table[table["layer"].isin(["", m.notes["best"], m.notes["last"]])]
    return table.sort_values("layer", key=lambda layer: layer != "", kind="stable")


@topic_by_layer.draw
def draw(m: Measured) -> Figure:
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
