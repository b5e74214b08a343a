"""Metrics as tables, and their means with intervals."""

import math

import pytest
import torch
from conftest import D_MODEL

import actadd_lens as al
from actadd_lens import metrics
from actadd_lens.metrics.scoring import score_texts

COMPLETIONS = [
    al.Completion("p", text, (), (), prompt, sample)
    for prompt, sample, text in [
        (0, 0, "a wedding day"),
        (0, 1, "a bride and a groom"),
        (1, 0, "nothing"),
        (1, 1, ""),
    ]
]
RECORDS = [
    {"text": "I love you and you love me", "topic": "love"},
    {"text": "The wedding was on a sunny day", "topic": "weddings"},
    {"text": "She talks about weddings", "topic": "weddings"},
]


def vector():
    rows = torch.randn(2, D_MODEL, generator=torch.Generator().manual_seed(0))
    return al.SteeringVector(3 * rows, "blocks.1.hook_resid_pre")


def test_a_column_is_what_the_metric_says():
    count = metrics.WordCount(["a"])
    frame = al.score(COMPLETIONS, ["weddings", count])
    assert frame["weddings"].tolist() == [1, 1, 0, 0]
    assert frame[count.name].tolist() == [1, 2, 0, 0]
    assert frame["text"].tolist() == [c.text for c in COMPLETIONS]


def test_means_are_over_prompts_and_leave_nan_out():
    frame = al.score(COMPLETIONS, ["weddings", "distinct_1"])
    summary = al.summarize(frame, ["weddings", "distinct_1"]).set_index("metric")
    assert summary.loc["weddings", ["mean", "n", "missing"]].tolist() == [0.5, 2, 0]
    assert summary.loc["distinct_1", "missing"] == 1  # the empty completion
    assert summary.loc["distinct_1", "mean"] == pytest.approx((0.9 + 1) / 2)


def test_a_label_without_any_value_is_nan():
    frame = al.score(COMPLETIONS[3:], ["distinct_1"]).assign(kind="x")
    row = al.summarize(frame, ["distinct_1"], by="kind").iloc[0]
    assert math.isnan(row["mean"])
    assert (row["n"], row["missing"]) == (0, 1)


def test_texts_are_scored_by_metrics_and_by_steering(neo):
    frame, summary = score_texts(RECORDS, ["weddings"], by="topic", model=neo, steering=vector())
    ratios = al.perplexity_ratio(neo, [r["text"] for r in RECORDS], vector())
    assert frame["ratio"].tolist() == ratios["ratio"].tolist()
    assert frame["weddings"].tolist() == [0, 1, 1]
    assert summary.columns.tolist() == ["metric", "topic", "mean", "low", "high", "n", "missing"]
    cells = summary.set_index(["metric", "topic"])["mean"]
    assert cells["weddings", "weddings"] == 1
    both = ratios["ratio"][1] * ratios["ratio"][2]
    assert cells["perplexity_ratio", "weddings"] == pytest.approx(math.sqrt(both))


def test_a_field_named_like_a_figure_is_refused_not_overwritten():
    records = [{"text": "a wedding", "weddings": "label"}]
    with pytest.raises(al.MetricError, match=r"fields weddings.*rename"):
        score_texts(records, ["weddings"], by="weddings")


def test_one_metric_needs_no_list():
    assert al.score(COMPLETIONS, "weddings")["weddings"].tolist() == [1, 1, 0, 0]


def test_misuse_is_told():
    with pytest.raises(al.MetricError, match=r"unknown metric 'wedding'.*registered ones"):
        al.score(COMPLETIONS, ["wedding"])
    with pytest.raises(al.MetricError, match="list of metrics is empty"):
        al.score(COMPLETIONS, [])
    with pytest.raises(al.MetricError, match="kl reads log-probabilities"):
        al.score(COMPLETIONS, ["kl"])
    with pytest.raises(al.MetricError, match="2 metrics are called 'weddings'"):
        al.score(COMPLETIONS, ["weddings", "weddings"])
    with pytest.raises(al.MetricError, match="no column 'topic'"):
        al.summarize(al.score(COMPLETIONS, ["weddings"]), ["weddings"], by="topic")
    with pytest.raises(al.MetricError, match="1 of 2 texts have no 'topic'"):
        score_texts([{"text": "a", "topic": "b"}, {"text": "c"}], ["weddings"], by="topic")
    with pytest.raises(al.MetricError, match="nothing to score by"):
        score_texts([{"text": "a"}])
