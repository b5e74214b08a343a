"""Does the wedding vector make text on weddings likelier, the more the more it is about them?

Documents are read under " weddings" - " " and binned by the share of their words that belong to the
topic: those without any, the others in bins of equal counts. A document's ratio is its perplexity
in a run over that in the unsteered one, whose ratio is 1 by definition; a bin's is the geometric
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
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from actadd_lens import forward, plots
from actadd_lens.errors import PromptError
from actadd_lens.generation import Completion
from actadd_lens.harness.concepts import Concept
from actadd_lens.harness.criteria import Verdict
from actadd_lens.harness.outcome import Outcome
from actadd_lens.harness.readings import ORDER, Readings, text_of
from actadd_lens.harness.setup import Setup
from actadd_lens.harness.work import Ask
from actadd_lens.likelihood import token_logprobs
from actadd_lens.metrics import WordCount
from actadd_lens.perplexity import prompting_ratio
from actadd_lens.prompts import encode
from actadd_lens.statistics import Interval
from actadd_lens.sweeps import Result
from actadd_lens.sweeps.cells import STEERED, UNSTEERED
from actadd_lens.sweeps.tables import typed

PAPER = (
    "GPT-2-XL, layer 16, coefficient 1, on OpenWebText binned by the frequency of wedding words "
    "(figure 2): the perplexity ratio falls with relevance, to about -4 %; unrelated text is about "
    "unchanged."
)
DIFFERS = (
    "Bins hold equal counts of documents. The concept's own coefficient stands beside the paper's."
)
PAPERS_COEFFICIENT = 1.0
NO_WORDS = "none"
METRIC = "log_ratio"
"""Of perplexities, in nats per token."""


def run(setup: Setup) -> Outcome:
    """Read the documents in every run."""
    concept = setup.concept(setup.material.topics[0])
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


def relevance(texts: Iterable[str], words: Sequence[str]) -> dict[str, float]:
    """Share of each text's words that are among some; each text once."""
    once = list(dict.fromkeys(texts))
    counts = WordCount(words)([Completion("", text, (), (), 0, 0) for text in once])
    return {text: n / len(text.split()) for text, n in zip(once, counts, strict=True)}


def binned(shares: Mapping[str, float], n: int = 3) -> dict[str, str]:
    """The bin of each text: no words, then up to ``n`` bins of like counts by share, in order."""
    values = pd.Series(shares, dtype=float)
    on = values[values > 0]
    edges = np.quantile(on, np.arange(1, n) / n) if len(on) else np.empty(0)
    bins = dict.fromkeys(values.index[values == 0], NO_WORDS)
    for _, own in on.groupby(np.searchsorted(edges, on)):  # texts of one share stay together
        ends = dict.fromkeys(f"{100 * x:.2g}" for x in (own.min(), own.max()))
        bins |= dict.fromkeys(own.index, f"{' to '.join(ends)} %")
    return bins


def fitting(setup: Setup, concept: Concept, texts: Sequence[str], behind: int = 1) -> list[str]:
    """Texts that have ``behind`` predictions past the vector's rows, and room for the prompt.

    Raises:
        PromptError: None has.
    """
    rows = concept.pair.tokens(setup.model).shape[1]
    most = forward.n_ctx(setup.model) - len(encode(setup.model, concept.pair.positive))
    lengths = [len(encode(setup.model, text)) for text in texts]
    found = [t for t, n in zip(texts, lengths, strict=True) if rows + behind < n <= most]
    if not found:
        raise PromptError(
            f"none of {len(texts)} texts for {concept.name} has {rows + behind + 1} to {most} "
            "tokens (BOS included), what the vector and the context ask for: give others"
        )
    return found


def perplexities(setup: Setup, concept: Concept, groups: Mapping[str, str]) -> Readings:
    """Log ratios of perplexities of texts, in the runs of a concept and at coefficient 1.

    Args:
        setup: Whose model reads.
        concept: Whose vector is added.
        groups: A group for each text, kept in a column ``group``.
    """
    layer, own = setup.cell(concept)
    vector = setup.vector(concept.pair, layer)
    cells = [c for c in setup.baselines(concept) if c.labels["control"] != UNSTEERED]
    if own != PAPERS_COEFFICIENT:
        draws = ("random", "random:1", "random:2", "negated")
        cells += setup.arms(concept, vector, PAPERS_COEFFICIENT, draws)
    texts, frames = list(groups), []
    prompt, shown = concept.pair.positive, setup.progress
    known = prompting_ratio(setup.model, texts, own * vector, prompt, progress=shown)
    for cell in cells:
        if cell.run.prefix:
            read = known["logprob_prompted"]
        else:
            each = token_logprobs(setup.model, texts, cell.run.vectors, progress=shown)
            # The last of them, which are behind the rows of the vector.
            tails = zip(each, known["n_tokens"], strict=True)
            read = pd.Series([float(row[-n:].mean()) for row, n in tails])
        labels = {**cell.labels, "group": list(groups.values()), "prompt": texts}
        value = known["logprob_clean"] - read
        frames.append(pd.DataFrame({**labels, "metric": METRIC, "value": value}))
    tokens = sum(len(encode(setup.model, text)) for text in texts) / len(texts)
    setup.asked.append(Ask(len(cells) + 2, len(texts), tokens, "documents", all_logits=True))
    return as_readings(pd.concat(frames, ignore_index=True))


def as_readings(rows: pd.DataFrame, shares: Sequence[str] = ()) -> Readings:
    """Values that were read otherwise than by ``Setup.measured``, as if by it.

    Args:
        rows: Labels of cells, then ``prompt``, ``metric`` and ``value``.
        shares: Metrics whose values are zeros and ones.
    """
    frame = rows.astype({"coefficient": "Float64"}).assign(
        sample=math.nan,
        prompt_index=rows.groupby("prompt", sort=False).ngroup(),
        dose=math.nan,
        kl=math.nan,
        text=None,
    )
    metrics = [[name, name, name in shares] for name in dict.fromkeys(rows["metric"])]
    return Readings(Result(typed(frame), {"metrics": metrics}))


def ratio(read: Readings, run: str, group: str, c: float) -> Interval:
    """Geometric mean of the ratios of a group with its interval; NaN where it has no text."""
    try:
        i = read.value(METRIC, run, group=group, coefficient=c)
    except KeyError:
        return Interval(math.nan, math.nan, math.nan, 0)
    return Interval(math.exp(i.mean), math.exp(i.low), math.exp(i.high), i.n)


def summarised(read: Readings) -> pd.DataFrame:
    """Every group's ratio in every run."""
    logs = read.summary()
    ends = ["mean", "low", "high"]
    return logs.assign(metric="perplexity_ratio", **{end: np.exp(logs[end]) for end in ends})


def table(summary: pd.DataFrame, groups: Sequence[str]) -> pd.DataFrame:
    """A line for each coefficient and run, a column for each group, as text with intervals."""
    lines: dict[tuple[str, str], dict[str, str]] = {}
    rank = summary["run"].map(ORDER.index)
    for row in summary.assign(rank=rank).sort_values(["coefficient", "rank"]).to_dict("records"):
        # Neither depends on the coefficient of the vector.
        c = "" if row["run"] in ("prompted", "mean difference") else f"{row['coefficient']:g}"
        shown = text_of(Interval(row["mean"], row["low"], row["high"], row["n"]))
        lines.setdefault((c, row["run"]), {})[row["group"]] = shown
    return pd.DataFrame(
        [
            {"coefficient": c, "run": run, **{g: shown.get(g, "") for g in groups}}
            for (c, run), shown in lines.items()
        ]
    )


def told(claim: bool, *intervals: Interval) -> bool | None:
    """A claim, or None where one of the intervals it rests on is not to be had."""
    ends = [x for i in intervals for x in (i.mean, i.low, i.high)]
    return claim if all(map(math.isfinite, ends)) else None


def drawn(summary: pd.DataFrame, groups: Sequence[str], x: str) -> Figure:
    """Ratios of groups, runs side by side, a panel for each coefficient."""
    rank, place = summary["run"].map(ORDER.index), summary["group"].map(list(groups).index)
    panels = summary["coefficient"].map(lambda c: f"coefficient {c:g}")
    cells = summary.assign(rank=rank, place=place, control=STEERED, pair=panels)
    cells = cells.assign(**{x: cells["group"]}).sort_values(["coefficient", "place", "rank"])
    clean = pd.DataFrame([{"control": UNSTEERED, "mean": 1.0}])
    each = summary[summary["run"] == "steered"].groupby("group")["n"].max()
    counts = ", ".join(f"{each[group]} ({group})" for group in groups)
    return plots.bars(
        pd.concat([cells.drop(columns=["layer", "position"]), clean], ignore_index=True),
        x=x,
        group="run",
        ylabel="perplexity over that of the unsteered run",
        note=f"95 % intervals; n = {counts} documents",
    )
