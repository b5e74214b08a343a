"""Do two vectors work together, each as it does alone?

The vectors of sentiment and of the first topic, each at its own layer and with its own coefficient,
are added in one run on prompts of negative sentiment. At one layer and position two vectors simply
add up in the stream; what follows may still not be the sum of what each does alone. Beside the two
stand a pair of random vectors of the same norms, both vectors negated, both positive prompts as
text, and both mean differences; and both vectors side by side, the second behind the first's last
row instead of on the same tokens.

After each prompt the change of the next token's log-probabilities, centred over the vocabulary, is
compared with the sum of the two changes that either makes alone: by their cosine, and by the share
of variance that the sum explains, 1 - |both - sum|^2 / |both|^2.

Criteria, fixed before the run:

Q1. Do both effects survive together? Yes if the mean of each success with both vectors is at least
    80 % of its mean with its vector alone. Not testable if a vector alone has no success.
Q2. Is the shift of the next token's log-probabilities the sum? Yes if the interval of the mean
    cosine over prompts lies above 0.9.
Q3. Does the text stay sound? Yes if with both vectors the share of coherent completions falls by
    no more than 5 points on the mean against the clean run. Not testable if the interval
    reaches 10 points below the mean, or less than a tenth is coherent in the clean run.
Q4. Do both effects survive side by side? Yes if the mean of each success with both vectors side by
    side is at least 80 % of its mean with its vector alone at the front. Not testable if a vector
    alone has no success.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor

from actadd_lens import plots
from actadd_lens.analysis.logprobs import next_token_logprobs
from actadd_lens.generation.completions import Completion
from actadd_lens.models.tokens import tokenize
from actadd_lens.reproduction.concepts import Concept
from actadd_lens.reproduction.criteria import Verdict, at_least, kept, told
from actadd_lens.reproduction.outcome import Outcome
from actadd_lens.reproduction.readings import Readings, each, text_of
from actadd_lens.reproduction.setup import BASELINES, Setup
from actadd_lens.reproduction.work import Ask
from actadd_lens.statistics import Interval
from actadd_lens.sweeps import Result
from actadd_lens.sweeps.configurations import KEYS, STEERED, Configuration, Run, clean_configuration
from actadd_lens.sweeps.controls import Steered, make_control

PAPER = "It reports no run with two vectors; its reviewers asked for one."
DIFFERS = "The paper has no such experiment."
BOTH = "both"
ADDITIVE = ("cosine", "explained")
COLUMNS = {"cosine": "cosine with the sum", "explained": "explained by the sum"}
APART = "side by side"
NAMES = {
    "steered": "both",
    "mean difference": "mean differences",
    "prompted": "both prompts",
    "random": "random pair",
}
Ways = dict[str, tuple[Run, Run, Run]]
"""By control: the first alone, the second alone, and both."""


def run(setup: Setup) -> Outcome:
    """Generate with both, either and none; compare shifts with their sum."""
    concepts = [setup.concept(name) for name in ("sentiment", setup.material.topics[0])]
    first, second = concepts
    sound = setup.material.coherence
    ways = _ways(setup, concepts)
    rows = sum(len(vector.rows) for vector in ways[APART][-1].steering) - 1
    # Prompts have to be long enough for the pairs of both, and for both side by side.
    joint = replace(setup.material.concept(first.name), others=(*first.others, *second.pairs))
    fitted = joint.fitted(setup.model, setup.sizes.prompts).test
    lengths = map(len, tokenize(setup.model, fitted))
    prompts = [p for p, length in zip(fitted, lengths, strict=True) if length >= rows]
    read = setup.readings(
        BOTH,
        [clean_configuration(), *_cells(ways, concepts)],
        prompts,
        [first.success, second.success, sound],
    )
    read = _with_additivity(setup, read, ways, prompts)
    metric = {c.name: c.success.name for c in concepts}
    alone = {name: read.value(m, pair=name) for name, m in metric.items()}
    together = {name: read.value(m, pair=BOTH) for name, m in metric.items()}
    apart = {name: read.value(m, APART, pair=BOTH) for name, m in metric.items()}
    cosine, explained = (read.value(name, pair=BOTH) for name in ADDITIVE)
    coherence = read.change(sound.name, pair=BOTH)
    summary = read.summary()
    names = {m: f"{name}: success" for name, m in metric.items()} | {sound.name: "coherence"}
    about = second.success([Completion("", text, (), (), 0, 0) for text in prompts])
    return Outcome(
        rows=read.frame,
        summary=summary,
        shown=_named(read.by_run()).fillna("").rename(columns={**names, **COLUMNS}),
        figure=_figure(_named(summary), names),
        verdicts=[
            _survive("Q1", alone, together),
            Verdict(
                "Q2",
                told(cosine.low > 0.9, cosine),
                f"cosine {text_of(cosine)}, explained {text_of(explained)}; of the random pair "
                f"{text_of(read.value(ADDITIVE[0], 'random', pair=BOTH))}",
            ),
            Verdict(
                "Q3",
                kept(coherence, read.value(sound.name, "clean")),
                text_of(coherence, share=True),
            ),
            _survive("Q4", alone, apart),
        ],
        facts={
            **{c.name: setup.said(c)["vector"] for c in concepts},
            "prompts": f"{len(prompts)}, the test prompts for {first.wanted}; "
            f"{sum(value == 1 for value in about)} of them are on {second.name} themselves",
        },
    )


def _survive(key: str, alone: Mapping[str, Interval], both: Mapping[str, Interval]) -> Verdict:
    """Whether each success with both vectors is at least 80 % of that with its own alone."""
    return Verdict(
        key,
        all(at_least(both[name].mean, 0.8 * i.mean) for name, i in alone.items())
        if all(i.mean > 0 for i in alone.values())
        else None,
        f"alone {each(alone, share=True)}; both {each(both, share=True)}",
    )


def _ways(setup: Setup, concepts: Sequence[Concept]) -> Ways:
    """Both vectors and what stands beside them, each alone and together."""
    vectors, means = [], []
    for concept in concepts:
        layer, c = setup.cell(concept)
        vectors.append(c * setup.vector(concept.pair, layer))
        mean, found = setup.mean_difference(concept)
        means.append(found * mean)
    made = {STEERED: vectors}
    for name in BASELINES[:-2]:
        # Seeds of their own: vectors of one shape would get the same random directions.
        seeds = (setup.seed, setup.seed + len(BASELINES))
        drawn = zip(vectors, seeds, strict=True)
        made[name] = [make_control(name, Steered(vector, seed)) for vector, seed in drawn]
    made[BASELINES[-1]] = means
    # Row 0 of a vector is that of BOS, so it may land on the other's last row.
    made[APART] = [vectors[0], vectors[1].at(len(vectors[0].rows) - 1)]
    ways = {name: (Run((a,)), Run((b,)), Run((a, b))) for name, (a, b) in made.items()}
    words = [concept.pair.positive for concept in concepts]
    text = " ".join(word.strip() for word in words)
    return {**ways, "prompted": (Run(prefix=words[0]), Run(prefix=words[1]), Run(prefix=text))}


def _cells(ways: Ways, concepts: Sequence[Concept]) -> list[Configuration]:
    """Each vector alone, and both of every kind."""
    *alone, _ = ways[STEERED]
    cells = [
        Configuration({**dict.fromkeys(KEYS), "pair": c.name, "run": STEERED}, own)
        for c, own in zip(concepts, alone, strict=True)
    ]
    return cells + [
        Configuration({**dict.fromkeys(KEYS), "pair": BOTH, "run": name}, both)
        for name, (*_, both) in ways.items()
    ]


def _with_additivity(setup: Setup, read: Readings, ways: Ways, prompts: Sequence[str]) -> Readings:
    """The readings, and how far the shift of both is the sum of the two shifts."""
    tokens = sum(map(len, tokenize(setup.model, prompts))) / len(prompts)
    setup.asked.append(Ask("shifts", 1 + 3 * len(ways), len(prompts), tokens, "prompts"))

    def centred(way: Run) -> Float[Tensor, "prompt vocab"]:
        texts = [way.prompted(prompt) for prompt in prompts]
        logprobs = next_token_logprobs(setup.model, texts, way.steering).double()
        return logprobs - logprobs.mean(dim=1, keepdim=True)

    clean, frames = centred(Run()), [read.result.frame]
    for control, runs in ways.items():
        one, other, both = (centred(way) - clean for way in runs)
        added = one + other
        sizes = both.norm(dim=1) * added.norm(dim=1)
        values = {
            # 0 / 0, where nothing is shifted, is NaN: there is nothing to tell.
            "cosine": (both * added).sum(dim=1) / sizes,
            "explained": 1 - ((both - added).norm(dim=1) / both.norm(dim=1)) ** 2,
        }
        labels = {**dict.fromkeys(KEYS), "pair": BOTH, "run": control}
        for name, found in values.items():
            defined = torch.where(found.isfinite(), found, torch.nan)
            rows = {"prompt": prompts, "value": defined, "prompt_index": range(len(prompts))}
            frames.append(pd.DataFrame(rows).assign(metric=name, **labels))
    frame = pd.concat(frames, ignore_index=True).astype(dict(read.result.frame.dtypes))
    metrics = [*read.result.provenance["metrics"], *([name, "", False] for name in ADDITIVE)]
    return Readings(Result(frame, {**read.result.provenance, "metrics": metrics}))


def _named(table: pd.DataFrame) -> pd.DataFrame:
    """Runs by what they are made of: without vectors, with one, with both."""
    both, clean = table["pair"] == BOTH, table["run"] == "clean"
    names = table["run"].map(lambda run: NAMES.get(run, run))
    names = names.where(both | clean, table["pair"].astype(str) + " alone")
    order = (2 * both - clean).argsort(kind="stable")
    return table.assign(run=names).drop(columns="pair").iloc[order]


def _figure(summary: pd.DataFrame, names: dict[str, str]) -> Figure:
    """Each success and coherence in a panel of its own, a dot for each run."""
    drawn = summary[summary["metric"].isin(list(names))]
    ours = drawn["run"].isin([BOTH, APART]) | drawn["run"].str.endswith(" alone")
    clean = drawn["run"] == "clean"
    return plots.bars(
        drawn.drop(columns=["metric", "layer", "position"]).assign(
            run=np.where(clean, "clean", "steered"),
            pair=drawn["metric"].map(names),
            condition=drawn["run"].where(~clean),
            arm=np.where(ours, "steered", "baseline"),
        ),
        x="condition",
        group="arm",
        ylabel="share of completions",
        unit="%",
        note=f"95 % intervals, n = {int(drawn['n'].max())} prompts",
    )
