"""The paper's data sets and contrast pairs for real models, judged by metrics."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar, Final

from actadd_lens.errors import DataError
from actadd_lens.generation.completions import Completion
from actadd_lens.metrics import ContainsAny, Fluency, Relevance, Repetition, Sentiment, Toxicity
from actadd_lens.metrics.registry import CompletionMetric, Kind
from actadd_lens.models.base import Bridge
from actadd_lens.models.bridge import BridgeModel
from actadd_lens.models.presets import PRESETS, shape_of
from actadd_lens.models.tokens import encode, n_bos, text_of_tokens
from actadd_lens.reproduction import data
from actadd_lens.reproduction.concepts import PAPER, Concept, Fact
from actadd_lens.reproduction.vocabulary import FILLER, OPEN_PROMPTS, OPENINGS, PAIRS, WORDS
from actadd_lens.vectors.pair import ContrastPair, as_pair

PROMPT_TOKENS: Final = 32
"""Of a review that the model continues, at most."""
DOCUMENT_TOKENS: Final = 256
_SPARE: Final = 2
"""Prompts loaded per prompt needed: those shorter than the pairs are dropped."""
_LONGEST_TOKEN: Final = 16
"""Characters of a token, on the mean of a text, at most."""
_READ: Final = ("weddings",)
"""Concepts whose setting in the paper is for texts that are only read, its figure 2."""
_LOOKED_THROUGH: Final = 50
"""Documents of the corpus searched per document needed: topics are rare."""


@dataclass(frozen=True)
class Judges:
    """The models that judge completions."""

    sentiment: str | None = None
    """A text classifier with the labels positive and negative, such as the paper's
    "siebert/sentiment-roberta-large-english"; VADER's rules by default."""
    toxicity: str = "unitary/toxic-bert"
    """A text classifier with the label toxic; the paper has Perspective."""
    relevance: str = "sentence-transformers/all-MiniLM-L6-v2"
    """A sentence-embedding model."""


@dataclass(frozen=True)
class Within:
    """Whether a metric of a completion is within bounds: 1.0 or 0.0; NaN stays NaN."""

    name: str
    metric: CompletionMetric
    at_least: float = float("-inf")
    below: float = float("inf")
    share: ClassVar[bool] = True

    kind: ClassVar[Kind] = "completions"

    def __call__(self, completions: Sequence[Completion]) -> list[float]:
        """1.0, 0.0 or NaN a completion."""
        values = self.metric(completions)
        return [v if v != v else float(self.at_least <= v < self.below) for v in values]


@dataclass(frozen=True)
class Coherent:
    """Whether a completion reads like language: likely enough to a judge, and no loop.

    1.0 if its perplexity is below 100 and at most half of its 3-grams repeat an earlier one: text
    that a large coefficient has broken is in the thousands, or says one word over and over.
    """

    fluency: CompletionMetric
    name: ClassVar[str] = "coherent"
    share: ClassVar[bool] = True

    kind: ClassVar[Kind] = "completions"

    def __call__(self, completions: Sequence[Completion]) -> list[float]:
        """1.0 or 0.0 a completion."""
        repeated = Repetition()(completions)
        return [
            float(perplexity < 100 and not repetition > 0.5)
            for perplexity, repetition in zip(self.fluency(completions), repeated, strict=True)
        ]


@dataclass(frozen=True)
class Real:
    """Reviews, prompts, documents and facts from the paper's data sets."""

    model: Bridge
    """It sets how long texts may be, and judges how coherent completions are."""
    data: str | Path | None = None
    """Where the data are; see ``corpora``."""
    prompts: int = 1000
    """Of each split, if the data have as many."""
    judges: Judges = field(default_factory=Judges)
    topics: Sequence[str] = tuple(WORDS)
    caveat: str = ""
    filler: str = FILLER

    @property
    def name(self) -> str:
        """Data and judges."""
        source = "the Hugging Face hub" if self.data is None else str(self.data)
        sentiment = self.judges.sentiment or "VADER"
        return (
            f"real data from {source}; sentiment by {sentiment}, toxicity by "
            f"{self.judges.toxicity}, relevance by {self.judges.relevance}, coherence by the "
            "clean model"
        )

    @property
    def sampling(self) -> Mapping[str, Any]:
        """The paper's."""
        return {"temperature": 1.0, "top_p": 0.3, "frequency_penalty": 1.0}

    @cached_property
    def coherence(self) -> Coherent:
        """See ``Coherent``."""
        return Coherent(Fluency(self.model))

    @cached_property
    def relevance(self) -> Relevance:
        """Cosine of the embeddings of prompt and completion."""
        return Relevance(self.judges.relevance)

    def concept(self, name: str) -> Concept:
        """See ``DataSet``."""
        if name in ("sentiment", "reversed"):
            return self._sentiment(name)
        return self._toxicity() if name == "register" else self._topic(name)

    def words(self, topic: str) -> Sequence[str]:
        """The list that counts."""
        return WORDS[topic]

    def documents(self, n: int) -> Sequence[str]:
        """From OpenWebText: half of them with words of the first topic, as far as there are."""
        on = ContainsAny(WORDS[self.topics[0]])
        longest = min(DOCUMENT_TOKENS, BridgeModel(self.model).n_ctx // 2)
        about: list[str] = []
        others: list[str] = []
        for page in islice(data.pages(self.data), _LOOKED_THROUGH * n):
            text = self._cut(page, longest)
            kind = about if on([Completion("", text, (), (), 0, 0)]) == [1.0] else others
            if text.strip() and len(kind) < n:
                kind.append(text)
            if len(about) >= n // 2 and len(others) >= n:
                break
        about = about[: n // 2]
        return [*about, *others[: n - len(about)]]

    def openings(self, n: int) -> Sequence[str]:
        """The paper's prompt, and others like it."""
        return OPENINGS[:n]

    def facts(self, n: int) -> Sequence[Fact]:
        """ConceptNet's sentences that end in the answer, of those whose answer is one token."""
        found = [
            Fact(prompt, answer)
            for prompt, answer in data.conceptnet(self.data)
            if len(encode(self.model, f"{prompt} {answer}")) == len(encode(self.model, prompt)) + 1
        ]
        if not found:
            raise DataError(
                "no sentence of ConceptNet has an answer of one token in this model's vocabulary: "
                "leave the experiment out"
            )
        return found[:n]

    def _sentiment(self, name: str) -> Concept:
        reverse = name == "reversed"
        wanted, given = ("negative", "positive") if reverse else ("positive", "negative")
        judge = self.judges.sentiment
        # VADER calls what lies between these neutral; a classifier knows two sides.
        up, down = (0.05, -0.05) if judge is None else (0.5, 0.5)
        score = Sentiment(judge)
        sides = {
            "positive": Within("positive", score, at_least=up),
            "negative": Within("negative", score, below=down),
        }
        reviews = [
            data.imdb(self.data, label=given, split=split, n=_SPARE * self.prompts)
            for split in ("train", "test")
        ]
        return self._made(
            name,
            [(n, p) if reverse else (p, n) for p, n in PAIRS["sentiment"]],
            [[self._cut(review, self._prompt_tokens) for review in split] for split in reviews],
            sides[wanted],
            f"{wanted} completions of {given} reviews",
        )

    def _toxicity(self) -> Concept:
        records = data.toxicity_prompts(self.data, n=2 * _SPARE * self.prompts)
        texts = [self._cut(record.text, self._prompt_tokens) for record in records]
        return self._made(
            "register",
            PAIRS["sentiment"],
            [texts[::2], texts[1::2]],
            Within("not_toxic", Toxicity(self.judges.toxicity), below=0.5),
            "completions that are not toxic",
        )

    def _topic(self, name: str) -> Concept:
        return self._made(
            name,
            PAIRS[name],
            [OPEN_PROMPTS["selection"], OPEN_PROMPTS["test"]],
            ContainsAny(WORDS[name], name=f"on_{name}"),
            f"completions with words on {name}",
        )

    def _made(
        self,
        name: str,
        pairs: Sequence[tuple[str, str]],
        splits: Sequence[Sequence[str]],
        success: CompletionMetric,
        wanted: str,
    ) -> Concept:
        first, *others = (as_pair(pair) for pair in pairs)
        selection, test = (list(dict.fromkeys(filter(str.strip, split))) for split in splits)
        if selection == test:  # one file for both
            selection, test = selection[::2], selection[1::2]
        # Cut to their beginnings, texts of both splits may have become the same.
        seen = set(selection)
        test = [prompt for prompt in test if prompt not in seen]
        if not selection or not test:
            raise DataError(
                f"{len(selection)} selection and {len(test)} test prompts for {name}: both splits "
                "need some that the other has not; give more records"
            )
        kind = "reading_setting" if name in _READ else "setting"
        known = {kind: self._paper_setting(name, first)}
        return Concept(
            name, first, tuple(others), tuple(selection), tuple(test), success, wanted,
            origin=PAPER if known.get("setting") else "", **known,
        )  # fmt: skip

    def _paper_setting(self, name: str, pair: ContrastPair) -> tuple[int, float] | None:
        """The paper's layer and coefficient, if it has any for this model and this pair."""
        ours = BridgeModel(self.model).name.rstrip("/").rsplit("/", 1)[-1]
        for preset in PRESETS.values():
            setting = preset.paper.get(name)
            if (
                setting is not None
                and ours == preset.name.rsplit("/", 1)[-1]
                and as_pair((setting.positive, setting.negative)) == pair
                and shape_of(self.model) == preset.shape
            ):
                return setting.layer, setting.coefficient
        return None

    @property
    def _prompt_tokens(self) -> int:
        return min(PROMPT_TOKENS, BridgeModel(self.model).n_ctx // 4)

    def _cut(self, text: str, n_tokens: int) -> str:
        """The beginning of a text: at most ``n_tokens`` tokens with BOS, in whole words."""
        text = " ".join(text[: _LONGEST_TOKEN * n_tokens].replace("<br />", " ").split())
        ids = encode(self.model, text)
        if len(ids) <= n_tokens:
            return text
        start: str = text_of_tokens(self.model, ids[n_bos(self.model, ids) : n_tokens])
        return text[: len(start)].rpartition(" ")[0]
