"""Perplexities of documents in every run of a concept, by groups of documents."""

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from actadd_lens import plots
from actadd_lens.analysis.logprobs import token_logprobs
from actadd_lens.analysis.perplexity import prompting_ratio
from actadd_lens.generation.completions import Completion
from actadd_lens.metrics import WordCount
from actadd_lens.reproduction.concepts import Concept
from actadd_lens.reproduction.measurements import (
    Measurements,
    as_measurements,
    format_interval,
    interval_in,
    rank,
)
from actadd_lens.reproduction.setup import BASELINES, OF_VECTOR, Setup
from actadd_lens.statistics import Interval
from actadd_lens.sweeps.configurations import CLEAN, STEERED

PAPERS_COEFFICIENT = 1.0
METRIC = "log_ratio"
"""Of perplexities, in nats per token."""


def relevance(texts: Iterable[str], words: Sequence[str]) -> dict[str, float]:
    """The share of each text's words that are in a list; each text once."""
    once = list(dict.fromkeys(texts))
    counts = WordCount(words)([Completion("", text, (), (), 0, 0) for text in once])
    return {text: n / len(text.split()) for text, n in zip(once, counts, strict=True)}


def perplexities(setup: Setup, concept: Concept, groups: Mapping[str, str]) -> Measurements:
    """Log ratios of perplexities of texts, in the runs of a concept and at coefficient 1.

    Args:
        setup: Whose model reads.
        concept: Whose vector is added.
        groups: The group of each text, for the column ``group``.
    """
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
    return as_measurements(pd.concat(frames, ignore_index=True))


def ratio(part: Measurements, run: str, group: str, c: float) -> Interval:
    """Geometric mean of the ratios of a group with its interval; NaN if the group has no text."""
    if group not in set(part.frame["group"]):
        return Interval(math.nan, math.nan, math.nan, 0)
    i = part.value(METRIC, run, group=group, coefficient=c)
    return Interval(math.exp(i.mean), math.exp(i.low), math.exp(i.high), i.n)


def _ratios(part: Measurements) -> pd.DataFrame:
    """The ratio of every group in every run, in order."""
    ends = ["mean", "low", "high"]
    logs = part.summary
    ratios = logs.assign(_rank=rank(logs["run"]), **{end: np.exp(logs[end]) for end in ends})
    return ratios.sort_values(["coefficient", "_rank"])


def tabulated(part: Measurements, groups: Sequence[str]) -> pd.DataFrame:
    """A line for each coefficient and run, a column for each group, as text with intervals."""
    lines: dict[tuple[str, str], dict[str, str]] = {}
    for row in _ratios(part).to_dict("records"):
        # Neither depends on the coefficient of the vector.
        c = "" if row["run"] in ("prompted", "mean difference") else f"{row['coefficient']:g}"
        line = lines.setdefault((c, row["run"]), dict.fromkeys(groups, ""))
        line[row["group"]] = format_interval(interval_in(row))
    return pd.DataFrame(
        [{"coefficient": c, "run": run, **line} for (c, run), line in lines.items()]
    )


def drawn(part: Measurements, groups: Sequence[str], x: str) -> Figure:
    """Ratios of groups, runs side by side, a panel for each coefficient."""
    ratios = _ratios(part)
    kinds = ratios.assign(
        _place=ratios["group"].map(list(groups).index),
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
