"""One description of the sentences, walked by the sampler and by the parser alike.

A pattern is a sentence with `{slot}` places. All patterns are compiled into one graph whose edges
are words; sampling walks it forward drawing words of the wanted latents, parsing walks it with the
words of a text. What one produces the other therefore accepts, and nothing else.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Final

from actadd_lens.testbed.lexicon import FACTS, LATENT_SLOTS, LEXICON

# "both" carries topic and sentiment, "feeling" sentiment alone, "topic" topic alone
PATTERNS: Final[dict[str, tuple[str, ...]]] = {
    "both": (
        "{someone} {felt-about} the {noun}.",
        "{someone} {felt-about} the {adjective} {nouns}.",
        "the {noun} was {degree} {adjective}.",
        "the {nouns} were {degree} {adjective}.",
        "the {noun} was {adjective} and the {nouns} were {adjective}.",
        "{pronoun} {feel-about} {nouns} because they are {adjective}.",
        "{someone} said that the {noun} was {adjective}.",
        "{someone} {did} the {noun} and felt {feeling}.",
        "{someone} went to the {place} and {felt-about} the {noun}.",
        "it was a {adjective} {noun}.",
        "what a {adjective} {noun}!",
        "{someone} talked about {nouns} with {emotion}.",
        "everyone at the {place} felt {feeling}.",
        "{someone} {manner} {did} the {noun}.",
        "there were {adjective} {nouns} at the {place}.",
        "nobody expected such {adjective} {nouns}.",
        "after the {noun}, {someone} felt {feeling}.",
        "{someone} will remember the {adjective} {noun} for years.",
    ),
    "feeling": (
        "{pronoun} {feel-about} you because you are {adjective}.",
        "it was a {adjective} {unit} for {name}.",
        "{someone} felt {feeling} and {feeling}.",
        "{someone} {felt-about} every {unit} of it.",
        "{someone} {manner} went home.",
        "everything was {degree} {adjective}.",
    ),
    "topic": (
        "{someone} went to the {place} {when}.",
        "{someone} {did} the {noun} {when}.",
        "{someone} asked about the {nouns}.",
        "{someone} read a book about {nouns}.",
        "there were {number} {nouns} in the {place}.",
        "{someone} went to the {place} and {did} the {noun}.",
    ),
}
# a sentence may open with one of these (register) ...
ADDRESS: Final[dict[str, tuple[str, ...]]] = {
    "polite": ("dear {honorific}, ", "with respect, {honorific}, ", "thank you, {honorific}, "),
    "rude": ("listen, you {insult}, ", "shut up, you {insult}, ", "hey, {insult}, "),
}
# sentences that open with the word of a latent
EXCLAMATIONS: Final[dict[str, tuple[str, ...]]] = {
    "sentiment": ("{tone} filled the {place}.", "{tone} is what {someone} felt."),
    "topic": (
        "{nouns} are what {someone} talked about {when}.",
        "{nouns} are {adjective} and {adjective}.",
    ),
    "sentiment hint": ("{mood} filled the {place}.", "{mood} is what {someone} felt."),
}
SWITCH: Final = "but then "  # ... and one that changes a latent in mid-document with this
# a document may open with a lead, a word or two in one of these forms
_FORMS: Final = ("{%s}.", "{%s}!", "{%s} and {%s}.", "{%s}, {%s}!")
LEADS: Final[dict[str, tuple[str, ...]]] = {
    kind: tuple(form.replace("%s", slot) for form in _FORMS)
    for kind, slot in {
        "sentiment": "tone",
        "topic": "nouns",
        "polite": "honorific",
        "rude": "affront",
        "sentiment hint": "mood",
        "rude hint": "jibe",
        "none": "opener",
    }.items()
}
FACT_PATTERNS: Final = {
    relation: f"the {relation} of {{country}} is {{{relation}}}." for relation in FACTS
}

_SLOTS: Final[dict[str, dict[str | None, tuple[str, ...]]]] = LEXICON | {
    relation: {None: tuple(answers.values())} for relation, answers in FACTS.items()
}
_PROPER: Final = frozenset(
    {"I"} | {w for slot in ("name", "country", *FACTS) for w in _SLOTS[slot][None]}
)
_PLACE = re.compile(r"\{([\w-]+)\}")
_WORD = re.compile(r"\w+|[^\w\s]")


def capitalised(sentence: str) -> str:
    """The sentence with its first letter in upper case."""
    return sentence[0].upper() + sentence[1:]


def fill(rng: random.Random, pattern: str, latents: Mapping[str, str]) -> str:
    """Draw a sentence from `pattern`, its words by `latents`: topic, sentiment and register."""

    def draw(match: re.Match[str]) -> str:
        words = _SLOTS[match[1]]
        for latent, slots in LATENT_SLOTS.items():
            if match[1] in slots:
                return rng.choice(words[latents[latent]])
        return rng.choice(words[None])

    return capitalised(_PLACE.sub(draw, pattern))


def sentences(text: str) -> tuple[list[str], str]:
    """Split a text into its complete sentences and the unfinished rest."""
    parts = re.findall(r"[^.!?]*[.!?]", text)
    return [part.strip() for part in parts], text[sum(map(len, parts)) :].strip()


@dataclass(frozen=True)
class Graph:
    """The sentence graph: `edges[node][word]` is the set of nodes that the word leads to."""

    edges: tuple[dict[str, frozenset[int]], ...]
    start: int
    end: int

    def walk(self, words: Iterable[str]) -> frozenset[int]:
        """The nodes reached from the start by `words`; empty when they leave the grammar."""
        at = frozenset({self.start})
        for word in words:
            at = frozenset().union(*(self.edges[node].get(word, frozenset()) for node in at))
        return at


@cache
def graph() -> Graph:
    """The graph of all patterns, addresses, leads and facts."""
    edges: list[dict[str, set[int]]] = [{}, {}, {}]
    start, body, end = 0, 1, 2

    def chain(pieces: list[str], begin: int, finish: int) -> Iterator[tuple[str, int, int]]:
        """Each piece with the nodes before and after it; those in between are made."""
        for i, piece in enumerate(pieces):
            target = finish
            if i < len(pieces) - 1:
                edges.append({})
                target = len(edges) - 1
            yield piece, begin, target
            begin = target

    def path(words: list[str], begin: int, finish: int) -> None:
        for word, before, after in chain(words, begin, finish):
            edges[before].setdefault(word, set()).add(after)

    def compile_pattern(pattern: str, begin: int, finish: int) -> None:
        parts = [piece for piece in re.split(r"(\{[\w-]+\})", pattern) if piece.strip()]
        for piece, before, after in chain(parts, begin, finish):
            if match := _PLACE.fullmatch(piece):
                for words in _SLOTS[match[1]].values():
                    for phrase in words:
                        path(_WORD.findall(phrase), before, after)
            else:
                path(_WORD.findall(piece), before, after)

    for pattern in _all(PATTERNS):
        compile_pattern(pattern, start, end)
        compile_pattern(pattern, body, end)
    for pattern in _all(ADDRESS):
        compile_pattern(pattern, start, body)
    path(_WORD.findall(SWITCH), start, body)
    for pattern in (*_all(LEADS), *_all(EXCLAMATIONS), *FACT_PATTERNS.values()):
        compile_pattern(pattern, start, end)
    frozen = ({word: frozenset(nodes) for word, nodes in out.items()} for out in edges)
    return Graph(tuple(frozen), start, end)


def _all(table: Mapping[str, Iterable[str]]) -> Iterator[str]:
    for patterns in table.values():
        yield from patterns


def _read(sentence: str) -> list[str] | None:
    """The words of a sentence, the first in lower case; None if its spacing is not the grammar."""
    words = _WORD.findall(sentence)
    spaced = "".join(word if not word[0].isalnum() else " " + word for word in words).strip()
    if not words or spaced != sentence or not words[0][0].isupper():
        return None
    if words[0] not in _PROPER:
        words[0] = words[0][0].lower() + words[0][1:]
    return words


def parses(sentence: str) -> bool:
    """Whether the grammar produces this sentence (its latents need not agree).

    >>> parses("Anna loved the cake."), parses("Anna loved the concert.")
    (False, True)
    """
    words = _read(sentence)
    return words is not None and graph().end in graph().walk(words)


def begins_sentence(fragment: str) -> bool:
    """Whether some sentence of the grammar begins so; the last word may be cut anywhere.

    >>> begins_sentence("Anna loved the"), begins_sentence("Anna lov"), begins_sentence("Anna the")
    (True, True, False)
    """
    words = _read(fragment)
    if words is None:
        return False
    *whole, last = words
    at = graph().walk(whole)
    return any(word.startswith(last) for node in at for word in graph().edges[node])
