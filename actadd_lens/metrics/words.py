"""Words that a completion has."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import ClassVar, Final

from actadd_lens.errors import MetricError
from actadd_lens.generation.completions import Completion

WEDDING_WORDS: Final = (
    "wedding",
    "weddings",
    "wed",
    "marry",
    "married",
    "marriage",
    "bride",
    "groom",
    "honeymoon",
)
"""The words by which Turner et al. (2308.10248) tell that a completion is about weddings."""


@dataclass(frozen=True)
class WordCount:
    """How often a completion has one of some words: a number from 0, also for an empty text.

    Only whole words count: "wed" is neither in "wedding" nor in "we'd", but "bride" is in
    "bride's". An entry of several words is found whatever white space separates them. Occurrences
    do not overlap; where entries start at the same place, the longest counts.

    Raises:
        MetricError: No words, an empty one, or a string where a list is meant.

    >>> completion = al.Completion("In", " New York, a new\\nyork minute from York.", (), (), 0, 0)
    >>> WordCount(["York", "New York"])([completion])
    [3.0]
    >>> WordCount(["York", "New York"], case=True)([completion])
    [2.0]
    """

    words: Sequence[str]
    """Kept as a tuple."""
    name: str = "word_count"
    case: bool = False
    """Whether upper and lower case differ."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "words", _checked(self.words))

    def __call__(self, completions: Sequence[Completion]) -> list[float]:
        """One count a completion."""
        pattern = _pattern(tuple(self.words), self.case)
        return [float(len(pattern.findall(completion.text))) for completion in completions]


@dataclass(frozen=True)
class ContainsAny:
    """Whether a completion has any of some words: 1.0 or 0.0, as ``WordCount`` finds them.

    Raises:
        MetricError: No words, an empty one, or a string where a list is meant.

    >>> completion = al.Completion("I talk about", " my honeymoon.", (), (), 0, 0)
    >>> ContainsAny(WEDDING_WORDS, name="weddings")([completion])
    [1.0]
    """

    words: Sequence[str]
    """Kept as a tuple."""
    name: str = "contains_any"
    share: ClassVar[bool] = True
    case: bool = False
    """Whether upper and lower case differ."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "words", _checked(self.words))

    def __call__(self, completions: Sequence[Completion]) -> list[float]:
        """1.0 or 0.0 a completion."""
        pattern = _pattern(tuple(self.words), self.case)
        return [float(bool(pattern.search(completion.text))) for completion in completions]


def _checked(words: Sequence[str]) -> tuple[str, ...]:
    if isinstance(words, str):
        raise MetricError(f"words is the string {words!r}: give a list of words, [{words!r}]")
    if not words:
        raise MetricError("the list of words is empty: give at least one")
    for index, word in enumerate(words):
        if not word.strip():
            raise MetricError(f"word {index} is {word!r}: give it letters")
    return tuple(words)


@cache
def _pattern(words: tuple[str, ...], case: bool) -> re.Pattern[str]:
    """Finds any of the words, whole, the longest first."""
    longest_first = sorted((word.split() for word in words), key=lambda w: -len(" ".join(w)))
    entries = "|".join(r"\s+".join(map(re.escape, parts)) for parts in longest_first)
    return re.compile(rf"(?<!\w)(?:{entries})(?!\w)", 0 if case else re.IGNORECASE)


weddings: Final = ContainsAny(WEDDING_WORDS, name="weddings")
"""Whether a completion is about weddings (Turner et al., figure 3)."""
