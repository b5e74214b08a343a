"""The search for layer and coefficient."""

from dataclasses import replace

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from actadd_lens import plots
from actadd_lens.reproduction.criteria import Verdict, at_least, decide
from actadd_lens.reproduction.measurements import Measurements, percent
from actadd_lens.reproduction.outcome import Measured
from actadd_lens.reproduction.registry import experiment
from actadd_lens.reproduction.setup import SEARCHED, Setup
from actadd_lens.statistics import Interval

SUBSETS = 200
SIZES = (5, 10, 20, 50)
ENOUGH = 20
AT_RANDOM = "a random configuration"


@experiment(
    "search-cost",
    question="""What does it cost to find layer and coefficient, and how many prompts does the
    search need?""",
    design="""Every layer and a few coefficients are tried for the concept "sentiment", on the
    selection prompts and on the test prompts. A search takes the setting with the most completions
    that are both wanted and coherent; of equal ones that of the least coefficient, then the lowest
    layer. It is repeated on 200 random subsets of the selection prompts. Regret is the mean of the
    best setting on the test prompts minus that of the chosen one there. The best of many settings
    is lucky too, so regret is not 0 even for a search that could not be better. Intervals of regret
    span 95 % of the subsets. The setting chosen on all selection prompts is compared with every
    baseline on the test prompts; the grid itself has none.""",
    criteria={
        "Q1": """Does a selection split of 20 prompts suffice? Yes if the mean regret of 20 prompts,
        or of all if there are fewer, is at most 5 points.""",
        "Q2": """Does the choice generalise? Yes if the interval of the paired change of coherent
        successes on the test prompts, from the clean run to the setting chosen on all selection
        prompts, lies above 0.""",
        "Q3": """Is the search optimistic? Yes if the mean of the chosen setting on the selection
        prompts is above its mean on the test prompts by more than 5 points.""",
    },
    paper="""No cost of a search is reported, nor a split to search on. Layers of about 6 to 24 of
    GPT-2-XL's 48 and coefficients of typically less than 15 were tried by hand.""",
    differs="The search is a grid over every layer, on prompts that are not reported on.",
)
def search_cost(setup: Setup) -> Measured:
    """Measure the grid on both splits, and the chosen configuration with every baseline."""
    concept = setup.concept("sentiment")
    objective, grid = setup.scores(concept, "objective"), setup.search_grid(concept)
    searched = setup.measure("selection", grid, concept.selection, objective)
    tested = setup.measure("test", grid, concept.test, objective)
    by_prompt = _by_setting(searched)
    place = _chosen(by_prompt.to_numpy())
    c, layer = (by_prompt.columns.get_level_values(k)[place] for k in ("coefficient", "layer"))
    chosen = setup.measure(
        "chosen",
        setup.baselines(replace(concept, setting=(int(layer), float(c)))),
        concept.test,
        objective | setup.scores(concept, "success", "coherence"),
    )
    return Measured(
        {"selection": searched, "test": tested, "chosen": chosen},
        notes={"layer": int(layer), "coefficient": float(c), "seed": setup.seed},
        facts=_costs(setup, len(concept.selection))
        | {
            "chosen": f"layer {layer} of {setup.n_layers}, coefficient {c:g}, for "
            f"{concept.pair.positive!r} - {concept.pair.negative!r}, front",
            "prompts": f"{len(concept.test)}, for {concept.wanted}",
        },
    )


def _by_setting(part: Measurements) -> pd.DataFrame:
    """A row for each prompt, a column for each setting, in the order of preference among equals."""
    frame = part.frame[part.frame["run"] == "steered"]
    return frame.pivot_table(index="prompt", columns=["coefficient", "layer"], values="value")


def _chosen(values: np.ndarray) -> int:
    """The column of the highest mean, the first of equal ones."""
    return int(values.mean(axis=0).round(12).argmax())


def _costs(setup: Setup, n_prompts: int) -> dict[str, str]:
    """What the search on the selection prompts takes, the clean run included."""
    n_layers, tried = setup.n_layers, len(setup.layers) * len(SEARCHED)
    runs = 1 + tried
    above = sum(n_layers - layer for layer in setup.layers) * len(SEARCHED)
    shared, whole = n_prompts * (n_layers + above), n_prompts * runs * n_layers
    return {
        "search": f"{tried} configurations ({len(setup.layers)} layers x {len(SEARCHED)} "
        f"coefficients) and the clean run on {n_prompts} prompts: {runs * n_prompts} sequences "
        f"read, {runs * n_prompts * setup.sizes.samples} completions of up to "
        f"{setup.sizes.new_tokens} tokens",
        "layers applied to prompts": f"{shared} to read every configuration from its layer on, as "
        f"sweeps do, {whole} if each were a whole pass ({100 * shared / whole:.0f} %); text is "
        "generated after whole passes",
    }


def _regrets(m: Measured) -> dict[int, Interval]:
    """Mean regret in points by number of prompts, with what 95 % of the subsets span."""
    values = _by_setting(m.parts["selection"]).to_numpy()
    worth = _by_setting(m.parts["test"]).mean().to_numpy()
    rng = np.random.default_rng(m.notes["seed"])
    regrets = {}
    for n in [*(n for n in SIZES if n < len(values)), len(values)]:
        subsets = [rng.choice(len(values), n, replace=False) for _ in range(SUBSETS)]
        lost = 100 * (worth.max() - worth[[_chosen(values[subset]) for subset in subsets]])
        low, high = np.percentile(lost, [2.5, 97.5])
        regrets[n] = Interval(float(lost.mean()), float(low), float(high), SUBSETS)
    return regrets


def _levels(m: Measured) -> dict[str, float]:
    """Regret in points without a search, and without a vector."""
    worth = _by_setting(m.parts["test"]).mean()
    clean = m.parts["test"].value("objective", "clean").mean
    return {AT_RANDOM: 100 * (worth.max() - worth.mean()), "clean": 100 * (worth.max() - clean)}


def _points(interval: Interval) -> str:
    return f"{interval.mean:.1f} [{interval.low:.1f}, {interval.high:.1f}]"


@search_cost.judge
def judge(m: Measured) -> list[Verdict]:
    """Decide by regret, and by the chosen configuration on both splits."""
    layer, c, regrets = m.notes["layer"], m.notes["coefficient"], _regrets(m)
    before = m.parts["selection"].value("objective", layer=layer, coefficient=c)
    after, gain = (f("objective") for f in (m.parts["chosen"].value, m.parts["chosen"].change))
    n = min(ENOUGH, max(regrets))
    varies = _by_setting(m.parts["test"]).mean().nunique() > 1
    return [
        Verdict(
            "Q1",
            regrets[n].mean <= 5 if varies else None,
            f"{n} prompts: regret {_points(regrets[n])} points; {AT_RANDOM} "
            f"{_levels(m)[AT_RANDOM]:.1f}",
        ),
        Verdict(
            "Q2",
            decide(gain.low > 0, gain),
            f"layer {layer}, coefficient {c:g}: {percent(gain, n=True)}",
        ),
        Verdict(
            "Q3",
            not at_least(0.05, before.mean - after.mean),
            f"{percent(before)} on the selection prompts, {percent(after)} on the test prompts",
        ),
    ]


@search_cost.tabulate
def tabulate(m: Measured) -> pd.DataFrame:
    """Regret by number of prompts, then every run at the chosen configuration."""
    regret = "regret (points)"
    lines = [{"run": f"search on {n}", regret: _points(i)} for n, i in _regrets(m).items()]
    lines.append({"run": AT_RANDOM, regret: f"{_levels(m)[AT_RANDOM]:.1f}"})
    table = pd.concat([pd.DataFrame(lines), m.parts["chosen"].by_run()], ignore_index=True)
    return table.fillna("").rename(columns={"objective": "coherent success"})


@search_cost.draw
def draw(m: Measured) -> Figure:
    """Regret by number of prompts, compared with that of no search."""
    levels, x = _levels(m), "selection prompts searched on"
    lines = [{x: str(n), "run": "steered", **vars(i)} for n, i in _regrets(m).items()]
    lines.append({x: AT_RANDOM, "run": "steered", "mean": levels[AT_RANDOM]})
    lines.append({"run": "clean", "mean": levels["clean"]})
    tested = _by_setting(m.parts["test"])
    return plots.bars(
        pd.DataFrame(lines),
        x=x,
        ylabel="regret on the test prompts (points)",
        note=f"mean and 95 % of {SUBSETS} subsets; {tested.shape[1]} configurations, "
        f"{len(tested)} test prompts",
    )
