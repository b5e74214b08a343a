import math
from collections import Counter

import pytest
from completions import completions
from hypothesis import given
from hypothesis import strategies as st

import actadd_lens as al
from actadd_lens.metrics import DistinctN, Repetition

texts = st.lists(st.sampled_from(["love", "hate", "!", "day", "don't"]), max_size=15)
sizes = st.integers(1, 4)


@given(texts, sizes)
def test_repetition_is_the_share_of_n_grams_seen_before(units, n):
    grams = [tuple(units[i : i + n]) for i in range(len(units) - n + 1)]
    seen_before = sum(count - 1 for count in Counter(grams).values())
    [found] = Repetition(n)(completions(" ".join(units)))
    assert found == pytest.approx(seen_before / len(grams) if grams else 0)


@given(texts.filter(lambda units: len(units) >= 4), sizes)
def test_what_is_not_distinct_is_repeated(units, n):
    text = completions(" ".join(units))
    assert DistinctN(n)(text)[0] + Repetition(n)(text)[0] == pytest.approx(1)


@given(texts, sizes)
def test_saying_it_twice_repeats_more_and_case_does_not_matter(units, n):
    once, twice = " ".join(units), " ".join([*units, *units])
    [first, second, upper] = Repetition(n)(completions(once, twice, once.upper()))
    assert 0 <= first <= second < 1
    assert upper == first


def test_by_hand():
    # the cat the cat sat: 5 words, 3 distinct; bigrams the-cat cat-the the-cat cat-sat
    text = completions(" The cat, the cat sat")
    assert DistinctN(1)(completions("the cat the cat sat")) == [3 / 5]
    assert DistinctN(2)(completions("the cat the cat sat")) == [3 / 4]
    assert DistinctN(1)(text) == [4 / 6]  # the comma is one more
    assert Repetition(2)(completions("the cat the cat sat")) == [1 / 4]
    assert Repetition(n=1)(completions("!!!!")) == [3 / 4]
    assert DistinctN(1)(completions("don't don’t do n't")) == [5 / 5]  # don't don’t do n ' t


def test_an_apostrophe_inside_a_word_belongs_to_it():
    assert DistinctN(1)(completions("can't can't")) == [1 / 2]
    assert Repetition(2)(completions("can't")) == [0]


@pytest.mark.parametrize("text", ["", " \n", "one", "one two three"])
def test_a_text_too_short_repeats_nothing_and_has_no_distinctness(text):
    assert Repetition(4)(completions(text)) == [0]
    assert math.isnan(DistinctN(4)(completions(text))[0])


def test_names_and_defaults():
    assert (DistinctN(3).name, Repetition().name) == ("distinct_3", "repetition")
    assert Repetition() == Repetition(n=4) != Repetition(n=3)


@pytest.mark.parametrize("metric", [Repetition, DistinctN])
@pytest.mark.parametrize("n", [0, -1])
def test_n_below_one_is_refused(metric, n):
    with pytest.raises(al.MetricError, match=f"n={n} words: give 1 or more"):
        metric(n)
