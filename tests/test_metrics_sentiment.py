import math

import pytest
from completions import completions
from hypothesis import given
from hypothesis import strategies as st

import actadd_lens as al
from actadd_lens.metrics import Sentiment


@pytest.mark.parametrize(
    ("text", "compound"),
    [  # from the README of VADER
        ("VADER is smart, handsome, and funny.", 0.8316),
        ("VADER is smart, handsome, and funny!", 0.8439),
        ("VADER is very smart, handsome, and funny.", 0.8545),
        ("VADER is VERY SMART, handsome, and FUNNY.", 0.9227),
        ("VADER is not smart, handsome, nor funny.", -0.7424),
        ("The book was good.", 0.4404),
        ("The plot was good, but the characters are uncompelling and the dialog is not great.",
         -0.7042),
        ("Today SUX!", -0.5461),
    ],
)  # fmt: skip
def test_known_values_of_vader(text, compound):
    assert Sentiment()(completions(text)) == [compound]


def test_by_hand():
    # "good" has valence 1.9 in the lexicon, "not" turns it by -0.74; x / sqrt(x^2 + 15).
    for text, valence in (("good", 1.9), ("not good", -0.74 * 1.9)):
        expected = round(valence / math.sqrt(valence**2 + 15), 4)
        assert Sentiment()(completions(text)) == [expected]


@given(st.text())
def test_it_is_bounded_and_a_text_scores_the_same_among_others(text):
    [alone] = Sentiment()(completions(text))
    assert -1 <= alone <= 1
    assert Sentiment()(completions("I hate it", text))[1] == alone


def test_empty_and_unknown_words_are_neutral():
    assert Sentiment()(completions("", " \n", "qwrtz")) == [0, 0, 0]
    assert Sentiment()([]) == []


def test_the_prompt_does_not_count():
    assert Sentiment()(completions(" the atom", prompt="I love")) == [0]


def test_a_label_without_a_model_is_refused():
    with pytest.raises(al.MetricError, match="label 'joy' is given without a model"):
        Sentiment(label="joy")
