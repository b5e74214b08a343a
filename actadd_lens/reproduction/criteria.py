"""Criteria, read from the docstring that states them; what the figures say to each.

The docstring of an experiment is the only place where a criterion is written. It has a list under
"Criteria, fixed before the run:", of findings of the paper (F1, F2, ...) and of questions that the
paper leaves open (Q1, ...). The experiment's code answers each by its key, and the report sets the
two side by side.
"""

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from actadd_lens.statistics import Interval

HEADING = "Criteria, fixed before the run:"


@dataclass(frozen=True)
class Verdict:
    """What the figures say to one criterion."""

    key: str
    """Of the criterion: F1, F2, ... for findings of the paper, Q1, Q2, ... for questions."""
    holds: bool | None
    """Whether it is met; None if it can't be told on this model or data."""
    shown: str
    """The figures that decide, or what is missing."""

    @property
    def word(self) -> str:
        """How a report says it.

        >>> (
        ...     Verdict("F1", True, "").word,
        ...     Verdict("F2", None, "").word,
        ...     Verdict("Q1", False, "").word,
        ... )
        ('reproduced', 'not testable here', 'no')
        """
        if self.holds is None:
            return "not testable here"
        if self.key.startswith("F"):
            return "reproduced" if self.holds else "not reproduced"
        return "yes" if self.holds else "no"


def set_up(docstring: str) -> str:
    """What a docstring says between its first line and the criteria.

    >>> set_up(f"Question?\\n\\nHow it is done.\\n\\n{HEADING}\\n\\nF1. It rises.")
    'How it is done.'
    """
    return _body(docstring).split(HEADING)[0].strip()


def question(docstring: str) -> str:
    """The first line of a docstring.

    >>> question("Does it rise?\\n\\nMore.")
    'Does it rise?'
    """
    return docstring.strip().split("\n")[0]


def criteria(docstring: str) -> dict[str, str]:
    """The criteria of a docstring by key.

    >>> criteria(f"Question?\\n\\n{HEADING}\\n\\nF1. It rises\\n    a lot.\\nQ1. It stays.")
    {'F1': 'It rises a lot.', 'Q1': 'It stays.'}
    """
    _, _, listed = docstring.partition(HEADING)
    items = re.findall(
        r"^ *([FQ]\d+)\. (.*?)(?=^ *[FQ]\d+\. |\Z)", listed, re.DOTALL | re.MULTILINE
    )
    return {key: " ".join(text.split()) for key, text in items}


def at_least(value: float, bound: float) -> bool:
    """Whether a figure reaches a bound, where rounding of sums does not decide.

    >>> 0.75 - 0.70 <= 0.05, at_least(0.05, 0.75 - 0.70)
    (False, True)
    """
    return round(value - bound, 9) >= 0


WIDEST = 0.10
"""Of the interval of a change, below its mean, that still tells that nothing was lost."""


def kept(change: Interval, before: Interval, *, lost: float = 0.05) -> bool | None:
    """Whether a share falls by no more than ``lost`` on the mean.

    None where that can't be told: the interval reaches 10 points below the mean or more, or there
    is hardly anything to lose, less than a tenth before.

    >>> kept(Interval(-0.02, -0.05, 0.01, 99), Interval(0.9, 0.8, 1.0, 99))
    True
    >>> kept(Interval(0.0, -0.56, 0.56, 3), Interval(0.9, 0.8, 1.0, 3))
    """
    if not before.mean >= 0.1 or not change.mean - change.low <= WIDEST:
        return None
    return at_least(change.mean, -lost)


def all_of(verdicts: Iterable[bool | None]) -> bool | None:
    """Whether all hold; None where one can't be told and none fails.

    >>> all_of([True, None]), all_of([False, None]), all_of([True, True])
    (None, False, True)
    """
    found = list(verdicts)
    return False if False in found else None if None in found else True


def told(claim: bool, *intervals: Interval) -> bool | None:
    """A claim, or None where one of the intervals it rests on is not to be had.

    >>> told(True, Interval(0.5, 0.4, 0.6, 9)), told(True, Interval(0.5, math.nan, math.nan, 1))
    (True, None)
    """
    ends = [x for i in intervals for x in (i.mean, i.low, i.high)]
    return claim if all(map(math.isfinite, ends)) else None


def check_answered(docstring: str, verdicts: Sequence[Verdict]) -> None:
    """Raise ``ValueError`` unless every criterion has one verdict, in order."""
    asked, answered = list(criteria(docstring)), [verdict.key for verdict in verdicts]
    if asked != answered:
        raise ValueError(f"the criteria are {asked}, the verdicts answer {answered}")


def _body(docstring: str) -> str:
    return docstring.strip().partition("\n")[2]
