"""What does it cost to find layer and coefficient, and how many prompts does the search need?

Every layer and a few coefficients are tried for the concept "sentiment", on the selection prompts
and on the test prompts. A search takes the cell with the most completions that are both wanted and
coherent ("sound"); of equal ones that of the least coefficient, then the lowest layer. It is
repeated on 200 random subsets of the selection prompts. Regret is the mean of the best cell on the
test prompts minus that of the chosen one there. The best of many cells is lucky too, so regret is
not 0 even for a search that could not be better. Intervals of regret span 95 % of the subsets. The
cell chosen on all selection prompts is set beside every baseline on the test prompts; the grid
itself has none.

Criteria, fixed before the run:

Q1. Does a selection split of 20 prompts suffice? Yes if the mean regret of 20 prompts, or of all if
    there are fewer, is at most 5 points.
Q2. Does the choice generalise? Yes if the interval of the paired change of sound successes on the
    test prompts, from the clean run to the cell chosen on all selection prompts, lies above 0.
Q3. Is the search optimistic? Yes if the mean of the chosen cell on the selection prompts is above
    its mean on the test prompts by more than 5 points.
"""

from dataclasses import replace

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from actadd_lens.plots.style import (
    CLEAN_COLOUR,
    COLOURS,
    CONTROL_COLOUR,
    band,
    drawing,
    label_y,
    legend,
    panel_axes,
)
from actadd_lens.reproduction.criteria import Verdict, at_least, told
from actadd_lens.reproduction.outcome import Outcome
from actadd_lens.reproduction.readings import Readings, text_of
from actadd_lens.reproduction.setup import SEARCHED, Setup
from actadd_lens.statistics import Interval
from actadd_lens.sweeps.configurations import Grid

PAPER = (
    "No cost of a search is reported, nor a split to search on. Layers of about 6 to 24 of "
    "GPT-2-XL's 48 and coefficients of typically less than 15 were tried by hand."
)
DIFFERS = "The search is a grid over every layer, on prompts that are not reported on."
SUBSETS = 200
SIZES = (5, 10, 20, 50)
ENOUGH = 20


def run(setup: Setup) -> Outcome:
    """Measure the grid on both splits, search subsets of one, and measure the chosen cell."""
    concept = setup.concept("sentiment")
    sought = setup.sought(concept)
    grid = Grid({concept.name: concept.pair}, tuple(setup.layers), SEARCHED, ("front",), ())
    cells = list(grid.configurations(setup.model, setup.seed))
    searched = setup.readings("selection", cells, concept.selection, [sought])
    tested = setup.readings("test", cells, concept.test, [sought])
    by_prompt, worth = _by_cell(searched), _by_cell(tested).mean()
    regrets = _regrets(by_prompt.to_numpy(), worth.to_numpy(), setup.seed)
    place = _chosen(by_prompt.to_numpy())
    c, layer = (by_prompt.columns.get_level_values(k)[place] for k in ("coefficient", "layer"))
    found = setup.readings(
        "chosen",
        setup.baselines(replace(concept, cell=(int(layer), float(c)))),
        concept.test,
        [sought, concept.success, setup.material.coherence],
    )
    at = {"layer": layer, "coefficient": c}
    before, after = searched.value(sought.name, **at), found.value(sought.name)
    gain, n = found.change(sought.name), min(ENOUGH, len(by_prompt))
    levels = {
        "a cell at random": 100 * (worth.max() - worth.mean()),
        "clean": 100 * (worth.max() - tested.value(sought.name, "clean").mean),
    }
    lines = pd.DataFrame([{"prompts": k, **vars(i)} for k, i in regrets.items()])
    splits = {"selection": searched, "test": tested, "chosen": found}
    return Outcome(
        rows=pd.concat([r.frame.assign(measured=s) for s, r in splits.items()], ignore_index=True),
        summary=pd.concat(
            [
                lines.assign(run="search", metric="regret in points"),
                *(r.summary().assign(measured=s) for s, r in splits.items()),
            ],
            ignore_index=True,
        ),
        shown=_shown(found, regrets, levels).rename(
            columns={sought.name: "sound", concept.success.name: "success"}
        ),
        figure=_figure(
            lines,
            levels,
            f"mean and 95 % of {SUBSETS} subsets; {len(worth)} cells, {len(concept.test)} test "
            "prompts",
        ),
        verdicts=[
            Verdict(
                "Q1",
                regrets[n].mean <= 5 if worth.nunique() > 1 else None,
                f"{n} prompts: regret {_points(regrets[n])} points; a cell at random "
                f"{levels['a cell at random']:.1f}",
            ),
            Verdict(
                "Q2",
                told(gain.low > 0, gain),
                f"layer {layer}, coefficient {c:g}: {text_of(gain, share=True, n=True)}",
            ),
            Verdict(
                "Q3",
                not at_least(0.05, before.mean - after.mean),
                f"{text_of(before, share=True)} on the selection prompts, "
                f"{text_of(after, share=True)} on the test prompts",
            ),
        ],
        facts=_costs(setup, grid, len(concept.selection))
        | {
            "chosen": f"layer {layer} of {setup.n_layers}, coefficient {c:g}, for "
            f"{concept.pair.positive!r} - {concept.pair.negative!r}, front",
            "prompts": f"{len(concept.test)}, for {concept.wanted}",
        },
    )


def _by_cell(read: Readings) -> pd.DataFrame:
    """A row for each prompt, a column for each cell, in the order in which equal ones are taken."""
    frame = read.frame[read.frame["run"] == "steered"]
    return frame.pivot_table(index="prompt", columns=["coefficient", "layer"], values="value")


def _chosen(values: np.ndarray) -> int:
    """The column of the highest mean, the first of equal ones."""
    return int(values.mean(axis=0).round(12).argmax())


def _regrets(values: np.ndarray, worth: np.ndarray, seed: int) -> dict[int, Interval]:
    """Mean regret in points by number of prompts, with what 95 % of the subsets span."""
    rng = np.random.default_rng(seed)
    regrets = {}
    for n in [*(n for n in SIZES if n < len(values)), len(values)]:
        subsets = [rng.choice(len(values), n, replace=False) for _ in range(SUBSETS)]
        lost = 100 * (worth.max() - worth[[_chosen(values[subset]) for subset in subsets]])
        low, high = np.percentile(lost, [2.5, 97.5])
        regrets[n] = Interval(float(lost.mean()), float(low), float(high), SUBSETS)
    return regrets


def _costs(setup: Setup, grid: Grid, n_prompts: int) -> dict[str, str]:
    """What the search on the selection prompts takes, the clean run included."""
    n_layers, n_cells = setup.n_layers, len(grid.layers) * len(grid.coefficients)
    runs = 1 + n_cells
    behind = sum(n_layers - layer for layer in grid.layers) * len(grid.coefficients)
    shared, whole = n_prompts * (n_layers + behind), n_prompts * runs * n_layers
    return {
        "search": f"{n_cells} cells ({len(grid.layers)} layers x {len(grid.coefficients)} "
        f"coefficients) and the clean run on {n_prompts} prompts: {runs * n_prompts} sequences "
        f"read, {runs * n_prompts * setup.sizes.samples} completions of up to "
        f"{setup.sizes.new_tokens} tokens",
        "layers applied to prompts": f"{shared} to read every cell from its layer on, as sweeps "
        f"do, {whole} if each were a whole pass ({100 * shared / whole:.0f} %); text is generated "
        "behind whole passes",
    }


def _points(interval: Interval) -> str:
    return f"{interval.mean:.1f} [{interval.low:.1f}, {interval.high:.1f}]"


def _shown(found: Readings, regrets: dict[int, Interval], levels: dict[str, float]) -> pd.DataFrame:
    """Regret by number of prompts, then every run at the chosen cell."""
    regret = "regret (points)"
    lines = [{"run": f"search on {n}", regret: _points(i)} for n, i in regrets.items()]
    lines.append({"run": "a cell at random", regret: f"{levels['a cell at random']:.1f}"})
    return pd.concat([pd.DataFrame(lines), found.by_run()], ignore_index=True).fillna("")


def _figure(lines: pd.DataFrame, levels: dict[str, float], note: str) -> Figure:
    """Regret against the number of prompts, beside that of no search."""
    with drawing() as figure:
        [ax], _ = panel_axes(figure, 1, (4.2, 2.9))
        look = {"color": COLOURS[0]}
        band(ax, lines["prompts"], lines["low"], lines["high"], alpha=0.18, **look)
        ax.plot(lines["prompts"], lines["mean"], marker="o", label="searched", **look)
        looks = ((CONTROL_COLOUR, "--"), (CLEAN_COLOUR, "-"))
        for (name, level), (colour, dashes) in zip(levels.items(), looks, strict=True):
            ax.axhline(level, color=colour, linestyle=dashes, linewidth=1.0, label=name)
        ax.set_xscale("log")
        ax.set_xticks(lines["prompts"], [str(n) for n in lines["prompts"]])
        ax.xaxis.set_minor_locator(NullLocator())
        ax.set_xlabel("selection prompts searched on")
        label_y([ax], "regret on the test prompts", "points", lines)
        legend(figure, [ax], note)
    return figure
