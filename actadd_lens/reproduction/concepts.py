"""What a model is steered towards, and the data set that an experiment draws on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Protocol, runtime_checkable

from actadd_lens.errors import PromptError
from actadd_lens.generation.completions import Completion
from actadd_lens.metrics.registry import CompletionMetric, Kind
from actadd_lens.models.base import Bridge
from actadd_lens.models.tokens import as_prompts
from actadd_lens.vectors.pair import ContrastPair

PAPER = "the paper's"


@dataclass(frozen=True)
class Concept:
    """A direction: its contrast pairs, the prompts to steer, and the judge of success."""

    name: str
    """As ``DataSet.concept`` takes it."""
    pair: ContrastPair
    """The pair that experiments with one vector use."""
    others: tuple[ContrastPair, ...]
    """Further pairs for the same, for mean differences and for the variance over pairs."""
    selection: tuple[str, ...]
    """Prompts to choose layer and coefficient on."""
    test: tuple[str, ...]
    """Prompts to report on; they share none with the others."""
    success: CompletionMetric
    """1.0 where a completion is what is wanted, else 0.0."""
    wanted: str
    """What that is, for reports: "positive completions of negative prompts"."""
    setting: tuple[int, float] | None = None
    """Layer and coefficient; None if they have to be searched on the selection prompts."""
    origin: str = ""
    """Where a known setting comes from, for reports."""
    reading_setting: tuple[int, float] | None = None
    """The setting for texts that are only read, if the paper has another one for them."""

    @property
    def pairs(self) -> tuple[ContrastPair, ...]:
        """The pair and the others."""
        return (self.pair, *self.others)

    @property
    def for_reading(self) -> "Concept":
        """The concept with its setting for experiments that generate nothing."""
        if self.reading_setting is None:
            return self
        return replace(self, setting=self.reading_setting, origin=PAPER)

    def fitted(self, model: Bridge, n: int) -> "Concept":
        """With at most ``n`` prompts a split, each as long as every pair.

        Raises:
            PromptError: No prompt of a split is long enough.
        """
        rows = max(pair.tokens(model).shape[1] for pair in self.pairs)
        fitted: dict[str, Any] = {}
        for split, prompts in (("selection", self.selection), ("test", self.test)):
            fitted[split] = tuple(long_enough(model, prompts, rows)[:n])
            if not fitted[split]:
                raise PromptError(
                    f"none of {len(prompts)} {split} prompts for {self.name} has {rows} tokens, as "
                    "many as the pairs: give longer prompts or shorter pairs"
                )
        return replace(self, **fitted)

    def thinned(self, every: int) -> "Concept":
        """With every n-th test prompt; searches stay those of the whole concept."""
        return replace(self, test=self.test[::every])


def long_enough(model: Bridge, prompts: Sequence[str], rows: int) -> list[str]:
    """The prompts that have at least as many tokens as a vector has rows."""
    lengths = map(len, as_prompts(model, prompts))
    return [p for p, length in zip(prompts, lengths, strict=True) if length >= rows]


@dataclass(frozen=True)
class CoherentSuccess:
    """1.0 where a completion is a success and coherent, else 0.0: the objective of searches.

    A search for success alone would take the coefficient at which a text consists of nothing else.
    """

    success: CompletionMetric
    coherence: CompletionMetric
    name: ClassVar[str] = "coherent_success"
    share: ClassVar[bool] = True

    kind: ClassVar[Kind] = "completions"

    def __call__(self, completions: Sequence[Completion]) -> list[float]:
        """1.0 or 0.0 a completion."""
        both = zip(self.success(completions), self.coherence(completions), strict=True)
        return [float(success == 1 and coherent == 1) for success, coherent in both]


@dataclass(frozen=True)
class Fact:
    """A question with a known answer of one word."""

    prompt: str
    answer: str


@runtime_checkable
class DataSet(Protocol):
    """Concepts, texts and judges: what differs between the testbed and real data."""

    @property
    def name(self) -> str:
        """Its name in reports."""

    @property
    def caveat(self) -> str:
        """What a reader of verdicts has to know of model and data; may be empty."""

    @property
    def sampling(self) -> Mapping[str, Any]:
        """Sampling options of every run, steered or not."""

    @property
    def topics(self) -> Sequence[str]:
        """Names of the concepts that are topics, the paper's weddings first."""

    @property
    def filler(self) -> str:
        """A sentence in front of a question, so that a vector is not added to the question."""

    @property
    def coherence(self) -> CompletionMetric:
        """1.0 where a completion is coherent language, else 0.0."""

    @property
    def relevance(self) -> CompletionMetric:
        """How well a completion keeps to the subject of its prompt; higher is better."""

    def concept(self, name: str) -> Concept:
        """One of "sentiment", "reversed" (the other way), "register" (toxicity) and the topics."""

    def words(self, topic: str) -> Sequence[str]:
        """Words that belong to a topic, in lower case."""

    def documents(self, n: int) -> Sequence[str]:
        """Texts on anything, to read."""

    def openings(self, n: int) -> Sequence[str]:
        """Prompts after which a noun of any topic may come."""

    def facts(self, n: int) -> Sequence[Fact]:
        """Questions that a model should answer as well as before."""
