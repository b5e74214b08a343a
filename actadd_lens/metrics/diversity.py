"""Text that repeats itself, a frequent side effect of a coefficient that is too large.

Both metrics count n-grams of the words and punctuation marks of one completion, in lower case.
Words are runs of letters, digits and underscores, with the apostrophes inside them; each
punctuation mark stands for itself, so that "!!!!" is four of them and repeats itself.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from actadd_lens.errors import MetricError
from actadd_lens.generation.completions import Completion

_UNIT = re.compile(r"\w+(?:['’]\w+)*|[^\w\s]")


@dataclass(frozen=True)
class Repetition:
    """Share of the n-grams of a completion that have already occurred in it, in [0, 1].

    That is 1 - distinct / all n-grams, seq-rep-n of Welleck et al. (1908.04319) on words for
    tokens. A text of fewer than n words repeats nothing: 0.0.

    Raises:
        MetricError: n below 1.

    >>> completion = al.Completion("I", " love you, I love you, I love you", (), (), 0, 0)
    >>> Repetition(n=4)([completion])  # 7 n-grams, the last 3 of them known from the first 4
    [0.42857...]
    """

    n: int = 4
    name: str = "repetition"

    def __post_init__(self) -> None:
        _check_n(self.n)

    def __call__(self, completions: Sequence[Completion]) -> list[float]:
        """One share a completion."""
        grams = (_ngrams(completion.text, self.n) for completion in completions)
        return [1 - len(set(found)) / len(found) if found else 0.0 for found in grams]


@dataclass(frozen=True)
class DistinctN:
    """Distinct n-grams of a completion over all its n-grams, in (0, 1].

    Distinct-n of Li et al. (1510.03055), completion by completion and not over a whole set; they
    divide by the number of words. A text of fewer than n words has no n-grams: NaN.

    Raises:
        MetricError: n below 1.

    >>> completion = al.Completion("I", " love you, I love you", (), (), 0, 0)
    >>> DistinctN(1)([completion])
    [0.66666...]
    """

    n: int

    def __post_init__(self) -> None:
        _check_n(self.n)

    @property
    def name(self) -> str:
        """``distinct_`` and n."""
        return f"distinct_{self.n}"

    def __call__(self, completions: Sequence[Completion]) -> list[float]:
        """One ratio a completion."""
        grams = (_ngrams(completion.text, self.n) for completion in completions)
        return [len(set(found)) / len(found) if found else float("nan") for found in grams]


def _ngrams(text: str, n: int) -> list[tuple[str, ...]]:
    units = _UNIT.findall(text.lower())
    return [tuple(units[i : i + n]) for i in range(len(units) - n + 1)]


def _check_n(n: int) -> None:
    if n < 1:
        raise MetricError(f"n-grams of n={n} words: give 1 or more")
