"""How much longer does steered generation take?

Clean and steered generation of forced length are timed in turn, every second round in the opposite
order, after a warm-up, by the wall clock. Beside the model stand random models of growing size, of
the GPT-2 and of the OPT kind, with its tokenizer. The vector is that of sentiment at the middle
layer, at the front: its numbers and its layer matter little to time. At batch 32 a random vector
(the same work, and so would be the negated one), the positive prompt as text (longer prompts) and
the mean difference (added at every token that is generated, too) are timed as well.

The premium is (steered - clean) / clean of the times of one round. Intervals are over rounds. The
same of CPU time is told beside it: other work on a busy machine disturbs it less.

Criteria, fixed before the run:

F1. The premium is small: at batch 32 the mean premium of the vector at the front is at most 5 % on
    every model. Not testable if the slowest clean run of a model took more than 1.5 times as long
    as its fastest: something else was running.
F2. It does not grow with size: of neither kind does the interval of the largest model's mean
    premium at batch 32 lie above that of the smallest's.
"""

from collections.abc import Hashable, Iterator, Mapping
from itertools import cycle, islice, product
from time import perf_counter, process_time
from typing import Any, Final

import pandas as pd
import torch
from matplotlib.figure import Figure

from actadd_lens import plots
from actadd_lens.generation.completions import generate
from actadd_lens.models import bridge
from actadd_lens.models.base import Bridge
from actadd_lens.models.load import load_model
from actadd_lens.models.tokens import tokenize
from actadd_lens.reproduction.concepts import Concept
from actadd_lens.reproduction.criteria import Verdict, at_least, told
from actadd_lens.reproduction.outcome import Outcome
from actadd_lens.reproduction.setup import Setup
from actadd_lens.reproduction.work import Ask
from actadd_lens.statistics import Interval, cluster_mean
from actadd_lens.sweeps.configurations import Run
from actadd_lens.vectors.extraction import extract, mean_difference

PAPER = (
    "GPT-2 and OPT of several sizes, batch 32, 64 tokens: a premium of a fraction of a per cent up "
    "to a few per cent, which does not grow with size."
)
DIFFERS = (
    "Random weights in small models of both kinds, which take the time that trained ones do; three "
    "batch sizes; fewer tokens."
)
BATCHES = (1, 8, 32)
LARGEST = BATCHES[-1]
NOISIEST = 1.5
SHAPES = ((2, 64), (4, 96), (6, 128))
"""Layers and width of the random models."""
KINDS: Final[dict[str, str]] = {"GPT-2": "gpt2", "OPT": "opt"}


def run(setup: Setup) -> Outcome:
    """Time every model at every batch size."""
    concept = setup.concept("sentiment")
    own = str(setup.model.cfg.model_name).rsplit("/", 1)[-1]
    rows = pd.DataFrame(
        [
            {"model": name, "kind": kind, "parameters": _size(model), **timing}
            for name, kind, model in [(own, "own", setup.model), *_random_models(setup)]
            for timing in _timings(setup, model, concept)
        ]
    )
    keys = ["model", "kind", "parameters", "batch", "run"]
    summary = pd.DataFrame(
        [
            dict(zip(keys, labels, strict=True))
            | {"metric": metric, **vars(cluster_mean(timed[metric], timed["round"]))}
            | {"median": timed[metric].median(), "seconds": timed["seconds"].mean()}
            for labels, timed in rows.groupby(keys, sort=False)
            for metric in ("premium", "cpu_premium")
        ]
    )
    wall = summary[summary["metric"] == "premium"]
    decisive = wall[(wall["run"] == "steered") & (wall["batch"] == LARGEST)]
    premium = {row["model"]: _interval(row) for row in decisive.to_dict("records")}
    ends = {
        kind: [premium[_name(kind, *shape)] for shape in (SHAPES[0], SHAPES[-1])] for kind in KINDS
    }
    n_tokens = sum(map(len, tokenize(setup.model, concept.test))) / len(concept.test)
    clean = rows[(rows["run"] == "clean") & (rows["batch"] == LARGEST)]
    spread = clean.groupby("model")["seconds"].agg(lambda times: times.max() / times.min())
    for batch in BATCHES:
        n_runs = rows.loc[rows["batch"] == batch, "run"].nunique()
        sequences, n_new = batch * setup.sizes.repeats, setup.sizes.new_tokens
        setup.asked.append(Ask("timings", n_runs, sequences, n_tokens, "repeats", 1, n_new))
    return Outcome(
        rows=rows,
        summary=summary,
        shown=_table(summary),
        figure=_figure(wall),
        verdicts=[
            Verdict(
                "F1",
                all(at_least(0.05, i.mean) for i in premium.values())
                if spread.max() <= NOISIEST
                else None,
                "; ".join(f"{name} {_percent(i)}" for name, i in premium.items()),
            ),
            Verdict(
                "F2",
                told(
                    all(large.low <= small.high for small, large in ends.values()),
                    *(i for pair in ends.values() for i in pair),
                ),
                "; ".join(
                    f"{kind} {_percent(small)} -> {_percent(large)}"
                    for kind, (small, large) in ends.items()
                ),
            ),
        ],
        facts={
            "timed": f"{setup.sizes.repeats} rounds of {setup.sizes.new_tokens} tokens on "
            f"{bridge.device(setup.model)}, {torch.get_num_threads()} threads",
            "noise": f"a model's slowest clean run at batch {LARGEST} took up to "
            f"{spread.max():.2f} times as long as its fastest",
            "prompts": f"{LARGEST}, of {n_tokens:.0f} tokens on the mean, from those for "
            f"{concept.wanted}",
        },
    )


def _name(kind: str, layers: int, width: int) -> str:
    return f"{kind} {layers} x {width}"


def _size(model: Bridge) -> int:
    return sum(parameter.numel() for parameter in model.original_model.parameters())


def _random_models(setup: Setup) -> Iterator[tuple[str, str, Bridge]]:
    """Name, kind and model of every random model, each made when it is its turn."""
    from transformers import AutoConfig, AutoModelForCausalLM

    tokenizer, device = setup.model.tokenizer, bridge.device(setup.model)
    special = ("bos_token_id", "eos_token_id", "pad_token_id")
    for (kind, architecture), (layers, width) in product(KINDS.items(), SHAPES):
        config = AutoConfig.for_model(
            architecture,
            vocab_size=len(tokenizer),
            max_position_embeddings=bridge.n_ctx(setup.model),
            num_hidden_layers=layers,
            hidden_size=width,
            word_embed_proj_dim=width,
            ffn_dim=4 * width,
            num_attention_heads=4,
            **{name: getattr(tokenizer, name) for name in special},
        )
        with torch.random.fork_rng():
            torch.manual_seed(setup.seed)
            # transformers has no types for it.
            plain = AutoModelForCausalLM.from_config(config)  # type: ignore[no-untyped-call]
        name = _name(kind, layers, width)
        yield name, kind, load_model(name, device=device, hf_model=plain, tokenizer=tokenizer)


def _timings(setup: Setup, model: Bridge, concept: Concept) -> Iterator[dict[str, Any]]:
    """Seconds of every run in every round."""
    layer = bridge.n_layers(model) // 2
    vector = extract(model, concept.pair, [layer])[layer]
    runs = {"clean": Run(), "steered": Run((vector,))}
    others = {
        "random": Run((vector.random_like(setup.seed),)),
        "prompted": Run(prefix=concept.pair.positive),
        "mean difference": Run((mean_difference(model, concept.pairs, layer),)),
    }
    for batch in BATCHES:
        prompts = list(islice(cycle(concept.test), batch))
        timed = {**runs, **others} if batch == LARGEST else runs
        for way in timed.values():
            _seconds(setup, model, way, prompts, max_new_tokens=2)
        for i in range(setup.sizes.repeats):
            order = list(timed)[:: 1 if i % 2 == 0 else -1]
            took = {name: _seconds(setup, model, timed[name], prompts) for name in order}
            clean, clean_cpu = took["clean"]
            for name, (wall, cpu) in took.items():
                premiums = {"premium": wall / clean - 1, "cpu_premium": cpu / clean_cpu - 1}
                times = {"seconds": wall, "cpu_seconds": cpu, **premiums}
                yield {"batch": batch, "run": name, "round": i, **times}


def _seconds(
    setup: Setup, model: Bridge, way: Run, prompts: list[str], **options: Any
) -> tuple[float, float]:
    """Of one generation: on the clock, and of the processor."""
    texts = [way.prompted(prompt) for prompt in prompts]
    options = {**setup.sampling, "batch_size": len(prompts), **options}
    started, worked = perf_counter(), process_time()
    generate(model, texts, way.steering, seed=setup.seed, stop_at_eos=False, **options)
    return perf_counter() - started, process_time() - worked


def _interval(row: Mapping[Hashable, Any]) -> Interval:
    return Interval(row["mean"], row["low"], row["high"], row["n"])


def _percent(interval: Interval) -> str:
    mean, low, high = (f"{100 * x:+.1f}" for x in (interval.mean, interval.low, interval.high))
    return f"{mean} % [{low}, {high}]"


def _table(summary: pd.DataFrame) -> pd.DataFrame:
    """A line for each model and batch size, a column for each run."""
    lines: dict[tuple[str, int], dict[str, str]] = {}
    for row in summary.to_dict("records"):
        line = lines.setdefault((row["model"], row["batch"]), {})
        if row["run"] == "clean":
            line["clean"] = f"{1000 * row['seconds']:.0f} ms"
        elif row["metric"] == "premium":
            line[row["run"]] = _percent(_interval(row))
        elif row["run"] == "steered":
            line["steered, CPU time"] = _percent(_interval(row))
        if row["run"] == "steered" and row["metric"] == "premium":
            line["steered, median"] = f"{100 * row['median']:+.1f} %"
    found = [{"model": name, "batch": str(b), **line} for (name, b), line in lines.items()]
    return pd.DataFrame(found).fillna("")


def _figure(summary: pd.DataFrame) -> Figure:
    """Premium by model, batch sizes side by side."""
    clean = summary["run"] == "clean"
    drawn = summary[~clean].drop(columns="metric")
    drawn = drawn.assign(
        batch="batch " + drawn["batch"].astype(str),
        **{name: 100 * drawn[name] for name in ("mean", "low", "high")},
    )
    level = pd.DataFrame([{"run": "clean", "mean": 0.0}])
    return plots.bars(
        pd.concat([drawn, level], ignore_index=True).rename(
            columns={"model": "model (layers x width)"}
        ),
        x="model (layers x width)",
        group="batch",
        ylabel="time beyond the clean run's (%)",
        note=f"95 % intervals over {int(summary['n'].max())} rounds; controls at batch {LARGEST}",
    )
