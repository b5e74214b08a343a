"""Vectors recorded at one layer and added at another."""

from math import nan
from statistics import fmean
from typing import Any, Final

import pandas as pd
from matplotlib.figure import Figure

from actadd_lens import plots
from actadd_lens.models import bridge
from actadd_lens.reproduction.concepts import Concept
from actadd_lens.reproduction.criteria import Verdict, decide
from actadd_lens.reproduction.measurements import Change, Measurements, format_intervals
from actadd_lens.reproduction.outcome import Measured
from actadd_lens.reproduction.registry import experiment
from actadd_lens.reproduction.setup import BASELINES, Setup
from actadd_lens.reproduction.tables import along_axis, by_part, note
from actadd_lens.sweeps.ablations import with_norms_of
from actadd_lens.sweeps.configurations import Configuration, clean_configuration
from actadd_lens.vectors.extraction import extract

RAW, MATCHED = "as recorded", "norm-matched"
COLUMNS: Final[dict[str, tuple[str, dict[str, Any]]]] = {
    RAW: ("steered", {"norms": RAW}),
    MATCHED: ("steered", {"norms": MATCHED}),
    "random vector": ("random", {"norms": RAW}),
}


@experiment(
    "cross-layer-transfer",
    question="Does a vector recorded at one layer steer at another?",
    design="""Vectors of sentiment and of the first topic are recorded at every layer s and all
    injected at the concept's layer t, with its coefficient. Those of early layers are shorter, so
    each is injected again with the norms that the rows of layer t's vector have, position by
    position; a row that is zero stays zero. Random vectors have the norms as recorded; with matched
    norms they are those of layer t. Negated, prompted and mean difference are compared with the
    vector recorded at t.

    The paper's layers 0 and 2 of 48, with t = 20, are mapped to layer 0 and to a tenth of the way
    up to t, max(1, round(2 t / 20)).""",
    criteria={
        "F1": """Recorded at layer 0 it does about nothing: as recorded, for both concepts the
        interval of the paired change of success against the clean run contains 0 or lies below it.
        Not testable if t is layer 0, or if that of layer t's own vector does not lie above 0 for
        both.""",
        "F2": """Recorded a tenth of the way up it works in part: as recorded, for both concepts the
        interval of the paired change against the clean run lies above 0, and that against layer t's
        own vector below 0. Not testable if the layer a tenth of the way up is t.""",
        "Q1": """Is it a matter of length? Yes if, with matched norms, the interval of the paired
        change of the layer-0 vector against the clean run lies above 0 for both concepts.""",
        "Q2": """Do vectors of later layers work at t? Yes if for both concepts the success of the
        vectors recorded above t, as recorded, is on the mean over these layers at least half of the
        own layer's.""",
    },
    paper="""GPT-2-XL, recorded at layer 0 or 2, injected at layer 20: layer 0 has about no effect,
    layer 2 a partial one. So the early layers' computation matters, and steering is not token
    injection.""",
    differs="""Every recording layer, the paper's scaled to the model; success of completions over
    many prompts. Norm-matched vectors are added. Everything is injected at layer t: that a vector
    of layer 0 may steer at layer 0 itself, as topic-by-layer shows, is another matter.""",
)
def cross_layer_transfer(setup: Setup) -> Measured:
    """Measure every recording layer for both concepts."""
    concepts = setup.concepts()
    own = {name: setup.setting(c)[0] for name, c in concepts.items()}
    early = {name: max(1, round(2 * t / 20)) for name, t in own.items()}
    parts = setup.measure_each(concepts, lambda c: _cells(setup, c, early[c.name]), "success")
    return Measured(parts, {"own": own, "early": early}, setup.describe_all(concepts))


def _cells(setup: Setup, concept: Concept, early: int) -> list[Configuration]:
    """The own layer's vector with every baseline, then those of the other layers."""
    t, c = setup.setting(concept)
    vectors = extract(setup.model, concept.pair, sorted({0, early, t, *setup.layers}))
    _, *own = setup.baselines(concept)
    cells = [clean_configuration(vector=concept.name, recorded=None, norms=None)]
    cells += [Configuration({**cell.labels, "recorded": t, "norms": RAW}, cell.run) for cell in own]
    for s, vector in vectors.items():
        if s != t:
            moved = vector.to_hook_point(bridge.hook_point(t))
            scaled = with_norms_of(moved, vectors[t])
            cells += setup.conditions(concept, moved, c, BASELINES[:3], recorded=s, norms=RAW)
            cells += setup.conditions(concept, scaled, c, (), recorded=s, norms=MATCHED)
    return [*cells, Configuration({**own[0].labels, "recorded": t, "norms": MATCHED}, own[0].run)]


@cross_layer_transfer.judge
def judge(m: Measured) -> list[Verdict]:
    """Compare recording layers with the clean run and with layer t."""
    own, early = m.notes["own"], m.notes["early"]

    def changes(layers: dict[str, int], norms: str = RAW, than: str = "clean") -> dict[str, Change]:
        return {
            name: part.change(
                "success", than=than, where={"recorded": own[name], "norms": RAW},
                recorded=layers[name], norms=norms,
            )
            for name, part in m.parts.items()
        }  # fmt: skip

    first = dict.fromkeys(own, 0)
    at_0, matched = changes(first), changes(first, MATCHED)
    partial, short = changes(early), changes(early, than="steered")
    reached = {name: _reached(part) for name, part in m.parts.items()}
    at_t = {name: by_layer[own[name]] for name, by_layer in reached.items()}
    above = {
        name: fmean([mean for s, mean in by_layer.items() if s > own[name]] or [nan])
        for name, by_layer in reached.items()
    }
    works = all(i.low > 0 for i in changes(own).values())
    from_0 = all(t > 0 for t in own.values())
    between = all(early[name] < t for name, t in own.items())
    nothing = decide(all(i.low <= 0 for i in at_0.values()), *at_0.values())
    in_part = decide(
        all(partial[name].low > 0 and short[name].high < 0 for name in own),
        *partial.values(),
        *short.values(),
    )
    by_length = decide(all(i.low > 0 for i in matched.values()), *matched.values())
    known = all(above[name] >= 0 and at_t[name] > 0 for name in own)
    return [
        Verdict("F1", nothing if from_0 and works else None, format_intervals(at_0)),
        Verdict(
            "F2",
            in_part if between else None,
            f"layer {', '.join(f'{s} (t = {own[name]})' for name, s in early.items())}: "
            f"against clean {format_intervals(partial)}; against layer t's "
            f"{format_intervals(short)}",
        ),
        Verdict("Q1", by_length if from_0 else None, format_intervals(matched)),
        Verdict(
            "Q2",
            all(above[name] >= at_t[name] / 2 for name in own) if known else None,
            "; ".join(
                f"{name} {100 * above[name]:.0f} % above t, {100 * at_t[name]:.0f} % at t"
                for name in own
            ),
        ),
    ]


def _reached(part: Measurements) -> dict[int, float]:
    """Mean success by recording layer, norms as recorded."""
    layers = sorted(int(s) for s in part.frame["recorded"].dropna().unique())
    return {s: part.value("success", recorded=s, norms=RAW).mean for s in layers}


@cross_layer_transfer.tabulate
def tabulate(m: Measured) -> pd.DataFrame:
    """A line for each recording layer, or for some of many, then one for each other run."""
    tables = {}
    for name, part in m.parts.items():
        layers = [*_reached(part)]
        shown = sorted(
            {0, m.notes["early"][name], m.notes["own"][name]} | {*layers[:: -(-len(layers) // 6)]}
        )
        lines = {f"layer {s}": {"recorded": s} for s in shown}
        tables[name] = along_axis(part, "success", "recorded at", lines, COLUMNS)
    return by_part(tables)


@cross_layer_transfer.draw
def draw(m: Measured) -> Figure:
    """Success against the recording layer, a panel for each concept and kind of norms."""
    summary = m.summary[m.summary["run"].isin(["steered", "random", "clean"])]
    panels = [
        summary[summary["norms"].isna() | (summary["norms"] == norms)].assign(norms=norms)
        for norms in (RAW, MATCHED)
    ]
    shown = pd.concat(panels, ignore_index=True).drop(columns=["metric", "position"])
    t = ", ".join(f"{layer} for {name}" for name, layer in m.notes["own"].items())
    figure = plots.layer_profile(
        shown.assign(layer=shown["recorded"], vector=shown["part"] + ", " + shown["norms"]),
        ylabel="completions as wanted",
        unit="%",
        note=f"{note(summary)}; injection layer t: {t}",
    )
    for ax in figure.axes:
        ax.set_xlabel("recording layer")
    return figure
