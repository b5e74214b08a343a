"""Does the wedding vector make text on weddings likelier, the more the more it is about them?

Documents are read under " weddings" - " " and binned by the share of their words that belong to the
topic: those without any, the others in bins of equal counts. A document's ratio is its perplexity
in a run over that in the clean one, whose ratio is 1 by definition; a bin's is the geometric
mean over its documents. Every run counts the same tokens, those behind the vector's rows. The
vector, its random draws and its negative are added at coefficient 1, the paper's, and at the
concept's own; the mean difference at one of its own; prompting puts the positive text in front.

Criteria, fixed before the run:

F1. Text on the topic becomes likelier: at the concept's own coefficient the interval of the mean
    ratio in the most relevant bin lies below 1, and the random vectors' mean there is nearer to 1
    than the vector's, by log ratio.
F2. The ratio falls with relevance: at the concept's own coefficient the interval of the ratio in
    the most relevant bin lies below that of the bin without topic words.
F3. Unrelated text is about unchanged: in the bin without topic words the whole interval of the
    ratio lies within 0.98 and 1.02 at coefficient 1, the paper's.
"""

import math
from collections.abc import Mapping

import numpy as np
import pandas as pd

from actadd_lens.reproduction.criteria import Verdict, told
from actadd_lens.reproduction.outcome import Outcome
from actadd_lens.reproduction.perplexities import (
    PAPERS_COEFFICIENT,
    drawn,
    fitting,
    perplexities,
    ratio,
    relevance,
    summarised,
    table,
)
from actadd_lens.reproduction.readings import text_of
from actadd_lens.reproduction.setup import Setup

PAPER = (
    "GPT-2-XL, layer 16, coefficient 1, on OpenWebText binned by the frequency of wedding words "
    "(figure 2): the perplexity ratio falls with relevance, to about -4 %; unrelated text is about "
    "unchanged."
)
DIFFERS = (
    "Bins hold equal counts of documents. The concept's own coefficient stands beside the paper's. "
    "Means are over documents, not over sentences. Random vectors may be further from 1 than the "
    "vector because they make text less likely, which F1 counts against it all the same."
)
NO_WORDS = "none"


def run(setup: Setup) -> Outcome:
    """Read the documents in every run."""
    concept = setup.concept(setup.material.topics[0]).as_read
    given = setup.material.documents(setup.sizes.documents)
    shares = relevance(fitting(setup, concept, given), setup.material.words(concept.name))
    bins = binned(shares)
    read = perplexities(setup, concept, bins)
    names = list(dict.fromkeys(bins.values()))
    most = names[-1] if names[-1] != NO_WORDS else "any"
    own = setup.cell(concept)[1]
    top, top_random = (ratio(read, run, most, own) for run in ("steered", "random"))
    rest, rest_at_1 = (ratio(read, "steered", NO_WORDS, c) for c in (own, PAPERS_COEFFICIENT))
    at_1 = ratio(read, "steered", most, PAPERS_COEFFICIENT)
    nearer = abs(math.log(top_random.mean)) < abs(math.log(top.mean))
    summary = summarised(read)
    return Outcome(
        rows=read.frame,
        summary=summary,
        shown=table(summary, names),
        figure=drawn(summary, names, "words on the topic"),
        verdicts=[
            Verdict(
                "F1",
                told(top.high < 1 and nearer, top, top_random),
                f"c = {own:g}: {text_of(top, n=True)}, random {text_of(top_random)} "
                f"(c = 1: {text_of(at_1)})",
            ),
            Verdict(
                "F2",
                told(top.high < rest.low, top, rest),
                f"c = {own:g}: {text_of(rest, n=True)} without topic words, {text_of(top)} in the "
                "most relevant bin",
            ),
            Verdict(
                "F3",
                told(rest_at_1.low >= 0.98 and rest_at_1.high <= 1.02, rest_at_1),
                f"c = 1: {text_of(rest_at_1, n=True)} (c = {own:g}: {text_of(rest)})",
            ),
        ],
        facts={
            **setup.said(concept),
            "documents": f"{len(bins)} different ones, long enough, of {len(given)}; by share of "
            f"topic words: {', '.join(f'{list(bins.values()).count(b)} {b}' for b in names)}",
        },
    )


def binned(shares: Mapping[str, float], n: int = 3) -> dict[str, str]:
    """The bin of each text: no words, then up to ``n`` bins of like counts by share, in order."""
    values = pd.Series(shares, dtype=float)
    on = values[values > 0]
    edges = np.quantile(on, np.arange(1, n) / n) if len(on) else np.empty(0)
    bins = dict.fromkeys(values.index[values == 0], NO_WORDS)
    for _, own in on.groupby(np.searchsorted(edges, on)):  # texts of one share stay together
        ends = dict.fromkeys(f"{100 * x:.3g}" for x in (own.min(), own.max()))
        bins |= dict.fromkeys(own.index, f"{' to '.join(ends)} %")
    return bins
