"""One description of the testbed's English, used by the sampler and by the parser alike.

``grammar.json`` holds the words and the patterns of sentences. A slot is a name for a list of
words. A word is under one latent value only, so that a text can be read exactly, and under "any"
where it carries no latent. The words of "tone" and "affront" decide the sentiment or the register
of a document that they open, those of "mood" and "jibe" only hint at it, and an "opener" does not
say how the document goes on.

A pattern is a sentence with `{slot}` places: of "both" topic and sentiment, or of one of them. It
may have an address in front, which carries the register. A document may open with a lead, or with
an exclamation, a sentence whose first word is a lead. What the sampler produces the parser
therefore accepts, and nothing else.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Mapping
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any, Final, Literal, get_args

Topic = Literal["weddings", "food", "travel", "sport", "science", "music"]
Sentiment = Literal["positive", "negative", "neutral"]
Register = Literal["plain", "polite", "rude"]

TOPICS: Final[tuple[Topic, ...]] = get_args(Topic)
SENTIMENTS: Final[tuple[Sentiment, ...]] = get_args(Sentiment)
VALUES: Final[dict[str, tuple[str, ...]]] = {
    "topic": TOPICS,
    "sentiment": SENTIMENTS,
    "register": get_args(Register),
}

_DATA: Final[dict[str, Any]] = json.loads(Path(__file__).with_suffix(".json").read_text("utf-8"))
LEXICON: Final[dict[str, dict[str, list[str]]]] = _DATA["words"]
PATTERNS: Final[dict[str, list[str]]] = _DATA["patterns"]
ADDRESS: Final[dict[str, list[str]]] = _DATA["addresses"]
LEADS: Final[dict[str, list[str]]] = _DATA["leads"]
EXCLAMATIONS: Final[dict[str, list[str]]] = _DATA["exclamations"]
SWITCH: Final = "but then "  # a sentence that changes a latent in mid-document begins with it
FACTS: Final = {
    relation: dict(zip(LEXICON["country"]["any"], answers, strict=True))
    for relation, answers in _DATA["facts"].items()
}
FACT_PATTERNS: Final = {
    relation: f"the {relation} of {{country}} is {{{relation}}}." for relation in FACTS
}
# latent -> slots whose words carry it
LATENT_SLOTS: Final = {
    latent: [slot for slot, words in LEXICON.items() if words.keys() <= {*values}]
    for latent, values in VALUES.items()
}

_PLACE: Final = re.compile(r"\{([\w-]+)\}")
_SLOTS: Final = {slot: tuple(chain(*words.values())) for slot, words in LEXICON.items()} | {
    relation: tuple(answers.values()) for relation, answers in FACTS.items()
}


def capitalised(sentence: str) -> str:
    """The sentence with its first letter in upper case."""
    return sentence[0].upper() + sentence[1:]


def fill(rng: random.Random, pattern: str, latents: Mapping[str, str]) -> str:
    """Draw a sentence from `pattern`, its words by `latents`: topic, sentiment and register."""

    def draw(match: re.Match[str]) -> str:
        words = LEXICON[match[1]]
        for latent, slots in LATENT_SLOTS.items():
            if match[1] in slots:
                return rng.choice(words[latents[latent]])
        return rng.choice(words["any"])

    return capitalised(_PLACE.sub(draw, pattern))


def sentences(text: str) -> tuple[list[str], str]:
    """Split a text into its complete sentences and the unfinished rest."""
    parts = re.findall(r"[^.!?]*[.!?]", text)
    return [part.strip() for part in parts], text[sum(map(len, parts)) :].strip()


def parses(sentence: str) -> bool:
    """Whether the grammar produces this sentence (its latents need not agree).

    >>> parses("Anna loved the cake."), parses("Anna loved the concert.")
    (False, True)
    """
    return _any_sentence().fullmatch(sentence) is not None


def begins_sentence(fragment: str) -> bool:
    """Whether some sentence of the grammar begins so; the last word may be cut anywhere.

    >>> begins_sentence("Anna loved the"), begins_sentence("Anna lov"), begins_sentence("Anna the")
    (True, True, False)
    """
    for pieces in _forms():
        rests = {fragment}  # what is left of it after the pieces read so far
        for words in pieces:
            if any(word.startswith(rest) for rest in rests for word in words):
                return True
            rests = {rest[len(w) :] for rest in rests for w in words if rest.startswith(w)}
            if not rests:
                break
    return False


@cache
def _any_sentence() -> re.Pattern[str]:
    forms = [
        "".join(f"(?:{'|'.join(map(re.escape, words))})" for words in pieces) for pieces in _forms()
    ]
    return re.compile("|".join(forms))


@cache
def _forms() -> list[list[tuple[str, ...]]]:
    """Every form of a sentence: its pieces in order, each with the words of which it is one."""
    openings = ("", SWITCH, *chain(*ADDRESS.values()))
    bodies = (opening + body for opening in openings for body in chain(*PATTERNS.values()))
    forms = chain(bodies, *LEADS.values(), *EXCLAMATIONS.values(), FACT_PATTERNS.values())
    return [_pieces(form) for form in forms]


def _pieces(form: str) -> list[tuple[str, ...]]:
    parts = enumerate(_PLACE.split(form))  # text and slots by turns
    pieces = [_SLOTS[part] if index % 2 else (part,) for index, part in parts if part]
    return [tuple(map(capitalised, pieces[0])), *pieces[1:]]
