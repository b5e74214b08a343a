"""Does "Love" - "Hate" turn negative prompts positive, and its reverse positive ones negative?

Two vectors, one for each direction, are added at the front of prompts of the contrary sentiment.
Success is the share of completions of the wanted sentiment; coherence and relevance say what it
costs. The paper calls such results competitive with methods that are trained.

Criteria, fixed before the run:

F1. Negative to positive: more successes than the clean run, with the interval of the paired
    change above 0, and above the random vector's likewise.
F2. Positive to negative: the same.
F3. The text stays sound: in both directions the share of coherent completions falls by no more than
    5 points on the mean. Not testable if the interval reaches 10 points below the mean, or less
    than a tenth is coherent in the clean run.
Q1. Is the mean difference over several pairs, with a coefficient of its own, no better than the one
    pair? Yes if in both directions the paired change of success from it to the pair is above -5
    points on the mean.
"""

import pandas as pd

from actadd_lens.reproduction.criteria import Verdict, all_of, at_least, kept, told
from actadd_lens.reproduction.figures import by_run
from actadd_lens.reproduction.outcome import Outcome
from actadd_lens.reproduction.readings import each, text_of
from actadd_lens.reproduction.setup import Setup

PAPER = (
    "OPT-6.7B and LLaMA-3-8B on Stanford IMDb, n = 1000. LLaMA-3 negative to positive: success "
    ".669, the best of all methods; OPT positive to negative: .432, where PREADD-S has .631 at a "
    "disfluency of 68.4 against 24.2."
)
DIFFERS = (
    "Success is read by the material's own judge rather than SiEBERT unless that is given; the "
    "methods that the paper compares with (PREADD, FUDGE, GeDi) are not run."
)
DIRECTIONS = ("sentiment", "reversed")


def run(setup: Setup) -> Outcome:
    """Measure both directions with every baseline."""
    material = setup.material
    concepts = {name: setup.concept(name) for name in DIRECTIONS}
    success = {name: concept.success.name for name, concept in concepts.items()}
    read = {
        name: setup.readings(
            name,
            setup.baselines(concept),
            concept.test,
            [concept.success, material.coherence, material.relevance],
        )
        for name, concept in concepts.items()
    }
    gain = {name: r.change(success[name]) for name, r in read.items()}
    over = {name: r.change(success[name], than="random") for name, r in read.items()}
    sound = {name: r.change(material.coherence.name) for name, r in read.items()}
    before = {name: r.value(material.coherence.name, "clean") for name, r in read.items()}
    single = {name: r.change(success[name], than="mean difference") for name, r in read.items()}
    turned = [
        Verdict(
            key,
            told(gain[name].low > 0 and over[name].low > 0, gain[name], over[name]),
            f"{text_of(read[name].value(success[name], 'clean'), share=True)} -> "
            f"{text_of(read[name].value(success[name]), share=True, n=True)}; change "
            f"{text_of(gain[name], share=True)}, over random {text_of(over[name], share=True)}",
        )
        for key, name in zip(("F1", "F2"), DIRECTIONS, strict=True)
    ]
    summary = pd.concat(
        [r.summary().assign(direction=concepts[name].wanted) for name, r in read.items()],
        ignore_index=True,
    )
    shown = [
        r.by_run().rename(columns={success[name]: "success"}).assign(direction=name)
        for name, r in read.items()
    ]
    table = pd.concat(shown, ignore_index=True).set_index("direction").reset_index()
    return Outcome(
        rows=pd.concat([r.frame for r in read.values()], ignore_index=True),
        summary=summary,
        shown=table,
        figure=by_run(
            summary[summary["metric"].isin(success.values())],
            ylabel="completions as wanted",
            unit="%",
            panel="direction",
        ),
        verdicts=[
            *turned,
            Verdict(
                "F3",
                all_of(kept(sound[name], before[name]) for name in sound),
                each(sound, share=True),
            ),
            Verdict(
                "Q1",
                told(all(not at_least(-0.05, i.mean) for i in single.values()), *single.values()),
                each(single, share=True),
            ),
        ],
        facts={name: "; ".join(setup.said(c).values()) for name, c in concepts.items()},
    )
