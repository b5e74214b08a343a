"""Does a random vector of the same norm change the output more than the vector, without steering?

"Love" - "Hate" is set beside random vectors with the same norm in every row. How much a run
changes the output is the KL of the token after the prompt over the entropy of the clean run;
further on it is KL(steered || clean) of the generated tokens in nats, the mean along what the
steered model writes, which is not to be had of the prompted run. Success is the share of
completions of the wanted sentiment.

Criteria, fixed before the run:

F1. A random vector of the same norm changes the output more: on more than half of the prompts
    (lower end of the share's interval above 0.5) the mean over draws of KL/entropy is larger than
    the vector's (the paper: on 55 of 58).
F2. A random vector does not steer: the interval of the paired change in success, random draws minus
    clean, contains 0 or lies below it. Not testable if the vector's own does not lie above 0.
Q1. Is the vector's success beyond every draw's? Yes if each draw's mean success is below the lower
    end of the vector's interval.
"""

import math
from collections.abc import Sequence
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from actadd_lens.metrics import relative_kl
from actadd_lens.models.tokens import encode
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
from actadd_lens.reproduction.criteria import Verdict, told
from actadd_lens.reproduction.outcome import Outcome
from actadd_lens.reproduction.readings import NAMES, ORDER, Readings, as_readings, text_of
from actadd_lens.reproduction.setup import Setup
from actadd_lens.reproduction.work import Ask
from actadd_lens.statistics import Interval, proportion
from actadd_lens.sweeps import steering_reach
from actadd_lens.sweeps.configurations import KEYS, Configuration
from actadd_lens.vectors.vector import SteeringVector

PAPER = (
    "GPT-2-XL, Anger - Calm at layer 20, coefficient 10, one random vector, 58 prompts: KL over "
    "entropy .135 random against .077 of ActAdd; larger with the random vector on 55 of 58."
)
DIFFERS = (
    "Several draws, and success beside divergence. Where prompts end in a full stop, as those of "
    "the testbed do, the token after them says little about what a vector does; so the divergence "
    "along the completion stands beside it."
)
KL_FIRST, KL_LATER = relative_kl.name, "kl_later"
POOLED = "random, all draws"


def run(setup: Setup) -> Outcome:
    """Measure the vector, random draws and the other baselines."""
    concept = setup.concept("sentiment")
    layer, c = setup.cell(concept)
    vector = setup.vector(concept.pair, layer)
    draws = ["random", *(f"random:{i}" for i in range(1, setup.sizes.draws))]
    clean, *_, mean = setup.baselines(concept)
    cells = [clean, *setup.arms(concept, vector, c, [*draws, "negated", "prompted"]), mean]
    success = concept.success.name
    read = setup.readings("draws", cells, concept.test, [concept.success, relative_kl])
    later = _later(setup, concept, vector, c, [*draws, "negated"], mean)
    changes = {
        run: read.rows(KL_FIRST, run).groupby("prompt")["value"].mean()
        for run in ("steered", "random")
    }
    larger = list((changes["random"] - changes["steered"]).dropna() > 0)
    share = proportion(larger) if larger else Interval(math.nan, math.nan, math.nan, 0)
    first, first_random = read.value(KL_FIRST), read.value(KL_FIRST, "random")
    own, gain = read.value(success), read.change(success, "random")
    works = read.change(success).low > 0
    each = [read.value(success, "random", run=name) for name in draws]
    ends = [100 * pick(i.mean for i in each) for pick in (min, max)]
    summary = pd.concat([_summary(read), _summary(later)], ignore_index=True)
    return Outcome(
        rows=pd.concat([read.frame, later.frame], ignore_index=True),
        summary=summary,
        shown=_table(summary, success),
        figure=_figure(summary, success, concept.wanted),
        verdicts=[
            Verdict(
                "F1",
                told(share.low > 0.5, share),
                f"on {sum(larger)} of {len(larger)} prompts, {text_of(share, share=True)}; "
                f"KL/entropy {text_of(first_random)} random, {text_of(first)} steered",
            ),
            Verdict(
                "F2",
                told(gain.low <= 0, gain) if works else None,
                f"change {text_of(gain, share=True, n=True)}",
            ),
            Verdict(
                "Q1",
                told(max(i.mean for i in each) < own.low, own),
                f"{text_of(own, share=True, n=True)}; draws {ends[0]:.0f} to {ends[1]:.0f} %",
            ),
        ],
        facts={**setup.said(concept), "random vectors": f"{len(draws)} draws"},
    )


def _later(
    setup: Setup,
    concept: Concept,
    vector: SteeringVector,
    c: float,
    controls: Sequence[str],
    mean: Configuration,
) -> Readings:
    """Mean KL of the generated tokens of each completion, of vectors with their controls."""
    prompts = concept.test
    options = {
        **setup.sampling, "samples": setup.sizes.samples, "seed": setup.seed,
        "progress": setup.progress, "batch_size": setup.batch_size,
    }  # fmt: skip
    found = steering_reach(setup.model, c * vector, prompts, controls=controls, **options)
    [added] = mean.run.steering
    beside = steering_reach(setup.model, added, prompts, controls=(), **options)
    tokens = sum(len(encode(setup.model, prompt)) for prompt in prompts) / len(prompts)
    runs, new = len(controls) + 2, setup.sizes.new_tokens
    setup.asked.append(
        Ask("later", runs, len(prompts), tokens, "prompts", setup.sizes.samples, new)
    )
    texts = len(prompts) * setup.sizes.samples
    read = Ask("later, read", 2 * runs, texts, tokens, "prompts", new_tokens=new, all_logits=True)
    setup.asked.append(read)
    frames = [
        found.frame.assign(pair=concept.name, coefficient=c),
        beside.frame.assign(**mean.labels),
    ]
    frame = pd.concat(frames, ignore_index=True)
    by = [*KEYS, "prompt", "sample"]
    each = frame.groupby(by, sort=False, dropna=False)["value"].mean().reset_index()
    return as_readings(each.drop(columns="sample").assign(metric=KL_LATER))


def _summary(read: Readings) -> pd.DataFrame:
    """Every control by itself, in a column ``run``, and all random draws together."""
    pooled = read.summary()
    table = read.result.summary()
    table = table.assign(run=table["run"].map(lambda name: NAMES.get(name, name)))
    return pd.concat([table, pooled[pooled["run"] == "random"].assign(run=POOLED)])


def _table(summary: pd.DataFrame, success: str) -> pd.DataFrame:
    named = {success: "success", KL_FIRST: "KL/entropy", KL_LATER: "KL further on (nats a token)"}
    lines: dict[str, dict[str, str]] = {name: {} for name in (*ORDER[:-2], POOLED)}
    for row in summary.to_dict("records"):
        i = Interval(row["mean"], row["low"], row["high"], row["n"])
        line = lines.setdefault(row["run"], {})
        line[named[row["metric"]]] = text_of(i, share=row["metric"] == success)
    return pd.DataFrame(
        [
            {"run": run, **{name: shown.get(name, "") for name in named.values()}}
            for run, shown in lines.items()
        ]
    )


def _figure(summary: pd.DataFrame, success: str, wanted: str) -> Figure:
    """Success against the change of the output, a mark for each run; the clean one a level."""
    cost, gain = (
        summary[summary["metric"] == name].set_index("run")[["mean", "low", "high"]]
        for name in (KL_FIRST, success)
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
    n = summary.loc[summary["metric"] == success, "n"].max()
    with drawing() as figure:
        [ax], _ = panel_axes(figure, 1, (4.8, 3.3))
        for names, label, marker, colour in marks:
            x, y = cost.loc[names], gain.loc[names]
            light: dict[str, Any] = {"color": colour, "alpha": 0.4, "linewidth": 1.0}
            interval(ax, x["mean"], y["low"], y["high"], **light)
            interval(ax, y["mean"], x["low"], x["high"], across=True, **light)
            look: dict[str, Any] = {
                "linestyle": "",
                "marker": marker,
                "color": colour,
            }
            ax.plot(x["mean"], y["mean"], label=label, **look)
        clean_level(ax, gain.loc[["clean"]])
        if cost["mean"].notna().any():
            log_ticks(ax.xaxis, cost["mean"].dropna())
        ax.set_xlabel("KL of the token after the prompt / entropy of the clean run")
        ax.set_ylabel(wrapped(f"{wanted} (%)", 2.2))
        ax.set_ylim(-3, 103)
        ax.grid(True, axis="both")
        legend(figure, [ax], f"95 % intervals both ways, n = {n} prompts")
    return figure
