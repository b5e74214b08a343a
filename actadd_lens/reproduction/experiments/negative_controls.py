"""Random vectors of the same norms, and vectors that should not work."""

import math
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from actadd_lens import plots
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
from actadd_lens.reproduction.criteria import Verdict, decide
from actadd_lens.reproduction.measurements import (
    NAMES,
    ORDER,
    Measurements,
    as_measurements,
    format_interval,
    interval_in,
    note,
    percent,
)
from actadd_lens.reproduction.outcome import Measured
from actadd_lens.reproduction.registry import experiment
from actadd_lens.reproduction.setup import OF_VECTOR, Setup
from actadd_lens.statistics import Interval, proportion
from actadd_lens.sweeps import steering_reach
from actadd_lens.sweeps.configurations import KEYS
from actadd_lens.vectors.pair import ContrastPair
from actadd_lens.vectors.vector import SteeringVector

KL_FIRST, KL_LATER = relative_kl.name, "kl_later"
HEADS = {"success": "success", KL_FIRST: "KL/entropy", KL_LATER: "KL later (nats a token)"}
POOLED = "random, all draws"
GIBBERISH = ContrastPair("xqzv.", "brlk.")
HUGE = 100.0
PROPER, ALONE, NO_BOS = "contrast pair", "positive alone", "alone, no BOS"
NONSENSE, BROKEN = "gibberish pair", f"pair x {HUGE:g}"
PANELS = {"success": "completions as wanted", "coherence": "coherent"}


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
    options = {
        **setup.sampling, "samples": setup.sizes.samples, "seed": setup.seed,
        "progress": setup.progress, "batch_size": setup.batch_size,
    }  # fmt: skip
    part = setup.measure("draws", cells, concept.test, metrics)
    controls = [*draws, "negated"]
    found = steering_reach(setup.model, c * vector, concept.test, controls=controls, **options)
    [added] = mean.run.steering
    average = steering_reach(setup.model, added, concept.test, controls=(), **options)
    own = found.frame.assign(vector=concept.name, coefficient=c)
    frame = pd.concat([own, average.frame.assign(**mean.labels)], ignore_index=True)
    by = [*KEYS, "prompt", "sample"]
    means = frame.groupby(by, sort=False, dropna=False)["value"].mean().reset_index()
    later = as_measurements(means.drop(columns="sample").assign(metric=KL_LATER))
    return Measured(
        {"draws": part, "later": later},
        notes={"draws": draws, "wanted": concept.wanted},
        facts={**setup.describe(concept), "random vectors": f"{len(draws)} draws"},
    )


@random_vectors.judge
def judge_random(m: Measured) -> list[Verdict]:
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
def tabulate_random(m: Measured) -> pd.DataFrame:
    """A line for each run and for each draw."""
    empty = dict.fromkeys(HEADS.values(), "")
    lines = {run: {"run": run, **empty} for run in (*ORDER[:-2], POOLED)}
    for row in pd.concat([_by_draw(part) for part in m.parts.values()]).to_dict("records"):
        line = lines.setdefault(row["run"], {"run": row["run"], **empty})
        text = format_interval(interval_in(row), share=row["metric"] == "success")
        line[HEADS[row["metric"]]] = text
    return pd.DataFrame(list(lines.values()))


@random_vectors.draw
def draw_random(m: Measured) -> Figure:
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


@experiment(
    "failures",
    question="""Do the paper's failures fail: no contrast, a pair of gibberish, a coefficient of
    100?""",
    design="""In addition to the proper pair of the concept "sentiment", vectors that should not
    work are added at its layer and front: the rows of the positive prompt alone, the difference of
    two strings of letters that mean nothing, and the proper pair times 100; all but the last have
    the proper coefficient. The row of BOS, which is zero in a pair's vector, is not zero in that of
    a prompt alone, in the paper either, and may be huge; a line of the table without it shows how
    much is due to it. Every vector is compared with random ones of its norms and with its negative.
    Prompting and the mean difference do not depend on the vector and are given for the proper pair.
    """,
    criteria={
        "F1": """One prompt without its contrast does not do it: the interval of the paired change
        of success from it to the contrast pair lies above 0.""",
        "F2": """A gibberish pair does nothing wanted: the interval of its paired change of success
        against the clean run contains 0 or lies below it. Not testable if that of the contrast pair
        does not lie above 0.""",
        "F3": """A huge coefficient breaks the text: at 100 the interval of the paired change of
        coherence against the clean run lies below 0.""",
    },
    paper=""""Love" alone without a contrast, a gibberish pair and a coefficient of 100: no effect,
    or broken text.""",
    differs="Rates with intervals over many prompts and controls, in place of single completions.",
)
def failures(setup: Setup) -> Measured:
    """Measure the proper pair with every baseline, and each failure with its controls."""
    concept = setup.concept("sentiment")
    layer, c = setup.setting(concept)
    pair = setup.vector(concept.pair, layer)
    alone = SteeringVector.from_prompt(setup.model, concept.pair.positive, layer)
    vectors = {
        ALONE: (alone, c),
        NO_BOS: (alone.with_rows(range(1, len(alone.rows))), c),
        NONSENSE: (setup.vector(GIBBERISH, layer), c),
        BROKEN: (pair, HUGE),
    }
    cells = setup.baselines(concept)
    norms = [(PROPER, (c * pair).norms())]
    for name, (vector, times) in vectors.items():
        cells += setup.conditions(concept, vector, times, OF_VECTOR, vector=name)
        norms.append((name, (times * vector).norms()))
    rows = max(len(vector.rows) for vector, _ in vectors.values())
    prompts = setup.long_enough(concept.test, rows)
    metrics = setup.scores(concept, "success", "coherence")
    return Measured(
        {"failures": setup.measure("failures", cells, prompts, metrics)},
        notes={"concept": concept.name},
        facts={
            **setup.describe(concept),
            "prompts": f"{len(prompts)}, for {concept.wanted}; {len(concept.test) - len(prompts)} "
            f"shorter than {rows} tokens left out",
            "gibberish": f"{GIBBERISH.positive!r} - {GIBBERISH.negative!r}",
            "row norms, times the coefficient": "; ".join(
                f"{name} {', '.join(f'{norm:.0f}' for norm in own)}" for name, own in norms
            ),
        },
    )


@failures.judge
def judge_failures(m: Measured) -> list[Verdict]:
    """Compare the failures with the proper pair and with the clean run."""
    part, proper = m.parts["failures"], m.notes["concept"]
    contrast = part.change("success", than="steered", where={"vector": ALONE}, vector=proper)
    wanted = part.change("success", vector=NONSENSE)
    works = part.change("success", vector=proper).low > 0
    broken = part.change("coherence", vector=BROKEN)
    alone, pair, no_bos = (part.value("success", vector=v) for v in (ALONE, proper, NO_BOS))
    return [
        Verdict(
            "F1",
            decide(contrast.low > 0, contrast),
            f"alone {percent(alone)}, pair {percent(pair, n=True)}; change {percent(contrast)}; "
            f"without BOS {percent(no_bos)}",
        ),
        Verdict("F2", decide(wanted.low <= 0, wanted) if works else None, percent(wanted)),
        Verdict("F3", decide(broken.high < 0, broken), percent(broken)),
    ]


@failures.tabulate
def tabulate_failures(m: Measured) -> pd.DataFrame:
    """In the order of the vectors; the coefficient is in their names."""
    table = m.parts["failures"].by_run().replace({"vector": {m.notes["concept"]: PROPER}})
    order = ["", PROPER, ALONE, NO_BOS, NONSENSE, BROKEN]
    table = table.sort_values("vector", key=lambda pair: pair.map(order.index), kind="stable")
    return table.drop(columns="coefficient")


@failures.draw
def draw_failures(m: Measured) -> Figure:
    """Each vector with its controls, a panel for success and one for coherence."""
    summary = m.summary.replace({"vector": {m.notes["concept"]: PROPER}})
    shown = summary.assign(condition=summary["vector"], vector=summary["metric"].map(PANELS))
    return plots.bars(
        shown.drop(columns=["metric", "position"]),
        x="condition",
        ylabel="completions",
        unit="%",
        note=note(summary),
    )
