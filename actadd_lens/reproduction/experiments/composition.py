"""Two vectors in one run."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import pandas as pd
import torch
from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor

from actadd_lens.analysis.logprobs import next_token_logprobs
from actadd_lens.generation.completions import Completion
from actadd_lens.reproduction.concepts import Concept
from actadd_lens.reproduction.criteria import Verdict, at_least, decide, preserved
from actadd_lens.reproduction.measurements import (
    Measurements,
    dots_by_run,
    format_interval,
    format_intervals,
    percent,
)
from actadd_lens.reproduction.outcome import Measured
from actadd_lens.reproduction.registry import experiment
from actadd_lens.reproduction.setup import BASELINES, Setup
from actadd_lens.statistics import Interval
from actadd_lens.sweeps import Result, Steered
from actadd_lens.sweeps.configurations import (
    KEYS,
    STEERED,
    Configuration,
    Run,
    clean_configuration,
    make_control,
)

BOTH = "both"
ADDITIVE = {"cosine": "cosine with the sum", "explained": "explained by the sum"}
SIDE_BY_SIDE = "side by side"
NAMES = {
    "steered": "both",
    "mean difference": "mean differences",
    "prompted": "both prompts",
    "random": "random pair",
}
Conditions = dict[str, tuple[Run, Run, Run]]
"""By control: the first vector alone, the second alone, and both."""


@experiment(
    "composition",
    question="Do two vectors work together, each as it does alone?",
    design="""The vectors of sentiment and of the first topic, each at its own layer and with its
    own coefficient, are added in one run on prompts of negative sentiment. At one layer and
    position two vectors simply add up in the stream; what follows may still not be the sum of what
    each does alone. The two are compared with a pair of random vectors of the same norms, both
    vectors negated, both positive prompts as text, and both mean differences; and with both vectors
    side by side, the second after the first's last row instead of on the same tokens.

    After each prompt the change of the next token's log-probabilities, centred over the vocabulary,
    is compared with the sum of the two changes that either makes alone: by their cosine, and by the
    share of variance that the sum explains, 1 - |both - sum|^2 / |both|^2.""",
    criteria={
        "Q1": """Do both effects survive together? Yes if the mean of each success with both vectors
        is at least 80 % of its mean with its vector alone. Not testable if a vector alone has no
        success.""",
        "Q2": """Is the shift of the next token's log-probabilities the sum? Yes if the interval of
        the mean cosine over prompts lies above 0.9.""",
        "Q3": """Does the text stay coherent? Yes if with both vectors the share of coherent
        completions falls by no more than 5 points on the mean against the clean run. Not testable
        if the interval reaches 10 points below the mean, or less than a tenth is coherent in the
        clean run.""",
        "Q4": """Do both effects survive side by side? Yes if the mean of each success with both
        vectors side by side is at least 80 % of its mean with its vector alone at the front. Not
        testable if a vector alone has no success.""",
    },
    paper="It reports no run with two vectors; its reviewers asked for one.",
)
def composition(setup: Setup) -> Measured:
    """Generate with both, either and none; compare shifts with their sum."""
    concepts = setup.concepts()
    first, second = concepts.values()
    conditions = _conditions(setup, [first, second])
    rows = sum(len(vector.rows) for vector in conditions[SIDE_BY_SIDE][-1].steering) - 1
    # Prompts have to be long enough for the pairs of both, and for both side by side.
    joint = replace(setup.data.concept(first.name), others=(*first.others, *second.pairs))
    prompts = setup.long_enough(joint.fitted(setup.model, setup.sizes.prompts).test, rows)
    metrics = {f"{name}: success": c.success for name, c in concepts.items()}
    part = setup.measure(
        BOTH,
        [clean_configuration(), *_cells(conditions, [first, second])],
        prompts,
        metrics | setup.scores(first, "coherence"),
    )
    on_topic = second.success([Completion("", text, (), (), 0, 0) for text in prompts])
    return Measured(
        {BOTH: _with_additivity(setup, part, conditions, prompts)},
        notes={"concepts": [*concepts]},
        facts={
            **{name: setup.describe(c)["vector"] for name, c in concepts.items()},
            "prompts": f"{len(prompts)}, the test prompts for {first.wanted}; "
            f"{sum(value == 1 for value in on_topic)} of them are on {second.name} themselves",
        },
    )


def _conditions(setup: Setup, concepts: Sequence[Concept]) -> Conditions:
    """Both vectors and what they are compared with, each alone and together."""
    vectors, means = [], []
    for concept in concepts:
        layer, c = setup.setting(concept)
        vectors.append(c * setup.vector(concept.pair, layer))
        mean, found = setup.mean_difference(concept)
        means.append(found * mean)
    # Seeds of their own: vectors of one shape would get the same random directions.
    seeds = (setup.seed, setup.seed + len(BASELINES))
    drawn = [Steered(vector, seed) for vector, seed in zip(vectors, seeds, strict=True)]
    controls = {name: [make_control(name, own) for own in drawn] for name in BASELINES[:-2]}
    made = {STEERED: vectors, **controls, BASELINES[-1]: means}
    # Row 0 of a vector is that of BOS, so it may be added to the token of the other's last row.
    made[SIDE_BY_SIDE] = [vectors[0], vectors[1].at(len(vectors[0].rows) - 1)]
    conditions = {name: (Run((a,)), Run((b,)), Run((a, b))) for name, (a, b) in made.items()}
    one, other = (concept.pair.positive for concept in concepts)
    text = f"{one.strip()} {other.strip()}"
    return conditions | {"prompted": (Run(prefix=one), Run(prefix=other), Run(prefix=text))}


def _cells(conditions: Conditions, concepts: Sequence[Concept]) -> list[Configuration]:
    """Each vector alone, and both under every condition."""
    one, other = (concept.name for concept in concepts)
    first, second, _ = conditions[STEERED]
    labelled = [(one, STEERED, first), (other, STEERED, second)]
    labelled += [(BOTH, name, both) for name, (*_, both) in conditions.items()]
    return [
        Configuration({**dict.fromkeys(KEYS), "vector": vector, "run": name}, run)
        for vector, name, run in labelled
    ]


def _with_additivity(
    setup: Setup, part: Measurements, conditions: Conditions, prompts: Sequence[str]
) -> Measurements:
    """The measurements, and how far the shift of both is the sum of the two shifts."""

    def centred(run: Run) -> Float[Tensor, "prompt vocab"]:
        texts = [run.prompted(prompt) for prompt in prompts]
        logprobs = next_token_logprobs(setup.model, texts, run.steering).double()
        return logprobs - logprobs.mean(dim=1, keepdim=True)

    clean, frames = centred(Run()), [part.result.frame]
    for control, runs in conditions.items():
        one, other, both = (centred(run) - clean for run in runs)
        added = one + other
        values = {
            # 0 / 0, where nothing is shifted, is NaN: undefined.
            "cosine": (both * added).sum(dim=1) / (both.norm(dim=1) * added.norm(dim=1)),
            "explained": 1 - ((both - added).norm(dim=1) / both.norm(dim=1)) ** 2,
        }
        rows = {**dict.fromkeys(KEYS), "vector": BOTH, "run": control}
        rows |= {"prompt": prompts, "prompt_index": range(len(prompts))}
        for name, found in values.items():
            defined = torch.where(found.isfinite(), found, torch.nan)
            frames.append(pd.DataFrame({**rows, "metric": name, "value": defined}))
    frame = pd.concat(frames, ignore_index=True).astype(dict(part.result.frame.dtypes))
    metrics = [*part.result.provenance["metrics"], *([name, "", False] for name in ADDITIVE)]
    return Measurements(Result(frame, {**part.result.provenance, "metrics": metrics}))


@composition.judge
def judge(m: Measured) -> list[Verdict]:
    """Compare both vectors with each alone and with the sum of their shifts."""
    part = m.parts[BOTH]
    alone, together, apart = (
        {n: part.value(f"{n}: success", run, vector=vector or n) for n in m.notes["concepts"]}
        for run, vector in (("steered", None), ("steered", BOTH), (SIDE_BY_SIDE, BOTH))
    )
    cosine, explained = (part.value(name, vector=BOTH) for name in ADDITIVE)
    random = part.value("cosine", "random", vector=BOTH)
    coherence = part.change("coherence", vector=BOTH)
    return [
        _survive("Q1", alone, together),
        Verdict(
            "Q2",
            decide(cosine.low > 0.9, cosine),
            f"cosine {format_interval(cosine)}, explained {format_interval(explained)}; of the "
            f"random pair {format_interval(random)}",
        ),
        Verdict("Q3", preserved(coherence, part.value("coherence", "clean")), percent(coherence)),
        _survive("Q4", alone, apart),
    ]


def _survive(key: str, alone: Mapping[str, Interval], both: Mapping[str, Interval]) -> Verdict:
    """Whether each success with both vectors is at least 80 % of that with its own alone."""
    lasts = all(at_least(both[name].mean, 0.8 * i.mean) for name, i in alone.items())
    return Verdict(
        key,
        lasts if all(i.mean > 0 for i in alone.values()) else None,
        f"alone {format_intervals(alone)}; both {format_intervals(both)}",
    )


@composition.tabulate
def tabulate(m: Measured) -> pd.DataFrame:
    """Runs without vectors, with one, with both."""
    return _named(m.parts[BOTH].by_run()).fillna("").rename(columns=ADDITIVE)


def _named(table: pd.DataFrame) -> pd.DataFrame:
    """Runs by what they are made of: without vectors, with one, with both."""
    both, clean = table["vector"] == BOTH, table["run"] == "clean"
    names = table["run"].map(lambda run: NAMES.get(run, run))
    names = names.where(both | clean, table["vector"].astype(str) + " alone")
    order = (2 * both - clean).argsort(kind="stable")
    return table.assign(run=names).drop(columns="vector").iloc[order]


@composition.draw
def draw(m: Measured) -> Figure:
    """Each success and coherence in a panel of its own, a dot for each run."""
    summary = _named(m.summary)
    shown = summary[~summary["metric"].isin([*ADDITIVE])]
    alone = [f"{name} alone" for name in m.notes["concepts"]]
    return dots_by_run(shown, shown["metric"], "share of completions", [BOTH, SIDE_BY_SIDE, *alone])
