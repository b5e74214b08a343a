"""How positive a completion is."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from actadd_lens.errors import MetricError
from actadd_lens.generation.completions import Completion
from actadd_lens.metrics.classifier import load_classifier

DEFAULT_LABEL = "positive"


@dataclass(frozen=True)
class Sentiment:
    """Sentiment of a completion, by the rules of VADER or by a text-classification model.

    Without a model: the compound score of VADER (Hutto and Gilbert 2014), which is offline and
    made for English. It is in [-1, 1], from most negative to most positive, and 0.0 for a text
    that is empty or has no word of its lexicon.

    With a model: P(label) in [0, 1], batched, long texts truncated. An empty text is NaN. The
    model is loaded at the first call, also at one without completions, and kept.

    Raises:
        MetricError: A label without a model, or one that the model does not have.
        ModelLoadError: The model cannot be loaded, or is no text classifier.

    >>> completion = al.Completion("I think", " you are wonderful!", (), (), 0, 0)
    >>> Sentiment()([completion])
    [0.6114]
    >>> Sentiment(model="distilbert/distilbert-base-uncased-finetuned-sst-2-english")
    Sentiment(model='distilbert/distilbert-base-uncased-finetuned-sst-2-english', ...)
    """

    model: str | Path | None = None
    """A directory in the Hugging Face format, or a name on the hub."""
    label: str | None = None
    """The model's label whose probability is the score; ``"positive"`` by default."""
    name: str = "sentiment"

    def __post_init__(self) -> None:
        if self.model is None and self.label is not None:
            raise MetricError(
                f"label {self.label!r} is given without a model, and VADER has no labels: "
                "give a model too, or no label"
            )

    def __call__(self, completions: Sequence[Completion]) -> list[float]:
        """One score a completion."""
        texts = [completion.text for completion in completions]
        if self.model is None:
            return [float(_vader().polarity_scores(text)["compound"]) for text in texts]
        classifier = load_classifier(str(self.model))
        return classifier.probability(texts, self.label or DEFAULT_LABEL, blank=float("nan"))


@cache
def _vader() -> Any:
    from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

    return SentimentIntensityAnalyzer()
