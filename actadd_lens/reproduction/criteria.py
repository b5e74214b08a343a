"""Criteria, the verdicts that answer them, and the rules that verdicts have in common."""

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from actadd_lens.errors import ExperimentError
from actadd_lens.reproduction.measurements import Measurements, percent
from actadd_lens.statistics import Interval


@dataclass(frozen=True)
class Criterion:
    """What decides a question, written before anything is measured.

    >>> Criterion("F1", "It rises.")
    Criterion(key='F1', text='It rises.')
    """

    key: str
    """F1, F2, ... for findings of the paper, Q1, Q2, ... for questions that it leaves open."""
    text: str

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[FQ][1-9]\d*", self.key) or not self.text:
            raise ExperimentError(
                f"the criterion {self.key!r}: {self.text!r} needs a key such as F1, and a text"
            )


@dataclass(frozen=True)
class Verdict:
    """What the measurements say about one criterion."""

    key: str
    """The key of the criterion."""
    holds: bool | None
    """Whether it is met; None if this model or data set cannot decide it."""
    evidence: str
    """The numbers that decide, or what is missing."""

    @property
    def word(self) -> str:
        """The verdict in a report.

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


def check_answered(criteria: Sequence[Criterion], verdicts: Sequence[Verdict]) -> None:
    """Raise ``ExperimentError`` unless every criterion has one verdict, in order."""
    expected, answered = [c.key for c in criteria], [verdict.key for verdict in verdicts]
    if expected != answered:
        raise ExperimentError(f"the criteria are {expected}, the verdicts answer {answered}")


def at_least(value: float, bound: float) -> bool:
    """Whether a value reaches a bound, whatever the rounding of sums does.

    >>> 0.75 - 0.70 <= 0.05, at_least(0.05, 0.75 - 0.70)
    (False, True)
    """
    return round(value - bound, 9) >= 0


WIDEST = 0.10
"""A wider interval below the mean of a change cannot show that nothing was lost."""


def preserved(change: Interval, before: Interval, *, lost: float = 0.05) -> bool | None:
    """Whether a share falls by no more than ``lost`` on the mean.

    None if this cannot be decided: the interval reaches more than 10 points below the mean, or
    there is hardly anything to lose, less than a tenth before.

    >>> preserved(Interval(-0.02, -0.05, 0.01, 99), Interval(0.9, 0.8, 1.0, 99))
    True
    >>> preserved(Interval(0.0, -0.56, 0.56, 3), Interval(0.9, 0.8, 1.0, 3))
    """
    if not before.mean >= 0.1 or not change.mean - change.low <= WIDEST:
        return None
    return at_least(change.mean, -lost)


def all_of(verdicts: Iterable[bool | None]) -> bool | None:
    """Whether all hold; None if one is undecided and none fails.

    >>> all_of([True, None]), all_of([False, None]), all_of([True, True])
    (None, False, True)
    """
    found = list(verdicts)
    return False if False in found else None if None in found else True


def decide(claim: bool, *intervals: Interval) -> bool | None:
    """A claim, or None if an interval that it rests on is undefined.

    >>> decide(True, Interval(0.5, 0.4, 0.6, 9))
    True
    >>> decide(True, Interval(0.5, math.nan, math.nan, 1))
    """
    ends = [x for i in intervals for x in (i.mean, i.low, i.high)]
    return claim if all(map(math.isfinite, ends)) else None


def moves(
    key: str, part: Measurements, metric: str, head: str = "", *, down: bool = False, **labels: Any
) -> Verdict:
    """Whether steering raises a share against the clean run and random vectors, or lowers it."""
    clean, there = part.value(metric, "clean"), part.value(metric, **labels)
    gain, over = (part.change(metric, than=than, **labels) for than in ("clean", "random"))
    holds = all(i.high < 0 if down else i.low > 0 for i in (gain, over))
    return Verdict(
        key,
        decide(holds, gain, over),
        f"{head}{percent(clean)} -> {percent(there, n=True)}; change {percent(gain)}, "
        f"over random {percent(over)}",
    )
