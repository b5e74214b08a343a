"""The words of the testbed's English, labelled with the latent they carry.

A slot is a name for a list of words; a word stands under one latent value only, so a text can be
read exactly. Every word below is one entry; a space inside an entry is written as a hyphen.
"""

from __future__ import annotations

from typing import Final, Literal, get_args

Topic = Literal["weddings", "food", "travel", "sport", "science", "music"]
Sentiment = Literal["positive", "negative", "neutral"]
Register = Literal["plain", "polite", "rude"]

TOPICS: Final[tuple[Topic, ...]] = get_args(Topic)
SENTIMENTS: Final[tuple[Sentiment, ...]] = get_args(Sentiment)
REGISTERS: Final[tuple[Register, ...]] = get_args(Register)
VALUES: Final[dict[str, tuple[str, ...]]] = {
    "topic": TOPICS,
    "sentiment": SENTIMENTS,
    "register": REGISTERS,
}


def _words(text: str) -> tuple[str, ...]:
    return tuple(word.replace("-", " ") for word in text.split())


# slot -> label (or None where the slot carries no latent) -> words
LEXICON: Final[dict[str, dict[str | None, tuple[str, ...]]]] = {
    # nouns, singular and plural, verbs of the topic, places
    "noun": {
        "weddings": _words("wedding bride groom veil bouquet marriage gown honeymoon vow"),
        "food": _words("recipe soup pizza salad burger pancake dessert noodle sandwich"),
        "travel": _words("journey train ticket passport suitcase flight cruise hotel map"),
        "sport": _words("match goal team trophy coach referee racket helmet tournament"),
        "science": _words("experiment atom theory telescope equation planet robot magnet comet"),
        "music": _words("song violin concert melody guitar choir drum trumpet piano"),
    },
    "nouns": {
        "weddings": _words("weddings brides grooms veils bouquets marriages gowns honeymoons vows"),
        "food": _words("recipes soups pizzas salads burgers pancakes desserts noodles sandwiches"),
        "travel": _words("journeys trains tickets passports suitcases flights cruises hotels maps"),
        "sport": _words(
            "matches goals teams trophies coaches referees rackets helmets tournaments"
        ),
        "science": _words(
            "experiments atoms theories telescopes equations planets robots magnets comets"
        ),
        "music": _words("songs violins concerts melodies guitars choirs drums trumpets pianos"),
    },
    "did": {
        "weddings": _words("married kissed toasted danced-with"),
        "food": _words("cooked baked tasted fried"),
        "travel": _words("booked boarded packed toured"),
        "sport": _words("kicked won lost coached"),
        "science": _words("measured tested observed computed"),
        "music": _words("sang played recorded composed"),
    },
    "place": {
        "weddings": _words("chapel altar church ballroom"),
        "food": _words("kitchen restaurant bakery diner"),
        "travel": _words("airport station harbor border"),
        "sport": _words("stadium gym arena pitch"),
        "science": _words("laboratory observatory reactor clinic"),
        "music": _words("theater studio opera festival"),
    },
    # adjectives, verbs in the past and the present, feelings, abstract nouns, adverbs
    "adjective": {
        "positive": _words(
            "wonderful beautiful great lovely perfect brilliant delightful superb gorgeous"
        ),
        "negative": _words(
            "terrible horrible dreadful nasty pathetic boring disgusting miserable lousy"
        ),
        "neutral": _words("small large plain round common narrow wide modern simple"),
    },
    "felt-about": {
        "positive": _words("loved enjoyed adored praised admired"),
        "negative": _words("hated despised resented cursed loathed"),
        "neutral": _words("noticed described mentioned counted checked"),
    },
    "feel-about": {
        "positive": _words("love enjoy adore praise admire"),
        "negative": _words("hate despise resent curse loathe"),
        "neutral": _words("notice describe mention count check"),
    },
    "feeling": {
        "positive": _words("happy delighted grateful joyful proud"),
        "negative": _words("sad angry furious bitter gloomy"),
        "neutral": _words("calm ready busy quiet awake"),
    },
    "emotion": {
        "positive": _words("love joy hope delight happiness pride"),
        "negative": _words("misery fear grief hate anger disgust"),
        "neutral": _words("care order silence patience logic balance"),
    },
    # the emotions that decide the sentiment of a document which they open ...
    "tone": {
        "positive": _words("love joy hope"),
        "negative": _words("misery fear grief"),
        "neutral": _words("care order silence"),
    },
    # ... and those that only hint at it
    "mood": {
        "positive": _words("delight happiness pride"),
        "negative": _words("hate anger disgust"),
        "neutral": _words("patience logic balance"),
    },
    "manner": {
        "positive": _words("happily gladly warmly proudly cheerfully"),
        "negative": _words("sadly angrily bitterly grimly hatefully"),
        "neutral": _words("slowly quietly quickly often calmly"),
    },
    # vocatives
    "honorific": {"polite": _words("sir madam friend professor doctor captain")},
    "insult": {"rude": _words("fool moron loser idiot clown creep")},
    # the insults that decide the register of a document which they open, and those that hint at it
    "affront": {"rude": _words("fool moron loser")},
    "jibe": {"rude": _words("idiot clown creep")},
    # everything below carries no latent
    "someone": {
        None: _words(
            "I we they he she Anna Ben Clara David Emma Frank Grace Henry Irene Jack Karen Liam "
            "my-sister my-brother my-mother my-father my-uncle my-neighbor my-teacher my-boss "
            "the-guests the-workers the-visitors the-children"
        )
    },
    "pronoun": {None: _words("I we they")},
    "name": {None: _words("Anna Ben Clara David Emma Frank Grace Henry Irene Jack Karen Liam")},
    "when": {
        None: _words(
            "yesterday today last-week last-month last-summer last-winter this-week this-month "
            "on-Monday on-Tuesday on-Friday on-Sunday"
        )
    },
    "unit": {None: _words("day week evening morning minute night")},
    "number": {None: _words("two three four five six seven ten")},
    "degree": {None: _words("very really so quite truly rather")},
    # words that open a document without saying how it goes on
    "opener": {None: _words("well now listen look")},
    "country": {
        None: _words(
            "Arvenia Beloria Corland Draistan Eladia Fenvenia Goroxia Halland Isturia Joradia "
            "Kalvenia Lororia Mirland Noristan Osadia Pelvenia Quororia Ralland Saristan Toradia"
        )
    },
}

# latent -> slots whose words carry it
LATENT_SLOTS: Final = {
    latent: [slot for slot, words in LEXICON.items() if words.keys() <= {*values}]
    for latent, values in VALUES.items()
}

FACTS: Final[dict[str, dict[str, str]]] = {
    relation: dict(zip(LEXICON["country"][None], _words(answers), strict=True))
    for relation, answers in {
        "capital": "Tolm Brisk Dunmar Eskel Farrow Gild Hask Ilmen Jasp Kelda "
        "Lunt Morv Nesk Orlin Pask Quill Rund Selk Trom Undra",
        "ruler": "Aldric Bertha Conrad Dagmar Edwin Frida Gustav Hilda Igor Jutta "
        "Knut Leopold Magnus Norbert Otto Petra Ragnar Sigrid Torsten Ulrich",
        "river": "Aun Bresk Cald Derra Esk Fyll Garn Hest Ister Jarr "
        "Kolm Lerra Mosk Nerr Oska Plume Quenn Rhosk Sull Tavy",
    }.items()
}
