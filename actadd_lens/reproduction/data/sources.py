"""Where records come from: files of several kinds, or the hub, each record with its place."""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from os import PathLike
from pathlib import Path
from reprlib import repr as shortened
from types import UnionType
from typing import Any, TypeAlias, TypeVar

from actadd_lens.errors import DataError, require

Source: TypeAlias = str | PathLike[str] | None
T = TypeVar("T")

FOLDERS = ("imdb", "realtoxicityprompts", "openwebtext", "conceptnet")
KINDS = {
    str: "string",
    dict: "object",
    list: "list",
    int | str: "number or string",
    float | int | None: "number or null",
}


@dataclass(frozen=True)
class Corpus:
    """A published data set: its names and its files."""

    folder: str
    """Where it is under a directory of several data sets."""
    hub: str
    """Its name on the Hugging Face hub."""
    download: str
    """Its published files, for a reader without a network."""
    patterns: tuple[str, ...]
    """Its files in a directory; the first pattern that finds any is the one that is read."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """What ``datasets.load_dataset`` needs to know of ``hub``."""


@dataclass(frozen=True)
class Record:
    """A record with its place, so that an error can name it."""

    place: str
    value: Any

    def get(self, name: str, kind: type | UnionType) -> Any:
        """A field of a kind.

        Raises:
            DataError: It is missing or of another kind.

        >>> Record("prompts.jsonl, line 3", {"txt": "a"}).get("text", str)
        Traceback (most recent call last):
        ...
        actadd_lens.errors.DataError: prompts.jsonl, line 3 has no string "text" (it has ['txt'])...
        """
        fields = self.value if isinstance(self.value, dict) else {}
        if name in fields and isinstance(fields[name], kind):
            return fields[name]
        if name in fields:
            found = f'"{name}" is {shortened(fields[name])}'
        else:
            found = f"it has {sorted(fields) if fields else shortened(self.value)}"
        raise DataError(
            f'{self.place} has no {KINDS[kind]} "{name}" ({found}): '
            "give the data set as it is published"
        )

    def within(self, name: str) -> "Record":
        """The record in a field."""
        return Record(f'{self.place}: "{name}"', self.get(name, dict))


def records(corpus: Corpus, source: Source, split: str = "train", **names: str) -> Iterator[Record]:
    """The records of a data set, one after the other.

    Args:
        corpus: Which.
        source: Where to look.
        split: Its name on the hub, and in patterns as ``{split}``.
        **names: What else patterns contain.

    Raises:
        DataError: No such place, no such file in it, or a file that cannot be read.
        MissingExtraError: The hub is needed, but ``datasets`` is not installed.
    """
    place = locate(corpus, source)
    if isinstance(place, str):
        options = corpus.options if place == corpus.hub else {}
        yield from hub_records(corpus, place, split=split, **options)
        return
    for path in _files(corpus, place, split=split, **names):
        try:
            yield from READERS[path.suffix](path)
        except (OSError, ValueError) as error:  # pyarrow's and UnicodeDecodeError are among these
            reason = str(error).strip().splitlines() or [type(error).__name__]
            raise DataError(
                f"cannot read {path}: {reason[0]}: download or write it again"
            ) from error


def take(found: Iterator[T], n: int | None, what: str, corpus: Corpus, source: Source) -> list[T]:
    """The first n of what was found, or all; ``what`` is their name in errors.

    Raises:
        DataError: n is below 1, or there is none.
    """
    if n is not None and n < 1:
        raise DataError(f"n is {n}: ask for at least 1, or leave it out for all")
    taken = list(islice(found, n))
    if not taken:
        place = corpus.hub if source is None else source
        raise DataError(f"no {what} in {place}: give {corpus.download}")
    return taken


def locate(corpus: Corpus, source: Source) -> Path | str:
    """The file or directory that is meant, or else the name on the hub.

    >>> locate(Corpus("imdb", "stanfordnlp/imdb", "", ()), None)
    'stanfordnlp/imdb'
    """
    if source is None:
        return corpus.hub
    place = Path(source).expanduser()
    if (place / corpus.folder).is_dir():
        return place / corpus.folder
    others = [folder for folder in FOLDERS if (place / folder).is_dir()]
    if others:  # their files would be taken for this data set's
        raise DataError(
            f"{place} has no folder {corpus.folder} (it has {', '.join(others)}): {_remedy(corpus)}"
        )
    if place.exists():
        return place
    name = str(source)
    # A bare name such as "text" would make datasets read whatever is in the working directory.
    hub_name = isinstance(source, str) and re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", name)
    if hub_name and not name.endswith(tuple(READERS)):
        return name
    raise DataError(
        f"no file or directory {name}, and it is not a name on the Hugging Face hub (owner/name): "
        f"{_remedy(corpus)}"
    )


def hub_records(corpus: Corpus, name: str, **options: Any) -> Iterator[Record]:
    """Records from the Hugging Face hub, streamed; options are those of ``load_dataset``.

    Raises:
        DataError: The hub is out of reach, or has no such data set.
        MissingExtraError: ``datasets`` is not installed.
    """
    library = require("datasets", "data", f"The data set {name} on the Hugging Face hub")
    try:
        rows = library.load_dataset(name, streaming=True, **options)
        for number, row in enumerate(rows, start=1):
            yield Record(f"{name}, row {number}", row)
    except Exception as error:  # whatever is wrong inside, the caller asked for a data set
        lines = str(error).strip().splitlines()
        reason = f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
        raise DataError(
            f"cannot read {name!r} on the Hugging Face hub ({reason}): check the spelling and the "
            f"network (HF_HUB_OFFLINE must not be set), or {_remedy(corpus)}"
        ) from error


def _remedy(corpus: Corpus) -> str:
    return (
        f"download the data set {corpus.hub} on the Hugging Face hub, or the original files "
        f"({corpus.download}), to DIR/{corpus.folder} and give DIR (--data DIR)"
    )


def _files(corpus: Corpus, place: Path, **names: str) -> list[Path]:
    if place.is_file():
        if place.suffix in READERS:
            return [place]
        raise DataError(f"{place} is of an unknown kind: give a file in {', '.join(READERS)}")
    patterns = [pattern.format(**names) for pattern in corpus.patterns]
    for pattern in patterns:
        if found := sorted(path for path in place.glob(pattern) if path.is_file()):
            return found
    raise DataError(
        f"no file of the data set {corpus.folder} in {place}: looked for {', '.join(patterns)}; "
        f"{_remedy(corpus)}"
    )


def _json_lines(path: Path) -> Iterator[Record]:
    with path.open("rb") as file:  # as bytes: a line ends at a line feed alone
        for number, line in enumerate(file, start=1):
            place = f"{path}, line {number}"
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8")
                value = json.loads(text) if text.strip() else None
            except UnicodeDecodeError as error:
                raise DataError(f"{place} is not UTF-8: {error}: convert it") from error
            except (ValueError, RecursionError) as error:
                raise DataError(f"{place} is not JSON: {error}: write one object a line") from error
            if text.strip():
                yield Record(place, value)


def _parquet_rows(path: Path) -> Iterator[Record]:
    from pyarrow import parquet  # slow to import, and for this kind only

    with parquet.ParquetFile(path) as file:
        batches = file.iter_batches(batch_size=256)
        rows = (batch.slice(i, 1) for batch in batches for i in range(batch.num_rows))
        for number, row in enumerate(rows, start=1):
            place = f"{path}, row {number}"
            try:
                [value] = row.to_pylist()
            except UnicodeDecodeError as error:
                raise DataError(f"{place} is not UTF-8: {error}: convert it") from error
            yield Record(place, value)


def _text_file(path: Path) -> Iterator[Record]:
    """One document; the folder is its label, as in the original files of IMDb."""
    text = path.read_bytes().decode("utf-8-sig")
    yield Record(str(path), {"text": text, "label": path.parent.name})


READERS: dict[str, Callable[[Path], Iterator[Record]]] = {
    ".parquet": _parquet_rows,
    ".jsonl": _json_lines,
    ".json": _json_lines,
    ".txt": _text_file,
}
