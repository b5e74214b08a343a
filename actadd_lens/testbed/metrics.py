"""Exact readings of completions in the testbed's English, as metrics: 1.0 or 0.0 each.

They read the completion alone; ``Valid`` and ``FactRecall`` need its prompt to know what it goes
on from.
"""

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import ClassVar

from actadd_lens.errors import MetricError
from actadd_lens.generation.completions import Completion
from actadd_lens.metrics.registry import Kind
from actadd_lens.testbed.grammar import TOPICS
from actadd_lens.testbed.oracle import facts, is_valid, register, sentiment, topic
from actadd_lens.testbed.tasks import Task

_ANSWERS = dict(facts())
_QUESTION = re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, _ANSWERS))})\s*\Z")


class ExactReading(ABC):
    """A metric that reads completions one by one."""

    kind: ClassVar[Kind] = "completions"
    share: ClassVar[bool] = True

    def __call__(self, completions: Sequence[Completion]) -> list[float]:
        """1.0 or 0.0 a completion, NaN where it does not apply."""
        return [float(self._read(completion)) for completion in completions]

    @abstractmethod
    def _read(self, completion: Completion) -> float: ...


@dataclass(frozen=True)
class Positive(ExactReading):
    """Whether a completion reads "positive"; an empty one is neutral and gives 0.0.

    >>> Positive()([al.Completion("Anna", " loved the concert.", (), (), 0, 0)])
    [1.0]
    """

    name: ClassVar[str] = "positive"

    def _read(self, completion: Completion) -> float:
        return sentiment(completion.text) == "positive"


@dataclass(frozen=True)
class Polite(ExactReading):
    """Whether a completion reads "polite". A plain one, as an empty one is, gives 0.0.

    >>> Polite()([al.Completion("Thank you,", " sir, it was a small atom.", (), (), 0, 0)])
    [1.0]
    """

    name: ClassVar[str] = "polite"

    def _read(self, completion: Completion) -> float:
        return register(completion.text) == "polite"


@dataclass(frozen=True)
class OnTopic(ExactReading):
    """Whether most topic words of a completion are of one topic; an empty one gives 0.0.

    Raises:
        MetricError: An unknown topic, with the list of those there are.

    >>> OnTopic("music")([al.Completion("Anna loved", " the concert.", (), (), 0, 0)])
    [1.0]
    """

    topic: str

    def __post_init__(self) -> None:
        if self.topic not in TOPICS:
            close = get_close_matches(self.topic.lower(), TOPICS, n=1)
            hint = f"did you mean {close[0]!r}? " if close else ""
            raise MetricError(f"no topic {self.topic!r}: {hint}There are {', '.join(TOPICS)}")

    @property
    def name(self) -> str:
        """``on_topic_`` and the topic."""
        return f"on_topic_{self.topic}"

    def _read(self, completion: Completion) -> float:
        return topic(completion.text) == self.topic


@dataclass(frozen=True)
class SameTopic(ExactReading):
    """Whether a completion has the topic of its prompt; NaN for a prompt without one.

    >>> SameTopic()([al.Completion("Anna loved the song.", " We sang.", (), (), 0, 0)])
    [1.0]
    """

    name: ClassVar[str] = "same_topic"

    def _read(self, completion: Completion) -> float:
        wanted = topic(completion.prompt)
        return math.nan if wanted is None else topic(completion.text) == wanted


@dataclass(frozen=True)
class Valid(ExactReading):
    """Whether every sentence of a completion is one of the grammar, the last one as far as it goes.

    A sentence that the prompt leaves unfinished is judged with its beginning; sentences that end
    in the prompt are not. An empty completion has no sentence that is wrong: 1.0.

    >>> Valid()([al.Completion("Odd. Anna loved", " the concert. We fel", (), (), 0, 0)])
    [1.0]
    """

    name: ClassVar[str] = "valid"

    def _read(self, completion: Completion) -> float:
        unfinished = re.split(r"[.!?]", completion.prompt)[-1]
        return not completion.text.strip() or is_valid(unfinished + completion.text)


@dataclass(frozen=True)
class FactRecall(ExactReading):
    """Whether a completion begins with the right answer; NaN where the prompt asks for no fact.

    A prompt asks for a fact where it ends in one of the prompts of ``testbed.facts()``. A
    completion that is empty or cut off within the answer gives 0.0.

    >>> FactRecall()([al.Completion("Well. The capital of Arvenia is", " Tolm.", (), (), 0, 0)])
    [1.0]
    """

    name: ClassVar[str] = "fact_recall"

    def _read(self, completion: Completion) -> float:
        asked = _QUESTION.search(completion.prompt)
        if asked is None:
            return math.nan
        first = re.match(r"\s*(\w+)", completion.text)
        return first is not None and first[1] == _ANSWERS[asked[0].rstrip()]


@dataclass(frozen=True)
class Success(ExactReading):
    """Whether a completion is what a task wants, as a metric of completions: 1.0 or 0.0 each.

    >>> Success(al.testbed.TASKS["register"]).name
    'success_register'
    """

    task: Task

    @property
    def name(self) -> str:
        """``success_`` and the task."""
        return f"success_{self.task.name}"

    def _read(self, completion: Completion) -> float:
        return self.task.success(completion.text)
