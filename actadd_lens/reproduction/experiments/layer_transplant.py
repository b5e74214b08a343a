"""Does a vector recorded at one layer steer at another?

Vectors of sentiment and of the first topic are recorded at every layer s and all injected at the
concept's layer t, with its coefficient. Those of early layers are shorter, so each is injected
again with the norms that the rows of layer t's vector have, position by position; a row that is
zero stays zero. Random vectors have the norms as recorded; with matched norms they are those of
layer t. Negated, prompted and mean difference stand beside the vector recorded at t.

The paper's layers 0 and 2 of 48, with t = 20, are mapped to layer 0 and to a tenth of the way up to
t, max(1, round(2 t / 20)).

Criteria, fixed before the run:

F1. Recorded at layer 0 it does about nothing: as recorded, for both concepts the interval of the
    paired change of success against the clean run contains 0 or lies below it. Not testable if
    t is layer 0, or if that of layer t's own vector does not lie above 0 for both.
F2. Recorded a tenth of the way up it works in part: as recorded, for both concepts the interval of
    the paired change against the clean run lies above 0, and that against layer t's own vector
    below 0. Not testable if the layer a tenth of the way up is t.
Q1. Is it a matter of length? Yes if, with matched norms, the interval of the paired change of the
    layer-0 vector against the clean run lies above 0 for both concepts.
Q2. Do vectors of later layers work at t? Yes if for both concepts the success of the vectors
    recorded above t, as recorded, is on the mean over these layers at least half of the own
    layer's.
"""

from math import nan
from statistics import fmean
from typing import Any, Final

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from actadd_lens.models import bridge
from actadd_lens.plots.frames import percent
from actadd_lens.plots.style import (
    COLOURS,
    CONTROL_COLOUR,
    band,
    clean_level,
    drawing,
    label_y,
    legend,
    panel_axes,
    plain,
)
from actadd_lens.reproduction.concepts import Concept
from actadd_lens.reproduction.criteria import Verdict, told
from actadd_lens.reproduction.outcome import Outcome
from actadd_lens.reproduction.readings import Readings, each, text_of
from actadd_lens.reproduction.setup import BASELINES, Setup
from actadd_lens.statistics import ClusterInterval
from actadd_lens.sweeps.ablations import with_norms_of
from actadd_lens.sweeps.configurations import Configuration, clean_configuration
from actadd_lens.vectors.extraction import extract

PAPER = (
    "GPT-2-XL, recorded at layer 0 or 2, injected at layer 20: layer 0 has about no effect, layer "
    "2 a partial one. So the early layers' computation matters, and steering is no token injection."
)
DIFFERS = (
    "Every recording layer, the paper's scaled to the model; success of completions over many "
    "prompts. Norm-matched vectors are added. Everything is injected at layer t: that a vector of "
    "layer 0 may steer at layer 0 itself, as topic-by-layer shows, is another matter."
)
RAW, MATCHED = "as recorded", "norm-matched"
LINES: Final[dict[str, tuple[str, str, dict[str, Any]]]] = {
    "steered, as recorded": ("steered", RAW, {"color": COLOURS[0], "marker": "o"}),
    "steered, norm-matched": ("steered", MATCHED, {"color": COLOURS[1], "marker": "s"}),
    "random, norms as recorded": ("random", RAW, {"color": CONTROL_COLOUR, "linestyle": "--"}),
}
"""Of the figure: run and norms of each, and its look."""


def run(setup: Setup) -> Outcome:
    """Measure every recording layer for both concepts."""
    both = {c.name: c for c in map(setup.concept, ("sentiment", setup.material.topics[0]))}
    metric = {name: c.success.name for name, c in both.items()}
    own = {name: setup.cell(c)[0] for name, c in both.items()}
    early = {name: max(1, round(2 * t / 20)) for name, t in own.items()}
    first = dict.fromkeys(own, 0)
    read = {
        name: setup.readings(name, _cells(setup, c, early[name]), c.test, [c.success])
        for name, c in both.items()
    }

    def changes(
        layers: dict[str, int], norms: str = RAW, than: str = "clean"
    ) -> dict[str, ClusterInterval]:
        return {
            name: r.change(
                metric[name], than=than, where={"recorded": own[name], "norms": RAW},
                recorded=layers[name], norms=norms,
            )
            for name, r in read.items()
        }  # fmt: skip

    at_0, matched = changes(first), changes(first, MATCHED)
    partial, short = changes(early), changes(early, than="steered")
    reached = {name: _reached(r, metric[name]) for name, r in read.items()}
    at_t = {name: by_layer[own[name]] for name, by_layer in reached.items()}
    above = {
        name: fmean([mean for s, mean in by_layer.items() if s > own[name]] or [nan])
        for name, by_layer in reached.items()
    }
    works = all(i.low > 0 for i in changes(own).values())
    from_0 = all(t > 0 for t in own.values())
    between = all(early[name] < t for name, t in own.items())
    summary = pd.concat([r.summary() for r in read.values()], ignore_index=True)
    lines = [_lines(r, metric[name], {0, early[name], own[name]}) for name, r in read.items()]
    return Outcome(
        rows=pd.concat([r.frame for r in read.values()], ignore_index=True),
        summary=summary,
        shown=pd.concat(lines, keys=list(read), names=["concept"]).reset_index("concept"),
        figure=_figure(summary, own),
        verdicts=[
            Verdict(
                "F1",
                told(all(i.low <= 0 for i in at_0.values()), *at_0.values())
                if from_0 and works
                else None,
                each(at_0, share=True),
            ),
            Verdict(
                "F2",
                told(
                    all(partial[name].low > 0 and short[name].high < 0 for name in own),
                    *partial.values(),
                    *short.values(),
                )
                if between
                else None,
                f"layer {', '.join(f'{s} (t = {own[name]})' for name, s in early.items())}: "
                f"against clean {each(partial, share=True)}; against layer t's "
                f"{each(short, share=True)}",
            ),
            Verdict(
                "Q1",
                told(all(i.low > 0 for i in matched.values()), *matched.values())
                if from_0
                else None,
                each(matched, share=True),
            ),
            Verdict(
                "Q2",
                all(above[name] >= at_t[name] / 2 for name in own)
                if all(above[name] >= 0 and at_t[name] > 0 for name in own)
                else None,
                "; ".join(
                    f"{name} {100 * above[name]:.0f} % above t, {100 * at_t[name]:.0f} % at t"
                    for name in own
                ),
            ),
        ],
        facts={name: "; ".join(setup.said(c).values()) for name, c in both.items()},
    )


def _cells(setup: Setup, concept: Concept, early: int) -> list[Configuration]:
    """The own layer's vector with every baseline, then those of the other layers."""
    t, c = setup.cell(concept)
    vectors = extract(setup.model, concept.pair, sorted({0, early, t, *setup.layers}))
    _, *own = setup.baselines(concept)
    cells = [clean_configuration(pair=concept.name, recorded=None, norms=None)]
    cells += [Configuration({**cell.labels, "recorded": t, "norms": RAW}, cell.run) for cell in own]
    for s, vector in vectors.items():
        if s != t:
            moved = vector.to_hook_point(bridge.hook_point(t))
            scaled = with_norms_of(moved, vectors[t])
            cells += setup.arms(concept, moved, c, BASELINES[:3], recorded=s, norms=RAW)
            cells += setup.arms(concept, scaled, c, (), recorded=s, norms=MATCHED)
    return [*cells, Configuration({**own[0].labels, "recorded": t, "norms": MATCHED}, own[0].run)]


def _reached(read: Readings, metric: str) -> dict[int, float]:
    """Mean success by recording layer, norms as recorded."""
    layers = sorted(int(s) for s in read.frame["recorded"].dropna().unique())
    return {s: read.value(metric, recorded=s, norms=RAW).mean for s in layers}


def _lines(read: Readings, metric: str, wanted: set[int]) -> pd.DataFrame:
    """The table: a line for each recording layer, of many some, then what has no such layer."""
    every = list(_reached(read, metric))
    columns = {
        RAW: ("steered", RAW),
        MATCHED: ("steered", MATCHED),
        "random vector": ("random", RAW),
    }

    def shown(run: str, **labels: object) -> str:
        return text_of(read.value(metric, run, **labels), share=True)

    lines = [
        {"recorded at": f"layer {s}"}
        | {name: shown(run, recorded=s, norms=norms) for name, (run, norms) in columns.items()}
        for s in sorted({*wanted, *every[:: -(-len(every) // 6)]})
    ]
    others = ("clean", "mean difference", "prompted", "negated")
    lines += [{"recorded at": name, RAW: shown(name)} for name in others]
    return pd.DataFrame(lines).fillna("").assign(n=read.value(metric, "clean").n)


def _figure(summary: pd.DataFrame, own: dict[str, int]) -> Figure:
    """Success against the recording layer, a panel for each concept."""
    summary = percent(summary, "%")
    with drawing() as figure:
        axes, _ = panel_axes(figure, len(own))
        for ax, (concept, t) in zip(axes, own.items(), strict=True):
            cells = summary[summary["pair"] == concept]
            for label, (name, norms, look) in LINES.items():
                line = cells[(cells["run"] == name) & (cells["norms"] == norms)]
                line = line.astype({"recorded": float}).sort_values("recorded")
                band(
                    ax, line["recorded"], line["low"], line["high"], color=look["color"], alpha=0.18
                )
                ax.plot(line["recorded"], line["mean"], label=label, clip_on=False, **look)
            ax.axvline(t, color="0.5", linewidth=0.8, linestyle=":", label="injection layer t")
            clean_level(ax, cells[cells["run"] == "clean"])
            ax.set(title=plain(concept), xlabel="recording layer")
            ax.xaxis.set_major_locator(MaxNLocator(steps=[1, 2, 5, 10], integer=True))
        label_y(axes[:1], "completions as wanted", "%", summary)
        legend(figure, axes, f"95 % intervals, n = {int(summary['n'].max())} prompts")
    return figure
