"""The table of a measurement, out of the store that it was committed to."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from actadd_lens.sweeps.cells import KEYS, Cell, Run
from actadd_lens.sweeps.store import Store

if TYPE_CHECKING:
    from pandas import DataFrame
else:
    DataFrame = Any  # pandas takes half a second to import: only where a frame is asked for

TYPES = {"layer": "Int64", "coefficient": "Float64", "sample": "Int64"}


def tabulated(
    cells: Sequence[Cell],
    runs: Sequence[Run],
    texts: Sequence[str],
    metrics: Sequence[str],
    store: Store,
) -> DataFrame:
    """A row for each value of each cell."""
    import pandas as pd

    place = {run: i for i, run in enumerate(runs)}
    extra = [name for name in cells[-1].labels if name not in KEYS]
    # As objects: a column of positions may hold names and numbers, and has no NaN.
    labels = pd.DataFrame(
        {name: pd.Series([c.labels.get(name) for c in cells], dtype=object) for name in KEYS}
        | {name: [c.labels.get(name) for c in cells] for name in extra}
    ).assign(run_index=[place[cell.run] for cell in cells], cell=range(len(cells)))
    values = pd.DataFrame(
        [(v.run, v.prompt, v.sample, v.metric, v.value) for v in store.values()],
        columns=["run_index", "prompt_index", "sample", "metric", "value"],
    ).astype({"sample": "Int64", "value": float})
    beside = pd.DataFrame(
        [(m.run, m.prompt, m.dose, m.kl) for m in store.measured()],
        columns=["run_index", "prompt_index", "dose", "kl"],
    ).astype({"dose": float, "kl": float})
    written = pd.DataFrame(
        [(t.run, t.prompt, t.sample, t.text) for t in store.texts()],
        columns=["run_index", "prompt_index", "sample", "text"],
    ).astype({"sample": "Int64"})
    frame = (
        labels.merge(values, on="run_index")
        .merge(beside, on=["run_index", "prompt_index"], how="left")
        .merge(written, on=["run_index", "prompt_index", "sample"], how="left")
        .sort_values(["cell", "metric", "prompt_index", "sample"], ignore_index=True)
    )
    frame["prompt"] = [texts[i] for i in frame["prompt_index"]]
    frame["metric"] = [metrics[i] for i in frame["metric"]]
    columns = [*KEYS, *extra, "prompt", "sample", "metric", "value"]
    frame = frame[[*columns, "prompt_index", "dose", "kl", "text"]]
    return typed(frame)


def typed(frame: DataFrame) -> DataFrame:
    """The frame with the types that every frame has, wherever it comes from."""
    import pandas as pd

    for name in ("pair", "position", "run", "text"):
        column = [None if pd.isna(value) else value for value in frame[name].astype(object)]
        frame = frame.assign(**{name: pd.Series(column, dtype=object, index=frame.index)})
    whole = [
        name
        for name in frame
        if frame[name].dtype == float and name not in ("value", "dose", "kl", "fraction", *TYPES)
    ]
    return frame.astype({**TYPES, **dict.fromkeys(whole, "Int64")})
