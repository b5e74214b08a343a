"""Does steering leave unrelated text alone where prompting disturbs it, and help as much on topic?

Documents are read under " weddings" - " " at the front, and behind its positive text as a prompt.
On the topic are those whose share of topic words is in the upper half of those that have any; off
the topic those that have none. Ratios of perplexities to the clean run, whose ratio is 1 by
definition, are geometric means over documents; every run counts the same tokens, those behind the
vector's rows. Verdicts are at the concept's own coefficient; coefficient 1, the paper's, stands
beside it.

Criteria, fixed before the run:

F1. Steering makes on-topic text likelier: the interval of its ratio lies below 1.
F2. Steering leaves off-topic text alone: the interval of its ratio lies within 0.98 and 1.02.
F3. Prompting disturbs off-topic text more: the interval of the paired change of |log ratio|,
    prompting minus steering, lies above 0.
Q1. Does steering help on-topic text as much as prompting? Yes if the interval of the paired change
    of log ratio, steering minus prompting, does not lie wholly above 0.
"""

from dataclasses import replace

import pandas as pd

from actadd_lens.reproduction.criteria import Verdict, told
from actadd_lens.reproduction.outcome import Outcome
from actadd_lens.reproduction.perplexities import (
    METRIC,
    PAPERS_COEFFICIENT,
    drawn,
    fitting,
    perplexities,
    ratio,
    relevance,
    summarised,
    table,
)
from actadd_lens.reproduction.readings import Change, Readings, changed, text_of
from actadd_lens.reproduction.setup import Setup

PAPER = (
    "GPT-2-XL, layer 16, coefficient 1, sentences on weddings and others: perplexity ratio of "
    "ActAdd .875 on the topic and .994 off it; of prompting .890 and 1.132."
)
DIFFERS = (
    "Whole documents instead of sentences, at the coefficient that suits generation. The prompt is "
    "the positive text of the pair, without a space behind it."
)
ON, OFF = "on the topic", "off the topic"


def run(setup: Setup) -> Outcome:
    """Read documents of both kinds in every run."""
    concept = setup.concept(setup.material.topics[0]).as_read
    given = setup.material.documents(setup.sizes.documents)
    shares = pd.Series(
        relevance(fitting(setup, concept, given), setup.material.words(concept.name)), dtype=float
    )
    half = shares[shares > 0].median()
    kinds = dict.fromkeys(shares.index[shares >= half], ON)
    kinds |= dict.fromkeys(shares.index[shares == 0], OFF)
    read = perplexities(setup, concept, kinds)
    own = setup.cell(concept)[1]
    on, off = (ratio(read, "steered", kind, own) for kind in (ON, OFF))
    on_at_1, off_at_1 = (ratio(read, "steered", kind, PAPERS_COEFFICIENT) for kind in (ON, OFF))
    prompted_on, prompted_off = (ratio(read, "prompted", kind, own) for kind in (ON, OFF))
    helps = _change(read, "steered", "prompted", ON, own)
    frame = read.result.frame
    sizes = Readings(replace(read.result, frame=frame.assign(value=frame["value"].abs())))
    disturbs = _change(sizes, "prompted", "steered", OFF, own)
    summary = summarised(read)
    there = [kind for kind in (ON, OFF) if kind in kinds.values()]
    return Outcome(
        rows=read.frame,
        summary=summary,
        shown=table(summary, there),
        figure=drawn(summary, there, "documents"),
        verdicts=[
            Verdict(
                "F1", told(on.high < 1, on), f"{text_of(on, n=True)} (c = 1: {text_of(on_at_1)})"
            ),
            Verdict(
                "F2",
                told(off.low >= 0.98 and off.high <= 1.02, off),
                f"{text_of(off, n=True)} (c = 1: {text_of(off_at_1)})",
            ),
            Verdict(
                "F3",
                told(disturbs.low > 0, disturbs),
                f"ratio {text_of(prompted_off)} prompted, {text_of(off)} steered; change "
                f"{text_of(disturbs)} nats per token",
            ),
            Verdict(
                "Q1",
                told(not helps.low > 0, helps),
                f"ratio {text_of(on)} steered, {text_of(prompted_on)} prompted; change "
                f"{text_of(helps)} nats per token",
            ),
        ],
        facts={
            **setup.said(concept),
            "documents": f"of {len(given)}, {len(shares)} are different and long enough; "
            + ", ".join(f"{list(kinds.values()).count(kind)} {kind}" for kind in (ON, OFF))
            + (f", from {100 * half:.2g} % of topic words" if half == half else ""),
        },
    )


def _change(read: Readings, run: str, than: str, kind: str, c: float) -> Change:
    if kind not in set(read.result.frame["group"]):  # no document of the kind
        return changed(pd.Series(dtype=float), 0)
    return read.change(METRIC, run, than, group=kind, coefficient=c)
