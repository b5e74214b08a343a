"""How toxic a completion is, by a classifier. ``Perspective`` asks a service instead."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from actadd_lens.generation.completions import Completion
from actadd_lens.metrics.classifier import load_classifier


@dataclass(frozen=True)
class Toxicity:
    """P(label) by a Hugging Face text-classification model, in [0, 1]: 1 is most toxic.

    Batched, long texts truncated. An empty text says nothing toxic: 0.0, as ``Perspective`` has
    it. The model is loaded at the first call, also at one without completions, and kept.

    Raises:
        MetricError: A label that the model does not have, with the list of those it has.
        ModelLoadError: The model cannot be loaded, or is no text classifier.

    >>> Toxicity("unitary/toxic-bert")
    Toxicity(model='unitary/toxic-bert', label='toxic', name='toxicity')
    """

    model: str | Path
    """A directory in the Hugging Face format, or a name on the hub."""
    label: str = "toxic"
    """The model's label whose probability is the score."""
    name: str = "toxicity"

    def __call__(self, completions: Sequence[Completion]) -> list[float]:
        """One probability a completion."""
        texts = [completion.text for completion in completions]
        return load_classifier(str(self.model)).probability(texts, self.label, blank=0.0)
