"""Hugging Face text classifiers: loaded once, applied in batches, read by label."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from actadd_lens.errors import MetricError, ModelLoadError
from actadd_lens.metrics.loading import load_error

_BATCH = 32
"""Texts read at once."""

_NO_LIMIT = 10**6
"""Tokenizers that know of no longest text give a number far beyond any model's."""


@dataclass(frozen=True, eq=False)
class Classifier:
    """A text-classification model with its tokenizer."""

    source: str
    """The directory or hub name it came from."""
    model: Any
    tokenizer: Any

    @property
    def labels(self) -> list[str]:
        """Its labels, in the order of its outputs."""
        names = self.model.config.id2label
        return [str(names[index]) for index in range(len(names))]

    def probability(self, texts: Sequence[str], label: str, blank: float) -> list[float]:
        """P(label) of each text, in [0, 1].

        Texts beyond the model's length are truncated. The probability is a softmax over the
        labels; for one label, or labels that do not exclude each other, it is a sigmoid.

        Args:
            texts: Any number of texts.
            label: One of the model's, in upper or lower case.
            blank: The value of a text that is empty or nothing but white space.

        Raises:
            MetricError: The model has no such label, or scores that are no probabilities.
        """
        column = self._column(label)
        scores = dict.fromkeys(range(len(texts)), blank)
        for batch in self._batches(texts):
            found = self._probabilities([texts[index] for index in batch])[:, column]
            scores.update(zip(batch, found.tolist(), strict=True))
        return list(scores.values())

    def _column(self, label: str) -> int:
        if self.model.config.problem_type == "regression":
            raise MetricError(
                f"{self.source} is a regression model and has no P({label}): choose a classifier"
            )
        lower = [name.lower() for name in self.labels]
        if label.lower() not in lower:
            raise MetricError(
                f"{self.source} has no label {label!r}: choose one of {', '.join(self.labels)} "
                "with label="
            )
        return lower.index(label.lower())

    def _batches(self, texts: Sequence[str]) -> Iterator[list[int]]:
        """Indices of the texts that are not blank, those of like length together."""
        written = [index for index, text in enumerate(texts) if text.strip()]
        written.sort(key=lambda index: len(texts[index]))
        pads = self.tokenizer.pad_token_id, self.model.config.pad_token_id
        size = 1 if None in pads else _BATCH  # what cannot pad reads one text at a time
        for start in range(0, len(written), size):
            yield written[start : start + size]

    def _probabilities(self, texts: list[str]) -> Float[Tensor, "text label"]:
        longest = max_tokens(self.model, self.tokenizer)
        encoded = self.tokenizer(
            texts,
            padding=len(texts) > 1,
            truncation=longest is not None,
            max_length=longest,
            return_tensors="pt",
        ).to(self.model.device)
        with torch.no_grad():
            logits: Tensor = self.model(**encoded).logits.float()
        config = self.model.config
        if config.num_labels == 1 or config.problem_type == "multi_label_classification":
            return logits.sigmoid()
        return logits.softmax(-1)


def max_tokens(model: Any, tokenizer: Any) -> int | None:
    """Tokens of the longest text that a classifier reads; None where there is no limit."""
    # RoBERTa's kin count positions from the one after padding, and so read fewer than they have.
    skipped = max(
        (
            table.padding_idx + 1
            for name, table in model.named_modules()
            if name.endswith("position_embeddings")
            and getattr(table, "padding_idx", None) is not None
        ),
        default=0,
    )
    n_positions = getattr(model.config, "max_position_embeddings", None) or _NO_LIMIT + skipped
    limit = min(tokenizer.model_max_length, n_positions - skipped)
    return None if limit >= _NO_LIMIT else int(limit)


@lru_cache(maxsize=4)
def load_classifier(name: str) -> Classifier:
    """Load a classifier, or give the one already loaded, in float32 and on the accelerator if any.

    Args:
        name: A directory in the Hugging Face format, read offline, or a name on the hub.

    Raises:
        ModelLoadError: What was tried, and what to do; also for a model whose classifying head
            would be random.
    """
    import transformers

    options = {"trust_remote_code": False, "local_files_only": Path(name).is_dir()}
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(name, **options)
        with torch.random.fork_rng(devices=[]):  # missing weights would be drawn from it
            model, report = transformers.AutoModelForSequenceClassification.from_pretrained(
                name, dtype=torch.float32, output_loading_info=True, **options
            )
    except Exception as error:  # whatever is wrong inside, the caller asked for a classifier
        raise load_error("a text classifier", name, error) from error
    if report["missing_keys"]:
        missing = ", ".join(sorted(report["missing_keys"]))
        raise ModelLoadError(
            f"{name} is no text classifier: it has no weights for {missing}, which would be "
            "random; give a model that was trained for text classification"
        )
    return Classifier(name, model.eval().to(_accelerator()), tokenizer)


def _accelerator() -> torch.device:
    found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return found or torch.device("cpu")
