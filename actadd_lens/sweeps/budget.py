"""How much is read in one pass: what a share of the free memory holds, or so many tokens."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from actadd_lens.metrics.registry import Metric
from actadd_lens.models import bridge
from actadd_lens.models.base import Bridge

_MOST_TOKENS = 4096
"""More tokens in one pass gain nothing more."""
_SHARE = 0.2
"""Of the free memory, for one pass."""
_COPIES = 8
"""Of the logits: the model's, log-probs of both runs, and what metrics make of them."""


@dataclass(frozen=True)
class Budget:
    """Numbers that one pass may make, and how many a sequence makes."""

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


def budget(model: Bridge, metrics: Sequence[Metric], batch_tokens: int | None) -> Budget:
    """What one pass may hold: ``batch_tokens`` tokens, or what fits into the free memory."""
    if batch_tokens is not None:
        return Budget(batch_tokens, 1, 0, batch_tokens)
    cfg = model.cfg
    logits = _COPIES * cfg.d_vocab
    of_text = any(getattr(metric, "over", "last") == "text" for metric in metrics)
    width = 16 * cfg.d_model + 4 * (cfg.d_mlp or 4 * cfg.d_model) + cfg.n_layers * cfg.d_model
    return Budget(
        total=int(_SHARE * free_memory(bridge.device(model))) // 4,
        each_token=width + (logits if of_text else 0),
        each_sequence=0 if of_text else logits,
        most_tokens=_MOST_TOKENS,
    )


def free_memory(device: torch.device) -> int:
    """Bytes that can be had on a device; the machine's, where the device doesn't tell."""
    import psutil

    if device.type == "cuda":
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + cached
    return int(psutil.virtual_memory().available)
