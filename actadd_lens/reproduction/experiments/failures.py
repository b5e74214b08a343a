"""Vectors that should not work."""

import pandas as pd
from matplotlib.figure import Figure

from actadd_lens import plots
from actadd_lens.reproduction.criteria import Verdict, decide
from actadd_lens.reproduction.measurements import format_interval, percent
from actadd_lens.reproduction.outcome import Measured
from actadd_lens.reproduction.registry import experiment
from actadd_lens.reproduction.setup import OF_VECTOR, Setup
from actadd_lens.reproduction.tables import note
from actadd_lens.vectors.pair import ContrastPair
from actadd_lens.vectors.vector import SteeringVector

GIBBERISH = ContrastPair("xqzv.", "brlk.")
HUGE = 100.0
PROPER, ALONE, NO_BOS, NONSENSE, BROKEN = (
    "contrast pair", "positive alone", "alone, no BOS", "gibberish pair", f"pair x {HUGE:g}",
)  # fmt: skip
PANELS = {"success": "completions as wanted", "coherence": "coherent"}


@experiment(
    "failures",
    question="""Do the paper's failures fail: no contrast, a pair of gibberish, a coefficient of
    100?""",
    design="""In addition to the proper pair of the concept "sentiment", vectors that should not
    work are added at its layer and front: the rows of the positive prompt alone, the difference of
    two strings of letters that mean nothing, and the proper pair times 100; all but the last have
    the proper coefficient. The row of BOS, which is zero in a pair's vector, is not zero in that of
    a prompt alone, in the paper either, and may be huge; a line of the table without it shows how
    much is due to it. Every vector is compared with random ones of its norms and with its negative.
    Prompting and the mean difference do not depend on the vector and are given for the proper pair.
    """,
    criteria={
        "F1": """One prompt without its contrast does not do it: the interval of the paired change
        of success from it to the contrast pair lies above 0.""",
        "F2": """A gibberish pair does nothing wanted: the interval of its paired change of success
        against the clean run contains 0 or lies below it. Not testable if that of the contrast pair
        does not lie above 0.""",
        "F3": """A huge coefficient breaks the text: at 100 the interval of the paired change of
        coherence against the clean run lies below 0.""",
    },
    paper=""""Love" alone without a contrast, a gibberish pair and a coefficient of 100: no effect,
    or broken text.""",
    differs="Rates with intervals over many prompts and controls, in place of single completions.",
)
def failures(setup: Setup) -> Measured:
    """Measure the proper pair with every baseline, and each failure with its controls."""
    concept = setup.concept("sentiment")
    layer, c = setup.setting(concept)
    pair = setup.vector(concept.pair, layer)
    alone = SteeringVector.from_prompt(setup.model, concept.pair.positive, layer)
    vectors = {
        ALONE: (alone, c),
        NO_BOS: (alone.with_rows(range(1, len(alone.rows))), c),
        NONSENSE: (setup.vector(GIBBERISH, layer), c),
        BROKEN: (pair, HUGE),
    }
    cells = setup.baselines(concept)
    for name, (vector, times) in vectors.items():
        cells += setup.conditions(concept, vector, times, OF_VECTOR, vector=name)
    rows = max(len(vector.rows) for vector, _ in vectors.values())
    prompts = setup.long_enough(concept.test, rows)
    metrics = setup.scores(concept, "success", "coherence")
    return Measured(
        {"failures": setup.measure("failures", cells, prompts, metrics)},
        notes={"concept": concept.name},
        facts={
            **setup.describe(concept),
            "prompts": f"{len(prompts)}, for {concept.wanted}; {len(concept.test) - len(prompts)} "
            f"shorter than {rows} tokens left out",
            "gibberish": f"{GIBBERISH.positive!r} - {GIBBERISH.negative!r}",
            "row norms, times the coefficient": "; ".join(
                f"{name} {', '.join(f'{norm:.0f}' for norm in (times * vector).norms())}"
                for name, (vector, times) in {PROPER: (pair, c), **vectors}.items()
            ),
        },
    )


@failures.judge
def judge(m: Measured) -> list[Verdict]:
    """Compare the failures with the proper pair and with the clean run."""
    part, proper = m.parts["failures"], m.notes["concept"]
    contrast = part.change("success", than="steered", where={"vector": ALONE}, vector=proper)
    wanted = part.change("success", vector=NONSENSE)
    works = part.change("success", vector=proper).low > 0
    broken = part.change("coherence", vector=BROKEN)
    alone, pair, no_bos = (
        format_interval(part.value("success", vector=name), share=True, n=name == proper)
        for name in (ALONE, proper, NO_BOS)
    )
    return [
        Verdict(
            "F1",
            decide(contrast.low > 0, contrast),
            f"alone {alone}, pair {pair}; change {percent(contrast)}; without BOS {no_bos}",
        ),
        Verdict("F2", decide(wanted.low <= 0, wanted) if works else None, percent(wanted)),
        Verdict("F3", decide(broken.high < 0, broken), percent(broken)),
    ]


@failures.tabulate
def tabulate(m: Measured) -> pd.DataFrame:
    """In the order of the vectors; the coefficient is in their names."""
    table = m.parts["failures"].by_run().replace({"vector": {m.notes["concept"]: PROPER}})
    order = ["", PROPER, ALONE, NO_BOS, NONSENSE, BROKEN]
    table = table.sort_values("vector", key=lambda pair: pair.map(order.index), kind="stable")
    return table.drop(columns="coefficient")


@failures.draw
def draw(m: Measured) -> Figure:
    """Each vector with its controls, a panel for success and one for coherence."""
    summary = m.summary.replace({"vector": {m.notes["concept"]: PROPER}})
    shown = summary.assign(condition=summary["vector"], vector=summary["metric"].map(PANELS))
    return plots.bars(
        shown.drop(columns=["metric", "position"]),
        x="condition",
        ylabel="completions",
        unit="%",
        note=note(summary),
    )
