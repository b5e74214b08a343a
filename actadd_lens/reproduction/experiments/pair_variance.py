"""Do other contrast pairs of the same concept steer as well, and can a good pair be told before?

Every pair of the concepts "sentiment", the first topic and "register" is added at the concept's
layer, coefficient and front, which were found for its first pair. Beside each stand one random
vector of its norms, a draw of its own, and its positive prompt as text; beside each concept the
clean run and the mean difference over its pairs. Negated vectors are left out: they ask for the
contrary, which says nothing of how pairs differ. Every second test prompt is taken, as there are
many runs. The cosine of a pair is that of its vector, all rows as one, with the mean of the vectors
of the concept's other pairs.

Criteria, fixed before the run:

Q1. Do most pairs steer? Yes if in each concept, for more than half of its pairs, the interval of
    the paired change of success against the clean run lies above 0.
Q2. Do they steer alike? Yes if in each concept the standard deviation over pairs of the mean
    success is at most 10 points.
Q3. Does the cosine to the mean of the others tell a good pair? Yes if Spearman's correlation of
    cosine and mean success, over all pairs of all concepts, is positive with p below .05.
"""

from collections.abc import Mapping
from functools import reduce
from operator import add

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
from actadd_lens.reproduction.outcome import Outcome
from actadd_lens.reproduction.readings import Readings, text_of
from actadd_lens.reproduction.setup import Setup
from actadd_lens.sweeps.configurations import CLEAN, Configuration, Run, labelled
from actadd_lens.vectors.norms import cosines
from actadd_lens.vectors.vector import SteeringVector

PAPER = "One pair of a concept is reported at a time; reviewers asked for the variance over pairs."
DIFFERS = "Pairs are not chosen by their effect: all that the material has are measured."
THINNED = 2
LOOKS = {
    "steered": (COLOURS[0], "o", 0.0),
    "prompted": (CONTROL_COLOUR, "s", 0.18),
    "random": (CONTROL_COLOUR, "x", -0.18),
}


def run(setup: Setup) -> Outcome:
    """Measure every pair of every concept."""
    concepts, read, success, lines = {}, {}, {}, []
    for name in ("sentiment", setup.material.topics[0], "register"):
        concept = concepts[name] = setup.concept(name).thinned(THINNED)
        layer, _ = setup.cell(concept)
        vectors = {k: setup.vector(p, layer) for k, p in labelled(concept.pairs).items()}
        r = read[name] = setup.readings(
            name,
            _cells(setup, concept, vectors),
            concept.test,
            [concept.success, setup.material.coherence],
        )
        wanted = success[name] = concept.success.name
        for label in vectors:
            gain, value = r.change(wanted, pair=label), r.value(wanted, pair=label)
            lines.append(
                {"concept": name, "pair": label, "success": value.mean, "steers": gain.low > 0}
                | {"cosine": _cosine(label, vectors), "told": gain.n > 1}
            )
    pairs = pd.DataFrame(lines)
    by_concept = pairs.groupby("concept", sort=False)
    steering, spread = by_concept["steers"].mean(), by_concept["success"].std()
    known = pairs.dropna(subset=["cosine", "success"])
    varies = known[["cosine", "success"]].nunique().min() > 1
    rho, p = spearmanr(known["cosine"], known["success"]) if varies else (float("nan"),) * 2
    summary = pd.concat([r.summary().assign(concept=n) for n, r in read.items()], ignore_index=True)
    return Outcome(
        rows=pd.concat([r.frame.assign(concept=n) for n, r in read.items()], ignore_index=True),
        summary=summary.merge(pairs[["concept", "pair", "cosine"]], "left", ["concept", "pair"]),
        shown=pd.DataFrame(
            [
                _line(setup, read[name], concept, pairs[pairs["concept"] == name])
                for name, concept in concepts.items()
            ]
        ),
        figure=_figure(summary[summary["metric"].isin(success.values())]),
        verdicts=[
            Verdict(
                "Q1",
                bool((steering > 0.5).all()) if pairs["told"].all() else None,
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
        ],
        facts={name: "; ".join(setup.said(c).values()) for name, c in concepts.items()},
    )


def _cells(
    setup: Setup, concept: Concept, vectors: Mapping[str, SteeringVector]
) -> list[Configuration]:
    """The clean run, the mean difference, and every pair with its controls."""
    _, c = setup.cell(concept)
    of_all = (CLEAN, "mean_difference")
    cells = [cell for cell in setup.baselines(concept) if cell.labels["run"] in of_all]
    # Pairs that have their positive prompt in common share its run.
    prompted = {pair.positive: Run(prefix=pair.positive) for pair in concept.pairs}
    named = zip(vectors.items(), concept.pairs, strict=True)
    for i, ((label, vector), pair) in enumerate(named, start=1):
        steered, random = setup.arms(concept, vector, c, (f"random:{i}",), pair=label)
        labels = {**steered.labels, "run": "prompted"}
        cells += [steered, random, Configuration(labels, prompted[pair.positive])]
    return cells


def _cosine(label: str, vectors: Mapping[str, SteeringVector]) -> float:
    """Of a vector with the mean of the others; their sum has its direction."""
    others = reduce(add, [vector for name, vector in vectors.items() if name != label])
    return float(cosines({"own": vectors[label], "others": others}).to_numpy()[0, 1])


def _line(setup: Setup, read: Readings, concept: Concept, pairs: pd.DataFrame) -> dict[str, str]:
    """A concept in the report: its pairs together, the extremes, and what they are set beside."""
    beside = ("clean", "random", "prompted", "mean difference")
    values = {run: read.value(concept.success.name, run) for run in beside}
    ranked = pairs.sort_values("success", kind="stable")
    worst, best = (
        f"{100 * r['success']:.0f} %, {r['pair']}" for _, r in ranked.iloc[[0, -1]].iterrows()
    )
    return {
        "concept": concept.name,
        "pairs": str(len(pairs)),
        "success, mean over pairs": f"{100 * pairs['success'].mean():.0f} %",
        "sd": f"{100 * pairs['success'].std():.0f} points",
        "worst": worst,
        "best": best,
        **{run: text_of(value, share=True) for run, value in values.items()},
        "mean difference, coherent": text_of(
            read.value(setup.material.coherence.name, "mean difference"), share=True
        ),
        "n": str(values["clean"].n),
    }


def _figure(summary: pd.DataFrame) -> Figure:
    """Success of each pair, a panel for each concept, as high as it has pairs."""
    summary = summary.assign(**{name: 100 * summary[name] for name in ("mean", "low", "high")})
    parts = list(summary.groupby("concept", sort=False))
    sizes = [own["pair"][own["run"] == "steered"].nunique() for _, own in parts]
    with drawing() as figure:
        figure.set_size_inches(5.6, 1.2 + 0.2 * sum(sizes) + 0.3 * len(sizes))
        axes = figure.subplots(len(parts), 1, sharex=True, squeeze=False, height_ratios=sizes)
        for ax, (name, own) in zip(axes.flat, parts, strict=True):
            _draw(ax, own)
            ax.set_title(plain(name))
        ax.set_xlim(-3, 103)
        ax.set_xlabel("completions as wanted (%)")
        legend(figure, list(axes.flat), f"95 % intervals, n = {summary['n'].max()} prompts")
    return figure


def _draw(ax: Axes, own: pd.DataFrame) -> None:
    pairs = list(own["pair"][own["run"] == "steered"])
    for run, (colour, marker, shift) in LOOKS.items():
        rows = own[own["run"] == run]
        at = rows["pair"].map(pairs.index) - shift
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
