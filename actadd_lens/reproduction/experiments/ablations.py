"""Ablations: where a vector is added, which dimensions it keeps, at which layer it is recorded."""

from collections.abc import Mapping
from functools import partial
from math import isnan, nan
from statistics import fmean
from typing import Any, Final

import pandas as pd
from matplotlib.figure import Figure

from actadd_lens import plots
from actadd_lens.models import bridge, hook_points
from actadd_lens.reproduction.concepts import Concept
from actadd_lens.reproduction.criteria import Verdict, at_least, decide
from actadd_lens.reproduction.measurements import (
    Change,
    Measurements,
    by_part,
    format_intervals,
    note,
    percent,
)
from actadd_lens.reproduction.outcome import Measured
from actadd_lens.reproduction.registry import experiment
from actadd_lens.reproduction.setup import BASELINES, OF_VECTOR, Setup
from actadd_lens.statistics import Interval
from actadd_lens.steering.positions import ANCHORS
from actadd_lens.sweeps.ablations import CHOICES, orders, with_norms_of
from actadd_lens.sweeps.configurations import Configuration, clean_configuration
from actadd_lens.vectors.extraction import extract

FRONT, BACK = "front", "back"
SHARES = (0.1, 0.25, 0.5, 0.7, 0.8, 0.9, 1.0)
WHOLE: Final[dict[str, Any]] = {"ablation": CHOICES[0], "fraction": 1.0}
AXIS = "share of the dimensions kept"
NAMES = {"first": "first dimensions", "top": "largest dimensions", "random": "random choice"}
RAW, MATCHED = "as recorded", "norm-matched"
COLUMNS: Final[dict[str, tuple[str, dict[str, Any]]]] = {
    RAW: ("steered", {"norms": RAW}),
    MATCHED: ("steered", {"norms": MATCHED}),
    "random vector": ("random", {"norms": RAW}),
}
WITHOUT_AXIS = ("clean", "mean difference", "prompted", "negated")
"""Runs that have no value along the axis of ``_along_axis``."""


def _rise(intervals: Mapping[str, Interval]) -> bool | None:
    """Whether all lie above 0."""
    return decide(all(i.low > 0 for i in intervals.values()), *intervals.values())


@experiment(
    "positions",
    question="Does it matter where in the prompt the vector is added?",
    design="""The vectors of sentiment and of the first topic start at the front of a prompt, are
    centred on its middle, or end at its last token. Random and negated vectors have the same
    positions; prompting is text in front, and the mean difference is added everywhere, so neither
    has a position to vary.""",
    criteria={
        "F1": """The front works: for both concepts the interval of the paired change of success
        there against the clean run lies above 0.""",
        "F2": """The back is less coherent: for at least one concept the interval of the paired
        change of coherence from front to back lies below 0.""",
        "Q1": """Is the front best? Yes if for both concepts neither the middle's nor the back's
        mean success is higher than the front's by more than 5 points.""",
    },
    paper="""The same vector at the front, in the middle and at the back of prompts, layer 6 of
    GPT-2-XL: at the back the text is less coherent. The paper uses the front throughout.""",
    differs="Success and coherence of completions over many prompts, with intervals and controls.",
)
def positions(setup: Setup) -> Measured:
    """Measure both vectors at every position."""
    concepts = setup.concepts()
    parts = setup.measure_each(concepts, partial(_at_positions, setup), "success", "coherence")
    return Measured(parts, facts=setup.describe_all(concepts))


def _at_positions(setup: Setup, concept: Concept) -> list[Configuration]:
    """The front with every baseline, the other positions with those that a vector has there."""
    layer, c = setup.setting(concept)
    vector = setup.vector(concept.pair, layer)
    _, *cells = setup.baselines(concept)
    for place in ANCHORS:
        if place != FRONT:
            cells += setup.conditions(concept, vector.at(place), c, OF_VECTOR)
    return [clean_configuration(vector=concept.name), *cells]


@positions.judge
def judge_positions(m: Measured) -> list[Verdict]:
    """Compare the positions with the clean run and with one another."""
    gain = m.changes("success", position=FRONT)
    spoilt = m.changes("coherence", than="steered", where={"position": FRONT}, position=BACK)
    reached = {
        name: {place: part.value("success", position=place) for place in ANCHORS}
        for name, part in m.parts.items()
    }
    ahead = max(i.mean - own[FRONT].mean for own in reached.values() for i in own.values())
    return [
        Verdict("F1", _rise(gain), format_intervals(gain)),
        Verdict(
            "F2",
            decide(any(i.high < 0 for i in spoilt.values()), *spoilt.values()),
            format_intervals(spoilt),
        ),
        Verdict(
            "Q1",
            decide(at_least(0.05, ahead), *(i for own in reached.values() for i in own.values())),
            "; ".join(f"{name}: {format_intervals(own)}" for name, own in reached.items()),
        ),
    ]


@positions.tabulate
def tabulate_positions(m: Measured) -> pd.DataFrame:
    """Every run, by position."""
    return by_part({name: _in_order(part.by_run()) for name, part in m.parts.items()})


@positions.draw
def draw_positions(m: Measured) -> Figure:
    """Success and coherence at each position, a panel for each concept and measure."""
    shown = m.summary[m.summary["run"].isin(["steered", "clean", "random", "negated"])]
    panels = shown["part"] + ": " + shown["metric"]
    return plots.bars(
        _in_order(shown.drop(columns="metric").assign(vector=panels)),
        x="position",
        ylabel="share of completions",
        unit="%",
        note=note(shown),
    )


def _in_order(table: pd.DataFrame) -> pd.DataFrame:
    """Lines by position: the clean run, front, middle, back, everywhere."""
    rank = {place: i for i, place in enumerate(ANCHORS)}
    places = table["position"].map(lambda p: rank.get(p, len(rank) if p == "all" else -1))
    return table.iloc[places.argsort(kind="stable")]


@experiment(
    "partial-vectors",
    question="How many of a vector's residual dimensions does its effect need?",
    design="""The vectors of sentiment and of the first topic keep the first n % of their
    dimensions, the others are set to zero, and nothing is rescaled. The first dimensions are
    compared with those of the largest norm and with a random choice. Random vectors have the norms
    of the part that they are compared with, in all dimensions; the negated vector, the prompt in
    words and the mean difference are run whole.""",
    criteria={
        "F1": """The effect grows with n: for both concepts the interval of the paired change of
        success from the first 10 % of the dimensions to all of them lies above 0.""",
        "F2": """Most dimensions are needed: for both concepts the smallest n tried whose mean gain
        over the clean run is at least 90 % of the whole vector's is 70 % or more. Not testable
        where the whole vector gains nothing.""",
    },
    paper="""GPT-2-XL, the first n % of the residual dimensions of " wedding" x4 - " " x4 at layer
    6: the effect grows with n and mostly needs 70 to 80 % of them.""",
    differs="""Two concepts with one word a prompt in place of four; success of completions over
    many prompts, with intervals. The largest dimensions and a random choice are added.""",
)
def partial_vectors(setup: Setup) -> Measured:
    """Measure every part of both vectors."""
    concepts, width = setup.concepts(), bridge.BridgeModel(setup.model).d_model
    counts = ", ".join(str(_count(share, width)) for share in SHARES)
    return Measured(
        setup.measure_each(concepts, partial(_of_parts, setup), "success"),
        facts={**setup.describe_all(concepts), "dimensions": f"{width}; parts of {counts}"},
    )


def _of_parts(setup: Setup, concept: Concept) -> list[Configuration]:
    """The whole vector with every baseline, then the parts; all choices share the whole vector."""
    layer, c = setup.setting(concept)
    vector = setup.vector(concept.pair, layer)
    _, *whole = setup.baselines(concept)
    cells = [clean_configuration(vector=concept.name, ablation=None, fraction=None)]
    cells += [Configuration({**cell.labels, **WHOLE}, cell.run) for cell in whole]
    for choice, order in orders(vector, setup.seed).items():
        controls = BASELINES[:3] if choice == CHOICES[0] else ()
        for share in SHARES[:-1]:
            part = vector.with_dims(order[: _count(share, len(order))])
            cells += setup.conditions(concept, part, c, controls, ablation=choice, fraction=share)
        if choice != CHOICES[0]:
            labels = {**whole[0].labels, **WHOLE, "ablation": choice}
            cells.append(Configuration(labels, whole[0].run))
    return cells


def _count(share: float, width: int) -> int:
    return max(1, round(share * width))


@partial_vectors.judge
def judge_parts(m: Measured) -> list[Verdict]:
    """Compare the smallest part with the whole, and find the part that is enough."""
    least = {**WHOLE, "fraction": SHARES[0]}
    grown = m.changes("success", than="steered", where=least, **WHOLE)
    needed = {name: _needed(part) for name, part in m.parts.items()}
    most = None if any(map(isnan, needed.values())) else all(n >= 0.7 for n in needed.values())
    texts = (f"{name} {'no gain' if isnan(n) else _percent(n)}" for name, n in needed.items())
    return [
        Verdict("F1", _rise(grown), format_intervals(grown)),
        Verdict("F2", most, "; ".join(texts)),
    ]


def _needed(part: Measurements) -> float:
    """The smallest share of the first dimensions that has 90 % of the whole vector's gain.

    NaN if the whole vector gains nothing.
    """
    gains = {s: part.change("success", **{**WHOLE, "fraction": s}).mean for s in SHARES}
    return min((s for s, gain in gains.items() if gain >= 0.9 * gains[1.0] > 0), default=nan)


@partial_vectors.tabulate
def tabulate_parts(m: Measured) -> pd.DataFrame:
    """A line for each part, then one for each run without parts."""
    lines = {_percent(s): {"fraction": s} for s in SHARES}
    columns = {NAMES[choice]: ("steered", {"ablation": choice}) for choice in CHOICES}
    columns["random vector"] = ("random", {"ablation": CHOICES[0]})
    tables = {name: _along_axis(part, "part", lines, columns) for name, part in m.parts.items()}
    return by_part(tables)


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


@partial_vectors.draw
def draw_parts(m: Measured) -> Figure:
    """Success against the share of dimensions, the three choices side by side."""
    summary = m.summary
    kinds = {"steered": "steered", "random": "random vector", "clean": "clean"}
    shown = summary[summary["run"].isin([*kinds])].drop(columns="metric")
    shown = shown.assign(
        run=shown["run"].map(kinds),
        choice=shown["ablation"].map(NAMES),
        _rank=shown["ablation"].map({choice: i for i, choice in enumerate(CHOICES)}),
        **{AXIS: shown["fraction"].map(_percent, na_action="ignore")},
    )
    return plots.bars(
        shown.sort_values(["fraction", "_rank"], kind="stable"),
        x=AXIS,
        group="choice",
        ylabel="completions as wanted",
        unit="%",
        note=f"{note(shown)}; random vectors of the norms of the first dimensions, three draws",
    )


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
    parts = setup.measure_each(concepts, lambda c: _of_layers(setup, c, early[c.name]), "success")
    return Measured(parts, {"own": own, "early": early}, setup.describe_all(concepts))


def _of_layers(setup: Setup, concept: Concept, early: int) -> list[Configuration]:
    """The own layer's vector with every baseline, then those of the other layers."""
    t, c = setup.setting(concept)
    vectors = extract(setup.model, concept.pair, sorted({0, early, t, *setup.layers}))
    _, *own = setup.baselines(concept)
    cells = [clean_configuration(vector=concept.name, recorded=None, norms=None)]
    cells += [Configuration({**cell.labels, "recorded": t, "norms": RAW}, cell.run) for cell in own]
    for s, vector in vectors.items():
        if s != t:
            moved = vector.to_hook_point(hook_points.hook_point(t))
            scaled = with_norms_of(moved, vectors[t])
            cells += setup.conditions(concept, moved, c, BASELINES[:3], recorded=s, norms=RAW)
            cells += setup.conditions(concept, scaled, c, (), recorded=s, norms=MATCHED)
    return [*cells, Configuration({**own[0].labels, "recorded": t, "norms": MATCHED}, own[0].run)]


@cross_layer_transfer.judge
def judge_layers(m: Measured) -> list[Verdict]:
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

    at_0, matched = (changes(dict.fromkeys(own, 0), norms) for norms in (RAW, MATCHED))
    some, short = changes(early), changes(early, than="steered")
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
    both = all(some[name].low > 0 and short[name].high < 0 for name in own)
    in_part = decide(both, *some.values(), *short.values())
    known = all(above[name] >= 0 and at_t[name] > 0 for name in own)
    return [
        Verdict("F1", nothing if from_0 and works else None, format_intervals(at_0)),
        Verdict(
            "F2",
            in_part if between else None,
            f"layer {', '.join(f'{s} (t = {own[name]})' for name, s in early.items())}: "
            f"against clean {format_intervals(some)}; against layer t's "
            f"{format_intervals(short)}",
        ),
        Verdict("Q1", _rise(matched) if from_0 else None, format_intervals(matched)),
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
def tabulate_layers(m: Measured) -> pd.DataFrame:
    """A line for each recording layer, or for some of many, then one for each other run."""
    tables = {}
    for name, part in m.parts.items():
        layers = [*_reached(part)]
        shown = {0, m.notes["early"][name], m.notes["own"][name], *layers[:: -(-len(layers) // 6)]}
        lines = {f"layer {s}": {"recorded": s} for s in sorted(shown)}
        tables[name] = _along_axis(part, "recorded at", lines, COLUMNS)
    return by_part(tables)


@cross_layer_transfer.draw
def draw_layers(m: Measured) -> Figure:
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


def _along_axis(
    part: Measurements,
    axis: str,
    lines: Mapping[str, Mapping[str, Any]],
    columns: Mapping[str, tuple[str, Mapping[str, Any]]],
) -> pd.DataFrame:
    """Success in a line for each value along an axis, then for each run without such a value.

    Lines are given with the labels that they mean, columns with their run and further labels; the
    first column has the runs without a value.
    """

    def text(run: str, **labels: Any) -> str:
        return percent(part.value("success", run, **labels))

    first = next(iter(columns))
    table = [
        {axis: line} | {head: text(run, **labels, **more) for head, (run, more) in columns.items()}
        for line, labels in lines.items()
    ]
    table += [{axis: run, first: text(run)} for run in WITHOUT_AXIS]
    return pd.DataFrame(table).fillna("").assign(n=part.value("success", "clean").n)
