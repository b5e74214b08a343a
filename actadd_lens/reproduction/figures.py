"""Figures that several experiments have in common."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from actadd_lens import plots
from actadd_lens.reproduction.readings import ORDER


def by_run(
    summary: pd.DataFrame, *, ylabel: str, unit: str | None = None, panel: str = "pair"
) -> Figure:
    """A dot for each run with its interval, the clean one as a level, a panel for each pair.

    Args:
        summary: Of ``Readings.summary``, of one metric a panel.
        ylabel: What is measured.
        unit: "%" for shares.
        panel: Column that panels differ in.
    """
    clean = summary["run"] == "clean"
    rank = {run: i for i, run in enumerate(ORDER)}
    own = summary.drop(columns="metric").assign(
        run=np.where(clean, "clean", "steered"),
        pair=summary[panel],
        condition=summary["run"].where(~clean),
        arm=np.where(summary["run"] == "steered", "steered", "baseline"),
        _rank=summary["run"].map(lambda run: rank.get(run, len(rank))),
    )
    own = own.sort_values("_rank", kind="stable").drop(columns=["_rank", "layer", "position"])
    return plots.bars(
        own, x="condition", group="arm", ylabel=ylabel, unit=unit,
        note=f"95 % intervals, n = {int(summary['n'].max())} prompts",
    )  # fmt: skip
