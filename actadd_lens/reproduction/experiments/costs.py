"""What steering costs: the time of steered generation, the search for layer and coefficient."""

from collections.abc import Hashable, Iterator
from dataclasses import replace
from itertools import chain, cycle, islice, product
from time import perf_counter, process_time
from typing import Any, Final

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure

from actadd_lens import plots
from actadd_lens.generation.completions import generate
from actadd_lens.models.base import Bridge
from actadd_lens.models.bridge import BridgeModel
from actadd_lens.models.load import random_model
from actadd_lens.reproduction.concepts import Concept
from actadd_lens.reproduction.criteria import Verdict, at_least, decide
from actadd_lens.reproduction.measurements import (
    Measurements,
    as_measurements,
    interval_in,
    percent,
)
from actadd_lens.reproduction.outcome import Measured
from actadd_lens.reproduction.registry import experiment
from actadd_lens.reproduction.setup import SEARCHED, Setup
from actadd_lens.statistics import Interval
from actadd_lens.sweeps.configurations import Run
from actadd_lens.vectors.extraction import extract, mean_difference

BATCHES = (1, 8, 32)
LARGEST = BATCHES[-1]
NOISIEST = 1.5
SHAPES = ((2, 64), (4, 96), (6, 128))
"""Layers and width of the random models."""
KINDS: Final[dict[str, str]] = {"GPT-2": "gpt2", "OPT": "opt"}
SUBSETS = 200
SIZES = (5, 10, 20, 50)
ENOUGH = 20
AT_RANDOM = "a random configuration"


@experiment(
    "inference-cost",
    question="How much longer does steered generation take?",
    design="""Clean and steered generation of forced length are timed in turn, every second round in
    the opposite order, after a warm-up, by the wall clock. The model is compared with random models
    of growing size, of the GPT-2 and of the OPT kind, with its tokenizer. The vector is that of
    sentiment at the middle layer, at the front: its numbers and its layer matter little to time. At
    batch 32 a random vector (the same work, as the negated one would be), the positive prompt as
    text (longer prompts) and the mean difference (added at every token that is generated, too) are
    timed as well.

    The premium is (steered - clean) / clean of the times of one round. Intervals are over rounds.
    The same is given for CPU time: other work on a busy machine disturbs it less.""",
    criteria={
        "F1": """The premium is small: at batch 32 the mean premium of the vector at the front is at
        most 5 % on every model. Not testable if the slowest clean run of a model took more than 1.5
        times as long as its fastest: something else was running.""",
        "F2": """It does not grow with size: of neither kind does the interval of the largest
        model's mean premium at batch 32 lie above that of the smallest's.""",
    },
    paper="""GPT-2 and OPT of several sizes, batch 32, 64 tokens: a premium of a fraction of a per
    cent up to a few per cent, which does not grow with size.""",
    differs="""Random weights in small models of both kinds, which take the time that trained ones
    do; three batch sizes; fewer tokens.""",
)
def inference_cost(setup: Setup) -> Measured:
    """Time every model at every batch size."""
    concept = setup.concept("sentiment")
    own = BridgeModel(setup.model).name.rsplit("/", 1)[-1]
    lines = [{"vector": own, "kind": "own", **t} for t in _timings(setup, setup.model, concept)]
    for (kind, architecture), (layers, width) in product(KINDS.items(), SHAPES):
        name = _name(kind, layers, width)
        model = random_model(setup.model, architecture, layers, width, setup.seed, name)
        lines += [{"vector": name, "kind": kind, **t} for t in _timings(setup, model, concept)]
    timed = pd.DataFrame(lines)
    labels = ["vector", "kind", "parameters", "batch", "run", "prompt"]
    part = as_measurements(timed.melt(labels, var_name="metric"))
    tokens = sum(map(setup.length, concept.test)) / len(concept.test)
    return Measured(
        {"timings": part},
        facts={
            "timed": f"{setup.sizes.repeats} rounds of {setup.sizes.new_tokens} tokens on "
            f"{BridgeModel(setup.model).device}, {torch.get_num_threads()} threads",
            "noise": f"a model's slowest clean run at batch {LARGEST} took up to "
            f"{_noise(part.frame):.2f} times as long as its fastest",
            "prompts": f"{LARGEST}, of {tokens:.0f} tokens on the mean, from those for "
            f"{concept.wanted}",
        },
    )


def _name(kind: str, layers: int, width: int) -> str:
    return f"{kind} {layers} x {width}"


def _timings(setup: Setup, model: Bridge, concept: Concept) -> Iterator[dict[str, Any]]:
    """Times of every run in every round, which is in the place of a prompt."""
    own = BridgeModel(model)
    layer, parameters = own.n_layers // 2, sum(p.numel() for p in own.module.parameters())
    vector = extract(model, concept.pair, [layer])[layer]
    runs = {"clean": Run(), "steered": Run((vector,))}
    others = {
        "random": Run((vector.random_like(setup.seed),)),
        "prompted": Run(prefix=concept.pair.positive),
        "mean_difference": Run((mean_difference(model, concept.pairs, layer),)),
    }
    for batch in BATCHES:
        prompts = list(islice(cycle(concept.test), batch))
        timed = {**runs, **others} if batch == LARGEST else runs
        for run in timed.values():
            _seconds(setup, model, run, prompts, max_new_tokens=2)
        for i in range(setup.sizes.repeats):
            order = list(timed)[:: 1 if i % 2 == 0 else -1]
            took = {name: _seconds(setup, model, timed[name], prompts) for name in order}
            clean, clean_cpu = took["clean"]
            for name, (wall, cpu) in took.items():
                labels = {"batch": batch, "run": name, "prompt": f"round {i}"}
                premiums = {"premium": wall / clean - 1, "cpu_premium": cpu / clean_cpu - 1}
                times = {"seconds": wall, "cpu_seconds": cpu, **premiums}
                yield {"parameters": parameters, **labels, **times}


def _seconds(
    setup: Setup, model: Bridge, run: Run, prompts: list[str], **options: Any
) -> tuple[float, float]:
    """Of one generation: on the clock, and of the processor."""
    texts = [run.prompted(prompt) for prompt in prompts]
    options = {**setup.sampling, "batch_size": len(prompts), **options}
    started, worked = perf_counter(), process_time()
    generate(model, texts, run.steering, seed=setup.seed, stop_at_eos=False, **options)
    return perf_counter() - started, process_time() - worked


def _noise(frame: pd.DataFrame) -> float:
    """How many times as long as its fastest a model's slowest clean run took, at most."""
    clean = frame[(frame["run"] == "clean") & (frame["batch"] == LARGEST)]
    times = clean[clean["metric"] == "seconds"].groupby("vector")["value"]
    return float((times.max() / times.min()).max())


@inference_cost.judge
def judge_time(m: Measured) -> list[Verdict]:
    """Decide by the premium of the vector at the largest batch."""
    part = m.parts["timings"]
    premium = {
        name: part.value("premium", vector=name, batch=LARGEST)
        for name in part.frame["vector"].unique()
    }
    ends = {
        kind: [premium[_name(kind, *shape)] for shape in (SHAPES[0], SHAPES[-1])] for kind in KINDS
    }
    small = all(at_least(0.05, i.mean) for i in premium.values())
    return [
        Verdict(
            "F1",
            small if _noise(part.frame) <= NOISIEST else None,
            "; ".join(f"{name} {_percent(i)}" for name, i in premium.items()),
        ),
        Verdict(
            "F2",
            decide(all(b.low <= a.high for a, b in ends.values()), *chain(*ends.values())),
            "; ".join(f"{kind} {_percent(a)} -> {_percent(b)}" for kind, (a, b) in ends.items()),
        ),
    ]


def _percent(interval: Interval) -> str:
    mean, low, high = (f"{100 * x:+.1f}" for x in (interval.mean, interval.low, interval.high))
    return f"{mean} % [{low}, {high}]"


@inference_cost.tabulate
def tabulate_time(m: Measured) -> pd.DataFrame:
    """A line for each model and batch size, a column for each run."""
    part = m.parts["timings"]
    steered = part.frame[(part.frame["run"] == "steered") & (part.frame["metric"] == "premium")]
    medians = steered.groupby(["vector", "batch"])["value"].median()
    lines: dict[tuple[Hashable, Hashable], dict[str, str]] = {}
    for row in part.summary.to_dict("records"):
        key, text = (row["vector"], row["batch"]), _percent(interval_in(row))
        first = {"model": row["vector"], "batch": str(row["batch"]), "clean": ""}
        line = lines.setdefault(key, first)
        match row["metric"], row["run"]:
            case "seconds", "clean":
                line["clean"] = f"{1000 * row['mean']:.0f} ms"
            case "premium", run if run != "clean":
                line[run] = text
            case "cpu_premium", "steered":
                line["steered, CPU time"] = text
                line["steered, median"] = f"{100 * medians[key]:+.1f} %"
    return pd.DataFrame(list(lines.values())).fillna("")


@inference_cost.draw
def draw_time(m: Measured) -> Figure:
    """Premium by model, batch sizes side by side."""
    summary = m.summary[m.summary["metric"] == "premium"]
    premiums = summary[summary["run"] != "clean"].drop(columns=["metric", "layer", "position"])
    x = "model (layers x width)"
    shown = premiums.assign(
        batch="batch " + premiums["batch"].astype(str),
        **{name: 100 * premiums[name] for name in ("mean", "low", "high")},
    ).rename(columns={"vector": x})
    level = pd.DataFrame([{"run": "clean", "mean": 0.0}])
    return plots.bars(
        pd.concat([shown, level], ignore_index=True),
        x=x,
        group="batch",
        ylabel="time beyond the clean run's (%)",
        note=f"95 % intervals over {int(summary['n'].max())} rounds; controls at batch {LARGEST}",
    )


@experiment(
    "search-cost",
    question="""What does it cost to find layer and coefficient, and how many prompts does the
    search need?""",
    design="""Every layer and a few coefficients are tried for the concept "sentiment", on the
    selection prompts and on the test prompts. A search takes the setting with the most completions
    that are both wanted and coherent; of equal ones that of the least coefficient, then the lowest
    layer. It is repeated on 200 random subsets of the selection prompts. Regret is the mean of the
    best setting on the test prompts minus that of the chosen one there. The best of many settings
    is lucky too, so regret is not 0 even for a search that could not be better. Intervals of regret
    span 95 % of the subsets. The setting chosen on all selection prompts is compared with every
    baseline on the test prompts; the grid itself has none.""",
    criteria={
        "Q1": """Does a selection split of 20 prompts suffice? Yes if the mean regret of 20 prompts,
        or of all if there are fewer, is at most 5 points.""",
        "Q2": """Does the choice generalise? Yes if the interval of the paired change of coherent
        successes on the test prompts, from the clean run to the setting chosen on all selection
        prompts, lies above 0.""",
        "Q3": """Is the search optimistic? Yes if the mean of the chosen setting on the selection
        prompts is above its mean on the test prompts by more than 5 points.""",
    },
    paper="""No cost of a search is reported, nor a split to search on. Layers of about 6 to 24 of
    GPT-2-XL's 48 and coefficients of typically less than 15 were tried by hand.""",
    differs="The search is a grid over every layer, on prompts that are not reported on.",
)
def search_cost(setup: Setup) -> Measured:
    """Measure the grid on both splits, and the chosen configuration with every baseline."""
    concept = setup.concept("sentiment")
    objective, grid = setup.scores(concept, "objective"), setup.search_grid(concept)
    searched = setup.measure("selection", grid, concept.selection, objective)
    tested = setup.measure("test", grid, concept.test, objective)
    best = searched.best("objective")
    layer, c = best.layer, float(best.coefficient or 1)
    cells = setup.baselines(replace(concept, setting=(layer, c)))
    scores = objective | setup.scores(concept, "success", "coherence")
    chosen = setup.measure("chosen", cells, concept.test, scores)
    return Measured(
        {"selection": searched, "test": tested, "chosen": chosen},
        notes={"layer": layer, "coefficient": c, "seed": setup.seed},
        facts=_costs(setup, len(concept.selection))
        | {
            "chosen": f"layer {layer} of {setup.n_layers}, coefficient {c:g}, for "
            f"{concept.pair.positive!r} - {concept.pair.negative!r}, front",
            "prompts": f"{len(concept.test)}, for {concept.wanted}",
        },
    )


def _by_setting(part: Measurements) -> pd.DataFrame:
    """A row for each prompt, a column for each setting, in the order of preference among equals."""
    frame = part.frame[part.frame["run"] == "steered"]
    return frame.pivot_table(index="prompt", columns=["coefficient", "layer"], values="value")


def _chosen(values: np.ndarray) -> int:
    """The column of the highest mean, the first of equal ones."""
    return int(values.mean(axis=0).round(12).argmax())


def _costs(setup: Setup, n_prompts: int) -> dict[str, str]:
    """What the search on the selection prompts takes, the clean run included."""
    n_layers, tried = setup.n_layers, len(setup.layers) * len(SEARCHED)
    runs = 1 + tried
    above = sum(n_layers - layer for layer in setup.layers) * len(SEARCHED)
    shared, whole = n_prompts * (n_layers + above), n_prompts * runs * n_layers
    return {
        "search": f"{tried} configurations ({len(setup.layers)} layers x {len(SEARCHED)} "
        f"coefficients) and the clean run on {n_prompts} prompts: {runs * n_prompts} sequences "
        f"read, {runs * n_prompts * setup.sizes.samples} completions of up to "
        f"{setup.sizes.new_tokens} tokens",
        "layers applied to prompts": f"{shared} to read every configuration from its layer on, as "
        f"sweeps do, {whole} if each were a whole pass ({100 * shared / whole:.0f} %); text is "
        "generated after whole passes",
    }


def _regrets(m: Measured) -> dict[int, Interval]:
    """Mean regret in points by number of prompts, with what 95 % of the subsets span."""
    values = _by_setting(m.parts["selection"]).to_numpy()
    worth = _by_setting(m.parts["test"]).mean().to_numpy()
    rng = np.random.default_rng(m.notes["seed"])
    regrets = {}
    for n in [*(n for n in SIZES if n < len(values)), len(values)]:
        subsets = [rng.choice(len(values), n, replace=False) for _ in range(SUBSETS)]
        lost = 100 * (worth.max() - worth[[_chosen(values[subset]) for subset in subsets]])
        low, high = np.percentile(lost, [2.5, 97.5])
        regrets[n] = Interval(float(lost.mean()), float(low), float(high), SUBSETS)
    return regrets


def _levels(m: Measured) -> dict[str, float]:
    """Regret in points without a search, and without a vector."""
    worth = _by_setting(m.parts["test"]).mean()
    clean = m.parts["test"].value("objective", "clean").mean
    return {AT_RANDOM: 100 * (worth.max() - worth.mean()), "clean": 100 * (worth.max() - clean)}


def _points(interval: Interval) -> str:
    return f"{interval.mean:.1f} [{interval.low:.1f}, {interval.high:.1f}]"


@search_cost.judge
def judge_search(m: Measured) -> list[Verdict]:
    """Decide by regret, and by the chosen configuration on both splits."""
    layer, c, regrets = m.notes["layer"], m.notes["coefficient"], _regrets(m)
    before = m.parts["selection"].value("objective", layer=layer, coefficient=c)
    after, gain = (f("objective") for f in (m.parts["chosen"].value, m.parts["chosen"].change))
    n = min(ENOUGH, max(regrets))
    varies = _by_setting(m.parts["test"]).mean().nunique() > 1
    return [
        Verdict(
            "Q1",
            regrets[n].mean <= 5 if varies else None,
            f"{n} prompts: regret {_points(regrets[n])} points; {AT_RANDOM} "
            f"{_levels(m)[AT_RANDOM]:.1f}",
        ),
        Verdict(
            "Q2",
            decide(gain.low > 0, gain),
            f"layer {layer}, coefficient {c:g}: {percent(gain, n=True)}",
        ),
        Verdict(
            "Q3",
            not at_least(0.05, before.mean - after.mean),
            f"{percent(before)} on the selection prompts, {percent(after)} on the test prompts",
        ),
    ]


@search_cost.tabulate
def tabulate_search(m: Measured) -> pd.DataFrame:
    """Regret by number of prompts, then every run at the chosen configuration."""
    regret = "regret (points)"
    lines = [{"run": f"search on {n}", regret: _points(i)} for n, i in _regrets(m).items()]
    lines.append({"run": AT_RANDOM, regret: f"{_levels(m)[AT_RANDOM]:.1f}"})
    table = pd.concat([pd.DataFrame(lines), m.parts["chosen"].by_run()], ignore_index=True)
    return table.fillna("").rename(columns={"objective": "coherent success"})


@search_cost.draw
def draw_search(m: Measured) -> Figure:
    """Regret by number of prompts, compared with that of no search."""
    levels, x = _levels(m), "selection prompts searched on"
    lines = [{x: str(n), "run": "steered", **vars(i)} for n, i in _regrets(m).items()]
    lines.append({x: AT_RANDOM, "run": "steered", "mean": levels[AT_RANDOM]})
    lines.append({"run": "clean", "mean": levels["clean"]})
    tested = _by_setting(m.parts["test"])
    return plots.bars(
        pd.DataFrame(lines),
        x=x,
        ylabel="regret on the test prompts (points)",
        note=f"mean and 95 % of {SUBSETS} subsets; {tested.shape[1]} configurations, "
        f"{len(tested)} test prompts",
    )
