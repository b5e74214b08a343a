"""Is what the wedding vector does to the next token concentrated in the words of the topic?

Openings after which a noun of any topic may come are read under " weddings" - " ". The topic's
tokens are those that its words begin with behind an opening. Two figures of each opening: how much
likelier steering makes them together (log ratio of their total probability, in nats), and what
share of KL(steered || clean) they contribute; the share is undefined where the divergence is 0, as
in the clean run, and says little where it is next to nothing. Contributions of tokens that lose
probability are negative, so a share may exceed 1; the share of all contributions' sizes, which may
not, stands beside it.

Criteria, fixed before the run:

F1. The topic's tokens become likelier: the interval of the mean log ratio of their total
    probability lies above 0, and above that of random vectors (the interval of the paired change
    lies above 0).
F2. The shift is concentrated: topic tokens contribute more than half of the KL on the mean over
    prompts, with the interval's lower end above 0.5 (the paper: 0.78 in one token).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
import torch
from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor
from typing_extensions import override

from actadd_lens import plots
from actadd_lens.analysis.logprobs import kl_terms, next_token_shift
from actadd_lens.metrics.logits import KL, Effectiveness, LogitMetric
from actadd_lens.models.tokens import encode
from actadd_lens.plots.style import CLEAN_COLOUR, COLOURS, CONTROL_COLOUR, drawing, interval
from actadd_lens.reproduction.criteria import Verdict, told
from actadd_lens.reproduction.outcome import Outcome
from actadd_lens.reproduction.perplexities import fitting
from actadd_lens.reproduction.readings import ORDER, text_of
from actadd_lens.reproduction.setup import Setup
from actadd_lens.reproduction.work import Ask

PAPER = (
    'GPT-2-XL, " weddings" - " " at layer 16, coefficient 1, on one prompt, "I\'m excited because '
    'I\'m going to a": P(" wedding") rises 12.6-fold, and that one token is 0.78 of the KL.'
)
DIFFERS = (
    "Many prompts, not one. All words of the topic count, by the token that they begin with, as a "
    "vocabulary may split them, at the concept's own layer and coefficient. "
    "The paper's share of KL counts contributions with their signs, so it exceeds 1 where others "
    "are negative, and a random vector, whose KL is next to nothing, may have a larger one: it "
    "tells little by itself."
)
GAIN, SHARE, SIZE = "topic_log_ratio", "topic_share_of_kl", "topic_share_of_sizes"


@dataclass(frozen=True, kw_only=True)
class _Gain(LogitMetric):
    """How much likelier a set of tokens becomes together, in nats."""

    ids: tuple[int, ...]
    base = GAIN

    @override
    def values(
        self, clean: Float[Tensor, "row vocab"], steered: Float[Tensor, "row vocab"]
    ) -> Float[Tensor, "row"]:
        return Effectiveness(self.ids).values(clean, steered)


@dataclass(frozen=True, kw_only=True)
class _Share(LogitMetric):
    """What a set of tokens contributes to KL(steered || clean), as a share of it; NaN if it is 0.

    A divergence below 1e-6 nats is rounding, and counts as 0.
    """

    ids: tuple[int, ...]
    base = SHARE

    @override
    def values(
        self, clean: Float[Tensor, "row vocab"], steered: Float[Tensor, "row vocab"]
    ) -> Float[Tensor, "row"]:
        terms = kl_terms(steered.double(), clean.double())
        parts = self._parts(terms)
        share = parts[:, list(self.ids)].sum(dim=-1) / parts.sum(dim=-1)
        return torch.where(terms.sum(dim=-1) > 1e-6, share, torch.full_like(share, math.nan))

    def _parts(self, terms: Float[Tensor, "row vocab"]) -> Float[Tensor, "row vocab"]:
        return terms


@dataclass(frozen=True, kw_only=True)
class _ShareOfSizes(_Share):
    """The same of the contributions without their signs: between 0 and 1."""

    base = SIZE

    @override
    def _parts(self, terms: Float[Tensor, "row vocab"]) -> Float[Tensor, "row vocab"]:
        return terms.abs()


def run(setup: Setup) -> Outcome:
    """Read the openings in every run."""
    concept = setup.concept(setup.material.topics[0]).as_read
    given = setup.material.openings(setup.sizes.prompts)
    openings = fitting(setup, concept, given, behind=0)
    ids = _beginnings(setup, openings[0], setup.material.words(concept.name))
    cells = setup.baselines(concept)
    metrics = [_Gain(ids=ids), _Share(ids=ids), _ShareOfSizes(ids=ids), KL()]
    read = setup.readings("openings", cells, openings, metrics, samples=0)
    gain, over = read.value(GAIN), read.change(GAIN, than="random")
    share, random = read.value(SHARE), read.value(SHARE, "random")
    divergences = read.rows("kl").sort_values("value", kind="stable")
    middle = divergences["prompt"].iloc[(len(divergences) - 1) // 2]
    [steering] = cells[1].run.steering
    shift = next_token_shift(setup.model, middle, steering)
    setup.asked.append(Ask("shift", 2, 1, len(encode(setup.model, middle)), "prompts"))
    names = {
        GAIN: "log ratio of topic tokens (nats)",
        SHARE: "their share of KL",
        SIZE: "their share of sizes",
        "kl": "KL (nats)",
    }
    summary = read.summary()
    return Outcome(
        rows=read.frame,
        summary=summary,
        shown=read.by_run().rename(columns=names),
        figure=_figure(shift, summary[summary["metric"] == GAIN], len(openings)),
        verdicts=[
            Verdict(
                "F1",
                told(gain.low > 0 and over.low > 0, gain, over),
                f"{text_of(gain, n=True)} nats; over random {text_of(over)}",
            ),
            Verdict(
                "F2",
                told(share.low > 0.5, share),
                f"{text_of(share, n=True)}; random {text_of(random)}; of sizes, at "
                f"most 1, {text_of(read.value(SIZE))} and {text_of(read.value(SIZE, 'random'))}",
            ),
        ],
        facts={
            "vector": setup.said(concept)["vector"],
            "openings": f"{len(openings)} of {len(given)} long enough",
            "topic tokens": f"{len(ids)} of {len(shift)}",
            "figure": f"the opening of median KL, {middle!r}; the log ratio over all of them",
        },
    )


def _beginnings(setup: Setup, opening: str, words: Sequence[str]) -> tuple[int, ...]:
    """First tokens of words where they stand, behind an opening and a space."""
    end = len(encode(setup.model, opening))
    whole = (encode(setup.model, f"{opening} {word}") for word in words)
    return tuple(dict.fromkeys(ids[end] for ids in whole))


def _figure(shift: pd.DataFrame, gains: pd.DataFrame, n: int) -> Figure:
    """The shift after one prompt; below it the topic's log ratio by run, over all prompts."""
    figure = plots.token_shift(shift)
    width, height = figure.get_size_inches()
    figure.set_size_inches(width, height + 1.9)
    grid = figure.add_gridspec(2, 2, width_ratios=(3, 2), height_ratios=(height - 1, 1.2))
    for place, ax in enumerate(figure.axes):
        ax.set_subplotspec(grid[0, place])
    shown = gains[gains["run"] != "clean"]
    shown = shown.sort_values("run", key=lambda runs: runs.map(ORDER.index))
    with drawing():
        below = figure.add_subplot(grid[1, :])
    steered = shown["run"] == "steered"
    for own, colour in ((shown[steered], COLOURS[0]), (shown[~steered], CONTROL_COLOUR)):
        at = own["run"].map(list(shown["run"]).index)
        interval(below, at, own["low"], own["high"], across=True, color=colour, linewidth=1.2)
        below.plot(own["mean"], at, linestyle="", marker="o", color=colour)
    below.axvline(0, color=CLEAN_COLOUR, linewidth=1.0)
    below.set_yticks(range(len(shown)), list(shown["run"]))
    below.set_ylim(len(shown) - 0.5, -0.5)
    below.set_xlabel(
        f"log ratio of the topic tokens' probability to the clean run's (nats),\n"
        f"mean over {n} prompts with 95 % intervals"
    )
    below.grid(True, axis="x")
    below.grid(False, axis="y")
    return figure
