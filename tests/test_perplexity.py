"""Perplexity ratios from the token log-probs they are made of."""

import math

import pandas as pd
import pytest
import torch
from conftest import D_MODEL, N_CTX
from hypothesis import given
from hypothesis import strategies as st

import actadd_lens as al
from actadd_lens.analysis.perplexity import prompting_ratio, ratio_summary
from actadd_lens.models.tokens import as_prompts

TEXTS = ["I love you and you hate me", "The wedding was on a sunny day in May"]


def vector_of(n_rows=2, position="front", scale=3.0):
    rows = torch.randn(n_rows, D_MODEL, generator=torch.Generator().manual_seed(n_rows))
    return al.SteeringVector(scale * rows, "blocks.1.hook_resid_pre", position)


@given(position=st.sampled_from(["front", "middle", 1]), n_rows=st.integers(1, 3))
def test_only_predictions_behind_the_rows_count(neo, position, n_rows):
    vector = vector_of(n_rows, position)
    frame = al.perplexity_ratio(neo, TEXTS, vector)
    runs = {"clean": None, "steered": vector}
    logprobs = {name: al.token_logprobs(neo, TEXTS, s) for name, s in runs.items()}
    for i, ids in enumerate(as_prompts(neo, TEXTS)):
        start = {"front": 0, 1: 1, "middle": len(ids) // 2 - n_rows // 2}[position]
        # the first prediction that counts is made at the position behind the last row
        first = start + n_rows
        assert frame["n_tokens"][i] == len(ids) - 1 - first
        for name, values in logprobs.items():
            assert frame[f"logprob_{name}"][i] == pytest.approx(float(values[i][first:].mean()))
        change = frame["logprob_steered"][i] - frame["logprob_clean"][i]
        assert frame["ratio"][i] == pytest.approx(math.exp(-change))


def test_every_prediction_counts_when_asked(neo):
    frame = al.perplexity_ratio(neo, TEXTS, vector_of(), mask_injected=False)
    lengths = [len(ids) - 1 for ids in as_prompts(neo, TEXTS)]
    assert frame["n_tokens"].tolist() == lengths


def test_a_text_that_ends_before_the_rows_has_no_figure_and_is_counted(neo):
    frame = al.perplexity_ratio(neo, ["Love", *TEXTS], vector_of())
    assert frame["n_tokens"][0] == 0
    assert math.isnan(frame["ratio"][0])
    summary = ratio_summary(frame).iloc[0]
    assert (summary["n"], summary["missing"]) == (2, 1)
    assert math.isnan(ratio_summary(frame[:1])["mean"][0])


def test_labels_that_sound_like_ratios_are_not_averaged(neo):
    frame = al.perplexity_ratio(neo, TEXTS, vector_of()).assign(rationale="because", ratio_x=3.0)
    assert ratio_summary(frame)["ratio"].tolist() == ["ratio"]


def test_several_vectors_mask_up_to_the_last_row(neo):
    frame = al.perplexity_ratio(neo, TEXTS[:1], [vector_of(1), vector_of(2, position=3)])
    assert frame["n_tokens"][0] == len(as_prompts(neo, TEXTS[0])[0]) - 1 - 5


def test_a_vector_on_the_whole_prompt_masks_nothing(neo):
    frame = al.perplexity_ratio(neo, TEXTS, vector_of(1, "prompt"))
    assert frame["n_tokens"].tolist() == [len(ids) - 1 for ids in as_prompts(neo, TEXTS)]


def test_without_effect_the_ratio_is_one(neo):
    assert al.perplexity_ratio(neo, TEXTS, 0 * vector_of())["ratio"].tolist() == [1.0, 1.0]


def test_prompting_puts_the_words_before_the_text(neo):
    vector = vector_of()
    frame = prompting_ratio(neo, TEXTS, vector, "Love ", labels=["a", "b"])
    head = as_prompts(neo, "Love ")[0]
    for i, ids in enumerate(as_prompts(neo, TEXTS)):
        with torch.no_grad():
            logits = neo(torch.tensor([[*head, *ids[1:]]]))[0].log_softmax(dim=-1)
        skipped = len(vector.rows)
        read = [
            logits[len(head) - 1 + at, ids[at + 1]].item() for at in range(skipped, len(ids) - 1)
        ]
        assert frame["logprob_prompted"][i] == pytest.approx(sum(read) / len(read), abs=1e-4)
        assert frame["n_tokens"][i] == len(read)
    alone = al.perplexity_ratio(neo, TEXTS, vector)
    assert frame["ratio"].tolist() == pytest.approx(alone["ratio"].tolist())
    assert frame["label"].tolist() == ["a", "b"]


def test_the_summary_is_the_geometric_mean_by_label():
    frame = pd.DataFrame({"label": ["a", "a", "b"], "ratio": [2.0, 0.5, 3.0]})
    summary = ratio_summary(frame, by="label").set_index("label")
    assert summary.loc["a", "mean"] == pytest.approx(1.0)
    assert summary.loc["b", "mean"] == pytest.approx(3.0)
    assert summary.loc["a", "n"] == 2
    assert summary.loc["a", "low"] <= 1.0 <= summary.loc["a", "high"]
    assert ratio_summary(frame)["n"].tolist() == [3]


def test_bad_input_is_told(neo):
    with pytest.raises(al.PromptError, match=r"longest text has 2 tokens.*position 1"):
        al.perplexity_ratio(neo, ["Love"], vector_of())
    with pytest.raises(al.PositionError, match="vector has 3 rows, prompt 1 has 2 tokens"):
        al.perplexity_ratio(neo, [TEXTS[0], "Love"], vector_of(3))
    with pytest.raises(al.PromptError, match="1 labels for 2 texts"):
        al.perplexity_ratio(neo, TEXTS, vector_of(), labels=["a"])
    with pytest.raises(al.PromptError, match="no column 'topic': the frame has ratio"):
        ratio_summary(pd.DataFrame({"ratio": [1.0]}), by="topic")
    with pytest.raises(al.PromptError, match="text 0 with the prompt before it"):
        prompting_ratio(neo, TEXTS, vector_of(), "love " * (N_CTX - 4))
