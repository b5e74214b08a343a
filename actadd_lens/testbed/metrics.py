"""Exact readings of completions in the testbed's English, as metrics: 1.0 or 0.0 each.

They read the completion alone; ``Valid`` and ``FactRecall`` need its prompt to know what it goes
on from.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import ClassVar

from actadd_lens.errors import MetricError
from actadd_lens.generation.completions import Completion
from actadd_lens.metrics.registry import Kind
from actadd_lens.testbed.lexicon import TOPICS
from actadd_lens.testbed.oracle import facts, is_valid, register, sentiment, topic


@dataclass(frozen=True)
class Positive:
    """Whether a completion reads "positive"; an empty one is neutral and gives 0.0.

    >>> Positive()([al.Completion("Anna", " loved the concert.", (), (), 0, 0)])
    [1.0]
    """

    name: ClassVar[str] = "positive"
    kind: ClassVar[Kind] = "completions"
    share: ClassVar[bool] = True

    def __call__(self, completions: Sequence[Completion]) -> list[float]:
        """1.0 or 0.0 a completion."""
        return [float(sentiment(completion.text) == "positive") for completion in completions]


@dataclass(frozen=True)
class Polite:
    """Whether a completion reads "polite". A plain one, as an empty one is, gives 0.0.

    >>> Polite()([al.Completion("Thank you,", " sir, it was a small atom.", (), (), 0, 0)])
    [1.0]
    """

    name: ClassVar[str] = "polite"
    kind: ClassVar[Kind] = "completions"
    share: ClassVar[bool] = True

    def __call__(self, completions: Sequence[Completion]) -> list[float]:
        """1.0 or 0.0 a completion."""
        return [float(register(completion.text) == "polite") for completion in completions]


@dataclass(frozen=True)
class OnTopic:
    """Whether most topic words of a completion are of one topic; an empty one gives 0.0.

    Raises:
        MetricError: An unknown topic, with the list of those there are.

    >>> OnTopic("music")([al.Completion("Anna loved", " the concert.", (), (), 0, 0)])
    [1.0]
    """

    topic: str
    kind: ClassVar[Kind] = "completions"
    share: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.topic not in TOPICS:
            close = get_close_matches(self.topic.lower(), TOPICS, n=1)
            hint = f"did you mean {close[0]!r}? " if close else ""
            raise MetricError(f"no topic {self.topic!r}: {hint}There are {', '.join(TOPICS)}")

    @property
    def name(self) -> str:
        """``on_topic_`` and the topic."""
        return f"on_topic_{self.topic}"

    def __call__(self, completions: Sequence[Completion]) -> list[float]:
        """1.0 or 0.0 a completion."""
        return [float(topic(completion.text) == self.topic) for completion in completions]


@dataclass(frozen=True)
class SameTopic:
    """Whether a completion has the topic of its prompt; NaN for a prompt without one.

    >>> SameTopic()([al.Completion("Anna loved the song.", " We sang.", (), (), 0, 0)])
    [1.0]
    """

    name: ClassVar[str] = "same_topic"
    kind: ClassVar[Kind] = "completions"
    share: ClassVar[bool] = True

    def __call__(self, completions: Sequence[Completion]) -> list[float]:
        """1.0, 0.0 or NaN a completion."""
        asked = [topic(completion.prompt) for completion in completions]
        return [
            float("nan") if wanted is None else float(topic(completion.text) == wanted)
            for completion, wanted in zip(completions, asked, strict=True)
        ]


@dataclass(frozen=True)
class Valid:
    """Whether every sentence of a completion is one of the grammar, the last one as far as it goes.

    A sentence that the prompt leaves unfinished is judged with its beginning; sentences that end
    in the prompt are not. An empty completion has no sentence that is wrong: 1.0.

    >>> Valid()([al.Completion("Odd. Anna loved", " the concert. We fel", (), (), 0, 0)])
    [1.0]
    """

    name: ClassVar[str] = "valid"
    kind: ClassVar[Kind] = "completions"
    share: ClassVar[bool] = True

    def __call__(self, completions: Sequence[Completion]) -> list[float]:
        """1.0 or 0.0 a completion."""
        return [
            float(not c.text.strip() or is_valid(_unfinished(c.prompt) + c.text))
            for c in completions
        ]


@dataclass(frozen=True)
class FactRecall:
    """Whether a completion begins with the right answer; NaN where the prompt asks for no fact.

    A prompt asks for a fact where it ends in one of the prompts of ``testbed.facts()``. A
    completion that is empty or cut off within the answer gives 0.0.

    >>> FactRecall()([al.Completion("Well. The capital of Arvenia is", " Tolm.", (), (), 0, 0)])
    [1.0]
    """

    name: ClassVar[str] = "fact_recall"
    kind: ClassVar[Kind] = "completions"
    share: ClassVar[bool] = True

    def __call__(self, completions: Sequence[Completion]) -> list[float]:
        """1.0, 0.0 or NaN a completion."""
        return [_recalled(completion) for completion in completions]


_ANSWERS = dict(facts())
_QUESTION = re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, _ANSWERS))})\s*\Z")


def _recalled(completion: Completion) -> float:
    asked = _QUESTION.search(completion.prompt)
    if asked is None:
        return float("nan")
    first = re.match(r"\s*(\w+)", completion.text)
    return float(first is not None and first[1] == _ANSWERS[asked[0].rstrip()])


def _unfinished(prompt: str) -> str:
    """What a prompt has after its last complete sentence."""
    return re.split(r"[.!?]", prompt)[-1]
