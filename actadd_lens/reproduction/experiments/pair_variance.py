"""Other contrast pairs of the same concept."""

from functools import partial, reduce
from operator import add
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.stats import spearmanr

from actadd_lens.plots.style import (
    CLEAN_COLOUR,
    COLOURS,
    CONTROL_COLOUR,
    drawing,
    interval,
    legend,
    plain,
)
from actadd_lens.reproduction.concepts import Concept
from actadd_lens.reproduction.criteria import Verdict, at_least
from actadd_lens.reproduction.measurements import note, percent
from actadd_lens.reproduction.outcome import Measured
from actadd_lens.reproduction.registry import experiment
from actadd_lens.reproduction.setup import Setup
from actadd_lens.sweeps.configurations import (
    Configuration,
    Run,
    Steered,
    labelled,
    with_controls,
)
from actadd_lens.vectors.geometry import cosines

THINNED = 2
LOOKS = {
    "steered": (COLOURS[0], "o", 0.0),
    "prompted": (CONTROL_COLOUR, "s", 0.18),
    "random": (CONTROL_COLOUR, "x", -0.18),
}
COMPARED = ("clean", "random", "prompted", "mean difference")


@experiment(
    "pair-variance",
    question="Do other contrast pairs of a concept steer as well, and can a good one be predicted?",
    design="""Every pair of the concepts "sentiment", the first topic and "register" is added at the
    concept's layer, coefficient and front, which were found for its first pair. Each is compared
    with one random vector of its norms, a draw of its own, and its positive prompt as text; each
    concept with the clean run and the mean difference over its pairs. Negated vectors are left out:
    they ask for the contrary, which says nothing of how pairs differ. Every second test prompt is
    taken, as there are many runs. The cosine of a pair is that of its vector, all rows as one, with
    the mean of the vectors of the concept's other pairs.""",
    criteria={
        "Q1": """Do most pairs steer? Yes if in each concept, for more than half of its pairs, the
        interval of the paired change of success against the clean run lies above 0.""",
        "Q2": """Do they steer alike? Yes if in each concept the standard deviation over pairs of
        the mean success is at most 10 points.""",
        "Q3": """Does the cosine to the mean of the others predict a good pair? Yes if Spearman's
        correlation of cosine and mean success, over all pairs of all concepts, is positive with p
        below .05.""",
    },
    paper="""One pair of a concept is reported at a time; reviewers asked for the variance over
    pairs.""",
    differs="Pairs are not chosen by their effect: all that the data set has are measured.",
)
def pair_variance(setup: Setup) -> Measured:
    """Measure every pair of every concept."""
    names = ("sentiment", setup.data.topics[0], "register")
    concepts = {name: c.thinned(THINNED) for name, c in setup.concepts(*names).items()}
    parts = setup.measure_each(concepts, partial(_cells, setup), "success", "coherence")
    found = {name: _cosines(setup, concept) for name, concept in concepts.items()}
    return Measured(parts, {"cosines": found}, setup.describe_all(concepts))


def _cells(setup: Setup, concept: Concept) -> list[Configuration]:
    """The clean run, the mean difference, and every pair with its controls."""
    layer, c = setup.setting(concept)
    clean, *_, mean = setup.baselines(concept)
    cells = [clean, mean]
    runs = dict[Any, Run]()  # pairs that have their positive prompt in common share its run
    for i, (label, pair) in enumerate(labelled(concept.pairs).items(), start=1):
        of = Steered(c * setup.vector(pair, layer), setup.seed, pair=pair)
        where = {"vector": label, "layer": layer, "coefficient": c, "position": of.vector.position}
        cells += with_controls(of, where, (f"random:{i}", "prompted"), runs)
    return cells


def _cosines(setup: Setup, concept: Concept) -> dict[str, float]:
    """Of each pair's vector with the mean of the others; their sum has its direction."""
    layer, _ = setup.setting(concept)
    vectors = {k: setup.vector(pair, layer) for k, pair in labelled(concept.pairs).items()}
    found = {}
    for label, vector in vectors.items():
        others = reduce(add, [other for name, other in vectors.items() if name != label])
        found[label] = float(cosines({"own": vector, "others": others}).to_numpy()[0, 1])
    return found


def _pairs(m: Measured) -> pd.DataFrame:
    """A line for each pair of each concept."""
    lines = []
    for name, part in m.parts.items():
        for label, cosine in m.notes["cosines"][name].items():
            gain = part.change("success", vector=label)
            success = part.value("success", vector=label).mean
            line = {"concept": name, "vector": label, "success": success, "cosine": cosine}
            lines.append(line | {"steers": gain.low > 0, "decided": gain.n > 1})
    return pd.DataFrame(lines)


@pair_variance.judge
def judge(m: Measured) -> list[Verdict]:
    """Count the pairs that steer, and compare them."""
    pairs = _pairs(m)
    by_concept = pairs.groupby("concept", sort=False)
    spread = by_concept["success"].std()
    known = pairs.dropna(subset=["cosine", "success"])
    varies = known[["cosine", "success"]].nunique().min() > 1
    rho, p = spearmanr(known["cosine"], known["success"]) if varies else (float("nan"),) * 2
    return [
        Verdict(
            "Q1",
            bool((by_concept["steers"].mean() > 0.5).all()) if pairs["decided"].all() else None,
            "; ".join(f"{k} {own['steers'].sum()} of {len(own)}" for k, own in by_concept),
        ),
        Verdict(
            "Q2",
            all(at_least(0.1, sd) for sd in spread) if spread.notna().all() else None,
            "; ".join(f"{name} {100 * sd:.0f} points" for name, sd in spread.items()),
        ),
        Verdict(
            "Q3",
            bool(rho > 0 and p < 0.05) if varies else None,
            f"rho = {rho:.2f}, p = {p:.2g}, {len(known)} pairs"
            if varies
            else "all pairs have the same success or cosine",
        ),
    ]


@pair_variance.tabulate
def tabulate(m: Measured) -> pd.DataFrame:
    """A line for each concept: its pairs together, the extremes, and the runs without pairs."""
    lines = []
    for name, pairs in _pairs(m).groupby("concept", sort=False):
        part = m.parts[str(name)]
        values = {run: part.value("success", run) for run in COMPARED}
        coherent = part.value("coherence", "mean difference")
        ranked = pairs.sort_values("success", kind="stable").iloc[[0, -1]].to_dict("records")
        worst, best = (f"{100 * r['success']:.0f} %, {r['vector']}" for r in ranked)
        lines.append(
            {
                "concept": name,
                "pairs": str(len(pairs)),
                "success, mean over pairs": f"{100 * pairs['success'].mean():.0f} %",
                "sd": f"{100 * pairs['success'].std():.0f} points",
                "worst": worst,
                "best": best,
                **{run: percent(value) for run, value in values.items()},
                "mean difference, coherent": percent(coherent),
                "n": str(values["clean"].n),
            }
        )
    return pd.DataFrame(lines)


@pair_variance.draw
def draw(m: Measured) -> Figure:
    """Success of each pair, a panel for each concept, as high as it has pairs."""
    sizes = [len(pairs) for pairs in m.notes["cosines"].values()]
    with drawing() as figure:
        figure.set_size_inches(5.6, 1.2 + 0.2 * sum(sizes) + 0.3 * len(sizes))
        axes = figure.subplots(len(sizes), 1, sharex=True, squeeze=False, height_ratios=sizes)
        for ax, (name, part) in zip(axes.flat, m.parts.items(), strict=True):
            own = part.summary[part.summary["metric"] == "success"]
            _panel(ax, own.assign(**{end: 100 * own[end] for end in ("mean", "low", "high")}))
            ax.set_title(plain(name))
        ax.set_xlim(-3, 103)
        ax.set_xlabel("completions as wanted (%)")
        legend(figure, list(axes.flat), note(m.summary))
    return figure


def _panel(ax: Axes, own: pd.DataFrame) -> None:
    pairs = list(own["vector"][own["run"] == "steered"])
    for run, (colour, marker, shift) in LOOKS.items():
        rows = own[own["run"] == run]
        at = rows["vector"].map(pairs.index) - shift
        look = {"color": colour, "zorder": 2.5}
        interval(ax, at, rows["low"], rows["high"], across=True, linewidth=1.2, **look)
        look["markerfacecolor"] = "white" if run == "prompted" else colour
        ax.plot(rows["mean"], at, linestyle="", marker=marker, label=run, clip_on=False, **look)
    for run, colour, dashes in (
        ("mean difference", CONTROL_COLOUR, "--"),
        ("clean", CLEAN_COLOUR, "-"),
    ):
        [row] = own[own["run"] == run].to_dict("records")
        ax.axvspan(row["low"], row["high"], color=colour, alpha=0.12, linewidth=0)
        ax.axvline(row["mean"], color=colour, linestyle=dashes, linewidth=1.0, label=run)
    ax.set_yticks(range(len(pairs)), [plain(pair) for pair in pairs])
    ax.set_ylim(len(pairs) - 0.4, -0.6)
    ax.grid(True, axis="x")
    ax.grid(False, axis="y")
