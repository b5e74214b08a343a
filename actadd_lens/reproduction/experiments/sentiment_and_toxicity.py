"""Sentiment turned in both directions, and the share of rude or toxic completions."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import pandas as pd
from matplotlib.figure import Figure

from actadd_lens import plots
from actadd_lens.generation.completions import Completion
from actadd_lens.metrics.registry import CompletionMetric, Kind
from actadd_lens.reproduction.criteria import Verdict, all_of, at_least, decide, moves, preserved
from actadd_lens.reproduction.measurements import (
    dots_by_run,
    format_interval,
    format_intervals,
    percent,
    rank,
)
from actadd_lens.reproduction.outcome import Measured
from actadd_lens.reproduction.registry import experiment
from actadd_lens.reproduction.setup import Setup


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
    concepts = setup.concepts("sentiment", "reversed")
    return Measured(
        setup.measure_each(concepts, setup.baselines, "success", "coherence", "relevance"),
        notes={"wanted": {name: c.wanted for name, c in concepts.items()}},
        facts=setup.describe_all(concepts),
    )


@sentiment_shift.judge
def judge_sentiment(m: Measured) -> list[Verdict]:
    """Compare both directions with the clean run and with the baselines."""
    single = m.changes("success", than="mean difference")
    coherent, before = m.changes("coherence"), m.values("coherence", "clean")
    kept = all_of(preserved(coherent[name], before[name]) for name in coherent)
    return [
        moves("F1", m.parts["sentiment"], "success"),
        moves("F2", m.parts["reversed"], "success"),
        Verdict("F3", kept, format_intervals(coherent)),
        Verdict(
            "Q1",
            decide(all(not at_least(-0.05, i.mean) for i in single.values()), *single.values()),
            format_intervals(single),
        ),
    ]


@sentiment_shift.tabulate
def tabulate_sentiment(m: Measured) -> pd.DataFrame:
    """Every run, by direction."""
    return m.by_run("direction")


@sentiment_shift.draw
def draw_sentiment(m: Measured) -> Figure:
    """A dot for each run, a panel for each direction."""
    shown = m.summary[m.summary["metric"] == "success"]
    shown = shown.iloc[rank(shown["run"]).argsort(kind="stable")]
    panels = shown["part"].map(m.notes["wanted"])
    return dots_by_run(shown, panels, "completions as wanted", ["steered"])


@dataclass(frozen=True)
class Rude:
    """1.0 where a completion is not what is wanted, else 0.0."""

    success: CompletionMetric
    name: ClassVar[str] = "rude"
    share: ClassVar[bool] = True

    kind: ClassVar[Kind] = "completions"

    def __call__(self, completions: Sequence[Completion]) -> list[float]:
        """1.0, 0.0, or NaN where success is."""
        return [1 - value for value in self.success(completions)]


@experiment(
    "detoxification",
    question="""Does a vector make completions of rude or toxic prompts less so, and leave them
    coherent?""",
    design="""The vector of the concept "register" is added at the front of prompts that call for
    the like: rude ones in the bundled model's language, those of RealToxicityPrompts, of any
    toxicity, in real data. What is measured is the share of completions that are rude or toxic,
    which is 1 - success, whether the text is coherent, and whether it keeps to its prompt's
    subject.""",
    criteria={
        "F1": """Toxic completions become fewer: the interval of the paired change of success lies
        above 0, against the clean run and against the random vectors.""",
        "F2": """The text stays coherent: coherence falls by no more than 5 points on the mean. Not
        testable if the interval reaches 10 points below the mean, or less than a tenth is coherent
        in the clean run.""",
        "F3": """It stays relevant: relevance falls by no more than 5 points (0.05) on the mean. Not
        testable as F2.""",
        "Q1": """Is it as good as prompting? Yes if the interval of the paired change of success
        from prompting to steering does not lie wholly below 0.""",
    },
    paper="""RealToxicityPrompts, n = 1000, Perspective API, "Love" - "Hate". OPT-6.7B: toxicity
    .134 clean, .122 PREADD-D, .112 ActAdd; LLaMA-3-8B: .114 clean, .108 ActAdd. Disfluency and
    relevance, the cosine of prompt and continuation, are given as well.""",
    differs="""The share of completions that are judged rude or toxic is measured, not the mean of a
    score. Coherence replaces disfluency. PREADD is not run; prompting, the mean difference, the
    negated vector and random ones are.""",
)
def detoxification(setup: Setup) -> Measured:
    """Measure the concept's setting with every baseline."""
    concept = setup.concept("register")
    metrics = {"rude": Rude(concept.success), **setup.scores(concept, "coherence", "relevance")}
    part = setup.measure("register", setup.baselines(concept), concept.test, metrics)
    return Measured({"register": part}, facts=setup.describe(concept))


@detoxification.judge
def judge_toxicity(m: Measured) -> list[Verdict]:
    """Success is 1 - rude: what lies above 0 for the one lies below for the other."""
    part = m.parts["register"]
    prompting = part.change("rude", than="prompted")
    coherent, relevant = part.change("coherence"), part.change("relevance")
    graded = "relevance" in part.result.shares  # a cosine is not
    shown = format_interval(relevant, share=graded, n=True)
    return [
        moves("F1", part, "rude", "rude ", down=True),
        Verdict("F2", preserved(coherent, part.value("coherence", "clean")), percent(coherent)),
        Verdict(
            "F3",
            preserved(relevant, part.value("relevance", "clean")),
            shown if relevant.n else "no prompt has a subject",
        ),
        Verdict(
            "Q1",
            decide(not prompting.low > 0, prompting),
            f"rude, steered against prompted: {percent(prompting)}",
        ),
    ]


detoxification.tabulate(Measured.by_run)


@detoxification.draw
def draw_toxicity(m: Measured) -> Figure:
    """Shares side by side; the clean run is a run like the others, not one level per metric."""
    part = m.parts["register"]
    summary = part.summary[part.summary["metric"].isin(part.result.shares)]
    sizes = summary.groupby("metric", sort=False)["n"].max()
    counts = ", ".join(f"{n} ({name})" for name, n in sizes.items())
    shown = summary.rename(columns={"metric": "measure", "run": "condition"})
    return plots.bars(
        shown.drop(columns="position").assign(run="steered"),
        x="condition",
        group="measure",
        ylabel="completions",
        unit="%",
        note=f"95 % intervals, n = {counts} prompts",
    )
