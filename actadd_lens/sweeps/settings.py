"""Where two measurements' settings part, so that a store can say what differs."""

from collections.abc import Iterator, Sequence
from reprlib import repr as short
from typing import Any


class _Absent:
    def __repr__(self) -> str:
        return "nothing"


_ABSENT = _Absent()


def differences(old: Any, new: Any, name: str = "") -> Iterator[str]:
    """Where two JSON values part, with both sides.

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
        at = _parting(old, new)
        if len(old) == len(new):
            yield from differences(old[at], new[at], f"{name}[{at}]")
        else:
            lengths = f"{len(old)} items in the file, {len(new)} now"
            yield f"{name}: {lengths}, the first {at} alike"
    else:
        if isinstance(old, str) and isinstance(new, str):  # long ones may begin and end alike
            start = max(0, _parting(old, new) - 4)
            old, new = old[start:], new[start:]
        yield f"{name}: {short(old)} in the file, {short(new)} now"


def _parting(a: Sequence[Any], b: Sequence[Any]) -> int:
    """Index of the first item that differs, or at which the shorter one ends."""
    pairs = enumerate(zip(a, b, strict=False))
    return next((i for i, (x, y) in pairs if x != y), min(len(a), len(b)))
