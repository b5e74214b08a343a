"""English for real models: contrast pairs, words of topics, prompts that leave the topic open."""

import random
from collections.abc import Sequence
from itertools import product
from typing import Final

PAIRS: Final[dict[str, tuple[tuple[str, str], ...]]] = {
    "sentiment": (
        ("Love", "Hate"),
        ("Joy", "Grief"),
        ("Praise", "Scorn"),
        ("Happy", "Sad"),
        ("Wonderful", "Terrible"),
        ("Delight", "Disgust"),
    ),
    "weddings": (
        (" weddings", " "),
        (" wedding", " "),
        (" brides", " "),
        (" marriage", " "),
        (" honeymoon", " "),
    ),
    "finance": ((" finance", " "), (" banks", " "), (" stocks", " "), (" investors", " ")),
    "music": ((" music", " "), (" songs", " "), (" concerts", " "), (" guitars", " ")),
    "politics": ((" politics", " "), (" elections", " "), (" senators", " "), (" voters", " ")),
    "science": ((" science", " "), (" experiments", " "), (" physics", " "), (" biology", " ")),
    "art": ((" art", " "), (" paintings", " "), (" museums", " "), (" sculptures", " ")),
}
"""The paper's pair of each concept first; weddings and sentiment are named in it."""

WORDS: Final[dict[str, tuple[str, ...]]] = {
    # The paper's list.
    "weddings": (
        "wedding", "weddings", "wed", "marry", "married", "marriage", "bride", "groom",
        "honeymoon",
    ),
    "finance": (
        "finance", "financial", "bank", "banks", "money", "stock", "stocks", "invest",
        "investment", "investor", "investors", "market", "loan", "debt",
    ),
    "music": (
        "music", "musical", "song", "songs", "band", "concert", "concerts", "guitar", "piano",
        "sing", "singer", "album", "melody",
    ),
    "politics": (
        "politics", "political", "election", "elections", "senator", "president", "vote",
        "voters", "government", "party", "congress", "policy",
    ),
    "science": (
        "science", "scientific", "scientist", "scientists", "experiment", "experiments",
        "physics", "biology", "chemistry", "research", "laboratory", "theory",
    ),
    "art": (
        "art", "artist", "artists", "painting", "paintings", "museum", "gallery", "sculpture",
        "sculptures", "drawing",
    ),
}  # fmt: skip
"""What counts as being on a topic, in lower case, whole words."""

_WHO: Final = (
    "I", "My friend", "My sister", "My brother", "My neighbour", "My teacher", "My boss",
    "The old man", "The young woman", "A stranger", "The driver", "The waiter", "Our guest",
    "The doctor", "A visitor", "The student", "My cousin", "The nurse", "The farmer",
    "A colleague", "The pilot", "My uncle", "The baker", "The guard", "My aunt",
)  # fmt: skip
_DID: Final = (
    "sat down next to me and said", "looked out of the window and thought about",
    "came home late that day and talked about", "opened the door slowly and said",
    "called me in the morning to say that", "stood up in front of everyone and said",
    "waited for the bus and began to talk about", "put down the phone and told me that",
    "read the paper at breakfast and said", "walked along the river and thought that",
    "was asked a question and answered that", "smiled at all of us and explained that",
    "wrote a long letter that began with", "spent the whole evening talking about",
    "met an old friend and they spoke about", "turned to the others and remarked that",
    "finished the coffee and wanted to know", "had a strange dream last night about",
    "stayed up late to read a book about", "arrived early and told everybody that",
)  # fmt: skip
_WHEN: Final = ("", "Last night", "On Monday", "This morning")


def _sentences(actions: Sequence[str]) -> tuple[str, ...]:
    """Everybody at every time with every action, mixed."""
    made = [
        f"{when} {who if who == 'I' else who[0].lower() + who[1:]} {did}"
        if when
        else f"{who} {did}"
        for when, who, did in product(_WHEN, _WHO, actions)
    ]
    random.Random(0).shuffle(made)
    return tuple(made)


OPEN_PROMPTS: Final = {"selection": _sentences(_DID[::2]), "test": _sentences(_DID[1::2])}
"""Beginnings of sentences after which any topic may come; the splits have no action in common."""

_BEFORE_NOUN: Final = (
    "was looking forward to the", "could not stop talking about the", "remembered the",
    "was very much surprised by the", "told everyone about the", "will never forget the",
)  # fmt: skip
OPENINGS: Final = (
    "I'm excited because I'm going to a",  # the paper's
    *_sentences(_BEFORE_NOUN),
)
"""Prompts after which a noun comes."""

FILLER: Final = "Here is something that everybody knows by now."
