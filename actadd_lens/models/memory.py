"""Which sequences are read together."""

from collections.abc import Callable, Iterator, Sequence

_NUMBERS = 2**25
"""Bound on sequences x positions x width of one batch, where the caller sets none."""


def batches(
    lengths: Sequence[int],
    width: int = 1,
    batch_size: int | None = None,
    at_once: Callable[[int], int] | None = None,
) -> Iterator[list[int]]:
    """Indices of sequences to read together: of like length, so that little is padded.

    Args:
        lengths: Tokens of each sequence.
        width: Numbers made for each token, such as logits over the vocabulary.
        batch_size: Sequences at once; by default as many as keep the numbers within bounds, and
            none a fifth longer than another.
        at_once: How many sequences of a length may be read together, in place of ``width``.

    >>> list(batches([9, 2, 3], width=50, batch_size=2))
    [[1, 2], [0]]
    """
    batch: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda index: lengths[index]):
        most = at_once(lengths[index]) if at_once else _NUMBERS // (lengths[index] * width)
        alike = at_once is not None or not batch or lengths[index] <= 1.2 * lengths[batch[0]] + 4
        fits = len(batch) < most and alike
        if batch and (len(batch) == batch_size or (batch_size is None and not fits)):
            yield batch
            batch = []
        batch.append(index)
    yield batch
