"""The result of a measurement: a tidy table, means with intervals, and a file."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from os import PathLike
from typing import Any, TypeVar

from actadd_lens import display
from actadd_lens.errors import SweepError, SweepFileError
from actadd_lens.frames import DataFrame, Series
from actadd_lens.statistics import ClusterInterval, cluster_mean, proportion
from actadd_lens.sweeps.configurations import CLEAN, KEYS, STEERED, Configuration, Run
from actadd_lens.sweeps.store import Store
from actadd_lens.vectors.files import write_atomically

FORMAT = "actadd_lens.result"
VERSION = "2"
EXTRA = ("dose", "kl")
"""What is measured of every configuration, whatever the metrics are."""

DISPLAYED = 24
"""Configurations that a notebook shows of each metric."""
_INTERRUPTED = "interrupted: not every configuration has every prompt"

Own = TypeVar("Own", bound="Result")


@dataclass(frozen=True, eq=False, repr=False)
class Result:
    """Values of many configurations."""

    frame: DataFrame
    """A row for each value: the columns that name its configuration (``keys``), ``prompt`` (its
    text), ``sample`` (empty for logit metrics), ``metric`` and ``value``; then
    ``prompt_index``, ``dose`` (norm of what is added over that of the clean stream there),
    ``kl`` (KL(run || clean) of the token after the prompt, nats) and ``text`` (of a completion)."""

    provenance: Mapping[str, Any] = field(default_factory=dict)
    """Model, vectors, prompts, metrics, options and versions, enough to run again: plain JSON."""

    complete: bool = True
    """False if the work was interrupted: some configurations are missing, or lack prompts."""

    @property
    def keys(self) -> list[str]:
        """Columns that name a configuration."""
        columns = list(self.frame.columns)
        return columns[: columns.index("prompt")]

    @property
    def metrics(self) -> list[str]:
        """Names of the metrics."""
        return [name for name, *_ in self.provenance.get("metrics", [])]

    @property
    def shares(self) -> set[str]:
        """Names of the metrics whose values are zeros and ones."""
        return {name for name, _, share in self.provenance.get("metrics", []) if share}

    @property
    def missing(self) -> dict[str, int]:
        """How many values of each metric are NaN; those are left out of every mean."""
        absent = self.frame["value"].isna().groupby(self.frame["metric"]).sum()
        return {str(name): int(n) for name, n in absent.items() if n}

    def summary(self, confidence: float = 0.95) -> DataFrame:
        """Mean of each configuration and metric, with its bootstrap interval over prompts.

        Args:
            confidence: Coverage of the intervals; each is of its own configuration,
                whatever else was searched.

        Returns:
            ``keys``, ``metric``, ``mean``, ``low``, ``high``, ``n`` (prompts), ``missing`` (NaN
            values left out), and the mean ``dose`` and ``kl``. Where nothing is left, or a
            value is infinite, the interval is NaN. For a metric that says that it is a share
            (``share = True``), Wilson's interval is given where all prompts of a configuration
            agree: resampling shows no spread there.
        """
        by = [*self.keys, "metric"]
        each = self.frame.groupby([*by, "prompt"], sort=False, dropna=False)[[*EXTRA]]
        means = each.first().groupby(by, sort=False, dropna=False).mean().reset_index()
        table = self.intervals(self.frame, by, confidence)
        return table.assign(**{name: means[name] for name in EXTRA})

    def intervals(
        self, rows: DataFrame, by: Sequence[str] | None = None, confidence: float = 0.95
    ) -> DataFrame:
        """``mean``, ``low``, ``high``, ``n``, ``missing`` of groups of rows."""
        import pandas as pd

        columns = self.keys if by is None else list(by)
        lines = []
        for labels, own in rows.groupby(columns, sort=False, dropna=False):
            i = self.interval(own, confidence)
            lines.append((*labels, i.mean, i.low, i.high, i.n, i.missing))
        table = pd.DataFrame(lines, columns=[*columns, "mean", "low", "high", "n", "missing"])
        return table.astype({name: rows[name].dtype for name in columns})

    def interval(self, rows: DataFrame, confidence: float = 0.95) -> ClusterInterval:
        """Mean over prompts of the rows of one metric, with its interval.

        A prompt that was given twice counts once.
        """
        share = rows["metric"].iloc[0] in self.shares
        return interval_of(rows["value"], rows["prompt"], confidence, share=share)

    def values_of(self, metric: str) -> DataFrame:
        """The rows of one metric; of "dose" and "kl" too, a row for each run and prompt.

        Raises:
            SweepError: There is no such metric, or an interrupted sweep did not come to it.
        """
        own = self.frame[self.frame["metric"] == metric]
        if len(own):
            return own
        if metric in EXTRA:
            once = self.frame.drop_duplicates([*self.keys, "prompt_index"])
            return once.assign(metric=metric, value=once[metric])
        if metric in self.metrics:
            raise SweepError(f"{metric} was not measured before the interrupt: run it again")
        names = dict.fromkeys([*self.metrics, *EXTRA])
        raise SweepError(f"no metric {metric!r}: there are {', '.join(names)}")

    def save(self, path: str | PathLike[str]) -> None:
        """Write table and provenance as Parquet, atomically.

        Raises:
            OutputError: The file cannot be written there.
        """
        import pandas as pd
        import pyarrow as pa
        import pyarrow.parquet as pq

        # A table on disk has one type a column.
        positions = [None if p is None else json.dumps(p) for p in self.frame["position"]]
        written = self.frame.assign(position=pd.Series(positions, dtype=object))
        table = pa.Table.from_pandas(written, preserve_index=False)
        header = {
            "format": FORMAT,
            "version": VERSION,
            "kind": type(self).__name__,
            "complete": self.complete,
            "provenance": dict(self.provenance),
        }
        metadata = {**(table.schema.metadata or {}), FORMAT.encode(): json.dumps(header).encode()}
        content = BytesIO()
        pq.write_table(table.replace_schema_metadata(metadata), content)
        write_atomically(path, content.getvalue())

    @classmethod
    def load(cls: type[Own], path: str | PathLike[str]) -> Own:
        """Read what ``save`` wrote.

        Raises:
            SweepFileError: No such file, or it holds something else.
        """
        import pandas as pd
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            table = pq.read_table(path)
            header = json.loads((table.schema.metadata or {}).get(FORMAT.encode(), b"{}"))
            frame = table.to_pandas()
        except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
            raise SweepFileError(
                f"cannot read {path} ({type(error).__name__}: {error}): give a file that "
                f"{cls.__name__}.save wrote"
            ) from error
        found = tuple(header.get(name) for name in ("format", "version", "kind"))
        if found != (FORMAT, VERSION, cls.__name__):
            raise SweepFileError(
                f"{path} is not a {cls.__name__}: it says format {found[0]!r}, version "
                f"{found[1]!r}, kind {found[2]!r}; expected {FORMAT!r}, {VERSION!r}, "
                f"{cls.__name__!r}"
            )
        places = [json.loads(p) if isinstance(p, str) else None for p in frame["position"]]
        frame = typed(frame.assign(position=pd.Series(places, dtype=object)))
        return cls(frame, header["provenance"], header["complete"])

    def _note(self, note: str) -> str:
        """A figure's note; it says so if something is missing."""
        return note if self.complete else f"{note}; {_INTERRUPTED}"

    def _repr_html_(self) -> str:
        title, *remarks = repr(self).splitlines()
        return display.block(
            title,
            *(display.muted(line.strip()) for line in remarks),
            *(self._displayed(name, unfolded=not i) for i, name in enumerate(self.metrics)),
            display.muted("mean [95 % interval over prompts]; .summary() has all figures"),
        )

    def _displayed(self, metric: str, *, unfolded: bool) -> display.Markup:
        """The first configurations of a metric, each next to its controls."""
        import pandas as pd

        labels = [name for name in self.keys if name != "run"]
        rows = self.frame[self.frame["metric"] == metric]
        clean = rows[rows["run"] == CLEAN]
        title = f"{metric}: clean {brief(self.interval(clean))}" if len(clean) else metric
        groups: Any = list(rows[rows["run"] != CLEAN].groupby(labels, sort=False, dropna=False))
        places: list[list[Any]] = []
        texts: list[dict[Any, str]] = []
        for place, group in groups[:DISPLAYED]:
            places.append([None if pd.isna(value) else value for value in place])
            by_run = group.groupby("run", sort=False)
            texts.append({run: brief(self.interval(own)) for run, own in by_run})
        varying = [i for i, values in enumerate(zip(*places, strict=True)) if len({*values}) > 1]
        varying = varying or [0, 1, 2]
        found = dict.fromkeys(run for by_run in texts for run in by_run)
        runs = sorted(found, key=lambda run: run != STEERED)  # after an interrupt it may come late
        lines = [
            [*(place[i] for i in varying), *(display.unbroken(own.get(run)) for run in runs)]
            for place, own in zip(places, texts, strict=True)
        ]
        tinted = len(varying) if STEERED in found else None
        left = len(groups) - len(places)
        return display.folded(
            title,
            display.table([*(labels[i] for i in varying), *runs], lines, tinted=tinted),
            display.muted(f"... and {left} more configurations" if left else ""),
            unfolded=unfolded,
        )

    def __repr__(self) -> str:
        runs = self.frame[self.keys].drop_duplicates()["run"]
        controls = [c for c in runs.unique() if c != STEERED]
        lines = [
            f"{type(self).__name__}({(runs == STEERED).sum()} configurations, "
            f"{self.frame['prompt_index'].nunique()} prompts, {len(self.frame)} values)",
            f"  metrics: {', '.join(self.metrics)}",
            f"  controls: {', '.join(controls) or 'none'}",
        ]
        lines += [f"  {n} values of {name} are NaN" for name, n in self.missing.items()]
        if not self.complete:
            lines.append(f"  {_INTERRUPTED}")
        return "\n".join(lines)


def interval_of(
    values: Series, prompts: Series, confidence: float = 0.95, *, share: bool = False
) -> ClusterInterval:
    """Mean over prompts with its interval; NaN where no value is left, or one is infinite."""
    numbers = values.dropna()
    n, missing = int(prompts[numbers.index].nunique()), len(values) - len(numbers)
    if not len(numbers) or not numbers.map(math.isfinite).all():
        mean = float(numbers.mean()) if len(numbers) else math.nan
        return ClusterInterval(mean, math.nan, math.nan, n, missing)
    if share and {*numbers} in ({0.0}, {1.0}):
        wilson = proportion([bool(numbers.iloc[0])] * n, confidence)
        return ClusterInterval(**vars(wilson), missing=missing)
    return cluster_mean(values, prompts, confidence)


def brief(interval: ClusterInterval) -> str:
    """A mean with its interval, if it has one, in three digits."""
    if math.isnan(interval.low):
        return f"{interval.mean:.3g}, no interval"
    return f"{interval.mean:.3g} [{interval.low:.3g}, {interval.high:.3g}]"


def noted(table: DataFrame, unit: str | None) -> str:
    """What a map cannot show: n, the widest interval, and the range of the controls."""
    scale, sign, points = (100, " %", " points") if unit == "%" else (1, "", "")
    steered = table[table["run"] == STEERED]
    half = scale * (steered["high"] - steered["low"]).max() / 2
    note = f"n = {steered['n'].max()} prompts, 95 % intervals up to ± {half:.2g}{points}"
    others = table[~table["run"].isin([STEERED, CLEAN])].dropna(subset="mean")
    spans = []
    for name, own in others.groupby(others["run"].str.split(":").str[0], sort=False):
        ends = dict.fromkeys(f"{scale * x:.3g}" for x in (own["mean"].min(), own["mean"].max()))
        spans.append(f"{name} {' to '.join(ends)}{sign}")
    return f"{note}; over the grid: {', '.join(spans)}" if spans else note


TYPES = {"layer": "Int64", "coefficient": "Float64", "sample": "Int64"}


def tabulated(
    configurations: Sequence[Configuration],
    runs: Sequence[Run],
    texts: Sequence[str],
    metrics: Sequence[str],
    store: Store,
) -> DataFrame:
    """The rows of a store as a table: one for each value of each configuration."""
    import pandas as pd

    place = {run: i for i, run in enumerate(runs)}
    extra = [name for name in configurations[-1].labels if name not in KEYS]
    own = {name: [c.labels.get(name) for c in configurations] for name in (*KEYS, *extra)}
    # As objects: a column of positions may hold names and numbers, and has no NaN.
    keys = {name: pd.Series(own[name], dtype=object) for name in KEYS}
    labels = pd.DataFrame({**own, **keys}).assign(run_index=[place[c.run] for c in configurations])
    labels["order"] = range(len(configurations))
    columns = ["run_index", "prompt_index", "sample", "metric", "value", "dose", "kl", "text"]
    types: Any = {"sample": "Int64", "value": float, "dose": float, "kl": float}
    values = pd.DataFrame(store.rows(), columns=columns).astype(types)
    frame = labels.merge(values, on="run_index")
    frame = frame.sort_values(["order", "metric", "prompt_index", "sample"], ignore_index=True)
    frame["prompt"] = [texts[i] for i in frame["prompt_index"]]
    frame["metric"] = [metrics[i] for i in frame["metric"]]
    columns = [*KEYS, *extra, "prompt", "sample", "metric", "value"]
    frame = frame[[*columns, "prompt_index", "dose", "kl", "text"]]
    return typed(frame)


def typed(frame: DataFrame) -> DataFrame:
    """The frame with the types that every frame has, wherever it comes from."""
    for name in ("vector", "position", "run", "text"):
        column = frame[name].astype(object)
        frame = frame.assign(**{name: column.where(column.notna(), None)})
    whole = [
        name
        for name in frame
        if frame[name].dtype == float and name not in ("value", "dose", "kl", "fraction", *TYPES)
    ]
    return frame.astype({**TYPES, **dict.fromkeys(whole, "Int64")})
