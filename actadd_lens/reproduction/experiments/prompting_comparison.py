"""Perplexity of documents on a topic and off it, steered and prompted."""

from dataclasses import replace

import pandas as pd
from matplotlib.figure import Figure

from actadd_lens.reproduction.criteria import Verdict, decide
from actadd_lens.reproduction.measurements import Change, Measurements, format_interval, mean_change
from actadd_lens.reproduction.outcome import Measured
from actadd_lens.reproduction.perplexities import (
    METRIC,
    PAPERS_COEFFICIENT,
    drawn,
    perplexities,
    ratio,
    relevance,
    tabulated,
)
from actadd_lens.reproduction.registry import experiment
from actadd_lens.reproduction.setup import Setup

ON, OFF = "on the topic", "off the topic"


@experiment(
    "prompting-comparison",
    question="""Does steering leave unrelated text alone where prompting disturbs it, and help as
    much on topic?""",
    design="""Documents are read under " weddings" - " " at the front, and after its positive text
    as a prompt. On the topic are those whose share of topic words is in the upper half of those
    that have any; off the topic those that have none. Ratios of perplexities to the clean run,
    whose ratio is 1 by definition, are geometric means over documents; every run counts the same
    tokens, those after the vector's rows. Verdicts are at the concept's own coefficient;
    coefficient 1, the paper's, is given as well.""",
    criteria={
        "F1": "Steering makes on-topic text likelier: the interval of its ratio lies below 1.",
        "F2": """Steering leaves off-topic text alone: the interval of its ratio lies within 0.98
        and 1.02.""",
        "F3": """Prompting disturbs off-topic text more: the interval of the paired change of |log
        ratio|, prompting minus steering, lies above 0.""",
        "Q1": """Does steering help on-topic text as much as prompting? Yes if the interval of the
        paired change of log ratio, steering minus prompting, does not lie wholly above 0.""",
    },
    paper="""GPT-2-XL, layer 16, coefficient 1, sentences on weddings and others: perplexity ratio
    of ActAdd .875 on the topic and .994 off it; of prompting .890 and 1.132.""",
    differs="""Whole documents instead of sentences, at the coefficient that suits generation. The
    prompt is the positive text of the pair, without a space after it.""",
)
def prompting_comparison(setup: Setup) -> Measured:
    """Read documents of both kinds in every run."""
    concept = setup.topic().for_reading
    given = setup.data.documents(setup.sizes.documents)
    words = setup.data.words(concept.name)
    shares = pd.Series(relevance(setup.fitting(concept, given), words), dtype=float)
    half = shares[shares > 0].median()
    kinds = dict.fromkeys(shares.index[shares >= half], ON)
    kinds |= dict.fromkeys(shares.index[shares == 0], OFF)
    counts = ", ".join(f"{list(kinds.values()).count(kind)} {kind}" for kind in (ON, OFF))
    return Measured(
        {"documents": perplexities(setup, concept, kinds)},
        notes={
            "kinds": [kind for kind in (ON, OFF) if kind in kinds.values()],
            "coefficient": setup.setting(concept)[1],
        },
        facts={
            **setup.describe(concept),
            "documents": f"of {len(given)}, {len(shares)} are different and long enough; {counts}"
            + (f", from {100 * half:.2g} % of topic words" if half == half else ""),
        },
    )


@prompting_comparison.judge
def judge(m: Measured) -> list[Verdict]:
    """Compare steering with the clean run and with prompting, on the topic and off it."""
    part, own = m.parts["documents"], m.notes["coefficient"]
    on, off = (ratio(part, "steered", kind, own) for kind in (ON, OFF))
    on_at_1, off_at_1 = (ratio(part, "steered", kind, PAPERS_COEFFICIENT) for kind in (ON, OFF))
    prompted_on, prompted_off = (ratio(part, "prompted", kind, own) for kind in (ON, OFF))
    helps = _change(part, "steered", "prompted", ON, own)
    frame = part.result.frame
    sizes = Measurements(replace(part.result, frame=frame.assign(value=frame["value"].abs())))
    disturbs = _change(sizes, "prompted", "steered", OFF, own)
    return [
        Verdict(
            "F1",
            decide(on.high < 1, on),
            f"{format_interval(on, n=True)} (c = 1: {format_interval(on_at_1)})",
        ),
        Verdict(
            "F2",
            decide(off.low >= 0.98 and off.high <= 1.02, off),
            f"{format_interval(off, n=True)} (c = 1: {format_interval(off_at_1)})",
        ),
        Verdict(
            "F3",
            decide(disturbs.low > 0, disturbs),
            f"ratio {format_interval(prompted_off)} prompted, {format_interval(off)} steered; "
            f"change {format_interval(disturbs)} nats per token",
        ),
        Verdict(
            "Q1",
            decide(not helps.low > 0, helps),
            f"ratio {format_interval(on)} steered, {format_interval(prompted_on)} prompted; change "
            f"{format_interval(helps)} nats per token",
        ),
    ]


def _change(part: Measurements, run: str, than: str, kind: str, c: float) -> Change:
    if kind not in set(part.frame["group"]):  # no document of the kind
        return mean_change(pd.Series(dtype=float), 0)
    return part.change(METRIC, run, than, group=kind, coefficient=c)


@prompting_comparison.tabulate
def tabulate(m: Measured) -> pd.DataFrame:
    """A line for each coefficient and run, a column for each kind of document."""
    return tabulated(m.parts["documents"], m.notes["kinds"])


@prompting_comparison.draw
def draw(m: Measured) -> Figure:
    """Ratios by kind of document, a panel for each coefficient."""
    return drawn(m.parts["documents"], m.notes["kinds"], "documents")
