"""The next token's distribution after a prompt."""

import math
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
from actadd_lens.reproduction.criteria import Verdict, decide
from actadd_lens.reproduction.measurements import format_interval, rank
from actadd_lens.reproduction.outcome import Measured
from actadd_lens.reproduction.registry import experiment
from actadd_lens.reproduction.setup import Setup

GAIN, SHARE, SIZE = "topic_log_ratio", "topic_share_of_kl", "topic_share_of_sizes"
HEADS = {
    GAIN: "log ratio of topic tokens (nats)",
    SHARE: "their share of KL",
    SIZE: "their share of sizes",
    "kl": "KL (nats)",
}


@dataclass(frozen=True, kw_only=True)
class _Share(LogitMetric):
    """What a set of tokens contributes to KL(steered || clean), as a share of it; NaN if it is 0.

    A divergence below 1e-6 nats is rounding, and counts as 0.
    """

    ids: tuple[int, ...]
    signed: bool = True
    """Whether contributions have their signs; without them the share is between 0 and 1."""
    base = SHARE

    @override
    def values(
        self, clean: Float[Tensor, "row vocab"], steered: Float[Tensor, "row vocab"]
    ) -> Float[Tensor, "row"]:
        terms = kl_terms(steered.double(), clean.double())
        parts = terms if self.signed else terms.abs()
        share = parts[:, list(self.ids)].sum(dim=-1) / parts.sum(dim=-1)
        return torch.where(terms.sum(dim=-1) > 1e-6, share, torch.full_like(share, math.nan))


@experiment(
    "token-shift",
    question="""Is what the wedding vector does to the next token concentrated in the words of the
    topic?""",
    design="""Openings after which a noun of any topic may come are read under " weddings" - " ".
    The topic's tokens are those that its words begin with after an opening. Two values for each
    opening: how much likelier steering makes them together (log ratio of their total probability,
    in nats), and what share of KL(steered || clean) they contribute; the share is undefined where
    the divergence is 0, as in the clean run, and says little where it is next to nothing.
    Contributions of tokens that lose probability are negative, so a share may exceed 1; the share
    of all contributions' sizes, which may not, is given as well.""",
    criteria={
        "F1": """The topic's tokens become likelier: the interval of the mean log ratio of their
        total probability lies above 0, and above that of random vectors (the interval of the paired
        change lies above 0).""",
        "F2": """The shift is concentrated: topic tokens contribute more than half of the KL on the
        mean over prompts, with the interval's lower end above 0.5 (the paper: 0.78 in one token).
        """,
    },
    paper="""GPT-2-XL, " weddings" - " " at layer 16, coefficient 1, on one prompt, "I'm excited
    because I'm going to a": P(" wedding") rises 12.6-fold, and that one token is 0.78 of the KL.
    """,
    differs="""Many prompts, not one. All words of the topic count, by the token that they begin
    with, as a vocabulary may split them, at the concept's own layer and coefficient. The paper's
    share of KL counts contributions with their signs, so it exceeds 1 where others are negative,
    and a random vector, whose KL is next to nothing, may have a larger one: it says little by
    itself.""",
)
def token_shift(setup: Setup) -> Measured:
    """Read the openings in every run."""
    concept = setup.topic().for_reading
    given = setup.data.openings(setup.sizes.prompts)
    openings = setup.fitting(concept, given, after=0)
    # The topic's words, by the tokens that they begin with after an opening and a space.
    end = setup.length(openings[0])
    texts = [f"{openings[0]} {word}" for word in setup.data.words(concept.name)]
    ids = tuple(dict.fromkeys(encode(setup.model, text)[end] for text in texts))
    metrics = {
        GAIN: Effectiveness(ids, name=GAIN),
        SHARE: _Share(ids=ids),
        SIZE: _Share(ids=ids, name=SIZE, signed=False),
        "kl": KL(),
    }
    cells = setup.baselines(concept)
    part = setup.measure("openings", cells, openings, metrics, samples=0)
    divergences = part.rows("kl").sort_values("value", kind="stable")
    middle = divergences["prompt"].iloc[(len(divergences) - 1) // 2]
    [steering] = cells[1].run.steering
    shift = next_token_shift(setup.model, middle, steering)
    return Measured(
        {"openings": part},
        facts={
            "vector": setup.describe(concept)["vector"],
            "openings": f"{len(openings)} of {len(given)} long enough",
            "topic tokens": f"{len(ids)} of {len(shift)}",
            "figure": f"the opening of median KL, {middle!r}; the log ratio over all of them",
        },
        frames={"shift": shift},
    )


@token_shift.judge
def judge(m: Measured) -> list[Verdict]:
    """Compare the topic's tokens with those of random vectors, and with all tokens."""
    part = m.parts["openings"]
    gain, over = part.value(GAIN), part.change(GAIN, than="random")
    (share, random), (size, random_size) = (
        [part.value(metric, run) for run in ("steered", "random")] for metric in (SHARE, SIZE)
    )
    return [
        Verdict(
            "F1",
            decide(gain.low > 0 and over.low > 0, gain, over),
            f"{format_interval(gain, n=True)} nats; over random {format_interval(over)}",
        ),
        Verdict(
            "F2",
            decide(share.low > 0.5, share),
            f"{format_interval(share, n=True)}; random {format_interval(random)}; of sizes, at "
            f"most 1, {format_interval(size)} and {format_interval(random_size)}",
        ),
    ]


@token_shift.tabulate
def tabulate(m: Measured) -> pd.DataFrame:
    """A line for each run."""
    return m.parts["openings"].by_run().rename(columns=HEADS)


@token_shift.draw
def draw(m: Measured) -> Figure:
    """The shift after one prompt; below it the topic's log ratio by run, over all prompts."""
    figure = plots.token_shift(m.frames["shift"])
    width, height = figure.get_size_inches()
    figure.set_size_inches(width, height + 1.9)
    grid = figure.add_gridspec(2, 2, width_ratios=(3, 2), height_ratios=(height - 1, 1.2))
    for place, ax in enumerate(figure.axes):
        ax.set_subplotspec(grid[0, place])
    gains = m.summary[(m.summary["metric"] == GAIN) & (m.summary["run"] != "clean")]
    gains = gains.sort_values("run", key=rank)
    with drawing():
        below = figure.add_subplot(grid[1, :])
    steered = gains["run"] == "steered"
    for own, colour in ((gains[steered], COLOURS[0]), (gains[~steered], CONTROL_COLOUR)):
        at = own["run"].map(list(gains["run"]).index)
        interval(below, at, own["low"], own["high"], across=True, color=colour, linewidth=1.2)
        below.plot(own["mean"], at, linestyle="", marker="o", color=colour)
    below.axvline(0, color=CLEAN_COLOUR, linewidth=1.0)
    below.set_yticks(range(len(gains)), list(gains["run"]))
    below.set_ylim(len(gains) - 0.5, -0.5)
    below.set_xlabel(
        f"log ratio of the topic tokens' probability to the clean run's (nats),\n"
        f"mean over {m.parts['openings'].frame['prompt'].nunique()} prompts with 95 % intervals"
    )
    below.grid(True, axis="x")
    below.grid(False, axis="y")
    return figure
