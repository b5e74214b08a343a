"""Perplexities of documents in every run of a concept, by groups of documents."""

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from actadd_lens import plots
from actadd_lens.analysis.logprobs import token_logprobs
from actadd_lens.analysis.perplexity import prompting_ratio
from actadd_lens.errors import PromptError
from actadd_lens.generation.completions import Completion
from actadd_lens.metrics import WordCount
from actadd_lens.models import bridge
from actadd_lens.models.tokens import encode
from actadd_lens.reproduction.concepts import Concept
from actadd_lens.reproduction.readings import ORDER, Readings, as_readings, text_of
from actadd_lens.reproduction.setup import BASELINES, Setup
from actadd_lens.reproduction.work import Ask
from actadd_lens.statistics import Interval
from actadd_lens.sweeps.configurations import CLEAN, STEERED

PAPERS_COEFFICIENT = 1.0
METRIC = "log_ratio"
"""Of perplexities, in nats per token."""


def relevance(texts: Iterable[str], words: Sequence[str]) -> dict[str, float]:
    """Share of each text's words that are among some; each text once."""
    once = list(dict.fromkeys(texts))
    counts = WordCount(words)([Completion("", text, (), (), 0, 0) for text in once])
    return {text: n / len(text.split()) for text, n in zip(once, counts, strict=True)}


def fitting(setup: Setup, concept: Concept, texts: Sequence[str], behind: int = 1) -> list[str]:
    """Texts that have ``behind`` predictions past the vector's rows, and room for the prompt.

    Raises:
        PromptError: None has.
    """
    rows = concept.pair.tokens(setup.model).shape[1]
    most = bridge.n_ctx(setup.model) - len(encode(setup.model, concept.pair.positive))
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
    cells = [c for c in setup.baselines(concept) if c.labels["run"] != CLEAN]
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
            each = token_logprobs(setup.model, texts, cell.run.steering, progress=shown)
            # The last of them, which are behind the rows of the vector.
            tails = zip(each, known["n_tokens"], strict=True)
            read = pd.Series([float(row[-n:].mean()) for row, n in tails])
        labels = {**cell.labels, "group": list(groups.values()), "prompt": texts}
        if cell.labels["run"] == BASELINES[-1]:
            labels["coefficient"] = own  # it stands beside the concept's own
        value = known["logprob_clean"] - read
        frames.append(pd.DataFrame({**labels, "metric": METRIC, "value": value}))
    tokens = sum(len(encode(setup.model, text)) for text in texts) / len(texts)
    setup.asked.append(
        Ask("documents", len(cells) + 2, len(texts), tokens, "documents", all_logits=True)
    )
    return as_readings(pd.concat(frames, ignore_index=True))


def ratio(read: Readings, run: str, group: str, c: float) -> Interval:
    """Geometric mean of the ratios of a group with its interval; NaN where it has no text."""
    if group not in set(read.result.frame["group"]):
        return Interval(math.nan, math.nan, math.nan, 0)
    i = read.value(METRIC, run, group=group, coefficient=c)
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


def drawn(summary: pd.DataFrame, groups: Sequence[str], x: str) -> Figure:
    """Ratios of groups, runs side by side, a panel for each coefficient."""
    rank, place = summary["run"].map(ORDER.index), summary["group"].map(list(groups).index)
    panels = summary["coefficient"].map(lambda c: f"coefficient {c:g}")
    cells = summary.assign(rank=rank, place=place, run=STEERED, pair=panels)
    cells = cells.assign(**{x: cells["group"]}).sort_values(["coefficient", "place", "rank"])
    clean = pd.DataFrame([{"run": CLEAN, "mean": 1.0}])
    each = summary[summary["run"] == "steered"].groupby("group")["n"].max()
    counts = ", ".join(f"{each[group]} ({group})" for group in groups)
    return plots.bars(
        pd.concat([cells.drop(columns=["layer", "position"]), clean], ignore_index=True),
        x=x,
        group="run",
        ylabel="perplexity over that of the clean run",
        note=f"95 % intervals; n = {counts} documents; prompting and the mean difference, which do "
        "not have the vector's coefficient, stand beside the concept's own",
    )
