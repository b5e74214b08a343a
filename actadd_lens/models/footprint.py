"""What a model needs in memory, before it is loaded.

The parts (``Footprint``) are counted from the model's shape.

Loading needs no second copy of the weights: the file is mapped. Where its precision is the one that
is asked for, the parameters are pages of the file. Where it is another, the process seems to hold
both until the file is closed, but the system can drop the file's pages at any time. Weights for a
GPU go through the CPU's memory, one parameter at a time.

How good it is: ``python -m benchmarks footprint`` sets the peak of a process that loads a random
model of 120 to 200 million parameters and generates, less what the libraries held before, over the
total. On a CPU that was 0.84 to 0.97 in float32 (GPT-2, Llama and GPT-NeoX; 16 x 64 and 4 x 200
tokens) and 0.90 to 1.11 in float16, where the code of the model, some 40 MB, is a tenth of it. No
GPU was measured. The estimate errs upwards where attention patterns are not kept (Llama and its
family), and where a prompt is short beside what is generated: activations are those of rows that
are prompt throughout. It leaves out what Python and the libraries hold, half a GiB, and reading
logits after every token, which ``sweeps`` bounds to a fifth of the free memory and 4096 tokens.
"""

from dataclasses import dataclass
from pathlib import Path

import torch

from actadd_lens.errors import ModelLoadError, PromptError
from actadd_lens.models.memory import free_memory
from actadd_lens.models.presets import PRESETS, Shape, shape_of

ROWS = 128
"""Sequences that ``generate`` decodes at once, at most."""
_GIB = 2**30
_NOTHING_FITS = "Free some memory: no preset fits either, nor does half precision"


@dataclass(frozen=True)
class Footprint:
    """Bytes that a model and a batch need."""

    rows: int
    """Sequences of the batch."""
    tokens: int
    """Of each sequence: its prompt with BOS, and what is generated."""
    weights: int
    """Every parameter once."""
    copies: int
    """What a bridge holds beside them (``Shape.copied_params``), and the model's tables."""
    cache: int
    """Keys and values of every token."""
    activations: int
    """Of one pass that reads all rows with all their tokens, in the attention of the bridge, which
    keeps the patterns of all layers on most architectures."""
    logits: int
    """After the last token of each row, with the float32 copies that the sampler makes."""
    allocator: int
    """A quarter of the last three, which freed pieces were measured to take on a CPU."""
    loading: int
    """Needed while the model is loaded: a second token embedding, which transformers makes and
    drops where it is tied."""

    @property
    def model(self) -> int:
        """The model at rest."""
        return self.weights + self.copies

    @property
    def batch(self) -> int:
        """What the rows need while they are read and completed."""
        return self.cache + self.activations + self.logits + self.allocator

    @property
    def total(self) -> int:
        """The most that is held at a time."""
        return self.model + max(self.loading, self.batch)

    def rows_that_fit(self, free: int) -> int:
        """How many rows of as many tokens fit, once the model is loaded.

        Args:
            free: Bytes that are free before the model is loaded, as ``free_memory`` gives them.

        Returns:
            0 if not even the model fits. ``generate`` takes ``ROWS`` at once at most.

        >>> needed = footprint(shape_of("gpt2-xl"), torch.float16, tokens=100)
        >>> needed.rows_that_fit(8 * 2**30), needed.rows_that_fit(2**30)
        (68, 0)
        """
        if self.model + self.loading > free:
            return 0
        return (free - self.model) // (self.batch // self.rows)

    def __str__(self) -> str:
        parts = ("weights", "copies", "cache", "activations", "logits", "allocator")
        sizes = ", ".join(f"{part} {_gib(getattr(self, part))}" for part in parts)
        return (
            f"{_gib(self.total)} GiB for {self.rows} x {self.tokens} tokens: {sizes}; "
            f"while loading {_gib(self.model + self.loading)}"
        )


def footprint(shape: Shape, dtype: torch.dtype, *, rows: int = 1, tokens: int = 128) -> Footprint:
    """What a model of a shape needs to complete a batch.

    Args:
        shape: From ``shape_of``.
        dtype: Of the parameters.
        rows: Sequences decoded at once: prompts times samples.
        tokens: Of each, generated ones included.

    Raises:
        PromptError: No rows, or no tokens.

    >>> print(footprint(shape_of("gpt2-xl"), torch.float16, rows=16, tokens=64))
    3.56 GiB for 16 x 64 tokens: weights 2.90, copies 0.00, cache 0.29, ...
    """
    if rows < 1 or tokens < 1:
        raise PromptError(f"{rows} rows of {tokens} tokens hold nothing: give 1 or more of both")
    size = dtype.itemsize
    cache = 2 * shape.n_layers * shape.n_kv_heads * shape.d_head * tokens * size
    # The widest moment of a block: the MLP with the terms of its activation function, and streams.
    wide = (6 * shape.d_model + 4 * shape.d_mlp) * tokens * size
    # Two more than are kept: scores, and their softmax.
    patterns = (shape.n_layers + 2) * shape.n_heads * tokens**2 * size
    logits = 4 * 4 * shape.d_vocab  # as ``decoding.rows_at_once`` counts them
    each = cache + wide + patterns + logits
    return Footprint(
        rows=rows,
        tokens=tokens,
        weights=shape.n_params * size,
        copies=shape.copied_params * size + shape.buffer_bytes,
        cache=rows * cache,
        activations=rows * (wide + patterns),
        logits=rows * logits,
        allocator=rows * (each // 4),
        loading=shape.d_vocab * shape.d_model * size if shape.tied else 0,
    )


def check_memory(
    name: str | Path,
    *,
    dtype: torch.dtype,
    device: str | torch.device,
    rows: int = 1,
    tokens: int = 128,
) -> Footprint:
    """Find out whether a model will fit, before ``load_model`` reads a weight.

    Args:
        name: As it will be given to ``load_model``.
        dtype: As it will be given to ``load_model``; ``Preset.dtype_on`` recommends one.
        device: As it will be given to ``load_model``.
        rows: Sequences to be decoded at once.
        tokens: Of each, generated ones included.

    Raises:
        ModelLoadError: It does not fit, with what is needed, what is free, and what would fit; or
            the shape of the model is unknown.

    >>> check_memory("facebook/opt-125m", dtype=torch.float32, device="cpu").weights
    500957184
    """
    place = torch.device(device)
    shape = shape_of(name)
    needed = footprint(shape, dtype, rows=rows, tokens=tokens)
    free = free_memory(place)
    if needed.total <= free:
        return needed
    half = PRESETS[str(name)].half if str(name) in PRESETS else torch.bfloat16
    remedies = _remedies(needed, shape, dtype, half, place)
    raise ModelLoadError(
        f"{name} in {dtype} does not fit on {place}: {_gib(needed.total)} GiB are needed for "
        f"{rows} x {tokens} tokens and {_gib(free)} GiB are free. "
        + (f"What would fit: {', or '.join(remedies)}" if remedies else _NOTHING_FITS)
    )


def _remedies(
    needed: Footprint, shape: Shape, dtype: torch.dtype, half: torch.dtype, device: torch.device
) -> list[str]:
    """What would fit."""
    free = free_memory(device)
    found = []
    if (at_once := needed.rows_that_fit(free)) > 0:
        found.append(f"{at_once} rows at once")

    def total(candidate: Shape, precision: torch.dtype) -> int:
        return footprint(candidate, precision, rows=needed.rows, tokens=needed.tokens).total

    if dtype.itemsize > half.itemsize and (halved := total(shape, half)) <= free:
        found.append(f"dtype={half} ({_gib(halved)} GiB)")
    # TransformerLens refuses to spread a model over a GPU and a CPU or disk: that is not advised.
    if device.type == "cuda":
        gpus = [torch.device("cuda", index) for index in range(torch.cuda.device_count())]
        if len(gpus) > 1 and sum(map(free_memory, gpus)) >= needed.total:
            found.append(f"n_devices={len(gpus)} in place of device, to spread it over the GPUs")
        if (elsewhere := free_memory(torch.device("cpu"))) >= needed.total:
            found.append(f"device='cpu' ({_gib(elsewhere)} GiB free)")
    sizes = {name: total(preset.shape, dtype) for name, preset in PRESETS.items()}
    smaller = [name for name in sizes if sizes[name] <= free]
    if smaller:
        largest = max(smaller, key=lambda name: sizes[name])
        found.append(f"a smaller model such as {largest} ({_gib(sizes[largest])} GiB)")
    return found


def _gib(n_bytes: int) -> str:
    return f"{n_bytes / _GIB:.2f}"
