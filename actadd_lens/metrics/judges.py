"""Metrics that another model judges: sentiment, toxicity, relevance, fluency.

Models are loaded once, at the first call of a metric, also at one without completions. Hugging Face
classifiers are applied in batches and read by label.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import takewhile
from pathlib import Path
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from actadd_lens.analysis.logprobs import sequence_logprobs
from actadd_lens.errors import MetricError, ModelLoadError, require
from actadd_lens.generation.completions import Completion
from actadd_lens.metrics.registry import Kind, register
from actadd_lens.models.base import Bridge
from actadd_lens.models.bridge import BridgeModel
from actadd_lens.models.tokens import check_context, encode

_BATCH = 32
"""Texts read at once."""

_NO_LIMIT = 10**6
"""Tokenizers without a longest text give a number far beyond any model's."""


@register("sentiment")
@dataclass(frozen=True)
class Sentiment:
    """Sentiment of a completion, by the rules of VADER or by a text-classification model.

    Without a model: the compound score of VADER (Hutto and Gilbert 2014), which is offline and
    made for English. It is in [-1, 1], from most negative to most positive, and 0.0 for a text
    that is empty or has no word of its lexicon.

    With a model: P(label) in [0, 1], batched, long texts truncated. An empty text is NaN.

    Raises:
        MetricError: A label without a model, or one that the model does not have.
        ModelLoadError: The model cannot be loaded, or is not a text classifier.

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
    kind: ClassVar[Kind] = "completions"

    def __post_init__(self) -> None:
        if self.model is None and self.label is not None:
            raise MetricError(
                f"label {self.label!r} is given without a model, and VADER has no labels: "
                "give a model too, or no label"
            )

    def __call__(self, completions: Sequence[Completion]) -> list[float]:
        """One score per completion."""
        texts = [completion.text for completion in completions]
        if self.model is None:
            return [float(_vader().polarity_scores(text)["compound"]) for text in texts]
        classifier = load_classifier(str(self.model))
        return classifier.probability(texts, self.label or "positive", blank=float("nan"))


@dataclass(frozen=True)
class Toxicity:
    """P(label) by a Hugging Face text-classification model, in [0, 1]: 1 is most toxic.

    Batched, long texts truncated. An empty text says nothing toxic: 0.0.

    Raises:
        MetricError: A label that the model does not have, with the list of those it has.
        ModelLoadError: The model cannot be loaded, or is not a text classifier.

    >>> Toxicity("unitary/toxic-bert")
    Toxicity(model='unitary/toxic-bert', label='toxic', name='toxicity')
    """

    model: str | Path
    """A directory in the Hugging Face format, or a name on the hub."""
    label: str = "toxic"
    """The model's label whose probability is the score."""
    name: str = "toxicity"
    kind: ClassVar[Kind] = "completions"

    def __call__(self, completions: Sequence[Completion]) -> list[float]:
        """One probability per completion."""
        texts = [completion.text for completion in completions]
        return load_classifier(str(self.model)).probability(texts, self.label, blank=0.0)


@register("relevance")
@dataclass(frozen=True)
class Relevance:
    """Cosine between the sentence embeddings of a prompt and its completion, in [-1, 1].

    The measure of relevance in Turner et al. (2308.10248, table of the detoxification
    experiment). Texts are embedded in batches and truncated to the model's length. NaN where the
    prompt or the completion is empty.

    Raises:
        MissingExtraError: sentence-transformers is not installed (the extra ``relevance``).
        ModelLoadError: The model cannot be loaded.

    >>> completion = al.Completion("The bride", " kissed the groom.", (), (), 0, 0)
    >>> Relevance()([completion])  # doctest: +SKIP
    [0.67...]
    """

    model: str | Path = "sentence-transformers/all-MiniLM-L6-v2"
    """A directory of sentence-transformers, or a name on the hub."""
    name: str = "relevance"
    kind: ClassVar[Kind] = "completions"

    def __call__(self, completions: Sequence[Completion]) -> list[float]:
        """One cosine per completion."""
        encoder = _load_encoder(str(self.model))
        pairs = [(completion.prompt, completion.text) for completion in completions]
        texts = sorted({text for pair in pairs for text in pair if text.strip()})
        if not texts:
            return [float("nan")] * len(pairs)
        row = {text: index for index, text in enumerate(texts)}
        with torch.no_grad():
            unit = encoder.encode(
                texts, convert_to_tensor=True, normalize_embeddings=True, show_progress_bar=False
            )
        unit = unit.float().cpu().clone()
        return [
            float(unit[row[prompt]] @ unit[row[text]])
            if prompt in row and text in row
            else float("nan")
            for prompt, text in pairs
        ]


@dataclass(frozen=True, repr=False)
class Fluency:
    """Perplexity of a completion given its prompt under a judge, from 1 (certain) upwards.

    exp of the mean negative log-probability of the completion's tokens, those of the prompt being
    read but not counted: the disfluency of Turner et al. (2308.10248), who ask a larger model than
    the one they steer. Lower is more fluent; text that repeats itself is very fluent by it.

    The judge's own tokenizer splits prompt and completion together. A token that straddles their
    border counts. A completion without tokens is NaN.

    Raises:
        PromptError: Prompt and completion are together beyond the judge's context.

    >>> judge = load_model("testbed")
    >>> completion = al.Completion("Anna loved", " the concert.", (), (), 0, 0)
    >>> [perplexity] = Fluency(judge)([completion])
    >>> perplexity >= 1
    True
    """

    judge: Bridge
    """Any TransformerBridge with a tokenizer, in eval mode."""
    name: str = "fluency"
    kind: ClassVar[Kind] = "completions"

    def __repr__(self) -> str:
        return f"Fluency(judge={BridgeModel(self.judge).name!r}, name={self.name!r})"

    def __call__(self, completions: Sequence[Completion]) -> list[float]:
        """One perplexity per completion."""
        rows, n_given = {}, {}
        for index, completion in enumerate(completions):
            prompt = encode(self.judge, completion.prompt)
            row = encode(self.judge, completion.prompt + completion.text)
            check_context(self.judge, len(row), f"completion {index}, with its prompt,")
            shared = takewhile(lambda pair: pair[0] == pair[1], zip(prompt, row, strict=False))
            n_shared = sum(1 for _ in shared)
            if len(row) > n_shared:
                rows[index], n_given[index] = row, max(1, n_shared)
        perplexities = [math.nan] * len(completions)
        if rows:
            read = sequence_logprobs(self.judge, list(rows.values()), strict=False)
            for index, logprobs in zip(rows, read, strict=True):
                # The log-prob at k is of token k + 1: from the last given token on they count.
                perplexities[index] = (-logprobs[n_given[index] - 1 :].mean()).exp().item()
        return perplexities


@dataclass(frozen=True, eq=False)
class Classifier:
    """A text-classification model with its tokenizer."""

    source: str
    """The directory or hub name it came from."""
    model: Any
    tokenizer: Any

    def probability(self, texts: Sequence[str], label: str, blank: float) -> list[float]:
        """P(label) of each text, in [0, 1]; ``blank`` for one that is empty or white space.

        Texts beyond the model's length are truncated. The probability is a softmax over the
        labels; for one label, or labels that do not exclude each other, it is a sigmoid.

        Raises:
            MetricError: The model has no such label, or scores that are no probabilities.
        """
        column = self._column(label)
        written = [index for index, text in enumerate(texts) if text.strip()]
        written.sort(key=lambda index: len(texts[index]))  # those of like length together
        pads = self.tokenizer.pad_token_id, self.model.config.pad_token_id
        size = 1 if None in pads else _BATCH  # what cannot pad reads one text at a time
        scores = dict.fromkeys(range(len(texts)), blank)
        for start in range(0, len(written), size):
            batch = written[start : start + size]
            found = self._probabilities([texts[index] for index in batch])[:, column]
            scores.update(zip(batch, found.tolist(), strict=True))
        return list(scores.values())

    def _column(self, label: str) -> int:
        config = self.model.config
        if config.problem_type == "regression":
            raise MetricError(
                f"{self.source} is a regression model and has no P({label}): choose a classifier"
            )
        labels = [str(config.id2label[index]) for index in range(len(config.id2label))]
        lower = [name.lower() for name in labels]
        if label.lower() not in lower:
            raise MetricError(
                f"{self.source} has no label {label!r}: choose one of {', '.join(labels)} "
                "with label="
            )
        return lower.index(label.lower())

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
    # RoBERTa's family counts positions from the one after padding, so it reads fewer than it has.
    tables = [part for name, part in model.named_modules() if name.endswith("position_embeddings")]
    padding = [getattr(table, "padding_idx", None) for table in tables]
    skipped = max((index + 1 for index in padding if index is not None), default=0)
    n_positions = getattr(model.config, "max_position_embeddings", None) or _NO_LIMIT + skipped
    limit = min(tokenizer.model_max_length, n_positions - skipped)
    return None if limit >= _NO_LIMIT else int(limit)


@lru_cache(maxsize=4)
def load_classifier(name: str) -> Classifier:
    """A classifier in float32, on the accelerator if any, loaded once.

    Raises:
        ModelLoadError: It cannot be loaded, or its classifying head would be random.
    """
    import transformers

    with _loading("a text classifier", name) as options:
        tokenizer = transformers.AutoTokenizer.from_pretrained(name, **options)
        model, report = transformers.AutoModelForSequenceClassification.from_pretrained(
            name, dtype=torch.float32, output_loading_info=True, **options
        )
    if report["missing_keys"]:
        missing = ", ".join(sorted(report["missing_keys"]))
        raise ModelLoadError(
            f"{name} is not a text classifier: it has no weights for {missing}, which would be "
            "random; give a model that was trained for text classification"
        )
    there = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return Classifier(name, model.eval().to(there or "cpu"), tokenizer)


@cache
def _vader() -> Any:
    from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

    return SentimentIntensityAnalyzer()


@lru_cache(maxsize=4)
def _load_encoder(name: str) -> Any:
    library = require("sentence_transformers", "relevance", "Relevance")
    with _loading("a sentence-embedding model", name) as options:
        return library.SentenceTransformer(name, **options)


@contextmanager
def _loading(what: str, name: str) -> Iterator[dict[str, bool]]:
    """Options for loading a model; whatever goes wrong is raised as a ``ModelLoadError``."""
    local = Path(name).is_dir()
    try:
        with torch.random.fork_rng(devices=[]):  # missing weights would be drawn from it
            yield {"trust_remote_code": False, "local_files_only": local}
    except Exception as error:  # whatever is wrong inside, the caller asked for a model
        lines = str(error).strip().splitlines()
        reason = f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
        if local:
            raise ModelLoadError(f"cannot load {what} in {name}: {reason}") from error
        raise ModelLoadError(
            f"cannot load {what} from {name!r} ({reason}). It is not a directory here, so the "
            "Hugging Face hub was asked: check the spelling, the network (HF_HUB_OFFLINE must not "
            "be set unless the model is cached) and, for gated models, HF_TOKEN; or download it "
            "and give its directory"
        ) from error
