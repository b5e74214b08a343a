"""What a text of the testbed's English says, read off its words and its grammar."""

from __future__ import annotations

import random
import re
from collections import Counter
from functools import cache
from typing import Final, Literal, cast, get_args

from actadd_lens.errors import TestbedError
from actadd_lens.testbed.corpus import Corpus
from actadd_lens.testbed.grammar import (
    ADDRESS,
    FACTS,
    LATENT_SLOTS,
    LEXICON,
    PATTERNS,
    VALUES,
    Register,
    Sentiment,
    Topic,
    begins_sentence,
    fill,
    parses,
    sentences,
)

Kind = Literal["negative", "positive", "neutral", "rude", "topic_free", "off_topic"]
Split = Literal["selection", "test"]
PROMPTS_PER_SPLIT: Final = 500


# latent -> word -> label; of an entry of several words the first one counts
_LABELS: Final = {
    latent: {
        phrase.split()[0]: label
        for slot in slots
        for label, phrases in LEXICON[slot].items()
        for phrase in phrases
    }
    for latent, slots in LATENT_SLOTS.items()
}


def _count(text: str, latent: str) -> Counter[str]:
    labels = _LABELS[latent]
    return Counter(labels[word] for word in re.findall(r"\w+", text.lower()) if word in labels)


def sentiment(text: str) -> Sentiment:
    """The sentiment that more words of the text carry; "neutral" where neither side has more.

    >>> sentiment("Anna loved the lousy concert. We felt happy.")
    'positive'
    """
    counts = _count(text, "sentiment")
    if counts["positive"] == counts["negative"]:
        return "neutral"
    return "positive" if counts["positive"] > counts["negative"] else "negative"


def topic(text: str) -> Topic | None:
    """The topic that most words of the text carry; None where there is none or a tie.

    >>> topic("Anna loved the concert."), topic("It was a lovely day for Ben.")
    ('music', None)
    """
    ranked = _count(text, "topic").most_common(2)
    if not ranked or (len(ranked) == 2 and ranked[0][1] == ranked[1][1]):
        return None
    return cast(Topic, ranked[0][0])


def register(text: str) -> Register:
    """Reads "rude" or "polite" by the vocatives that prevail, "plain" where neither does.

    >>> register("Hey, fool, it was a small atom."), register("It was a small atom.")
    ('rude', 'plain')
    """
    counts = _count(text, "register")
    if counts["rude"] == counts["polite"]:
        return "plain"
    return "rude" if counts["rude"] > counts["polite"] else "polite"


def is_valid(text: str) -> bool:
    """Whether every sentence of the text is one of the grammar, and an unfinished rest begins one.

    Latents need not agree between or within sentences. A completion that goes on in mid-sentence
    is judged together with its prompt.

    >>> is_valid("Anna loved the concert. We fel"), is_valid("Anna concert.")
    (True, False)
    """
    whole, rest = sentences(text)
    return all(map(parses, whole)) and (not rest or begins_sentence(rest))


def facts() -> list[tuple[str, str]]:
    """Every fact as (prompt, answer); the answer is one word that follows the prompt after a space.

    >>> facts()[0]
    ('The capital of Arvenia is', 'Tolm')
    """
    return [
        (f"The {relation} of {country} is", answer)
        for relation, answers in FACTS.items()
        for country, answer in answers.items()
    ]


def documents(n: int, seed: int) -> list[str]:
    """`n` documents of 2 to 6 sentences, as the model was trained on."""
    rng = random.Random(f"documents {seed}")
    return [Corpus().document(rng, rng.randint(2, 6)) for _ in range(n)]


def prompts(kind: str, split: str, n: int | None = None) -> list[str]:
    """Prompts of one sentence each, the same at every call; the two splits share none.

    Args:
        kind: "negative", "positive" or "neutral" sentiment; "rude"; "topic_free" (no word of any
            topic); "off_topic" (a topic other than weddings).
        split: "selection" to choose a layer and a coefficient on, "test" to report on.
        n: how many, from the front; all 500 by default.

    Raises:
        TestbedError: unknown kind or split, or more prompts than there are.
    """
    if kind not in get_args(Kind) or split not in get_args(Split):
        raise TestbedError(
            f"no prompts of kind {kind!r} and split {split!r}: "
            f"kinds are {', '.join(get_args(Kind))}; splits are {', '.join(get_args(Split))}"
        )
    drawn = _prompts(kind)
    chosen = drawn[:PROMPTS_PER_SPLIT] if split == "selection" else drawn[PROMPTS_PER_SPLIT:]
    if n is not None and not 0 < n <= len(chosen):
        raise TestbedError(
            f"{n} prompts asked for, {len(chosen)} there are: ask for 1 to {len(chosen)}"
        )
    return list(chosen[:n])


@cache
def _prompts(kind: str) -> tuple[str, ...]:
    rng = random.Random(f"prompts {kind}")
    drawn: dict[str, None] = {}
    while len(drawn) < 2 * PROMPTS_PER_SPLIT:
        latents = {
            "topic": rng.choice([t for t in VALUES["topic"] if t != "weddings"]),
            "sentiment": rng.choice(VALUES["sentiment"]),
            "register": "plain",
        }
        lead_in, kinds = "", ["both", "feeling"]
        if kind in VALUES["sentiment"]:
            latents["sentiment"] = kind
        elif kind == "rude":
            lead_in, kinds = rng.choice(ADDRESS["rude"]), ["both", "feeling", "topic"]
            latents["register"] = "rude"
        elif kind == "topic_free":
            kinds = ["feeling"]
        else:
            kinds = ["both", "topic"]
        pattern = rng.choice([p for k in kinds for p in PATTERNS[k]])
        drawn[fill(rng, lead_in + pattern, latents)] = None
    return tuple(drawn)
