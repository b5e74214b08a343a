"""The store of a long measurement: one SQLite file that rows are committed to as they are made.

A process killed at any moment loses what it had in flight and no more; the same call goes on from
there. A commit survives the process because what was written is in the operating system's hands,
synced or not; a commit that was cut short fails its checksum in the write-ahead log, and is passed
over when the file is next opened. With ``synchronous = NORMAL`` the log is synced only before it is
copied into the file: a power cut may cost the last commits, but leaves those before them whole.

Nothing in a file is ever executed: it must hold the tables below, and no trigger or view.
"""

import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from reprlib import repr as short
from types import NoneType
from typing import Any, Literal, TypeAlias

from actadd_lens.errors import ActAddError, OutputError, SweepError, SweepFileError
from actadd_lens.sweeps.identity import n_alike

Phase: TypeAlias = Literal["logits", "texts"]
Key: TypeAlias = tuple[int, int]
"""(run, prompt): indices in the lists that the configuration determines."""

APPLICATION = int.from_bytes(b"ALsw", "big")
VERSION = 2
SCHEMA = (
    "CREATE TABLE config (content TEXT NOT NULL)",
    """CREATE TABLE done (
        phase TEXT NOT NULL CHECK (phase IN ('logits', 'texts')),
        run INTEGER NOT NULL, prompt INTEGER NOT NULL,
        PRIMARY KEY (phase, run, prompt)) WITHOUT ROWID""",
    # A value has no declared type: a REAL one would lose the sign of -0.0. NaN is kept as NULL.
    """CREATE TABLE figure (
        run INTEGER NOT NULL, prompt INTEGER NOT NULL,
        sample INTEGER CHECK (sample >= 0), metric INTEGER NOT NULL, value)""",
    # NULLs differ from each other in a key, and there must be one figure without a sample only.
    "CREATE UNIQUE INDEX once ON figure (run, prompt, ifnull(sample, -1), metric)",
    """CREATE TABLE measured (
        run INTEGER NOT NULL, prompt INTEGER NOT NULL, dose, kl,
        PRIMARY KEY (run, prompt)) WITHOUT ROWID""",
    """CREATE TABLE text (
        run INTEGER NOT NULL, prompt INTEGER NOT NULL, sample INTEGER NOT NULL, text TEXT NOT NULL,
        PRIMARY KEY (run, prompt, sample)) WITHOUT ROWID""",
)
_PLAIN = (int, float, str, NoneType)
_MOST_DIFFERENCES = 8
_ELSEWHERE = "name another file"


@dataclass(frozen=True)
class Value:
    """One figure of a run after a prompt."""

    run: int
    prompt: int
    sample: int | None
    """Index of the completion; None for a logit metric."""
    metric: int
    value: float
    """NaN and infinities included."""


@dataclass(frozen=True)
class Measured:
    """What is measured of a run after a prompt, whatever the metrics are."""

    run: int
    prompt: int
    dose: float
    kl: float


@dataclass(frozen=True)
class Text:
    """A completion."""

    run: int
    prompt: int
    sample: int
    text: str


Row: TypeAlias = Value | Measured | Text
_INSERT: Mapping[type[Row], str] = {
    Value: "INSERT INTO figure VALUES (:run, :prompt, :sample, :metric, :value)",
    Measured: "INSERT INTO measured VALUES (:run, :prompt, :dose, :kl)",
    Text: "INSERT INTO text VALUES (:run, :prompt, :sample, :text)",
}


class Store:
    """Rows by key, and which keys are finished in each of two phases; close it when done.

    >>> with Store.open(None, {"seed": 0}) as store:
    ...     store.add("logits", [Value(0, 2, None, 0, 0.5)])
    ...     store.done("logits"), store.done("texts"), store.rows()
    ({(0, 2)}, set(), [(0, 2, None, 0, 0.5, None, None, None)])
    """

    def __init__(self, connection: sqlite3.Connection, name: str) -> None:
        self._connection = connection
        self._name = name

    @classmethod
    def open(cls, path: str | PathLike[str] | None, config: Mapping[str, Any]) -> "Store":
        """Open a file, or make it; None keeps everything in memory.

        Until it is closed a second file, ``-wal`` at the end, belongs to it. ``config`` is what the
        rows depend on, as JSON values. A file of another one is refused (``SweepFileError``),
        unless only "versions" differ, which are those that the file was begun with.
        """
        name = "the sweep in memory" if path is None else str(path)
        content = json.dumps(config, sort_keys=True)
        try:
            place = None if path is None else _examined(Path(path), name)
            connection = sqlite3.connect(place or ":memory:", timeout=0, isolation_level=None)
            try:
                _prepare(connection, name, content)
            except BaseException:
                connection.close()
                raise
        except (sqlite3.Error, OSError) as error:
            remedy = "name a file in a directory that exists, is writable, and has room"
            raise _as_error(error, name, remedy) from error
        return cls(connection, name)

    def __enter__(self) -> "Store":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Leave one file, which others may open; what was not added is not in it."""
        self._connection.close()

    def settings(self) -> dict[str, Any]:
        """The settings that it was begun with, versions included."""
        [(content,)] = self._rows("SELECT content FROM config")
        found: dict[str, Any] = json.loads(content)
        return found

    def done(self, phase: Phase) -> set[Key]:
        """Keys that are finished in a phase."""
        return set(self._rows("SELECT run, prompt FROM done WHERE phase = ?", phase))

    def add(self, phase: Phase, rows: Iterable[Row]) -> None:
        """Commit all rows of some keys and that they are finished in a phase: all of it or nothing.

        A key that is finished already is left as it is. As rows and mark are one transaction, an
        unfinished key has no rows of that phase that new ones could meet.
        """
        added = list(rows)
        for row in added:
            if not all(isinstance(item, _PLAIN) for item in vars(row).values()):
                # SQLite would keep the bytes of a numpy number.
                raise SweepError(f"{row} was added: give plain numbers and text")
        try:
            with self._connection as connection:  # commits, or takes everything back
                connection.execute("BEGIN IMMEDIATE")
                is_done = "SELECT 1 FROM done WHERE (phase, run, prompt) = (?, ?, ?)"
                keys = {(row.run, row.prompt) for row in added}
                new = {k for k in keys if not connection.execute(is_done, (phase, *k)).fetchone()}
                for row in added:
                    if (row.run, row.prompt) in new:
                        connection.execute(_INSERT[type(row)], vars(row))
                marks = ((phase, *key) for key in sorted(new))
                connection.executemany("INSERT INTO done VALUES (?, ?, ?)", marks)
        except (sqlite3.IntegrityError, sqlite3.InterfaceError, sqlite3.ProgrammingError) as error:
            remedy = "add every row once, before the store is closed"
            raise SweepError(f"cannot add to {self._name}: {error}: {remedy}") from error
        except sqlite3.Error as error:
            remedy = (
                "what was added before is kept: make room there, or mend what keeps it from being "
                "written, and make the same call again, which goes on from there"
            )
            raise _as_error(error, self._name, remedy) from error

    def rows(self) -> list[tuple[Any, ...]]:
        """Every value with run, prompt, sample and metric before it, dose, KL and text after it.

        NaN is None, as is a text where nothing was generated.
        """
        return self._rows(
            "SELECT run, prompt, sample, metric, value, dose, kl, text FROM figure "
            "LEFT JOIN measured USING (run, prompt) LEFT JOIN text USING (run, prompt, sample)"
        )

    def _rows(self, query: str, *values: object) -> list[Any]:
        try:  # all at once: a statement left open by its reader would outlive close()
            return self._connection.execute(query, values).fetchall()
        except sqlite3.Error as error:
            raise _as_error(error, self._name, _ELSEWHERE) from error


def _examined(path: Path, name: str) -> str:
    """Where the file is, once it was found to be ours or empty.

    It is looked at as if it could not change, so that no journal of a foreign file is played back.
    Through SQLite, as closing a file that was opened by other means drops this process's locks on
    it. A kill may have left it shorter than it says until its log is played back, which
    ``writable_schema`` lets pass.
    """
    path = path.resolve()
    if path.exists() and not path.is_file():
        raise OutputError(f"cannot write {name}: it is not a file: name one")
    size = path.stat().st_size if path.exists() else 0
    if 0 < size < 512:  # SQLite would take one byte for none
        raise SweepFileError(f"{name} is no sweep, or damaged: it has {size} bytes: {_ELSEWHERE}")
    if size:
        uri = f"{path.as_uri()}?mode=ro&immutable=1"
        with closing(sqlite3.connect(uri, uri=True, isolation_level=None)) as connection:
            connection.execute("PRAGMA writable_schema = ON")
            if not _is_ours(connection, name) and path.with_name(f"{path.name}-wal").exists():
                raise SweepFileError(f"{name} is another program's, and unfinished: {_ELSEWHERE}")
    return str(path)


def _is_ours(connection: sqlite3.Connection, name: str) -> bool:
    """False for an empty file; refuses what is not a store of this version."""
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if application == APPLICATION and version != VERSION:
        raise SweepFileError(
            f"{name} is a sweep of format {version}, and this release reads format {VERSION}: "
            f"use the release that wrote it, or {_ELSEWHERE}"
        )
    if application not in (0, APPLICATION) or (not application and _schema(connection)):
        raise SweepFileError(
            f"{name} is a database of something else (application_id {application}; a sweep has "
            f"{APPLICATION}): {_ELSEWHERE}"
        )
    return bool(application)


def _schema(connection: sqlite3.Connection) -> set[str]:
    return {sql for (sql,) in connection.execute("SELECT sql FROM sqlite_master WHERE sql NOTNULL")}


def _prepare(connection: sqlite3.Connection, name: str, content: str) -> None:
    """Lock the file, then begin it, or see that it holds this sweep."""
    # Held until the file is closed, however the process ends.
    connection.execute("PRAGMA locking_mode = EXCLUSIVE")
    connection.execute("PRAGMA synchronous = NORMAL")
    with connection:
        connection.execute("BEGIN EXCLUSIVE")
        if not _is_ours(connection, name):  # one page: whose it is never stands in the log alone
            connection.execute(f"PRAGMA application_id = {APPLICATION}")
            connection.execute(f"PRAGMA user_version = {VERSION}")
    connection.execute("PRAGMA journal_mode = WAL")
    with connection:
        connection.execute("BEGIN IMMEDIATE")
        found = _schema(connection)
        if not found:
            for statement in SCHEMA:
                connection.execute(statement)
            connection.execute("INSERT INTO config VALUES (?)", (content,))
        elif found != {*SCHEMA}:
            raise SweepFileError(f"{name} has not the tables of a sweep: {_ELSEWHERE}")
        else:
            _check_config(connection, name, content)


def _check_config(connection: sqlite3.Connection, name: str, content: str) -> None:
    try:
        ((begun,),) = connection.execute("SELECT content FROM config")
        # NaN, which differs from itself, is compared by name.
        old, new = ({**json.loads(c, parse_constant=str)} for c in (begun, content))
    except (ValueError, TypeError, RecursionError) as error:
        raise SweepFileError(f"the settings in {name} are broken: {_ELSEWHERE}") from error
    differing = list(differences({**old, "versions": None}, {**new, "versions": None}))
    if differing:
        more = len(differing) - _MOST_DIFFERENCES
        shown = differing[:_MOST_DIFFERENCES] + ([f"and {more} more"] if more > 0 else [])
        raise SweepFileError(
            f"{name} holds a sweep of other settings: {'; '.join(shown)}: "
            f"{_ELSEWHERE}, or call with the same arguments"
        )


def _as_error(error: Exception, name: str, remedy: str) -> ActAddError:
    """The error that a caller can act on."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # without SQLite's details
    if code == sqlite3.SQLITE_BUSY:
        return SweepFileError(
            f"{name} is in use by another process, or by this one: wait until that ends, or "
            f"{_ELSEWHERE}"
        )
    if code in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
        return SweepFileError(f"{name} is no sweep, or damaged: {error}: {_ELSEWHERE}")
    return OutputError(f"cannot read or write {name}: {error}: {remedy}")


class _Absent:
    def __repr__(self) -> str:
        return "nothing"


_ABSENT = _Absent()


def differences(old: Any, new: Any, name: str = "") -> Iterator[str]:
    """Where two JSON values differ, with both sides.

    >>> list(differences({"a": {"b": 0}, "c": ["x", "y"]}, {"a": {"b": 1}, "c": ["x", "z"]}))
    ['a.b: 0 in the file, 1 now', "c[1]: 'y' in the file, 'z' now"]
    """
    if old == new:
        return
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(old.keys() | new.keys()):
            inner = f"{name}.{key}" if name else key
            yield from differences(old.get(key, _ABSENT), new.get(key, _ABSENT), inner)
    elif isinstance(old, list) and isinstance(new, list):
        at = n_alike(old, new)
        if len(old) == len(new):
            yield from differences(old[at], new[at], f"{name}[{at}]")
        else:
            lengths = f"{len(old)} items in the file, {len(new)} now"
            yield f"{name}: {lengths}, the first {at} alike"
    else:
        if isinstance(old, str) and isinstance(new, str):  # long ones may begin and end alike
            start = max(0, n_alike(old, new) - 4)
            old, new = old[start:], new[start:]
        yield f"{name}: {short(old)} in the file, {short(new)} now"
