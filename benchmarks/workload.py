"""What experiments make a model compute: counts of passes and tokens, operations, time on a GPU.

A multiplication and an addition are two operations. The parameters of the blocks are multiplied
once per token; attention adds two products with every token of the context, as implementations
compute it, those that are masked included; the unembedding is counted where logits are made. What
embeddings, norms and activation functions cost is left out.
"""

from collections.abc import Sequence
from dataclasses import astuple, dataclass, replace
from typing import Literal

from actadd_lens.models.footprint import ROWS
from actadd_lens.models.presets import Shape
from actadd_lens.reproduction.sizes import Sizes

Axis = Literal["prompts", "documents", "facts", "repeats"]


@dataclass(frozen=True)
class Counts:
    """Counts that add up."""

    passes: float = 0.0
    """Sequences read, those before generated text included."""
    read: float = 0.0
    """Tokens read in parallel, each through all blocks: half the blocks count half a token."""
    decoded: float = 0.0
    """Tokens decoded one at a time, from a cache."""
    unembedded: float = 0.0
    """Tokens whose logits were made."""

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))


@dataclass(frozen=True)
class Workload:
    """Several runs over the same sequences."""

    name: str
    """What for; a search has the same name in every experiment that needs it."""
    runs: int
    """Steered or not: how often each sequence is read."""
    sequences: int
    tokens: float
    """Of a sequence, on the mean."""
    counts: Axis
    """Which of the sizes the number of sequences follows."""
    samples: int = 0
    """Completions of each sequence in each run; 0 for reading only."""
    new_tokens: int = 0
    """Of a completion; without samples, of one that is read after its prompt."""
    layers: int = 1
    """Layers that the runs are spread over: more in a model that has more."""
    each_layer: int = 0
    """Runs that every one of them adds."""
    depth: float = 1.0
    """Share of the blocks that a run goes through, on the mean."""
    all_logits: bool = False
    """Whether logits are made after every token, not only the last."""
    judged: bool = False
    """Whether the model reads each completion once more, to judge it."""

    @property
    def total(self) -> Counts:
        """Every run is read for its divergence from the clean one.

        Where text is generated, its prompt is read again, and so is the text if the steered model
        judges it.

        >>> Workload("one", 2, 10, 8, "prompts", samples=1, new_tokens=24, depth=0.5).total
        Counts(passes=40, read=240.0, decoded=460, unembedded=500)
        """
        passes = self.runs * self.sequences
        if not self.samples:
            length = self.tokens + self.new_tokens
            read = passes * length * self.depth
            return Counts(passes, read, 0, passes * (length if self.all_logits else 1))
        read = passes * self.tokens * self.depth
        texts = passes * self.samples
        judged = texts * (self.tokens + self.new_tokens) if self.judged else 0
        return Counts(
            2 * passes + (texts if self.judged else 0),
            read + passes * self.tokens + judged,
            texts * (self.new_tokens - 1),
            passes + texts * self.new_tokens + judged,
        )

    def scaled(self, old: Sizes, new: Sizes, n_layers: int, more_layers: int) -> "Workload":
        """The same at other sizes, for a model of ``more_layers`` instead of ``n_layers``."""
        tried = min(n_layers, old.layers), min(more_layers, new.layers)
        more = tried[1] - tried[0] if self.layers > 1 else 0
        share = getattr(new, self.counts) / getattr(old, self.counts)
        return replace(
            self,
            runs=self.runs + self.each_layer * more,
            layers=self.layers + more,
            sequences=round(self.sequences * share),
            samples=new.samples if self.samples else 0,
            new_tokens=new.new_tokens if self.new_tokens else 0,
        )


@dataclass(frozen=True)
class Device:
    """An accelerator, by its data sheet, and how much of it is reached."""

    name: str
    flops: float
    """Dense, in half precision, per second."""
    bandwidth: float
    """Of its memory, bytes per second."""
    reached: float = 0.4
    """Share of both that well-filled passes reach; an assumption."""
    step_seconds: float = 4e-4
    """Overhead of a block in a decode step, whatever it computes: launching some dozen kernels from
    Python; an assumption."""


H100 = Device("H100 SXM, 80 GB", flops=989e12, bandwidth=3.35e12)


@dataclass(frozen=True)
class Cost:
    """Of one or several workloads."""

    counts: Counts
    flops: float
    seconds: float


def cost(workloads: Sequence[Workload], shape: Shape, device: Device = H100) -> Cost:
    """Counts, operations, and time on a device, with parameters of two bytes.

    Reading is bound by arithmetic. A decode step is bound by reading every parameter, by
    arithmetic, or by overhead, whichever is slowest.
    """
    total, flops, seconds = Counts(), 0.0, 0.0
    for workload in workloads:
        counts, operations = workload.total, _read_and_decoded(workload, shape)
        total, flops = total + counts, flops + sum(operations)
        read, decoded = (n / (device.flops * device.reached) for n in operations)
        steps = counts.decoded / ROWS
        traffic = steps * 2 * shape.n_params / (device.bandwidth * device.reached)
        seconds += read + max(decoded, traffic, steps * shape.n_layers * device.step_seconds)
    return Cost(total, flops, seconds)


def _read_and_decoded(workload: Workload, shape: Shape) -> tuple[float, float]:
    """Operations of what is read at once, and of what is decoded a token at a time."""
    counts, logits = workload.total, 2 * shape.d_model * shape.d_vocab
    length = workload.tokens + (0 if workload.samples else workload.new_tokens)
    read = counts.read * _token(shape, length) + (counts.unembedded - counts.decoded) * logits
    context = workload.tokens + workload.new_tokens / 2
    return read, counts.decoded * (_token(shape, context) + logits)


def _token(shape: Shape, context: float) -> float:
    """Operations of all blocks on one token after a context."""
    attention = 4 * shape.n_layers * shape.n_heads * shape.d_head * context
    return 2 * shape.block_params + attention
