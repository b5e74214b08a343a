"""How large is a steering vector beside the residual stream that it is added to, by depth?

The vectors of "Love" - "Hate" and " weddings" - " " at every layer are set beside the stream of the
prompts, where each row lands. A vector's ratio on a prompt is that of the row with the largest
norm: the row of BOS is zero by construction, and where both texts have the same token, as a full
stop, its row is zero at layer 0. Random vectors and the negative have the same norms by
construction, so they are not listed again; prompting adds nothing; the mean difference is added at
every position, and listed with the mean over positions.

Criteria, fixed before the run:

F1. The relative norm falls with depth: at c = 1 the ratio at the last layer is below that at the
    middle layer, and that below the first layer's, for both pairs (paper: 1.30, .745, .383).
F2. At the coefficient in use the vector is large: at the concept's layer and coefficient, the norm
    of the largest row is at least half of the stream's norm there on the mean, for both pairs.
"""

from collections.abc import Mapping, Sequence

import pandas as pd

from actadd_lens import plots
from actadd_lens.models.tokens import tokenize
from actadd_lens.plots.style import plain
from actadd_lens.reproduction.concepts import Concept
from actadd_lens.reproduction.criteria import Verdict, told
from actadd_lens.reproduction.outcome import Outcome
from actadd_lens.reproduction.readings import Readings, as_readings, text_of
from actadd_lens.reproduction.setup import Setup
from actadd_lens.reproduction.work import Ask
from actadd_lens.statistics import Interval
from actadd_lens.sweeps.configurations import KEYS, STEERED
from actadd_lens.vectors.extraction import extract
from actadd_lens.vectors.norms import dose, residual_norms
from actadd_lens.vectors.vector import SteeringVector

PAPER = (
    "GPT-2-XL, Anger - Calm at coefficient 1: norm of the vector over that of the stream 1.30 at "
    "layer 0, .745 at 20, .383 at 47; at coefficient 10 it takes most of the stream."
)
DIFFERS = (
    "Two other pairs, the middle layer in place of 20 of 48, and means over many prompts, of the "
    "largest row."
)
RATIO, ADDED, STREAM = "ratio", "vector_norm", "residual_norm"


def run(setup: Setup) -> Outcome:
    """Measure norms at every layer, and at each concept's cell."""
    concepts = {name: setup.concept(name) for name in ("sentiment", setup.material.topics[0])}
    vectors = {name: extract(setup.model, concept.pair) for name, concept in concepts.items()}
    cells = {name: setup.cell(concept) for name, concept in concepts.items()}
    depths = (0, setup.n_layers // 2, setup.n_layers - 1)
    read = as_readings(
        pd.concat(
            [_norms(setup, concepts[name], vectors[name], cells[name]) for name in concepts],
            ignore_index=True,
        )
    )
    by_depth = {name: [_ratio(read, name, layer, 1.0) for layer in depths] for name in concepts}
    in_use = {name: _ratio(read, name, *cells[name]) for name in concepts}
    stream = residual_norms(setup.model, concepts["sentiment"].test)
    figure = plots.norm_profile(stream, vectors=vectors["sentiment"])
    pair, n = concepts["sentiment"].pair, len(concepts["sentiment"].test)
    setup.asked.append(Ask("norms", 1, n, len(stream) / n / setup.n_layers, "prompts"))
    title = f"{pair.positive!r} - {pair.negative!r}, coefficient 1; n = {n} prompts"
    figure.axes[0].set_title(plain(title), loc="left", fontsize=9)
    summary = read.summary()
    return Outcome(
        rows=read.frame,
        summary=summary,
        shown=_table(summary, depths, cells),
        figure=figure,
        verdicts=[
            Verdict(
                "F1",
                told(
                    all(a.mean > b.mean > c.mean for a, b, c in by_depth.values()),
                    *(i for ratios in by_depth.values() for i in ratios),
                ),
                "; ".join(
                    f"{name} {', '.join(f'{i.mean:.3g}' for i in ratios)}"
                    for name, ratios in by_depth.items()
                )
                + f" at layers {', '.join(map(str, depths))}",
            ),
            Verdict(
                "F2",
                told(all(i.mean >= 0.5 for i in in_use.values()), *in_use.values()),
                "; ".join(
                    f"{name} {text_of(in_use[name], n=True)} at layer {cells[name][0]}, "
                    f"c = {cells[name][1]:g}"
                    for name in concepts
                ),
            ),
        ],
        facts={
            **{name: setup.said(concept)["vector"] for name, concept in concepts.items()},
            "prompts": ", ".join(f"{len(c.test)} for {name}" for name, c in concepts.items()),
        },
    )


def _norms(
    setup: Setup,
    concept: Concept,
    vectors: Mapping[int, SteeringVector],
    cell: tuple[int, float],
) -> pd.DataFrame:
    """Of the largest row of each layer's vector at c = 1, and of what is added at the cell."""
    layer, c = cell
    mean, found = setup.mean_difference(concept)
    added = [(vector, 1.0, STEERED) for vector in vectors.values()]
    added.append((mean, found, "mean_difference"))
    if c != 1:
        added.append((vectors[layer], c, STEERED))
    doses = dose(setup.model, [scale * vector for vector, scale, _ in added], concept.test)
    tokens = sum(map(len, tokenize(setup.model, concept.test))) / len(concept.test)
    setup.asked.append(Ask("doses", 1, len(concept.test), tokens, "prompts"))
    frames = []
    for which, (vector, scale, control) in enumerate(added):
        own = doses[doses["vector"] == which]
        if run == STEERED:
            own = own[own["row"] == int(vector.norms().argmax())]
        means = own.groupby("prompt", sort=False)[["dose", ADDED, STREAM]].mean()
        long = means.rename(columns={"dose": RATIO}).reset_index().melt("prompt", var_name="metric")
        frames.append(
            long.assign(
                pair=concept.name,
                layer=vector.layer,
                coefficient=scale,
                position=vector.position,
                run=control,
            )
        )
    return pd.concat(frames)[[*KEYS, "prompt", "metric", "value"]]


def _ratio(read: Readings, pair: str, layer: int, c: float) -> Interval:
    return read.value(RATIO, pair=pair, layer=layer, coefficient=c)


def _table(
    summary: pd.DataFrame, depths: Sequence[int], cells: Mapping[str, tuple[int, float]]
) -> pd.DataFrame:
    """Some layers at c = 1, and what is in use."""
    lines: dict[tuple[str, int, str, str], dict[str, str]] = {}
    named = {ADDED: "norm of the row", STREAM: "norm of the stream", RATIO: "ratio"}
    for row in summary.to_dict("records"):
        at_cell = (row["layer"], row["coefficient"]) == cells[row["pair"]]
        if row["run"] == "steered" and row["layer"] not in depths and not at_cell:
            continue
        key = row["pair"], row["layer"], f"{row['coefficient']:g}", row["run"]
        shown = text_of(Interval(row["mean"], row["low"], row["high"], row["n"]))
        lines.setdefault(key, {})[named[row["metric"]]] = shown
    columns = ["concept", "layer", "coefficient", "run"]
    return pd.DataFrame(
        [
            {
                **dict(zip(columns, key, strict=True)),
                **{name: shown[name] for name in named.values()},
            }
            for key, shown in lines.items()
        ]
    )
