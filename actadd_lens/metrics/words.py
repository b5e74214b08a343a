"""Metrics of the words of a completion: which it has, and how often it repeats itself.

A text that repeats itself is a frequent side effect of a coefficient that is too large.
``Repetition`` and ``DistinctN`` count n-grams of the words and punctuation marks of one
completion, in lower case. Words are runs of letters, digits and underscores, with the apostrophes
inside them. Each punctuation mark is a unit of its own, so "!!!!" is four units.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import ClassVar, Final

from actadd_lens.errors import MetricError
from actadd_lens.generation.completions import Completion
from actadd_lens.metrics.registry import Kind, OwnName, register

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

_UNIT: Final = re.compile(r"\w+(?:['’]\w+)*|[^\w\s]")


@dataclass(frozen=True)
class _OfWords:
    """A metric of whole words."""

    words: Sequence[str]
    """Stored as a tuple."""
    name: str
    kind: ClassVar[Kind] = "completions"
    case: bool = False
    """Whether upper and lower case differ."""

    def __post_init__(self) -> None:
        if isinstance(self.words, str):
            raise MetricError(
                f"words is the string {self.words!r}: give a list of words, [{self.words!r}]"
            )
        if not self.words:
            raise MetricError("the list of words is empty: give at least one")
        for index, word in enumerate(self.words):
            if not word.strip():
                raise MetricError(f"word {index} is {word!r}: give it letters")
        object.__setattr__(self, "words", tuple(self.words))


@dataclass(frozen=True)
class WordCount(_OfWords):
    """How often a completion has one of some words: a number from 0, also for an empty text.

    Only whole words count: "wed" is neither in "wedding" nor in "we'd", but "bride" is in
    "bride's". An entry of several words is found whatever white space separates them. Occurrences
    do not overlap; where entries start at the same place, the longest counts.

    Raises:
        MetricError: No words, an empty one, or a string in place of a list.

    >>> completion = al.Completion("In", " New York, a new\\nyork minute from York.", (), (), 0, 0)
    >>> WordCount(["York", "New York"])([completion])
    [3.0]
    >>> WordCount(["York", "New York"], case=True)([completion])
    [2.0]
    """

    name: str = "word_count"

    def __call__(self, completions: Sequence[Completion]) -> list[float]:
        """One count per completion."""
        pattern = _pattern(tuple(self.words), self.case)
        return [float(len(pattern.findall(completion.text))) for completion in completions]


@dataclass(frozen=True)
class ContainsAny(_OfWords):
    """Whether a completion has any of some words: 1.0 or 0.0, as ``WordCount`` finds them.

    Raises:
        MetricError: No words, an empty one, or a string in place of a list.

    >>> completion = al.Completion("I talk about", " my honeymoon.", (), (), 0, 0)
    >>> ContainsAny(WEDDING_WORDS, name="weddings")([completion])
    [1.0]
    """

    name: str = "contains_any"
    share: ClassVar[bool] = True

    def __call__(self, completions: Sequence[Completion]) -> list[float]:
        """1.0 or 0.0 per completion."""
        pattern = _pattern(tuple(self.words), self.case)
        return [float(bool(pattern.search(completion.text))) for completion in completions]


@register("repetition")
@dataclass(frozen=True)
class Repetition:
    """Share of the n-grams of a completion that have already occurred in it, in [0, 1].

    That is 1 - distinct / all n-grams: seq-rep-n of Welleck et al. (1908.04319), on words in place
    of tokens. A text of fewer than n words repeats nothing: 0.0.

    Raises:
        MetricError: n below 1.

    >>> completion = al.Completion("I", " love you, I love you, I love you", (), (), 0, 0)
    >>> Repetition(n=4)([completion])  # 7 n-grams, the last 3 of them repeat the first 4
    [0.42857...]
    """

    n: int = 4
    name: str = "repetition"
    kind: ClassVar[Kind] = "completions"

    def __post_init__(self) -> None:
        _check_n(self.n)

    def __call__(self, completions: Sequence[Completion]) -> list[float]:
        """One share per completion."""
        grams = (_ngrams(completion.text, self.n) for completion in completions)
        return [1 - len(set(found)) / len(found) if found else 0.0 for found in grams]


@dataclass(frozen=True)
class DistinctN:
    """Distinct n-grams of a completion over all its n-grams, in (0, 1].

    Distinct-n of Li et al. (1510.03055), for each completion and not over a whole set. They divide
    by the number of words. A text of fewer than n words has no n-grams: NaN.

    Raises:
        MetricError: n below 1.

    >>> completion = al.Completion("I", " love you, I love you", (), (), 0, 0)
    >>> DistinctN(1)([completion])
    [0.66666...]
    """

    n: int
    name: str = ""
    """``distinct_`` and n by default."""
    kind: ClassVar[Kind] = "completions"

    def __post_init__(self) -> None:
        _check_n(self.n)
        object.__setattr__(self, "name", OwnName.unless(self.name, f"distinct_{self.n}"))

    def __call__(self, completions: Sequence[Completion]) -> list[float]:
        """One ratio per completion."""
        grams = (_ngrams(completion.text, self.n) for completion in completions)
        return [len(set(found)) / len(found) if found else float("nan") for found in grams]


@cache
def _pattern(words: tuple[str, ...], case: bool) -> re.Pattern[str]:
    """Finds any of the words, whole, the longest first."""
    longest_first = sorted((word.split() for word in words), key=lambda w: -len(" ".join(w)))
    entries = "|".join(r"\s+".join(map(re.escape, parts)) for parts in longest_first)
    return re.compile(rf"(?<!\w)(?:{entries})(?!\w)", 0 if case else re.IGNORECASE)


def _ngrams(text: str, n: int) -> list[tuple[str, ...]]:
    units = _UNIT.findall(text.lower())
    return [tuple(units[i : i + n]) for i in range(len(units) - n + 1)]


def _check_n(n: int) -> None:
    if n < 1:
        raise MetricError(f"n-grams of n={n} words: give 1 or more")


weddings: Final = register("weddings")(ContainsAny(WEDDING_WORDS, name="weddings"))
"""Whether a completion is about weddings (Turner et al., figure 3)."""

for _n in (1, 2, 3):
    register(f"distinct_{_n}")(DistinctN(_n))
