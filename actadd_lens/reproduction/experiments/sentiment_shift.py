"""Sentiment turned in both directions."""

import pandas as pd
from matplotlib.figure import Figure

from actadd_lens.reproduction.criteria import Verdict, all_of, at_least, decide, preserved
from actadd_lens.reproduction.measurements import format_intervals, percent, rank
from actadd_lens.reproduction.outcome import Measured
from actadd_lens.reproduction.registry import experiment
from actadd_lens.reproduction.setup import Setup
from actadd_lens.reproduction.tables import by_run, dots_by_run

DIRECTIONS = ("sentiment", "reversed")


@experiment(
    "sentiment-shift",
    question="""Does "Love" - "Hate" turn negative prompts positive, and its reverse positive ones
    negative?""",
    design="""Two vectors, one for each direction, are added at the front of prompts of the contrary
    sentiment. Success is the share of completions of the wanted sentiment; coherence and relevance
    say what it costs. The paper calls such results competitive with methods that are trained.""",
    criteria={
        "F1": """Negative to positive: more successes than the clean run, with the interval of the
        paired change above 0, and above the random vector's likewise.""",
        "F2": "Positive to negative: the same.",
        "F3": """The text stays coherent: in both directions the share of coherent completions falls
        by no more than 5 points on the mean. Not testable if the interval reaches 10 points below
        the mean, or less than a tenth is coherent in the clean run.""",
        "Q1": """Is the mean difference over several pairs, with a coefficient of its own, no better
        than the one pair? Yes if in both directions the paired change of success from it to the
        pair is above -5 points on the mean.""",
    },
    paper="""OPT-6.7B and LLaMA-3-8B on Stanford IMDb, n = 1000. LLaMA-3 negative to positive:
    success .669, the best of all methods; OPT positive to negative: .432, where PREADD-S has .631
    at a disfluency of 68.4 against 24.2.""",
    differs="""Success is judged by the data set's own judge rather than SiEBERT unless that is
    given; the methods that the paper compares with (PREADD, FUDGE, GeDi) are not run.""",
)
def sentiment_shift(setup: Setup) -> Measured:
    """Measure both directions with every baseline."""
    concepts = setup.concepts(*DIRECTIONS)
    return Measured(
        setup.measure_each(concepts, setup.baselines, "success", "coherence", "relevance"),
        notes={"wanted": {name: c.wanted for name, c in concepts.items()}},
        facts=setup.describe_all(concepts),
    )


@sentiment_shift.judge
def judge(m: Measured) -> list[Verdict]:
    """Compare both directions with the clean run and with the baselines."""
    gain, over = m.changes("success"), m.changes("success", than="random")
    single = m.changes("success", than="mean difference")
    coherent = m.changes("coherence")
    before, after = m.values("success", "clean"), m.values("success")
    turned = [
        Verdict(
            key,
            decide(gain[name].low > 0 and over[name].low > 0, gain[name], over[name]),
            f"{percent(before[name])} -> "
            f"{percent(after[name], n=True)}; change "
            f"{percent(gain[name])}, over random "
            f"{percent(over[name])}",
        )
        for key, name in zip(("F1", "F2"), DIRECTIONS, strict=True)
    ]
    was_coherent = m.values("coherence", "clean")
    return [
        *turned,
        Verdict(
            "F3",
            all_of(preserved(coherent[name], was_coherent[name]) for name in coherent),
            format_intervals(coherent),
        ),
        Verdict(
            "Q1",
            decide(all(not at_least(-0.05, i.mean) for i in single.values()), *single.values()),
            format_intervals(single),
        ),
    ]


@sentiment_shift.tabulate
def tabulate(m: Measured) -> pd.DataFrame:
    """Every run, by direction."""
    return by_run(m, head="direction")


@sentiment_shift.draw
def draw(m: Measured) -> Figure:
    """A dot for each run, a panel for each direction."""
    shown = m.summary[m.summary["metric"] == "success"]
    shown = shown.iloc[rank(shown["run"]).argsort(kind="stable")]
    panels = shown["part"].map(m.notes["wanted"])
    return dots_by_run(shown, panels, "completions as wanted", ["steered"])
