"""Texts from a file: plain lines, or JSON lines with a field "text"."""

import json
from os import PathLike
from pathlib import Path
from typing import Any

from actadd_lens.errors import TextFileError


def read_texts(path: str | PathLike[str]) -> list[dict[str, Any]]:
    """Read the records of a file.

    A file whose name ends in ``.jsonl`` or ``.json`` holds one JSON object per line, each with a
    string "text", maybe a string "prompt", and any labels. Any other file holds one text per line.
    Empty lines are skipped.

    Args:
        path: Of a UTF-8 file.

    Returns:
        A dictionary for each text, "text" among its keys.

    Raises:
        TextFileError: The file cannot be read or holds no text, or a line is broken; the message
            names the line.

    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as directory:
    ...     place = Path(directory) / "texts.jsonl"
    ...     written = place.write_text('{"text": "Anna sang.", "label": "music"}')
    ...     read_texts(place)
    [{'text': 'Anna sang.', 'label': 'music'}]
    """
    place = Path(path)
    try:
        # Lines end at line feeds alone: JSON may hold other separators, such as U+2028.
        lines = place.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise TextFileError(f"cannot read {place}: {error}: give a UTF-8 text file") from error
    numbered = [(number, line) for number, line in enumerate(lines, start=1) if line.strip()]
    if not numbered:
        raise TextFileError(f"{place} holds no text: write one per line")
    if place.suffix not in (".jsonl", ".json"):
        return [{"text": line} for _, line in numbered]
    return [_record(place, number, line) for number, line in numbered]


def _record(place: Path, number: int, line: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise TextFileError(f"{place}, line {number} is not JSON: {error}") from error
    if not isinstance(record, dict) or not isinstance(record.get("text"), str):
        found = f"has {sorted(record)}" if isinstance(record, dict) else f"is {line.strip()[:40]}"
        raise TextFileError(
            f'{place}, line {number} has no string "text" (it {found}): '
            'write {"text": "..."} on each line'
        )
    if not isinstance(record.get("prompt", ""), str):
        raise TextFileError(
            f'{place}, line {number}: "prompt" is {record["prompt"]!r}, not a string'
        )
    return record
