"""What a sweep tries: runs of the model, and the cells of the table that they fill."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import index
from typing import Any, TypeAlias

from actadd_lens.errors import SweepError
from actadd_lens.vectors.pair import ContrastPair, as_pair
from actadd_lens.vectors.vector import SteeringVector

CLEAN = "clean"
"""Control of the clean run."""
STEERED = "steered"
"""What stands for the control in a cell that is steered by the vector itself."""
KEYS = ("pair", "layer", "coefficient", "position", "run")
"""Columns that name a cell of a sweep."""

_LARGEST = 3.4e38

Pairs: TypeAlias = (
    ContrastPair
    | tuple[str, str]
    | Sequence[ContrastPair | tuple[str, str]]
    | Mapping[str, ContrastPair | tuple[str, str]]
)


@dataclass(frozen=True, eq=False)
class Run:
    """One way to run the model on every prompt: steered, behind other words, or clean.

    Two cells that hold the same run share its work.
    """

    vectors: tuple[SteeringVector, ...] = ()
    """What steers it, already times the coefficient."""
    prefix: str = ""
    """Text put in front of every prompt."""

    @property
    def is_clean(self) -> bool:
        """Whether nothing is added and nothing is put in front."""
        return not self.prefix and not any(bool(vector.rows.any()) for vector in self.vectors)

    def prompted(self, prompt: str) -> str:
        """The prompt behind the prefix.

        >>> Run(prefix="Love.").prompted("My friend")
        'Love. My friend'
        """
        gap = "" if not self.prefix or self.prefix[-1].isspace() else " "
        return f"{self.prefix}{gap}{prompt}"


@dataclass(frozen=True, eq=False)
class Cell:
    """A run, and what it is called in the results."""

    labels: Mapping[str, Any]
    """A value for each of ``KEYS``, None where it has none, and maybe more."""
    run: Run


def clean_cell(**more: Any) -> Cell:
    """The run that nothing was done to."""
    return Cell({**dict.fromkeys(KEYS), "run": CLEAN, **more}, Run())


def labelled(pairs: Pairs) -> dict[str, ContrastPair]:
    """Pairs by the label they go by in results; by default both texts, quoted.

    >>> list(labelled(("Love", "Hate")))
    ["'Love' - 'Hate'"]
    >>> list(labelled({"sentiment": ("Love", "Hate")}))
    ['sentiment']

    Raises:
        SweepError: No pair, or two of one label.
        PromptError: Something that is no pair.
    """
    if isinstance(pairs, Mapping):
        named = [(str(label), as_pair(pair)) for label, pair in pairs.items()]
    else:
        items = [pairs] if isinstance(pairs, (ContrastPair, str)) else several("pairs", pairs)
        single = bool(items) and all(isinstance(item, str) for item in items)
        made = [as_pair(tuple(items))] if single else [as_pair(item) for item in items]
        named = [(f"{pair.positive!r} - {pair.negative!r}", pair) for pair in made]
    labels = [label for label, _ in named]
    if len({*labels}) < len(labels) == len({pair for _, pair in named}):
        raise SweepError(
            f"pairs {', '.join(dict.fromkeys(labels))} differ in their padding alone: give a "
            "mapping from label to pair"
        )
    check_axes(pairs=labels)
    return dict(named)


def several(name: str, values: Any) -> list[Any]:
    """The values of an axis as a list.

    Raises:
        SweepError: One value, or none, where several belong.
    """
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise SweepError(f"{name} is {values!r}: give a list, [{values!r}]")
    return list(values)


def numbers(name: str, values: Any, kind: type[int] | type[float] = float) -> list[Any]:
    """The values of an axis as numbers that single precision holds, or as integers.

    Raises:
        SweepError: Not a list, or something else in it.
    """
    found = []
    for value in several(name, values):
        try:
            if isinstance(value, str):
                raise TypeError
            number = index(value) if kind is int else float(value)
        except TypeError:
            what = "an integer" if kind is int else "a number"
            raise SweepError(f"{name} has {value!r}: it must be {what}") from None
        if not abs(number) < _LARGEST:
            raise SweepError(f"{name} has {number}, which single precision does not hold")
        found.append(number)
    return found


def check_axes(**axes: Sequence[object]) -> None:
    """Raise ``SweepError`` if there is nothing to try along one of the axes, or a value twice."""
    for name, values in axes.items():
        if not values:
            raise SweepError(f"no {name} to try: give at least one")
        twice = list(dict.fromkeys(str(v) for v in values if list(values).count(v) > 1))
        if twice:
            raise SweepError(f"{name} {', '.join(twice)} given more than once: name each once")
