"""The data set of the testbed: an exact oracle judges every text."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, product
from typing import Any, ClassVar, Final

from actadd_lens import testbed
from actadd_lens.reproduction.concepts import Concept, Fact
from actadd_lens.testbed import OnTopic, SameTopic, Success, Task, Valid
from actadd_lens.testbed.grammar import LEXICON, TOPICS
from actadd_lens.testbed.oracle import topic
from actadd_lens.testbed.tasks import REVERSED
from actadd_lens.vectors.pair import ContrastPair

RECOMMENDED: Final = "recommended for the testbed, chosen on 200 selection prompts"


@dataclass(frozen=True)
class Bundled:
    """Prompts, pairs, documents and facts of the testbed, judged by its oracle."""

    name: str = "the testbed's language, read by its exact oracle"
    topics: Sequence[str] = TOPICS
    filler: str = "We felt ready and calm."
    caveat: ClassVar[str] = (
        "The bundled model was made to be steerable, and chosen among seeds by bounds that had "
        "been set (the page on the testbed has them): sentiment, topic and register can be "
        "turned by their pairs, negated and random vectors do nothing, text stays valid and "
        "facts stay known. Findings that coincide with these are reproduced by construction, "
        "for other seeds less so; intervals are over prompts, not over models."
    )
    sampling: ClassVar[Mapping[str, Any]] = {"temperature": 1.0}
    """Plain sampling: what the model would say, not what it says most."""
    coherence: ClassVar[Valid] = Valid()
    """Whether every sentence is one of the grammar."""
    relevance: ClassVar[SameTopic] = SameTopic()
    """Whether the completion has the topic of its prompt; NaN for prompts without one."""

    def concept(self, name: str) -> Concept:
        """See ``DataSet``; a topic's prompts are of other topics."""
        if name in ("sentiment", "register"):
            return _of_task(testbed.TASKS[name], testbed.recommended(name))
        return _of_task(REVERSED, None) if name == "reversed" else _of_topic(name)

    def words(self, topic: str) -> Sequence[str]:
        """Every word that the oracle counts for the topic."""
        slots = ("noun", "nouns", "did", "place")
        return [words for slot in slots for words in LEXICON[slot][topic]]

    def documents(self, n: int) -> Sequence[str]:
        """Documents as those the model was trained on, of a seed of their own."""
        return testbed.documents(n, seed=20)

    def openings(self, n: int) -> Sequence[str]:
        """Sentences up to the noun, of any sentiment."""
        who = [name.capitalize() for name in LEXICON["someone"]["any"]]
        felt = chain.from_iterable(zip(*LEXICON["felt-about"].values(), strict=True))
        return [f"{someone} {verb} the" for verb, someone in product(felt, who)][:n]

    def facts(self, n: int) -> Sequence[Fact]:
        """The grammar's facts."""
        return [Fact(*fact) for fact in testbed.facts()[:n]]


def _of_task(task: Task, setting: tuple[int, float] | None) -> Concept:
    selection, test = (tuple(testbed.prompts(task.prompts, split)) for split in _SPLITS)
    others = tuple(pair for pair in _pairs_like(task) if pair != task.pair)
    origin = RECOMMENDED if setting else ""
    return Concept(
        task.name, task.pair, others, selection, test, Success(task), task.wanted, setting, origin
    )


def _of_topic(name: str) -> Concept:
    pairs = [ContrastPair(f" {noun}", " ") for noun in LEXICON["nouns"][name]]
    setting, origin = None, ""
    if name == "weddings":
        pairs = [testbed.pairs["topic"], *pairs]
        setting, origin = testbed.recommended("topic"), RECOMMENDED
    first, *others = dict.fromkeys(pairs)
    selection, test = (
        tuple(p for p in testbed.prompts("off_topic", split) if topic(p) != name)
        for split in _SPLITS
    )
    wanted = f"completions on {name} of prompts on other topics"
    return Concept(
        name, first, tuple(others), selection, test, OnTopic(name), wanted, setting, origin
    )


def _pairs_like(task: Task) -> list[ContrastPair]:
    """Every word that decides a latent set against every word that hints at its contrary."""
    towards, away = {
        "sentiment": (LEXICON["tone"]["positive"], LEXICON["mood"]["negative"]),
        "reversed": (LEXICON["tone"]["negative"], LEXICON["mood"]["positive"]),
        "register": (LEXICON["honorific"]["polite"], LEXICON["jibe"]["rude"]),
    }[task.name]
    return [
        ContrastPair(f"{one.capitalize()}.", f"{other.capitalize()}.")
        for one, other in product(towards, away)
    ]


_SPLITS: Final = ("selection", "test")
