"""Do the paper's failures fail: no contrast, a pair of gibberish, a coefficient of 100?

Beside the proper pair of the concept "sentiment", vectors that should not work are added at its
layer and front: the rows of the positive prompt alone, the difference of two strings of letters
that mean nothing, and the proper pair times 100; all but the last have the proper coefficient. The
row of BOS, which is zero in a pair's vector, is not zero in that of a prompt alone, in the paper
either, and may be huge; a line of the table without it tells how much is due to it. Every vector
has random ones of its norms and its negative beside it. Prompting and the mean difference do not
depend on the vector and stand beside the proper pair.

Criteria, fixed before the run:

F1. One prompt without its contrast does not do it: the interval of the paired change of success
    from it to the contrast pair lies above 0.
F2. A gibberish pair does nothing wanted: the interval of its paired change of success against the
    clean run contains 0 or lies below it. Not testable if that of the contrast pair does not
    lie above 0.
F3. A huge coefficient breaks the text: at 100 the interval of the paired change of coherence
    against the clean run lies below 0.
"""

import pandas as pd
from matplotlib.figure import Figure

from actadd_lens import plots
from actadd_lens.models.tokens import tokenize
from actadd_lens.reproduction.criteria import Verdict, told
from actadd_lens.reproduction.outcome import Outcome
from actadd_lens.reproduction.readings import text_of
from actadd_lens.reproduction.setup import BASELINES, Setup
from actadd_lens.vectors.pair import ContrastPair
from actadd_lens.vectors.vector import SteeringVector

PAPER = (
    '"Love" alone without a contrast, a gibberish pair and a coefficient of 100: no effect, or '
    "broken text."
)
DIFFERS = "Rates with intervals over many prompts and controls, in place of single completions."
GIBBERISH = ContrastPair("xqzv.", "brlk.")
HUGE = 100.0
CONTROLS = [name for name in BASELINES if name not in ("prompted", "mean_difference")]
PROPER, ALONE, NO_BOS, NONSENSE, BROKEN = (
    "contrast pair", "positive alone", "alone, no BOS", "gibberish pair", f"pair x {HUGE:g}",
)  # fmt: skip


def run(setup: Setup) -> Outcome:
    """Measure the proper pair with every baseline, and each failure with its controls."""
    concept, material = setup.concept("sentiment"), setup.material
    layer, c = setup.cell(concept)
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
        cells += setup.arms(concept, vector, times, CONTROLS, pair=name)
    rows = max(len(vector.rows) for vector, _ in vectors.values())
    lengths = map(len, tokenize(setup.model, concept.test))
    prompts = [p for p, length in zip(concept.test, lengths, strict=True) if length >= rows]
    read = setup.readings("failures", cells, prompts, [concept.success, material.coherence])

    success, coherence = concept.success.name, material.coherence.name
    contrast = read.change(success, than="steered", where={"pair": ALONE}, pair=concept.name)
    wanted = read.change(success, pair=NONSENSE)
    works = read.change(success, pair=concept.name).low > 0
    broken = read.change(coherence, pair=BROKEN)
    named = {"pair": {concept.name: PROPER}}
    summary = read.summary().replace(named)
    return Outcome(
        rows=read.frame,
        summary=summary,
        shown=_shown(read.by_run().replace(named)).rename(columns={success: "success"}),
        figure=_figure(summary, {success: "completions as wanted", coherence: "coherent"}),
        verdicts=[
            Verdict(
                "F1",
                told(contrast.low > 0, contrast),
                f"alone {text_of(read.value(success, pair=ALONE), share=True)}, pair "
                f"{text_of(read.value(success, pair=concept.name), share=True, n=True)}; change "
                f"{text_of(contrast, share=True)}; without BOS "
                f"{text_of(read.value(success, pair=NO_BOS), share=True)}",
            ),
            Verdict(
                "F2", told(wanted.low <= 0, wanted) if works else None, text_of(wanted, share=True)
            ),
            Verdict("F3", told(broken.high < 0, broken), text_of(broken, share=True)),
        ],
        facts={
            **setup.said(concept),
            "prompts": f"{len(prompts)}, for {concept.wanted}; {len(concept.test) - len(prompts)} "
            f"shorter than {rows} tokens left out",
            "gibberish": f"{GIBBERISH.positive!r} - {GIBBERISH.negative!r}",
            "row norms, times the coefficient": "; ".join(
                f"{name} {', '.join(f'{norm:.0f}' for norm in (times * vector).norms())}"
                for name, (vector, times) in {PROPER: (pair, c), **vectors}.items()
            ),
        },
    )


def _shown(table: pd.DataFrame) -> pd.DataFrame:
    """In the order of the vectors; the coefficient is in their names."""
    order = ["", PROPER, ALONE, NO_BOS, NONSENSE, BROKEN]
    table = table.sort_values("pair", key=lambda pair: pair.map(order.index), kind="stable")
    return table.drop(columns="coefficient").rename(columns={"pair": "vector"})


def _figure(summary: pd.DataFrame, panels: dict[str, str]) -> Figure:
    """Each vector with its controls, a panel for success and one for coherence."""
    drawn = summary.assign(vector=summary["pair"], pair=summary["metric"].map(panels))
    return plots.bars(
        drawn.drop(columns=["metric", "position"]),
        x="vector",
        ylabel="completions",
        unit="%",
        note=f"95 % intervals, n = {summary['n'].max()} prompts",
    )
