from types import SimpleNamespace

import pytest
import torch
from conftest import N_CTX
from hypothesis import given
from hypothesis import strategies as st

import actadd_lens as al
from actadd_lens.models import tokens as prompts
from actadd_lens.vectors import pair as pairs

ROWS = st.lists(st.lists(st.integers(1, 99), min_size=1, max_size=6), min_size=1, max_size=5)


def test_the_shorter_prompt_is_padded_on_the_right(model):
    space = model.to_tokens(" ", prepend_bos=False).item()
    positive, negative = al.ContrastPair("Love", "I love you").tokens(model).tolist()
    assert positive == [*prompts.as_prompts(model, "Love")[0], space, space]
    assert negative == [*prompts.as_prompts(model, "I love you")[0]]


@pytest.mark.parametrize("pad", [0, 7])
def test_any_token_may_pad(model, pad):
    tokens = al.ContrastPair("Love", "I love you", pad=pad).tokens(model)
    assert tokens[0, -2:].tolist() == [pad, pad]


def test_an_empty_side_is_all_padding(model):
    tokens = al.ContrastPair("I love you", "", pad=3).tokens(model)
    assert tokens[1].tolist() == [model.tokenizer.bos_token_id, 3, 3, 3]


def test_two_strings_are_a_pair(model):
    assert pairs.as_pair(("Love", "Hate")) == al.ContrastPair("Love", "Hate")
    assert hash(al.ContrastPair("Love", "Hate")) == hash(al.ContrastPair("Love", "Hate"))


@given(rows=ROWS, pad=st.integers(0, 99))
def test_padding_can_be_undone(rows, pad):
    for pad_on in (prompts.pad_right, prompts.pad_left):
        tokens, mask = pad_on(rows, pad)
        assert [t[m.bool()].tolist() for t, m in zip(tokens, mask, strict=True)] == rows
        assert (tokens[mask == 0] == pad).all()
    assert mask[:, -1].all()  # on the left, the last column is real


def test_what_is_empty_is_named(model):
    with pytest.raises(al.PromptError, match="list of prompts is empty"):
        prompts.as_prompts(model, [])
    with pytest.raises(al.PromptError, match="prompt 1 is empty"):
        prompts.as_prompts(model, ["Love", ""])
    with pytest.raises(al.PromptError, match="both prompts of the contrast pair are empty"):
        al.ContrastPair("", "")


def test_beyond_the_context_is_told_with_both_lengths(model):
    long = "Love" * N_CTX
    n_tokens = model.to_tokens(long, prepend_bos=True, truncate=False).shape[1]
    with pytest.raises(al.PromptError, match=rf"prompt 1 has {n_tokens} tokens.* at most {N_CTX}"):
        prompts.as_prompts(model, ["Love", long])
    with pytest.raises(al.PromptError, match=rf"pair has {n_tokens} tokens.* at most {N_CTX}"):
        al.ContrastPair("Love", long).tokens(model)


@pytest.mark.parametrize("pad", ["two words", ""])
@pytest.mark.parametrize("positive", ["Love", "I love you"])
def test_a_pad_that_is_not_one_token_is_told_with_its_tokens(model, pad, positive):
    with pytest.raises(al.PromptError, match=r"is \d tokens \[.*\] of .*, not one"):
        al.ContrastPair(positive, "Hate", pad=pad).tokens(model)


@pytest.mark.parametrize("pad", [-1, 10**6])
def test_a_pad_outside_the_vocabulary_is_refused(model, pad):
    with pytest.raises(al.PromptError, match=f"pad token {pad} is out of range"):
        al.ContrastPair("I love you", "Hate", pad=pad).tokens(model)


def test_tokens_are_integers_of_the_contract_shape(model):
    tokens = al.ContrastPair("Love", "Hate").tokens(model)
    assert tokens.shape[0] == 2
    assert tokens.dtype == torch.long


@pytest.mark.parametrize("pair", ["ab", ("a",), ("a", "b", "c"), ("a", None), 3])
def test_what_is_no_pair_is_refused(neo, pair):
    with pytest.raises(al.PromptError, match="not a contrast pair"):
        pairs.as_pair(pair)


def test_texts_of_tokens_keep_their_leading_space(model):
    words = "I love weddings"
    ids = prompts.encode(model, words)
    assert "".join(prompts.token_texts(model, ids[1:])) == words


def test_leading_spaces_survive_a_tokenizer_that_strips_them():
    # As the tokenizers of Llama 2 and Mistral do: the space in front of a text is dropped.
    pieces = ["<s>", "a", "\u2581Love", "Love", "\u2581"]

    class Tokenizer:
        def __call__(self, text, add_special_tokens):
            assert text == "a"
            return {"input_ids": [1]}

        def decode(self, ids):
            return "".join(pieces[i] for i in ids).replace("\u2581", " ").removeprefix(" ")

    bridge = SimpleNamespace(tokenizer=Tokenizer())
    assert prompts.token_texts(bridge, [0, 2, 3, 4]) == ["<s>", " Love", "Love", " "]
