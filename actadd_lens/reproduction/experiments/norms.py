"""The norms of vectors relative to the residual stream."""

from collections.abc import Mapping

import pandas as pd
import torch
from matplotlib.figure import Figure

from actadd_lens import plots
from actadd_lens.models import hook_points
from actadd_lens.plots.style import plain
from actadd_lens.reproduction.concepts import Concept
from actadd_lens.reproduction.criteria import Verdict, decide
from actadd_lens.reproduction.measurements import as_measurements, format_interval, interval_in
from actadd_lens.reproduction.outcome import Measured
from actadd_lens.reproduction.registry import experiment
from actadd_lens.reproduction.setup import Setup
from actadd_lens.statistics import Interval
from actadd_lens.sweeps.configurations import KEYS, STEERED
from actadd_lens.vectors.extraction import extract
from actadd_lens.vectors.geometry import dose, residual_norms
from actadd_lens.vectors.vector import SteeringVector

RATIO, ADDED, STREAM = "ratio", "vector_norm", "residual_norm"
HEADS = {ADDED: "norm of the row", STREAM: "norm of the stream", RATIO: "ratio"}


@experiment(
    "norms",
    question="""How large is a steering vector relative to the residual stream that it is added to,
    by depth?""",
    design="""The vectors of "Love" - "Hate" and " weddings" - " " at every layer are compared with
    the stream of the prompts, where each row is added. A vector's ratio on a prompt is that of the
    row with the largest norm: the row of BOS is zero by construction, and where both texts have the
    same token, as a full stop, its row is zero at layer 0. Random vectors and the negative have the
    same norms by construction, so they are not listed again; prompting adds nothing; the mean
    difference is added at every position, and listed with the mean over positions.""",
    criteria={
        "F1": """The relative norm falls with depth: at c = 1 the ratio at the last layer is below
        that at the middle layer, and that below the first layer's, for both pairs (paper: 1.30,
        .745, .383).""",
        "F2": """At the coefficient in use the vector is large: at the concept's layer and
        coefficient, the norm of the largest row is at least half of the stream's norm there on the
        mean, for both pairs.""",
    },
    paper="""GPT-2-XL, Anger - Calm at coefficient 1: norm of the vector over that of the stream
    1.30 at layer 0, .745 at 20, .383 at 47; at coefficient 10 it takes most of the stream.""",
    differs="""Two other pairs, the middle layer in place of 20 of 48, and means over many prompts,
    of the largest row.""",
)
def norms(setup: Setup) -> Measured:
    """Measure norms at every layer, and at each concept's setting."""
    concepts = setup.concepts()
    vectors = {name: extract(setup.model, c.pair) for name, c in concepts.items()}
    settings = {name: setup.setting(c) for name, c in concepts.items()}
    sentiment = concepts["sentiment"]
    rows = [
        (layer, norm)
        for layer, vector in vectors["sentiment"].items()
        for norm in vector.norms().tolist()
    ]
    return Measured(
        {
            name: as_measurements(_norms(setup, c, vectors[name], settings[name]))
            for name, c in concepts.items()
        },
        notes={
            "settings": {name: [*setting] for name, setting in settings.items()},
            "depths": [0, setup.n_layers // 2, setup.n_layers - 1],
            "title": f"{sentiment.pair.positive!r} - {sentiment.pair.negative!r}, coefficient 1; "
            f"n = {len(sentiment.test)} prompts",
        },
        facts={
            **{name: setup.describe(c)["vector"] for name, c in concepts.items()},
            "prompts": ", ".join(f"{len(c.test)} for {name}" for name, c in concepts.items()),
        },
        frames={
            "stream": residual_norms(setup.model, sentiment.test),
            "rows": pd.DataFrame(rows, columns=["layer", "norm"]),
        },
    )


def _norms(
    setup: Setup,
    concept: Concept,
    vectors: Mapping[int, SteeringVector],
    setting: tuple[int, float],
) -> pd.DataFrame:
    """Of the largest row of each layer's vector at c = 1, and of what the setting adds."""
    layer, c = setting
    mean, found = setup.mean_difference(concept)
    added = [(vector, 1.0, STEERED) for vector in vectors.values()]
    added.append((mean, found, "mean_difference"))
    if c != 1:
        added.append((vectors[layer], c, STEERED))
    relative = dose(setup.model, [scale * vector for vector, scale, _ in added], concept.test)
    frames = []
    for which, (vector, scale, run) in enumerate(added):
        own = relative[relative["vector"] == which]
        if run == STEERED:
            own = own[own["row"] == int(vector.norms().argmax())]
        means = own.groupby("prompt", sort=False)[["dose", ADDED, STREAM]].mean()
        long = means.rename(columns={"dose": RATIO}).reset_index().melt("prompt", var_name="metric")
        long = long.assign(vector=concept.name, layer=vector.layer, coefficient=scale)
        frames.append(long.assign(position=str(vector.position), run=run))
    return pd.concat(frames)[[*KEYS, "prompt", "metric", "value"]]


def _ratio(m: Measured, name: str, layer: int, c: float) -> Interval:
    return m.parts[name].value(RATIO, layer=layer, coefficient=c)


@norms.judge
def judge(m: Measured) -> list[Verdict]:
    """Compare three depths, and the norm in use with the stream."""
    depths, settings = m.notes["depths"], m.notes["settings"]
    by_depth = {name: [_ratio(m, name, layer, 1.0) for layer in depths] for name in m.parts}
    in_use = {name: _ratio(m, name, *settings[name]) for name in m.parts}
    return [
        Verdict(
            "F1",
            decide(
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
            decide(all(i.mean >= 0.5 for i in in_use.values()), *in_use.values()),
            "; ".join(
                f"{name} {format_interval(in_use[name], n=True)} at layer {layer}, c = {c:g}"
                for name, (layer, c) in settings.items()
            ),
        ),
    ]


@norms.tabulate
def tabulate(m: Measured) -> pd.DataFrame:
    """Some layers at c = 1, and what is in use."""
    lines: dict[tuple[str, ...], dict[str, str]] = {}
    for row in m.summary.to_dict("records"):
        in_use = [row["layer"], row["coefficient"]] == m.notes["settings"][row["vector"]]
        if row["run"] == STEERED and row["layer"] not in m.notes["depths"] and not in_use:
            continue
        labels = {"concept": row["vector"], "layer": row["layer"]}
        labels |= {"coefficient": f"{row['coefficient']:g}", "run": row["run"]}
        line = lines.setdefault(
            (*labels.values(),), {**labels, **dict.fromkeys(HEADS.values(), "")}
        )
        line[HEADS[row["metric"]]] = format_interval(interval_in(row))
    return pd.DataFrame(list(lines.values()))


@norms.draw
def draw(m: Measured) -> Figure:
    """Norms of the stream and of the vector's rows, by layer."""
    # Vectors with one number per row: the figure reads the norms of their rows.
    rows = m.frames["rows"].groupby("layer")["norm"].agg(list)
    vectors = {
        layer: SteeringVector(torch.tensor(rows[layer]).diag(), hook_points.hook_point(layer))
        for layer in map(int, rows.index)
    }
    figure = plots.norm_profile(m.frames["stream"], vectors=vectors)
    figure.axes[0].set_title(plain(m.notes["title"]), loc="left", fontsize=9)
    return figure
