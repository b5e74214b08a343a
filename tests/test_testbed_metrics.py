import math
import random

import pytest
from completions import completions
from hypothesis import given
from hypothesis import strategies as st

import actadd_lens as al
from actadd_lens import testbed
from actadd_lens.testbed.corpus import Corpus
from actadd_lens.testbed.grammar import TOPICS, VALUES

seeds = st.integers(0, 2**32)
latents = st.fixed_dictionaries({name: st.sampled_from(v) for name, v in VALUES.items()})
ALL = (
    testbed.Positive(),
    testbed.Polite(),
    testbed.OnTopic("weddings"),
    testbed.Valid(),
    testbed.FactRecall(),
)


@given(seeds, latents)
def test_readings_are_the_oracles(seed, drawn):
    text = Corpus().document(random.Random(seed), 4, drawn)
    assert testbed.Positive()(completions(text)) == [testbed.sentiment(text) == "positive"]
    assert testbed.Polite()(completions(text)) == [testbed.register(text) == "polite"]
    on = [testbed.OnTopic(topic)(completions(text))[0] for topic in TOPICS]
    assert on == [testbed.topic(text) == topic for topic in TOPICS]


@given(seeds, st.integers(2, 6), st.floats(0, 1))
def test_any_continuation_of_a_document_is_valid(seed, n, where):
    text = Corpus().document(random.Random(seed), n)
    cut = round(where * len(text))
    assert testbed.Valid()(completions(text[cut:], prompt=text[:cut])) == [1]


@pytest.mark.parametrize(
    ("prompt", "text", "valid"),
    [
        ("Anna loved", " the concert.", 1),
        ("Anna loved", " the cake.", 0),
        ("Anna loved the con", "cert. We fel", 1),
        ("Anna loved the concert.", " We xyl", 0),
        ("Anna loved the concert.", " We felt happy and proud. Anna concert.", 0),
        ("Nonsense this is.", " Anna loved the concert.", 1),
        ("Nonsense this", " Anna loved the concert.", 0),
        ("Anna loved the", "concert.", 0),
        ("Nonsense this", "", 1),
        ("Nonsense this", " \n", 1),
    ],
)
def test_sentences_that_belong_to_the_completion_are_judged(prompt, text, valid):
    assert testbed.Valid()(completions(text, prompt=prompt)) == [valid]


@pytest.mark.parametrize(("prompt", "answer"), testbed.facts()[::7])
def test_the_right_answer_is_recalled(prompt, answer):
    for asked in (prompt, f"It was a small day for Ben. {prompt}", f"{prompt} "):
        right, on, wrong, cut, late, empty = testbed.FactRecall()(
            completions(
                f" {answer}.", answer, " Xyz.", f" {answer[:-1]}", f" not {answer}", "",
                prompt=asked,
            )
        )  # fmt: skip
        assert (right, on, wrong, cut, late, empty) == (1, 1, 0, 0, 0, 0)


@pytest.mark.parametrize(
    "prompt",
    ["", "Anna", "The capital of Arvenia is Tolm. Anna", "The capital of Nowhere is",
     "XThe capital of Arvenia is"],
)  # fmt: skip
def test_a_prompt_that_asks_for_no_fact_gives_nan(prompt):
    assert math.isnan(testbed.FactRecall()(completions(" Tolm.", prompt=prompt))[0])


def test_only_the_completion_is_read():
    prompt = "Thank you, sir, Anna loved the wedding."
    for metric in (testbed.Positive(), testbed.Polite(), testbed.OnTopic("weddings")):
        assert metric(completions(" The atom was small.", "", prompt=prompt)) == [0, 0]


def test_names_are_distinct_and_metrics_pass_a_lookup():
    assert [metric.name for metric in ALL] == [
        "positive", "polite", "on_topic_weddings", "valid", "fact_recall",
    ]  # fmt: skip
    assert all(al.metrics.lookup(metric) is metric for metric in ALL)
    assert all(metric([]) == [] for metric in ALL)
    assert len({*ALL, *ALL}) == len(ALL)
    assert [repr(metric) for metric in ALL[1:3]] == ["Polite()", "OnTopic(topic='weddings')"]


def test_an_unknown_topic_is_refused_with_the_list():
    with pytest.raises(al.MetricError, match=r"no topic 'wedding': did you mean 'weddings'.*music"):
        testbed.OnTopic("wedding")


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'Negative'"):
        _ = testbed.Negative
    assert {"Positive", "OnTopic", "Polite", "Valid", "FactRecall"} <= {*dir(testbed)}
