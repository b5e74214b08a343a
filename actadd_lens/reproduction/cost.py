"""What experiments cost on a model of some shape: floating-point operations, and time on a GPU.

A multiplication and an addition are two operations. The parameters of the blocks are multiplied
once a token; attention adds two products with every token of the context, as implementations
compute it, those that are masked included; the unembedding is counted where logits are made. What
embeddings, norms and activation functions cost is left out.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from actadd_lens.reproduction.presets import Shape
from actadd_lens.reproduction.work import Ask, Work

ROWS = 128
"""Completions decoded side by side."""


@dataclass(frozen=True)
class Device:
    """An accelerator, by its data sheet, and how much of it is reached."""

    name: str
    flops: float
    """Dense, in half precision, a second."""
    bandwidth: float
    """Of its memory, bytes a second."""
    reached: float = 0.4
    """Share of both that well-filled passes reach; an assumption."""
    step_seconds: float = 4e-4
    """Overhead of a block in a decode step, whatever it computes: launching some dozen kernels from
    Python; an assumption."""


H100 = Device("H100 SXM, 80 GB", flops=989e12, bandwidth=3.35e12)


@dataclass(frozen=True)
class Cost:
    """Of an experiment, or of several."""

    work: Work
    flops: float
    seconds: float


def flops(ask: Ask, shape: Shape) -> float:
    """Operations of one ask on a model."""
    return sum(_read_and_decoded(ask, shape))


def _read_and_decoded(ask: Ask, shape: Shape) -> tuple[float, float]:
    """Operations of what is read at once, and of what is decoded a token at a time."""
    work, logits = ask.work, 2 * shape.d_model * shape.d_vocab
    length = ask.tokens + (0 if ask.samples else ask.new_tokens)
    read = work.read * _token(shape, length) + (work.unembedded - work.decoded) * logits
    decoded = work.decoded * (_token(shape, ask.tokens + ask.new_tokens / 2) + logits)
    return read, decoded


def cost(asks: Sequence[Ask], shape: Shape, device: Device = H100) -> Cost:
    """Counts, operations, and time on a device, with parameters of two bytes.

    Reading is bound by arithmetic. A decode step is bound by reading every parameter, by
    arithmetic, or by overhead, whichever is slowest.
    """
    seconds = 0.0
    for ask in asks:
        steps = ask.work.decoded / ROWS
        read, decoded = (n / (device.flops * device.reached) for n in _read_and_decoded(ask, shape))
        traffic = steps * 2 * shape.n_params / (device.bandwidth * device.reached)
        overhead = steps * shape.n_layers * device.step_seconds
        seconds += read + max(decoded, traffic, overhead)
    return Cost(
        sum((ask.work for ask in asks), Work()), sum(flops(ask, shape) for ask in asks), seconds
    )


def _token(shape: Shape, context: float) -> float:
    """Operations of all blocks on one token behind a context."""
    attention = 4 * shape.n_layers * shape.n_heads * shape.d_head * context
    return 2 * shape.block_params + attention
