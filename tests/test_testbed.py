"""The testbed's English: sampler, parser and readings come from one description and agree."""

import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actadd_lens import testbed
from actadd_lens.testbed.corpus import Corpus
from actadd_lens.testbed.grammar import (
    FACTS,
    LEXICON,
    PATTERNS,
    VALUES,
    begins_sentence,
    fill,
    parses,
    sentences,
)

seeds = st.integers(0, 2**32)
latents = st.fixed_dictionaries({name: st.sampled_from(v) for name, v in VALUES.items()})


@given(seeds, latents, st.integers(1, 9))
def test_every_sampled_document_parses(seed, fixed, n):
    rng = random.Random(seed)
    for text in (Corpus().document(rng, n), Corpus().document(rng, n, fixed)):
        assert testbed.is_valid(text), text


@given(seeds, st.integers(2, 6))
def test_every_cut_of_a_document_is_valid(seed, n):
    text = Corpus().document(random.Random(seed), n)
    cut = random.Random(seed).randrange(1, len(text))
    assert testbed.is_valid(text[:cut]), text[:cut]


@given(seeds)
def test_a_doubled_word_is_not_valid(seed):
    words = Corpus().fact_sentence(random.Random(seed)).split(" ")
    at = random.Random(seed).randrange(1, len(words) - 1)
    assert not testbed.is_valid(" ".join([*words[:at], words[at], *words[at:]]))


@given(seeds, st.sampled_from(["topic", "sentiment"]), latents)
def test_a_sentence_reads_as_it_was_drawn(seed, latent, drawn):
    patterns = PATTERNS["both"] + PATTERNS["topic" if latent == "topic" else "feeling"]
    text = fill(random.Random(seed), random.Random(seed).choice(patterns), drawn)
    assert getattr(testbed, latent)(text) == drawn[latent]


def test_spacing_and_case_are_part_of_the_grammar():
    assert parses("Anna loved the concert.")
    for wrong in (
        "anna loved the concert.",
        "Anna  loved the concert.",
        "Anna loved the concert .",
    ):
        assert not parses(wrong)


def test_a_word_may_be_cut_but_not_wrong():
    assert begins_sentence("Anna loved the con")
    assert begins_sentence("Ann")
    assert not begins_sentence("Anna loved the xyl")


def test_sentences_splits_off_the_unfinished_rest():
    assert sentences("What a match! We wen") == (["What a match!"], "We wen")


def test_no_word_stands_under_two_labels():
    labels: dict[str, set[str]] = {}
    for slot in LEXICON.values():
        for label, words in slot.items():
            for word in words:
                if label != "any":
                    labels.setdefault(word, set()).add(label)
    assert not {word: found for word, found in labels.items() if len(found) > 1}


def test_readings_of_hand_written_text():
    assert testbed.sentiment("Anna loved the lousy soup. We felt happy.") == "positive"
    assert testbed.sentiment("Anna loved the lousy soup.") == "neutral"
    assert testbed.topic("The bride kissed the groom at the airport.") == "weddings"
    assert testbed.topic("Everything was quite plain.") is None
    assert testbed.register("Thank you, sir, it was a small match.") == "polite"
    assert testbed.register("Hey, clown, it was a small match.") == "rude"
    assert testbed.is_valid("")
    assert testbed.is_valid(" The soup was very nasty. The bri")


@pytest.mark.parametrize(
    "kind", ["negative", "positive", "neutral", "rude", "topic_free", "off_topic"]
)
def test_prompts_are_many_distinct_repeatable_and_split(kind):
    selection, test = (testbed.prompts(kind, split) for split in ("selection", "test"))
    assert len(set(selection)) == len(selection) >= 200
    assert len(set(test)) == len(test) >= 200
    assert not set(selection) & set(test)
    assert testbed.prompts(kind, "test", 7) == test[:7]
    assert all(map(testbed.is_valid, selection + test))


def test_prompts_are_of_their_kind():
    for kind in ("negative", "positive", "neutral"):
        assert {testbed.sentiment(p) for p in testbed.prompts(kind, "test")} == {kind}
    assert {testbed.register(p) for p in testbed.prompts("rude", "test")} == {"rude"}
    assert {testbed.topic(p) for p in testbed.prompts("topic_free", "test")} == {None}
    off = {testbed.topic(p) for p in testbed.prompts("off_topic", "test")}
    assert off <= set(VALUES["topic"]) - {"weddings"}


def test_facts_are_one_answer_to_a_question():
    facts = testbed.facts()
    assert len({prompt for prompt, _ in facts}) == len(facts) == sum(map(len, FACTS.values()))
    assert all(parses(f"{prompt} {answer}.") for prompt, answer in facts)


def test_documents_repeat_with_their_seed():
    assert testbed.documents(20, 3) == testbed.documents(20, 3)
    assert not set(testbed.documents(20, 3)) & set(testbed.documents(20, 4))


@pytest.mark.parametrize(
    ("kind", "split", "n"),
    [("cheerful", "test", 1), ("rude", "train", 1), ("rude", "test", 0), ("rude", "test", 10**6)],
)
def test_prompts_that_are_not_there_are_refused(kind, split, n):
    with pytest.raises(ValueError, match="prompts"):
        testbed.prompts(kind, split, n)


def test_pairs_of_every_task_differ():
    assert set(testbed.pairs) == {"sentiment", "topic", "register"}
    for one, other in itertools.combinations(testbed.pairs.values(), 2):
        assert one != other
