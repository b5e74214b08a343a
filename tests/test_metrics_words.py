import re

import pytest
from completions import completions
from hypothesis import given
from hypothesis import strategies as st

import actadd_lens as al
from actadd_lens.metrics import WEDDING_WORDS, ContainsAny, WordCount, weddings

words = st.lists(st.sampled_from(["love", "hate", "wed", "bride", "Day", "a"]), max_size=12)


@given(words, st.lists(st.sampled_from(["love", "wed", "Day"]), min_size=1, unique=True))
def test_it_counts_what_splitting_at_spaces_counts(text, wanted):
    by_splitting = sum(word in wanted for word in text)
    joined = completions(" ".join(text))
    assert WordCount(wanted, case=True)(joined) == [by_splitting]
    assert ContainsAny(wanted, case=True)(joined) == [by_splitting > 0]


@given(st.text(), st.text(alphabet="abcAB ", min_size=1).filter(str.strip))
def test_case_only_takes_matches_away(text, word):
    [strict], [lax] = (WordCount([word], case=case)(completions(text)) for case in (True, False))
    assert strict <= lax


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("", 0),
        (" The wedding, the Wedding and the WEDDING!", 3),
        (" weddings wed wedlock unwed", 0),
        (" wedding-day, (wedding) wedding's 'wedding'", 4),
        (" wedding_day", 0),
    ],
)
def test_whole_words_count(text, count):
    assert WordCount(["wedding"])(completions(text)) == [count]


@pytest.mark.parametrize("text", [" New York", "new  york,", "a New\nYork minute", "NEW\t \nYORK"])
def test_an_entry_of_several_words_matches_across_any_white_space(text):
    assert WordCount(["New York"])(completions(text)) == [1]
    assert WordCount([" new\n york "])(completions(text)) == [1]


def test_occurrences_do_not_overlap_and_the_longest_counts():
    assert WordCount(["york", "new york", "new"])(completions("New York, new York")) == [2]
    assert WordCount(["ha ha"])(completions("ha ha ha")) == [1]


def test_words_may_end_in_any_character():
    assert WordCount(["C++", "(sic)", "a.b"])(completions("C++ (sic) C++11 axb")) == [2]


def test_letters_of_any_script_are_letters():
    assert WordCount(["été"])(completions("Été, étés")) == [1]


@pytest.mark.parametrize("word", WEDDING_WORDS)
def test_the_papers_wedding_words(word):
    assert weddings(completions(f" my {word}.", f" my {word}x", f" {word.upper()}")) == [1, 0, 1]


def test_the_prompt_does_not_count():
    assert weddings(completions(" a day", prompt="My wedding was")) == [0]


def test_lists_are_kept_as_tuples_so_that_metrics_can_be_hashed():
    assert WordCount(["a", "b"]) == WordCount(("a", "b"))
    assert len({ContainsAny(["a"]), ContainsAny(("a",)), ContainsAny(["b"])}) == 2
    assert repr(ContainsAny(["a"])) == "ContainsAny(words=('a',), name='contains_any', case=False)"


@pytest.mark.parametrize("metric", [WordCount, ContainsAny])
@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ("love", "words is the string 'love': give a list of words, ['love']"),
        ([], "the list of words is empty"),
        (["love", " "], "word 1 is ' '"),
    ],
)
def test_lists_that_name_no_word_are_refused(metric, bad, said):
    with pytest.raises(al.MetricError, match=re.escape(said)):
        metric(bad)
