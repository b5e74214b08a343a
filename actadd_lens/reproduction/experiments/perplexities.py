"""Perplexities of documents: by how much they are about a topic, and steered against prompted."""

import math
from collections.abc import Mapping
from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from actadd_lens import plots
from actadd_lens.analysis.logprobs import token_logprobs
from actadd_lens.analysis.perplexity import prompting_ratio
from actadd_lens.generation.completions import Completion
from actadd_lens.metrics import WordCount
from actadd_lens.reproduction.concepts import Concept
from actadd_lens.reproduction.criteria import Verdict, decide
from actadd_lens.reproduction.measurements import (
    Change,
    Measurements,
    as_measurements,
    format_interval,
    interval_in,
    mean_change,
    rank,
)
from actadd_lens.reproduction.outcome import Measured
from actadd_lens.reproduction.registry import experiment
from actadd_lens.reproduction.setup import BASELINES, OF_VECTOR, Setup
from actadd_lens.statistics import Interval
from actadd_lens.sweeps.configurations import CLEAN, STEERED

PAPERS_COEFFICIENT = 1.0
METRIC = "log_ratio"
"""Of perplexities, in nats per token."""
NO_WORDS = "none"
ON, OFF = "on the topic", "off the topic"


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
    n, shares = _shares(setup, concept)
    bins = binned(shares)
    return _measured(
        setup,
        concept,
        bins,
        f"{len(bins)} different ones, long enough, of {n}; by share of topic words: "
        f"{_counts(bins, *dict.fromkeys(bins.values()))}",
    )


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
    n, shares = _shares(setup, concept)
    half = shares[shares > 0].median()
    kinds = dict.fromkeys(shares.index[shares >= half], ON)
    kinds |= dict.fromkeys(shares.index[shares == 0], OFF)
    return _measured(
        setup,
        concept,
        kinds,
        f"of {n}, {len(shares)} are different and long enough; {_counts(kinds, ON, OFF)}"
        + (f", from {100 * half:.2g} % of topic words" if half == half else ""),
    )


def _shares(setup: Setup, concept: Concept) -> "tuple[int, pd.Series[float]]":
    """How many documents there are, and the share of topic words in each that is long enough."""
    given = setup.data.documents(setup.sizes.documents)
    texts = list(dict.fromkeys(setup.fitting(concept, given)))
    count = WordCount(setup.data.words(concept.name))
    counts = count([Completion("", text, (), (), 0, 0) for text in texts])
    shares = [n / len(text.split()) for text, n in zip(texts, counts, strict=True)]
    return len(given), pd.Series(shares, texts, dtype=float)


def binned(shares: "pd.Series[float]", n: int = 3) -> dict[str, str]:
    """The bin of each text: no words, then up to ``n`` bins of equal counts by share, in order."""
    on = shares[shares > 0]
    edges = np.quantile(on, np.arange(1, n) / n) if len(on) else np.empty(0)
    bins = dict.fromkeys(shares.index[shares == 0], NO_WORDS)
    for _, own in on.groupby(np.searchsorted(edges, on)):  # texts of one share stay together
        ends = dict.fromkeys(f"{100 * x:.3g}" for x in (own.min(), own.max()))
        bins |= dict.fromkeys(own.index, f"{' to '.join(ends)} %")
    return bins


def _counts(groups: Mapping[str, str], *names: str) -> str:
    return ", ".join(f"{list(groups.values()).count(name)} {name}" for name in names)


def _measured(
    setup: Setup, concept: Concept, groups: Mapping[str, str], documents: str
) -> Measured:
    """Log ratios of perplexities of texts in groups, in a concept's runs and at coefficient 1."""
    layer, own = setup.setting(concept)
    vector = setup.vector(concept.pair, layer)
    cells = [c for c in setup.baselines(concept) if c.labels["run"] != CLEAN]
    if own != PAPERS_COEFFICIENT:
        cells += setup.conditions(concept, vector, PAPERS_COEFFICIENT, OF_VECTOR)
    texts, frames, shown = list(groups), [], setup.progress
    known = prompting_ratio(setup.model, texts, own * vector, concept.pair.positive, progress=shown)
    for cell in cells:
        if cell.run.prefix:
            logprob = known["logprob_prompted"]
        else:
            found = token_logprobs(setup.model, texts, cell.run.steering, progress=shown)
            # The last ones, which are after the rows of the vector.
            tails = zip(found, known["n_tokens"], strict=True)
            logprob = pd.Series([float(row[-n:].mean()) for row, n in tails])
        labels = {**cell.labels, "group": list(groups.values()), "prompt": texts}
        if cell.labels["run"] == BASELINES[-1]:
            labels["coefficient"] = own  # it is compared with the concept's own
        value = known["logprob_clean"] - logprob
        frames.append(pd.DataFrame({**labels, "metric": METRIC, "value": value}))
    return Measured(
        {"documents": as_measurements(pd.concat(frames, ignore_index=True))},
        notes={"coefficient": own},
        facts={**setup.describe(concept), "documents": documents},
    )


def _groups(part: Measurements) -> list[str]:
    return list(part.frame["group"].unique())


def _ratio(part: Measurements, run: str, group: str, c: float) -> Interval:
    """Geometric mean of the ratios of a group with its interval; NaN if the group has no text."""
    if group not in _groups(part):
        return Interval(math.nan, math.nan, math.nan, 0)
    i = part.value(METRIC, run, group=group, coefficient=c)
    return Interval(math.exp(i.mean), math.exp(i.low), math.exp(i.high), i.n)


@perplexity_by_relevance.judge
def judge_relevance(m: Measured) -> list[Verdict]:
    """Compare the most relevant bin with random vectors and with unrelated text."""
    part, own = m.parts["documents"], m.notes["coefficient"]
    last = _groups(part)[-1]
    most = last if last != NO_WORDS else "any"
    top, top_random = (_ratio(part, run, most, own) for run in ("steered", "random"))
    rest, rest_at_1 = (_ratio(part, "steered", NO_WORDS, c) for c in (own, PAPERS_COEFFICIENT))
    at_1 = _ratio(part, "steered", most, PAPERS_COEFFICIENT)
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


@prompting_comparison.judge
def judge_prompting(m: Measured) -> list[Verdict]:
    """Compare steering with the clean run and with prompting, on the topic and off it."""
    part, own = m.parts["documents"], m.notes["coefficient"]
    on, off = (_ratio(part, "steered", kind, own) for kind in (ON, OFF))
    on_at_1, off_at_1 = (_ratio(part, "steered", kind, PAPERS_COEFFICIENT) for kind in (ON, OFF))
    prompted_on, prompted_off = (_ratio(part, "prompted", kind, own) for kind in (ON, OFF))
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
    if kind not in _groups(part):  # no document of the kind
        return mean_change(pd.Series(dtype=float), 0)
    return part.change(METRIC, run, than, group=kind, coefficient=c)


def _ratios(part: Measurements) -> pd.DataFrame:
    """The ratio of every group in every run, in order."""
    ends = ["mean", "low", "high"]
    logs = part.summary
    ratios = logs.assign(_rank=rank(logs["run"]), **{end: np.exp(logs[end]) for end in ends})
    return ratios.sort_values(["coefficient", "_rank"])


@perplexity_by_relevance.tabulate
@prompting_comparison.tabulate
def tabulate(m: Measured) -> pd.DataFrame:
    """A line for each coefficient and run, a column for each group, as text with intervals."""
    part, lines = m.parts["documents"], dict[tuple[str, str], dict[str, str]]()
    for row in _ratios(part).to_dict("records"):
        # Neither depends on the coefficient of the vector.
        c = "" if row["run"] in ("prompted", "mean difference") else f"{row['coefficient']:g}"
        line = {"coefficient": c, "run": row["run"], **dict.fromkeys(_groups(part), "")}
        line = lines.setdefault((c, row["run"]), line)
        line[row["group"]] = format_interval(interval_in(row))
    return pd.DataFrame(list(lines.values()))


def _draw(m: Measured, x: str) -> Figure:
    """Ratios of groups, runs side by side, a panel for each coefficient."""
    ratios, groups = _ratios(m.parts["documents"]), _groups(m.parts["documents"])
    kinds = ratios.assign(
        _place=ratios["group"].map(groups.index),
        condition=ratios["run"],
        run=STEERED,
        vector=ratios["coefficient"].map(lambda c: f"coefficient {c:g}"),
        **{x: ratios["group"]},
    ).sort_values(["coefficient", "_place", "_rank"])
    clean = pd.DataFrame([{"run": CLEAN, "mean": 1.0}])
    sizes = ratios[ratios["run"] == STEERED].groupby("group")["n"].max()
    counts = ", ".join(f"{sizes[group]} ({group})" for group in groups)
    return plots.bars(
        pd.concat([kinds.drop(columns=["layer", "position"]), clean], ignore_index=True),
        x=x,
        group="condition",
        ylabel="perplexity over that of the clean run",
        note=f"95 % intervals; n = {counts} documents; prompting and the mean difference, which do "
        "not have the vector's coefficient, are shown at the concept's own",
    )


perplexity_by_relevance.draw(partial(_draw, x="words on the topic"))
prompting_comparison.draw(partial(_draw, x="documents"))
