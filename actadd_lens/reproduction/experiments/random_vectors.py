"""Random vectors of the same norms."""

import math
from collections.abc import Sequence
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from actadd_lens.metrics import relative_kl
from actadd_lens.plots.style import (
    COLOURS,
    CONTROL_COLOUR,
    MARKERS,
    clean_level,
    drawing,
    interval,
    legend,
    log_ticks,
    panel_axes,
    wrapped,
)
from actadd_lens.reproduction.concepts import Concept
from actadd_lens.reproduction.criteria import Verdict, decide
from actadd_lens.reproduction.measurements import (
    NAMES,
    ORDER,
    Measurements,
    as_measurements,
    format_interval,
    interval_in,
    percent,
)
from actadd_lens.reproduction.outcome import Measured
from actadd_lens.reproduction.registry import experiment
from actadd_lens.reproduction.setup import Setup
from actadd_lens.statistics import Interval, proportion
from actadd_lens.sweeps import steering_reach
from actadd_lens.sweeps.configurations import KEYS, Configuration
from actadd_lens.vectors.vector import SteeringVector

KL_FIRST, KL_LATER = relative_kl.name, "kl_later"
HEADS = {"success": "success", KL_FIRST: "KL/entropy", KL_LATER: "KL later (nats a token)"}
POOLED = "random, all draws"


@experiment(
    "random-vectors",
    question="""Does a random vector of the same norm change the output more than the vector,
    without steering?""",
    design=""""Love" - "Hate" is compared with random vectors with the same norm in every row. How
    much a run changes the output is the KL of the token after the prompt over the entropy of the
    clean run; later it is KL(steered || clean) of the generated tokens in nats, the mean along
    what the steered model writes, which is undefined for the prompted run. Success is the share of
    completions of the wanted sentiment.""",
    criteria={
        "F1": """A random vector of the same norm changes the output more: on more than half of the
        prompts (lower end of the share's interval above 0.5) the mean over draws of KL/entropy is
        larger than the vector's (the paper: on 55 of 58).""",
        "F2": """A random vector does not steer: the interval of the paired change in success,
        random draws minus clean, contains 0 or lies below it. Not testable if the vector's own does
        not lie above 0.""",
        "Q1": """Is the vector's success beyond every draw's? Yes if each draw's mean success is
        below the lower end of the vector's interval.""",
    },
    paper="""GPT-2-XL, Anger - Calm at layer 20, coefficient 10, one random vector, 58 prompts: KL
    over entropy .135 random against .077 of ActAdd; larger with the random vector on 55 of 58.""",
    differs="""Several draws, and success as well as divergence. Where prompts end in a full stop,
    as those of the testbed do, the token after them says little about what a vector does; so the
    divergence along the completion is given as well.""",
)
def random_vectors(setup: Setup) -> Measured:
    """Measure the vector, random draws and the other baselines."""
    concept = setup.concept("sentiment")
    layer, c = setup.setting(concept)
    vector = setup.vector(concept.pair, layer)
    draws = ["random", *(f"random:{i}" for i in range(1, setup.sizes.draws))]
    clean, *_, mean = setup.baselines(concept)
    cells = [clean, *setup.conditions(concept, vector, c, [*draws, "negated", "prompted"]), mean]
    metrics = {**setup.scores(concept, "success"), KL_FIRST: relative_kl}
    return Measured(
        {
            "draws": setup.measure("draws", cells, concept.test, metrics),
            "later": _later(setup, concept, vector, c, [*draws, "negated"], mean),
        },
        notes={"draws": draws, "wanted": concept.wanted},
        facts={**setup.describe(concept), "random vectors": f"{len(draws)} draws"},
    )


def _later(
    setup: Setup,
    concept: Concept,
    vector: SteeringVector,
    c: float,
    controls: Sequence[str],
    mean: Configuration,
) -> Measurements:
    """Mean KL of the generated tokens of each completion, of vectors with their controls."""
    options = {
        **setup.sampling, "samples": setup.sizes.samples, "seed": setup.seed,
        "progress": setup.progress, "batch_size": setup.batch_size,
    }  # fmt: skip
    found = steering_reach(setup.model, c * vector, concept.test, controls=controls, **options)
    [added] = mean.run.steering
    average = steering_reach(setup.model, added, concept.test, controls=(), **options)
    frames = [
        found.frame.assign(vector=concept.name, coefficient=c),
        average.frame.assign(**mean.labels),
    ]
    frame = pd.concat(frames, ignore_index=True)
    by = [*KEYS, "prompt", "sample"]
    means = frame.groupby(by, sort=False, dropna=False)["value"].mean().reset_index()
    return as_measurements(means.drop(columns="sample").assign(metric=KL_LATER))


@random_vectors.judge
def judge(m: Measured) -> list[Verdict]:
    """Compare random draws with the vector and with the clean run."""
    part = m.parts["draws"]
    by_prompt = {
        run: part.rows(KL_FIRST, run).groupby("prompt")["value"].mean()
        for run in ("steered", "random")
    }
    larger = list((by_prompt["random"] - by_prompt["steered"]).dropna() > 0)
    share = proportion(larger) if larger else Interval(math.nan, math.nan, math.nan, 0)
    first, first_random = part.value(KL_FIRST), part.value(KL_FIRST, "random")
    own, gain = part.value("success"), part.change("success", "random")
    works = part.change("success").low > 0
    draws = [part.value("success", "random", draw=name).mean for name in m.notes["draws"]]
    return [
        Verdict(
            "F1",
            decide(share.low > 0.5, share),
            f"on {sum(larger)} of {len(larger)} prompts, {percent(share)}; "
            f"KL/entropy {format_interval(first_random)} random, {format_interval(first)} steered",
        ),
        Verdict(
            "F2", decide(gain.low <= 0, gain) if works else None, f"change {percent(gain, n=True)}"
        ),
        Verdict(
            "Q1",
            decide(max(draws) < own.low, own),
            f"{percent(own, n=True)}; draws {100 * min(draws):.0f} to {100 * max(draws):.0f} %",
        ),
    ]


def _by_draw(part: Measurements) -> pd.DataFrame:
    """The summary with every draw by itself, and then all draws together."""
    table, pooled = part.result.summary(), part.summary
    table = table.assign(run=table["run"].map(lambda name: NAMES.get(name, name)))
    return pd.concat([table, pooled[pooled["run"] == "random"].assign(run=POOLED)])


@random_vectors.tabulate
def tabulate(m: Measured) -> pd.DataFrame:
    """A line for each run and for each draw."""
    empty = dict.fromkeys(HEADS.values(), "")
    lines = {run: {"run": run, **empty} for run in (*ORDER[:-2], POOLED)}
    for row in pd.concat([_by_draw(part) for part in m.parts.values()]).to_dict("records"):
        line = lines.setdefault(row["run"], {"run": row["run"], **empty})
        text = format_interval(interval_in(row), share=row["metric"] == "success")
        line[HEADS[row["metric"]]] = text
    return pd.DataFrame(list(lines.values()))


@random_vectors.draw
def draw(m: Measured) -> Figure:
    """Success against the change of the output, a mark for each run; the clean one a level."""
    summary = _by_draw(m.parts["draws"])
    cost, gain = (
        summary[summary["metric"] == name].set_index("run")[["mean", "low", "high"]]
        for name in (KL_FIRST, "success")
    )
    gain = 100 * gain.drop(POOLED)
    cost = cost.where(cost > 0)  # a logarithmic axis; rounding may leave a KL of 0 below it
    others = [name for name in ORDER[1:] if name in gain.index and name != "random"]
    draws = [name for name in gain.index if name not in (*others, "clean")]
    marks = [(draws, "random draws", "x", CONTROL_COLOUR)]
    marks += [
        ([name], name, marker, colour)
        for name, marker, colour in zip(others, MARKERS, COLOURS, strict=False)
    ]
    n = summary.loc[summary["metric"] == "success", "n"].max()
    with drawing() as figure:
        [ax], _ = panel_axes(figure, 1, (4.8, 3.3))
        for names, label, marker, colour in marks:
            x, y = cost.loc[names], gain.loc[names]
            light: dict[str, Any] = {"color": colour, "alpha": 0.4, "linewidth": 1.0}
            interval(ax, x["mean"], y["low"], y["high"], **light)
            interval(ax, y["mean"], x["low"], x["high"], across=True, **light)
            ax.plot(x["mean"], y["mean"], linestyle="", marker=marker, color=colour, label=label)
        clean_level(ax, gain.loc[["clean"]])
        if cost["mean"].notna().any():
            log_ticks(ax.xaxis, cost["mean"].dropna())
        ax.set_xlabel("KL of the token after the prompt / entropy of the clean run")
        ax.set_ylabel(wrapped(f"{m.notes['wanted']} (%)", 2.2))
        ax.set_ylim(-3, 103)
        ax.grid(True, axis="both")
        legend(figure, [ax], f"95 % intervals both ways, n = {n} prompts")
    return figure
