"""Fluency against a plain Hugging Face loop, one completion at a time."""

import math

import pytest
import torch
from completions import completions
from conftest import N_CTX

import actadd_lens as al
from actadd_lens.metrics import Fluency
from actadd_lens.models.tokens import encode

TEXTS = (" you are late", " love", " she talks about weddings constantly", " him")
PROMPT = "I hate you because"


def by_hand(model, plain, prompt, text):
    """exp of the mean negative log-prob of the tokens after those that prompt and whole share."""
    ids = encode(model, prompt + text)
    given = len(encode(model, prompt))
    assert ids[:given] == encode(model, prompt)
    with torch.no_grad():
        logprobs = plain(torch.tensor([ids])).logits[0].log_softmax(-1)
    picked = [logprobs[i - 1, ids[i]].item() for i in range(given, len(ids))]
    return math.exp(-sum(picked) / len(picked))


@pytest.mark.parametrize("architecture", ["gpt2", "gpt-neo", "llama", "bloom"])
def test_it_is_the_perplexity_given_the_prompt(bridge, plain, architecture):
    judge = bridge(architecture)
    expected = [by_hand(judge, plain(architecture), PROMPT, text) for text in TEXTS]
    assert Fluency(judge)(completions(*TEXTS, prompt=PROMPT)) == pytest.approx(expected, rel=1e-4)


def test_a_judge_that_finds_all_tokens_alike_is_perplexed_by_all_of_them(checkpoint, tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    with torch.random.fork_rng():
        indifferent = AutoModelForCausalLM.from_pretrained(checkpoint("gpt2"))
    torch.nn.init.zeros_(indifferent.get_output_embeddings().weight)
    indifferent.save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(checkpoint("gpt2")).save_pretrained(tmp_path)
    judge = al.load_model(tmp_path, device="cpu")
    found = Fluency(judge)(completions(*TEXTS))
    assert found == pytest.approx([judge.cfg.d_vocab] * len(TEXTS), rel=1e-5)


def test_only_the_completion_counts_but_the_prompt_is_read(model):
    short, long = (Fluency(model)(completions(" love", prompt=p)) for p in ("I", "She talks I"))
    assert short != pytest.approx(long)


def test_a_completion_scores_the_same_among_others(model):
    together = Fluency(model)(completions(*TEXTS))
    alone = [Fluency(model)(completions(text))[0] for text in TEXTS]
    assert together == pytest.approx(alone, rel=1e-4)


def test_a_token_across_the_border_counts(model, plain):
    prompt, text = "She talks about wedd", "ings"
    whole = encode(model, prompt + text)
    assert whole[: len(encode(model, prompt))] != encode(model, prompt)
    expected = by_hand(model, plain("gpt2"), "She talks about", " weddings")
    assert Fluency(model)(completions(text, prompt=prompt)) == pytest.approx([expected], rel=1e-4)


def test_empty_completions_and_empty_prompts(model):
    empty, full = Fluency(model)(completions("", " love"))
    assert math.isnan(empty)
    assert full >= 1
    assert Fluency(model)(completions("I love you", prompt=""))[0] >= 1
    assert math.isnan(Fluency(model)(completions("", prompt=""))[0])
    assert Fluency(model)([]) == []


def test_what_is_beyond_the_judges_context_is_refused(model):
    with pytest.raises(al.PromptError, match=rf"completion 1, with its prompt, has .* {N_CTX}"):
        Fluency(model)(completions(" love", " q" * 200))


def test_repr_and_hash_do_not_drag_the_judge_along(model):
    metric = Fluency(model)
    assert repr(metric) == f"Fluency(judge={model.cfg.model_name!r}, name='fluency')"
    assert metric == Fluency(model)
    assert hash(metric) == hash(Fluency(model))
