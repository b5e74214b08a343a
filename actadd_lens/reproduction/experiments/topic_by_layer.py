"""At which layer does a topic's vector work best, and how often does the topic come there?

The vector of the first topic's pair is added at every layer in turn, at the one coefficient of the
concept. Success is the share of completions on the topic. The best layer is the one of the most
successes on the selection prompts, where the steered runs alone are measured, the lowest of equal
ones; everything else is told of the test prompts. Random vectors, the negated vector and the
positive prompt as text stand beside every layer. The mean difference is measured at the chosen
layer alone, with the coefficient that suits it there: it is added at every position, so that the
pair's coefficient would not be fair to it.

Criteria, fixed before the run:

F1. The topic comes: at the chosen layer the interval of the paired change of success against the
    clean run lies above 0, and against the random vectors too.
F2. Most completions are on the topic there: the mean is above 90 %, the paper's figure at its best
    layer.
F3. An early layer is best: the chosen layer is in the first half of the layers (the paper: about 6
    of 48). Not testable if all layers tie.
F4. It falls off later: the interval of the paired change of success from the chosen layer to the
    last layer lies below 0.
"""

from dataclasses import replace

import pandas as pd

from actadd_lens import plots
from actadd_lens.reproduction.criteria import Verdict, told
from actadd_lens.reproduction.outcome import Outcome
from actadd_lens.reproduction.readings import NAMES, Readings, text_of
from actadd_lens.reproduction.setup import Setup
from actadd_lens.sweeps import SweepResult
from actadd_lens.sweeps.configurations import CLEAN, STEERED

PAPER = (
    'GPT-2-XL, " weddings" - " " at each of 48 layers: completions with wedding words in more than '
    "90 % at the best layer, about 6, against about 2 % clean; the effect falls off later "
    "(figure 3)."
)
DIFFERS = (
    "The layer is chosen on prompts of its own and reported on others; the paper has one set. "
    "Success is read by the material's judge. Random vectors, the negated vector, prompting and "
    "the mean difference stand beside it."
)
AVERAGED = "mean_difference"


def run(setup: Setup) -> Outcome:
    """Measure every layer on both splits, the baselines on the test prompts."""
    concept = setup.concept(setup.material.topics[0])
    _, c = setup.cell(concept)
    success, metrics = concept.success.name, [concept.success, setup.material.coherence]
    grid = [
        cell for cell in setup.grid(concept, setup.layers, [c]) if cell.labels["run"] != AVERAGED
    ]
    steered = [cell for cell in grid if cell.labels["run"] in (STEERED, CLEAN)]
    searched = setup.measured("selection", steered, concept.selection, [concept.success])
    best = SweepResult(searched.frame, searched.provenance).best(success)
    at_best = setup.baselines(replace(concept, cell=(best.layer, c)))
    mean = [cell for cell in at_best if cell.labels["run"] == AVERAGED]
    read = setup.readings("test", [*grid, *mean], concept.test, metrics)

    there = read.value(success, layer=best.layer)
    gain = read.change(success, layer=best.layer)
    over = read.change(success, than="random", layer=best.layer)
    later = read.change(
        success, than="steered", where={"layer": best.layer}, layer=setup.layers[-1]
    )
    summary = read.summary()
    chosen = Readings(searched)
    return Outcome(
        rows=pd.concat(
            [r.frame.assign(split=s) for s, r in (("selection", chosen), ("test", read))],
            ignore_index=True,
        ),
        summary=pd.concat(
            [r.assign(split=s) for s, r in (("selection", chosen.summary()), ("test", summary))],
            ignore_index=True,
        ),
        shown=_shown(read, best.layer, setup.layers[-1], success),
        figure=plots.layer_profile(
            _levelled(summary[summary["metric"] == success]),
            ylabel="completions on the topic",
            unit="%",
            note=f"95 % intervals, n = {there.n} prompts; the mean difference, drawn as a level, "
            f"is at layer {best.layer} alone",
        ),
        verdicts=[
            Verdict(
                "F1",
                told(gain.low > 0 and over.low > 0, gain, over),
                f"layer {best.layer}: {text_of(read.value(success, 'clean'), share=True)} -> "
                f"{text_of(there, share=True, n=True)}; change {text_of(gain, share=True)}, over "
                f"random {text_of(over, share=True)}",
            ),
            Verdict("F2", told(there.mean > 0.9, there), text_of(there, share=True)),
            Verdict(
                "F3",
                best.layer < setup.n_layers / 2 if best.tied < best.searched else None,
                f"layer {best.layer} of 0 to {setup.n_layers - 1}; {best.tied} of {best.searched} "
                "layers have the best mean on the selection prompts",
            ),
            Verdict(
                "F4",
                told(later.high < 0, later),
                f"from layer {best.layer} to {setup.layers[-1]}: {text_of(later, share=True)}",
            ),
        ],
        facts={
            "vector": f"{concept.pair.positive!r} - {concept.pair.negative!r}, front",
            "prompts": setup.said(concept)["prompts"],
            "layers": f"{len(setup.layers)} of {setup.n_layers} tried, each at coefficient {c:g}; "
            f"chosen on {len(concept.selection)} selection prompts",
            "mean difference": f"of {len(concept.pairs)} pairs, at layer {best.layer}",
        },
    )


def _levelled(cells: pd.DataFrame) -> pd.DataFrame:
    """Without a layer for what was measured at one alone, so that it is drawn as a level."""
    return cells.assign(layer=cells["layer"].mask(cells["run"] == NAMES[AVERAGED]))


def _shown(read: Readings, best: int, last: int, success: str) -> pd.DataFrame:
    """The clean run, then every other at the chosen layer and at the last."""
    table = read.by_run().rename(columns={success: "on the topic"})
    table = table[table["layer"].isin(["", best, last])]
    return table.sort_values("layer", key=lambda layer: layer != "", kind="stable")
