"""How much is read or decoded at once: one budget of memory for every batch."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from actadd_lens.models.base import Bridge
from actadd_lens.models.bridge import BridgeModel

_SHARE = 0.2
"""Of the free memory, for one batch."""
_MOST_BYTES = 2**31
_MOST_TOKENS = 4096
"""More tokens in one pass gain no speed."""
_MOST_LOGITS = 2**25
"""More logits at once gain no speed, where every token has them."""
_MOST_ROWS = 128
"""More rows decoded at once gain next to no speed."""
_NUMBER = 4
"""Bytes of a float32."""


@dataclass(frozen=True)
class Budget:
    """What one pass may take, and what a sequence takes."""

    total: int
    each_token: int
    each_sequence: int
    most_tokens: int

    def sequences(self, n_tokens: int) -> int:
        """How many sequences of so many tokens one pass reads, one at least.

        >>> Budget(total=100, each_token=2, each_sequence=10, most_tokens=1000).sequences(5)
        5
        """
        by_memory = self.total // (n_tokens * self.each_token + self.each_sequence)
        return max(1, min(by_memory, self.most_tokens // n_tokens))


def budget(
    model: Bridge,
    *,
    logits: Literal["none", "last", "all"],
    copies: int = 3,
    points: int = 0,
    batch_tokens: int | None = None,
) -> Budget:
    """What one pass may hold: ``batch_tokens`` tokens, or what a share of the free memory holds.

    Args:
        model: Any TransformerBridge.
        logits: After which tokens of a sequence logits are made.
        copies: How many tensors of the size of the logits are alive at once.
        points: How many streams are kept.
        batch_tokens: Tokens in one pass, where the caller sets them.
    """
    if batch_tokens is not None:
        return Budget(batch_tokens, 1, 0, batch_tokens)
    own, cfg = BridgeModel(model), model.cfg
    of_logits = copies * own.d_vocab * _NUMBER
    width = 16 * own.d_model + 4 * (cfg.d_mlp or 4 * own.d_model) + points * own.d_model
    most = _MOST_TOKENS
    if logits == "all":
        most = max(1, min(most, _MOST_LOGITS // own.d_vocab))
    return Budget(
        total=batch_bytes(own.device),
        each_token=width * _NUMBER + (of_logits if logits == "all" else 0),
        each_sequence=of_logits if logits == "last" else 0,
        most_tokens=most,
    )


def rows_at_once(model: Bridge, n_tokens: int) -> int:
    """How many rows of ``n_tokens`` are decoded at once.

    Their keys, values, attention patterns and logits are within the budget.
    """
    own, cfg = BridgeModel(model), model.cfg
    element = torch.finfo(own.dtype).bits // 8
    kv_heads = getattr(cfg, "n_key_value_heads", None) or cfg.n_heads
    cached = 2 * own.n_layers * kv_heads * cfg.d_head * n_tokens * element
    patterns = own.n_layers * cfg.n_heads * n_tokens**2 * element
    logits = 4 * own.d_vocab * _NUMBER  # the model's, and a few float32 copies in the sampler
    return max(1, min(_MOST_ROWS, batch_bytes(own.device) // (cached + patterns + logits)))


def batch_bytes(device: torch.device) -> int:
    """Bytes that one batch may take."""
    return min(_MOST_BYTES, int(_SHARE * free_memory(device)))


def free_memory(device: torch.device) -> int:
    """Bytes that can be had on a device; the machine's, where the device does not tell."""
    import psutil

    if device.type == "cuda":
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + cached
    return int(psutil.virtual_memory().available)


def batches(
    lengths: Sequence[int],
    at_once: Callable[[int], int],
    batch_size: int | None = None,
    *,
    similar: bool = True,
    equal: bool = False,
) -> Iterator[list[int]]:
    """Indices of sequences to read together, shortest first.

    Args:
        lengths: Tokens of each sequence.
        at_once: How many sequences of a length may be read together.
        batch_size: Sequences at once, whatever their lengths, in place of ``at_once``.
        similar: Whether no sequence may be a fifth longer than another, so that little is padded.
        equal: Whether all must have the same length, for a model that does not support padding.

    >>> list(batches([9, 2, 3], lambda n_tokens: 2))
    [[1, 2], [0]]
    """
    batch: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda index: lengths[index]):
        shortest = lengths[batch[0]] if batch else lengths[index]
        alike = not similar or lengths[index] <= 1.2 * shortest + 4
        fits = len(batch) < at_once(lengths[index]) and alike
        full = len(batch) == batch_size or (batch_size is None and not fits)
        if batch and (full or (equal and lengths[index] != shortest)):
            yield batch
            batch = []
        batch.append(index)
    yield batch
