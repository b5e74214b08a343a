"""Which sequences are read together."""

from collections.abc import Iterator, Sequence

_NUMBERS = 2**25
"""Bound on sequences x positions x width of one batch, where the caller sets none."""


def batches(
    lengths: Sequence[int], width: int, batch_size: int | None = None, numbers: int = _NUMBERS
) -> Iterator[list[int]]:
    """Indices of sequences to read together: of like length, so that little is padded.

    Args:
        lengths: Tokens of each sequence.
        width: Numbers made for each token, such as logits over the vocabulary.
        batch_size: Sequences at once; by default as many as keep the numbers within bounds.
        numbers: Bound on sequences x positions x width.

    >>> list(batches([9, 2, 3], width=50, batch_size=2))
    [[1, 2], [0]]
    """
    batch: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda index: lengths[index]):
        fits = (len(batch) + 1) * lengths[index] * width <= numbers
        if batch and (len(batch) == batch_size or (batch_size is None and not fits)):
            yield batch
            batch = []
        batch.append(index)
    yield batch
