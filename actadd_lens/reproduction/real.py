"""The paper's data sets and contrast pairs for real models, judged by metrics."""

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice, product
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
from actadd_lens.vectors.pair import ContrastPair

PAPERS_SAMPLING: Final = {"temperature": 1.0, "top_p": 0.3, "frequency_penalty": 1.0}
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

_ENGLISH: Final[dict[str, Any]] = json.loads(
    (Path(__file__).parent / "data" / "english.json").read_text(encoding="utf-8")
)
PAIRS: Final[dict[str, list[list[str]]]] = _ENGLISH["pairs"]
"""The paper's pair of each concept first; weddings and sentiment are named in it."""
WORDS: Final[dict[str, list[str]]] = _ENGLISH["words"]
"""What counts as being on a topic, in lower case, whole words; the paper's list of weddings."""


def _sentences(actions: Sequence[str]) -> list[str]:
    """Everybody at every time with every action, mixed."""
    made = [
        f"{when} {who if who == 'I' else who[0].lower() + who[1:]} {did}"
        if when
        else f"{who} {did}"
        for when, who, did in product(_ENGLISH["when"], _ENGLISH["who"], actions)
    ]
    random.Random(0).shuffle(made)
    return made


OPEN_PROMPTS: Final = {
    "selection": _sentences(_ENGLISH["did"][::2]),
    "test": _sentences(_ENGLISH["did"][1::2]),
}
"""Beginnings of sentences after which any topic may come; the splits have no action in common."""
OPENINGS: Final = [_ENGLISH["paper's opening"], *_sentences(_ENGLISH["before_noun"])]
"""Prompts after which a noun comes."""


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
    filler: str = _ENGLISH["filler"]
    sampling: ClassVar[Mapping[str, Any]] = PAPERS_SAMPLING

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
        pairs, score = PAIRS["sentiment"], Sentiment(self.judges.sentiment)
        # VADER calls what lies between these neutral; a classifier knows two sides.
        up, down = (0.05, -0.05) if self.judges.sentiment is None else (0.5, 0.5)
        wanted, given, success = "positive", "negative", Within("positive", score, at_least=up)
        if name == "reversed":
            pairs = [pair[::-1] for pair in pairs]
            wanted, given, success = "negative", "positive", Within("negative", score, below=down)
        n = _SPARE * self.prompts
        splits = [
            self._beginnings(data.imdb(self.data, label=given, split=split, n=n))
            for split in ("train", "test")
        ]
        return self._made(name, pairs, splits, success, f"{wanted} completions of {given} reviews")

    def _toxicity(self) -> Concept:
        records = data.toxicity_prompts(self.data, n=2 * _SPARE * self.prompts)
        texts = self._beginnings([record.text for record in records])
        success = Within("not_toxic", Toxicity(self.judges.toxicity), below=0.5)
        wanted = "completions that are not toxic"
        splits = [texts[::2], texts[1::2]]
        return self._made("register", PAIRS["sentiment"], splits, success, wanted)

    def _topic(self, name: str) -> Concept:
        splits, success = [*OPEN_PROMPTS.values()], ContainsAny(WORDS[name], name=f"on_{name}")
        return self._made(name, PAIRS[name], splits, success, f"completions with words on {name}")

    def _made(
        self,
        name: str,
        pairs: Sequence[Sequence[str]],
        splits: Sequence[Sequence[str]],
        success: CompletionMetric,
        wanted: str,
    ) -> Concept:
        first, *others = (ContrastPair(*pair) for pair in pairs)
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
        known = self._paper_setting(name, first)
        given = None if name in _READ else known
        return Concept(
            name, first, tuple(others), tuple(selection), tuple(test), success, wanted,
            given, PAPER if given else "", known if name in _READ else None,
        )  # fmt: skip

    def _paper_setting(self, name: str, pair: ContrastPair) -> tuple[int, float] | None:
        """The paper's layer and coefficient, if it has any for this model and this pair."""
        ours = BridgeModel(self.model).name.rstrip("/").rsplit("/", 1)[-1]
        for preset in PRESETS.values():
            own = preset.paper.get(name)
            known = ours == preset.name.rsplit("/", 1)[-1] and shape_of(self.model) == preset.shape
            if known and own and ContrastPair(own.positive, own.negative) == pair:
                return own.layer, own.coefficient
        return None

    def _beginnings(self, texts: Sequence[str]) -> list[str]:
        """Prompts to continue."""
        n_tokens = min(PROMPT_TOKENS, BridgeModel(self.model).n_ctx // 4)
        return [self._cut(text, n_tokens) for text in texts]

    def _cut(self, text: str, n_tokens: int) -> str:
        """The beginning of a text: at most ``n_tokens`` tokens with BOS, in whole words."""
        text = " ".join(text[: _LONGEST_TOKEN * n_tokens].replace("<br />", " ").split())
        ids = encode(self.model, text)
        if len(ids) <= n_tokens:
            return text
        start: str = text_of_tokens(self.model, ids[n_bos(self.model, ids) : n_tokens])
        return text[: len(start)].rpartition(" ")[0]
