"""Batches hold what they are given, and no more than fits."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from actadd_lens.models import memory
from actadd_lens.models.memory import Budget, batches


@given(
    lengths=st.lists(st.integers(1, 40), min_size=1, max_size=30),
    each_token=st.sampled_from([1, 1000, 10**6]),
    batch_size=st.none() | st.integers(1, 7),
    similar=st.booleans(),
)
def test_batches_hold_every_sequence_once_within_bounds(lengths, each_token, batch_size, similar):
    bound = Budget(total=2**25, each_token=each_token, each_sequence=0, most_tokens=4096)
    made = list(batches(lengths, bound.sequences, batch_size, similar=similar))
    assert sorted(index for batch in made for index in batch) == list(range(len(lengths)))
    for batch in made:
        longest = max(lengths[index] for index in batch)
        if batch_size is not None:
            assert len(batch) <= batch_size
        else:
            assert len(batch) == 1 or len(batch) * longest * each_token <= 2**25
            shortest = min(lengths[index] for index in batch)
            assert not similar or longest <= 1.2 * shortest + 4


def test_one_budget_shrinks_with_the_free_memory(neo, monkeypatch):
    def sizes():
        budgets = [memory.budget(neo, logits=which).sequences(16) for which in ("last", "all")]
        return [*budgets, memory.rows_at_once(neo, 40)]

    roomy = sizes()
    monkeypatch.setattr(memory, "free_memory", lambda device: 2**21)
    assert all(small < large for small, large in zip(sizes(), roomy, strict=True))
    monkeypatch.setattr(memory, "free_memory", lambda device: 0)
    assert sizes() == [1, 1, 1]
    assert memory.free_memory(torch.device("cpu")) == 0


@given(
    lengths=st.lists(st.integers(1, 30), min_size=1, max_size=8),
    total=st.integers(1, 5000),
    each_sequence=st.integers(0, 100),
)
def test_what_is_read_in_one_pass_is_within_the_budget(lengths, total, each_sequence):
    bound = Budget(total, 3, each_sequence, most_tokens=64)
    read = list(batches(lengths, bound.sequences, similar=False))
    assert sorted(i for batch in read for i in batch) == [*range(len(lengths))]
    for batch in read:
        longest = max(lengths[i] for i in batch)
        if len(batch) > 1:
            assert len(batch) * (longest * 3 + each_sequence) <= total
            assert len(batch) * longest <= 64


def test_tokens_in_one_pass_can_be_set(neo):
    assert memory.budget(neo, logits="last", batch_tokens=40).sequences(8) == 5
