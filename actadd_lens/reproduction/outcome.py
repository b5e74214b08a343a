"""What an experiment gives: rows, a figure, verdicts; kept in a directory of its own."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from actadd_lens.errors import SweepFileError
from actadd_lens.plots import save
from actadd_lens.reproduction.criteria import Verdict
from actadd_lens.reproduction.setup import Setup
from actadd_lens.sweeps.identity import plain
from actadd_lens.vectors.files import write_atomically

BESIDE = ("rows.parquet", "summary.csv", "figure.png", "figure.pdf")
"""Files of an outcome, beside what it says."""


@dataclass(frozen=True)
class Outcome:
    """What an experiment measured and what it says."""

    rows: pd.DataFrame
    """Tidy: every value."""
    summary: pd.DataFrame
    """Tidy: every cell with ``mean``, ``low``, ``high``, ``n``."""
    shown: pd.DataFrame
    """The table of the report, as text with intervals."""
    figure: Figure
    """The figure of the report."""
    verdicts: Sequence[Verdict]
    """One for each criterion, in order."""
    facts: Mapping[str, str] = field(default_factory=dict)
    """Lines of the set-up: vector, layer, coefficient, counts."""


@dataclass(frozen=True)
class Kept:
    """An outcome on disk: what reports are written from."""

    name: str
    verdicts: tuple[Verdict, ...]
    facts: Mapping[str, str]
    shown: list[dict[str, str]]
    provenance: Mapping[str, Any]
    command: str
    seconds: float
    """Of the process that made it whole; it may have been interrupted before."""
    asked: list[dict[str, Any]]
    """What was asked of the model; see ``work.Ask``."""


def keep(name: str, outcome: Outcome, setup: Setup, seconds: float, command: str) -> Kept:
    """Write an outcome: the table as Parquet and CSV, the figure, and what it says as JSON.

    The JSON is written last: where it is, all of it is.

    Raises:
        OutputError: The directory cannot be written to.
    """
    directory, content = setup.directory, BytesIO()
    parquet = outcome.rows.assign(**{c: _one_type(outcome.rows[c]) for c in _mixed(outcome.rows)})
    parquet.to_parquet(content, index=False)
    write_atomically(directory / "rows.parquet", content.getvalue())
    write_atomically(directory / "summary.csv", outcome.summary.to_csv(index=False).encode())
    for suffix in ("png", "pdf"):
        save(outcome.figure, directory / f"figure.{suffix}")
    kept = Kept(
        name,
        tuple(outcome.verdicts),
        {**outcome.facts, **setup.found},
        [{str(k): str(v) for k, v in line.items()} for line in outcome.shown.to_dict("records")],
        plain(setup.provenance),
        command,
        round(seconds, 1),
        [asdict(ask) for ask in setup.asked],
    )
    text = json.dumps(asdict(kept), indent=1, ensure_ascii=False)
    write_atomically(directory / "outcome.json", text.encode())
    return kept


def kept_in(directory: Path) -> Kept | None:
    """The outcome in a directory; None if there is none, or not all of it.

    Raises:
        SweepFileError: Something else is there.
    """
    place = directory / "outcome.json"
    if not all((directory / name).exists() for name in (place.name, *BESIDE)):
        return None
    try:
        read = json.loads(place.read_text(encoding="utf-8"))
        verdicts = tuple(Verdict(**verdict) for verdict in read.pop("verdicts"))
        return Kept(verdicts=verdicts, **read)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise SweepFileError(
            f"cannot read {place} ({type(error).__name__}: {error}): remove it, or give another "
            "directory"
        ) from error


def _mixed(rows: pd.DataFrame) -> list[str]:
    """Columns that hold values of several types, as positions do; a file has one type a column."""
    return [
        str(c)
        for c in rows
        if rows[c].dtype == object
        and len({type(value) for value in rows[c] if value is not None}) > 1
    ]


def _one_type(column: "pd.Series[Any]") -> "pd.Series[Any]":
    return pd.Series([None if v is None else str(v) for v in column], dtype=object)
