"""The time of steered generation."""

from collections.abc import Hashable, Iterator
from itertools import cycle, islice, product
from time import perf_counter, process_time
from typing import Any, Final

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
from actadd_lens.reproduction.measurements import as_measurements, interval_in
from actadd_lens.reproduction.outcome import Measured
from actadd_lens.reproduction.registry import experiment
from actadd_lens.reproduction.setup import Setup
from actadd_lens.statistics import Interval
from actadd_lens.sweeps.configurations import Run
from actadd_lens.vectors.extraction import extract, mean_difference

BATCHES = (1, 8, 32)
LARGEST = BATCHES[-1]
NOISIEST = 1.5
SHAPES = ((2, 64), (4, 96), (6, 128))
"""Layers and width of the random models."""
KINDS: Final[dict[str, str]] = {"GPT-2": "gpt2", "OPT": "opt"}


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
    timed = pd.DataFrame(
        [
            {"vector": name, "kind": kind, "parameters": _size(model), **timing}
            for name, kind, model in [(own, "own", setup.model), *_random_models(setup)]
            for timing in _timings(setup, model, concept)
        ]
    )
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


def _size(model: Bridge) -> int:
    return sum(parameter.numel() for parameter in BridgeModel(model).module.parameters())


def _random_models(setup: Setup) -> Iterator[tuple[str, str, Bridge]]:
    """Name, kind and model of every random model, each made when it is its turn."""
    for (kind, architecture), (layers, width) in product(KINDS.items(), SHAPES):
        name = _name(kind, layers, width)
        yield name, kind, random_model(setup.model, architecture, layers, width, setup.seed, name)


def _timings(setup: Setup, model: Bridge, concept: Concept) -> Iterator[dict[str, Any]]:
    """Times of every run in every round, which is in the place of a prompt."""
    layer = BridgeModel(model).n_layers // 2
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
                premiums = {"premium": wall / clean - 1, "cpu_premium": cpu / clean_cpu - 1}
                times = {"seconds": wall, "cpu_seconds": cpu, **premiums}
                yield {"batch": batch, "run": name, "prompt": f"round {i}", **times}


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
def judge(m: Measured) -> list[Verdict]:
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
            decide(
                all(large.low <= small.high for small, large in ends.values()),
                *(i for pair in ends.values() for i in pair),
            ),
            "; ".join(
                f"{kind} {_percent(small)} -> {_percent(large)}"
                for kind, (small, large) in ends.items()
            ),
        ),
    ]


def _percent(interval: Interval) -> str:
    mean, low, high = (f"{100 * x:+.1f}" for x in (interval.mean, interval.low, interval.high))
    return f"{mean} % [{low}, {high}]"


@inference_cost.tabulate
def tabulate(m: Measured) -> pd.DataFrame:
    """A line for each model and batch size, a column for each run."""
    part = m.parts["timings"]
    steered = part.frame[(part.frame["run"] == "steered") & (part.frame["metric"] == "premium")]
    medians = steered.groupby(["vector", "batch"])["value"].median()
    lines: dict[tuple[Hashable, Hashable], dict[str, str]] = {}
    for row in part.summary.to_dict("records"):
        key, text = (row["vector"], row["batch"]), _percent(interval_in(row))
        line = lines.setdefault(
            key, {"model": row["vector"], "batch": str(row["batch"]), "clean": ""}
        )
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
def draw(m: Measured) -> Figure:
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
