"""Batches hold what they are given, and no more than fits."""

from hypothesis import given
from hypothesis import strategies as st

from actadd_lens.models import memory as batching
from actadd_lens.models.memory import batches


@given(
    lengths=st.lists(st.integers(1, 40), min_size=1, max_size=30),
    width=st.sampled_from([1, 1000, 10**6]),
    batch_size=st.none() | st.integers(1, 7),
)
def test_batches_hold_every_sequence_once_within_bounds(lengths, width, batch_size):
    made = list(batches(lengths, width, batch_size))
    assert sorted(index for batch in made for index in batch) == list(range(len(lengths)))
    for batch in made:
        if batch_size is not None:
            assert len(batch) <= batch_size
        else:
            longest = max(lengths[index] for index in batch)
            assert len(batch) == 1 or len(batch) * longest * width <= batching._NUMBERS
