"""What a sweep tries: runs of the model, and the cells of the table that they fill."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from actadd_lens.errors import SweepError
from actadd_lens.prompts import ContrastPair, as_pair
from actadd_lens.vectors import SteeringVector

UNSTEERED = "unsteered"
"""Control of the clean run."""
STEERED = "none"
"""What stands for the control in a cell that is steered by the vector itself."""
KEYS = ("pair", "layer", "coefficient", "position", "control")
"""Columns that name a cell of a sweep."""

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
    return Cell({**dict.fromkeys(KEYS), "control": UNSTEERED, **more}, Run())


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
        single = isinstance(pairs, (ContrastPair, str)) or all(isinstance(p, str) for p in pairs)
        several = [pairs] if single and pairs else list(pairs)  # type: ignore[arg-type]
        made = [as_pair(pair) for pair in several]
        named = [(f"{pair.positive!r} - {pair.negative!r}", pair) for pair in made]
    check_axes(pairs=[label for label, _ in named])
    return dict(named)


def check_axes(**axes: Sequence[object]) -> None:
    """Raise ``SweepError`` if there is nothing to try along one of the axes, or a value twice."""
    for name, values in axes.items():
        if not values:
            raise SweepError(f"no {name} to try: give at least one")
        twice = list(dict.fromkeys(str(v) for v in values if list(values).count(v) > 1))
        if twice:
            raise SweepError(f"{name} {', '.join(twice)} given more than once: name each once")
