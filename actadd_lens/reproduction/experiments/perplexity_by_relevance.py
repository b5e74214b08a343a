"""Perplexity of documents, by how much they are about a topic."""

import math
from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from actadd_lens.reproduction.criteria import Verdict, decide
from actadd_lens.reproduction.measurements import format_interval
from actadd_lens.reproduction.outcome import Measured
from actadd_lens.reproduction.perplexities import (
    PAPERS_COEFFICIENT,
    drawn,
    perplexities,
    ratio,
    relevance,
    tabulated,
)
from actadd_lens.reproduction.registry import experiment
from actadd_lens.reproduction.setup import Setup

NO_WORDS = "none"


@experiment(
    "perplexity-by-relevance",
    question="""Does the wedding vector make text on weddings likelier, the more the more it is
    about them?""",
    design="""Documents are read under " weddings" - " " and binned by the share of their words that
    belong to the topic: those without any, the others in bins of equal counts. A document's ratio
    is its perplexity in a run over that in the clean one, whose ratio is 1 by definition; a bin's
    is the geometric mean over its documents. Every run counts the same tokens, those after the
    vector's rows. The vector, its random draws and its negative are added at coefficient 1, the
    paper's, and at the concept's own; the mean difference at one of its own; prompting puts the
    positive text in front.""",
    criteria={
        "F1": """Text on the topic becomes likelier: at the concept's own coefficient the interval
        of the mean ratio in the most relevant bin lies below 1, and the random vectors' mean there
        is nearer to 1 than the vector's, by log ratio.""",
        "F2": """The ratio falls with relevance: at the concept's own coefficient the interval of
        the ratio in the most relevant bin lies below that of the bin without topic words.""",
        "F3": """Unrelated text is about unchanged: in the bin without topic words the whole
        interval of the ratio lies within 0.98 and 1.02 at coefficient 1, the paper's.""",
    },
    paper="""GPT-2-XL, layer 16, coefficient 1, on OpenWebText binned by the frequency of wedding
    words (figure 2): the perplexity ratio falls with relevance, to about -4 %; unrelated text is
    about unchanged.""",
    differs="""Bins hold equal counts of documents. The concept's own coefficient is given with the
    paper's. Means are over documents, not over sentences. Random vectors may be further from 1 than
    the vector because they make text less likely, which F1 counts against it all the same.""",
)
def perplexity_by_relevance(setup: Setup) -> Measured:
    """Read the documents in every run."""
    concept = setup.topic().for_reading
    given = setup.data.documents(setup.sizes.documents)
    shares = relevance(setup.fitting(concept, given), setup.data.words(concept.name))
    bins = binned(shares)
    names = list(dict.fromkeys(bins.values()))
    return Measured(
        {"documents": perplexities(setup, concept, bins)},
        notes={"bins": names, "coefficient": setup.setting(concept)[1]},
        facts={
            **setup.describe(concept),
            "documents": f"{len(bins)} different ones, long enough, of {len(given)}; by share of "
            f"topic words: {', '.join(f'{list(bins.values()).count(b)} {b}' for b in names)}",
        },
    )


def binned(shares: Mapping[str, float], n: int = 3) -> dict[str, str]:
    """The bin of each text: no words, then up to ``n`` bins of equal counts by share, in order."""
    values = pd.Series(shares, dtype=float)
    on = values[values > 0]
    edges = np.quantile(on, np.arange(1, n) / n) if len(on) else np.empty(0)
    bins = dict.fromkeys(values.index[values == 0], NO_WORDS)
    for _, own in on.groupby(np.searchsorted(edges, on)):  # texts of one share stay together
        ends = dict.fromkeys(f"{100 * x:.3g}" for x in (own.min(), own.max()))
        bins |= dict.fromkeys(own.index, f"{' to '.join(ends)} %")
    return bins


@perplexity_by_relevance.judge
def judge(m: Measured) -> list[Verdict]:
    """Compare the most relevant bin with random vectors and with unrelated text."""
    part, own = m.parts["documents"], m.notes["coefficient"]
    last = m.notes["bins"][-1]
    most = last if last != NO_WORDS else "any"
    top, top_random = (ratio(part, run, most, own) for run in ("steered", "random"))
    rest, rest_at_1 = (ratio(part, "steered", NO_WORDS, c) for c in (own, PAPERS_COEFFICIENT))
    at_1 = ratio(part, "steered", most, PAPERS_COEFFICIENT)
    nearer = abs(math.log(top_random.mean)) < abs(math.log(top.mean))
    return [
        Verdict(
            "F1",
            decide(top.high < 1 and nearer, top, top_random),
            f"c = {own:g}: {format_interval(top, n=True)}, random {format_interval(top_random)} "
            f"(c = 1: {format_interval(at_1)})",
        ),
        Verdict(
            "F2",
            decide(top.high < rest.low, top, rest),
            f"c = {own:g}: {format_interval(rest, n=True)} without topic words, "
            f"{format_interval(top)} in the most relevant bin",
        ),
        Verdict(
            "F3",
            decide(rest_at_1.low >= 0.98 and rest_at_1.high <= 1.02, rest_at_1),
            f"c = 1: {format_interval(rest_at_1, n=True)} (c = {own:g}: {format_interval(rest)})",
        ),
    ]


@perplexity_by_relevance.tabulate
def tabulate(m: Measured) -> pd.DataFrame:
    """A line for each coefficient and run, a column for each bin."""
    return tabulated(m.parts["documents"], m.notes["bins"])


@perplexity_by_relevance.draw
def draw(m: Measured) -> Figure:
    """Ratios by bin, a panel for each coefficient."""
    return drawn(m.parts["documents"], m.notes["bins"], "words on the topic")
