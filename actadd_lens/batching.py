"""Which sequences are read together."""

from collections.abc import Iterator, Sequence

_NUMBERS = 2**25
"""Bound on rows x positions x width of one batch, where the caller sets no batch size."""


def batches(
    lengths: Sequence[int], width: int, batch_size: int | None = None
) -> Iterator[list[int]]:
    """Indices of sequences to read together: of like length, so that little is padded.

    Args:
        lengths: Tokens of each sequence.
        width: Numbers made for each token, such as logits over the vocabulary.
        batch_size: Sequences at once; by default as many as keep the numbers within bounds.

    >>> list(batches([9, 2, 3], width=50, batch_size=2))
    [[1, 2], [0]]
    """
    batch: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda index: lengths[index]):
        fits = (len(batch) + 1) * lengths[index] * width <= _NUMBERS
        if batch and (len(batch) == batch_size or (batch_size is None and not fits)):
            yield batch
            batch = []
        batch.append(index)
    yield batch
