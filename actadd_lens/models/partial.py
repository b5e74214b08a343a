"""Passes that begin at a layer: what lies below an injection is computed once, not once a vector.

A vector at layer l leaves the blocks below l as they were. So of a sweep over coefficients only the
blocks from l on have to run again, on the clean stream that entered block l plus the vector.

The pass runs on the clean twin (``twin``). While it runs, the blocks below hand on what they are
given, and block l is entered by the stream at hand. What the model derives from tokens and mask
(positions, masks, biases of attention) it derives as ever. That makes this exact on every
architecture that has a twin, and leaves nothing to check at load.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from actadd_lens.models.bridge import Bridge
from actadd_lens.models.plain import Twin, clean_twin


@dataclass(frozen=True)
class ResumablePass:
    """A clean twin whose passes can begin at any layer."""

    twin: Twin
    hand_on: Callable[..., Any]
    """Stands in for a block that is passed over."""

    def logits(
        self,
        layer: int,
        residual: Float[Tensor, "batch pos d_model"],
        tokens: Int[Tensor, "batch pos"],
        mask: Int[Tensor, "batch pos"],
        keep: int = 1,
    ) -> Float[Tensor, "batch kept vocab"]:
        """Logits of a pass that begins with the stream entering block ``layer``.

        Args:
            layer: First block that runs.
            residual: The stream entering it, steered if it is to be; not edited.
            tokens: The prompts.
            mask: 1 for a real token, 0 for padding.
            keep: Logits are made after so many of the last columns; 0 makes all.
        """
        with torch.no_grad(), self._entered(layer, residual.to(self.dtype)):
            return self._pass(tokens, mask, keep)

    def logits_and_streams(
        self,
        tokens: Int[Tensor, "batch pos"],
        mask: Int[Tensor, "batch pos"],
        layers: Sequence[int],
        keep: int = 1,
    ) -> tuple[Float[Tensor, "batch kept vocab"], dict[int, Float[Tensor, "batch pos d_model"]]]:
        """Logits of a whole pass, and the streams that enter blocks, for passes to begin with."""
        streams: dict[int, Tensor] = {}

        def keeper(layer: int) -> Callable[[Tensor], Tensor]:
            def read(stream: Tensor) -> Tensor:
                streams[layer] = stream.clone()
                return stream

            return read

        with torch.no_grad(), self.twin.edited({layer: keeper(layer) for layer in layers}):
            logits = self._pass(tokens, mask, keep)
        return logits, streams

    @property
    def dtype(self) -> torch.dtype:
        """Of the stream."""
        return next(self.twin.module.parameters()).dtype

    def _pass(self, tokens: Tensor, mask: Tensor, keep: int) -> Tensor:
        options: dict[str, Any] = {"attention_mask": mask, "use_cache": False}
        if self.twin.takes_positions:
            options["position_ids"] = (mask.cumsum(dim=1) - 1).clamp(min=0)
        logits: Tensor = self.twin.module(tokens, logits_to_keep=keep, **options).logits
        return logits

    @contextmanager
    def _entered(self, layer: int, residual: Tensor) -> Iterator[None]:
        below = self.twin.blocks[:layer]
        with self.twin.edited({layer: lambda _: residual}):
            try:
                for block in below:
                    block.__dict__["forward"] = self.hand_on
                yield
            finally:
                for block in below:
                    block.__dict__.pop("forward", None)


def resumable(model: Bridge) -> ResumablePass | None:
    """Passes of ``model`` that can begin at any layer; None where it has no clean twin."""
    twin = clean_twin(model)
    if twin is None:
        return None
    return ResumablePass(twin, _hands_on(twin))


def _hands_on(twin: Twin) -> Callable[..., Any]:
    """A function that returns its stream in the form that the model expects of a block."""
    seen: list[Any] = []
    handle = twin.blocks[0].register_forward_hook(lambda *call: seen.append(call[-1]))
    try:
        device = next(twin.module.parameters()).device
        with torch.no_grad():
            twin.module(torch.zeros(1, 1, dtype=torch.long, device=device), use_cache=False)
    finally:
        handle.remove()
    [output] = seen
    if not isinstance(output, tuple):
        return lambda hidden_states, *_, **__: hidden_states
    others = (None,) * (len(output) - 1)
    return lambda hidden_states, *_, **__: (hidden_states, *others)
