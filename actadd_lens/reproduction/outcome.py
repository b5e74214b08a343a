"""What an experiment measured, what follows from it, and how both are saved."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from actadd_lens.errors import SweepFileError
from actadd_lens.plots import save as save_figure
from actadd_lens.reproduction.criteria import Verdict
from actadd_lens.reproduction.measurements import Change, Measurements, by_part
from actadd_lens.statistics import ClusterInterval
from actadd_lens.sweeps import Result
from actadd_lens.vectors.files import prepare_directory, write_atomically

FILES = ("rows.parquet", "summary.csv", "figure.png", "figure.pdf")
"""Files of an outcome, next to ``outcome.json``."""


@dataclass(frozen=True)
class Measured:
    """All that an experiment measured: enough to judge, tabulate and draw without the model."""

    parts: Mapping[str, Measurements]
    """Measurements by name: one for each concept, data split or kind of text."""
    notes: Mapping[str, Any] = field(default_factory=dict)
    """What else judging needs, such as the layer in use: plain JSON."""
    facts: Mapping[str, str] = field(default_factory=dict)
    """Lines of the set-up for the report: vector, layer, coefficient, counts."""
    frames: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    """Tables of another form that the figure needs."""

    def values(
        self, metric: str, run: str = "steered", **labels: Any
    ) -> dict[str, ClusterInterval]:
        """``Measurements.value`` of every part."""
        return {name: part.value(metric, run, **labels) for name, part in self.parts.items()}

    def changes(self, metric: str, **options: Any) -> dict[str, Change]:
        """``Measurements.change`` of every part."""
        return {name: part.change(metric, **options) for name, part in self.parts.items()}

    def by_run(self, head: str = "concept") -> pd.DataFrame:
        """``Measurements.by_run`` of every part; several parts are named in the first column."""
        tables = {name: part.by_run() for name, part in self.parts.items()}
        return by_part(tables, head) if len(tables) > 1 else next(iter(tables.values()))

    @property
    def rows(self) -> pd.DataFrame:
        """Tidy: every value, with its part."""
        return _joined({name: part.frame for name, part in self.parts.items()})

    @property
    def summary(self) -> pd.DataFrame:
        """Tidy: every configuration with ``mean``, ``low``, ``high``, ``n``, with its part."""
        return _joined({name: part.summary for name, part in self.parts.items()})

    def save(self, directory: Path) -> None:
        """Write a file for each part, then ``measured.json``: where that is, all of it is."""
        place = prepare_directory(directory / "measured")
        for i, part in enumerate(self.parts.values()):
            part.result.save(place / f"{i}.parquet")
        for name, frame in self.frames.items():
            frame.to_parquet(place / f"{name}.parquet", index=False)
        about = {"parts": [*self.parts], "notes": self.notes, "facts": self.facts}
        write_atomically(directory / "measured.json", _json({**about, "frames": [*self.frames]}))

    @classmethod
    def load(cls, directory: Path) -> "Measured | None":
        """What ``save`` wrote to a directory; None if there is nothing.

        Raises:
            SweepFileError: Something else is there.
        """
        place, tables = directory / "measured.json", directory / "measured"
        if not place.exists():
            return None
        about = _read(place)
        try:
            parts = {
                name: Measurements(Result.load(tables / f"{i}.parquet"))
                for i, name in enumerate(about["parts"])
            }
            frames = {name: pd.read_parquet(tables / f"{name}.parquet") for name in about["frames"]}
            return cls(parts, about["notes"], about["facts"], frames)
        except (KeyError, TypeError) as error:
            raise _unreadable(place, error) from error


@dataclass(frozen=True)
class SavedOutcome:
    """An outcome on disk: what reports are written from."""

    name: str
    verdicts: tuple[Verdict, ...]
    facts: Mapping[str, str]
    table: list[dict[str, str]]
    provenance: Mapping[str, Any]
    command: str
    seconds: float
    """Of the process that finished it; it may have been interrupted before."""


def save(
    directory: Path,
    name: str,
    measured: Measured,
    verdicts: Sequence[Verdict],
    table: pd.DataFrame,
    figure: Figure,
    *,
    provenance: Mapping[str, Any],
    command: str,
    seconds: float,
) -> SavedOutcome:
    """Write rows and summary, the figure, and last ``outcome.json``: where that is, all of it is.

    Raises:
        OutputError: The directory cannot be written to.
    """
    content = BytesIO()
    _with_one_type_a_column(measured.rows).to_parquet(content, index=False)
    write_atomically(directory / "rows.parquet", content.getvalue())
    write_atomically(directory / "summary.csv", measured.summary.to_csv(index=False).encode())
    for suffix in ("png", "pdf"):
        save_figure(figure, directory / f"figure.{suffix}")
    lines = [{str(k): str(v) for k, v in line.items()} for line in table.to_dict("records")]
    saved = SavedOutcome(
        name, tuple(verdicts), dict(measured.facts), lines, provenance, command, round(seconds, 1)
    )
    write_atomically(directory / "outcome.json", _json(asdict(saved)))
    return saved


def saved_in(directory: Path) -> SavedOutcome | None:
    """The outcome in a directory; None if there is none, or not all of it.

    Raises:
        SweepFileError: Something else is there.
    """
    place = directory / "outcome.json"
    if not all((directory / name).exists() for name in (place.name, *FILES)):
        return None
    read = _read(place)
    try:
        verdicts = tuple(Verdict(**verdict) for verdict in read.pop("verdicts"))
        return SavedOutcome(verdicts=verdicts, **read)
    except (KeyError, TypeError) as error:
        raise _unreadable(place, error) from error


def _read(place: Path) -> dict[str, Any]:
    try:
        read = json.loads(place.read_text(encoding="utf-8"))
        if not isinstance(read, dict):
            raise TypeError(f"it holds {type(read).__name__}, not an object")
    except (OSError, ValueError, TypeError) as error:
        raise _unreadable(place, error) from error
    return read


def _unreadable(place: Path, error: Exception) -> SweepFileError:
    return SweepFileError(
        f"cannot read {place} ({type(error).__name__}: {error}): remove it, or give another "
        "directory"
    )


def _json(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, indent=1, ensure_ascii=False).encode()


def _joined(frames: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    return pd.concat([f.assign(part=name) for name, f in frames.items()], ignore_index=True)


def _with_one_type_a_column(rows: pd.DataFrame) -> pd.DataFrame:
    """Columns with values of several types, such as positions, as text: a file needs it."""
    objects = [str(name) for name in rows if rows[name].dtype == object]
    mixed = [name for name in objects if rows[name].dropna().map(type).nunique() > 1]
    text = {name: rows[name].map(str, na_action="ignore").astype(object) for name in mixed}
    return rows.assign(**text)
