"""Passes that start at a layer: what lies below an injection is computed once, not once a vector.

A vector at layer l leaves the blocks below l as they were. So of a sweep over coefficients only the
blocks from l on have to run again, on the clean stream that enters block l plus the vector.

The pass runs on the plain model (``plain``). During the pass, the blocks below layer l return their
input unchanged, and block l receives the given stream. What the model derives from tokens and mask
(positions, masks, biases of attention) it derives as ever, which makes this exact on every
architecture that has a plain model.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from actadd_lens.models.base import Edit, Feature, Pass, Start
from actadd_lens.models.bridge import hook_point
from actadd_lens.models.plain import PlainModel


@dataclass(frozen=True)
class PartialModel:
    """A plain model whose passes can also start at any layer; see ``base.Model``."""

    plain: PlainModel

    @property
    def dtype(self) -> torch.dtype:
        """Of parameters and stream."""
        return self.plain.dtype

    def supports(self, feature: Feature) -> bool:
        """See ``base.Model``."""
        return feature == "start at a layer" or self.plain.supports(feature)

    def run(
        self,
        tokens: Int[Tensor, "batch pos"],
        mask: Int[Tensor, "batch total"] | None,
        *,
        edits: Mapping[str, Edit] | None = None,
        read: Sequence[str] = (),
        keep: int | None = 0,
        start: Start | None = None,
        cache: Any = None,
        use_cache: bool = False,
        gradients: bool = False,
    ) -> Pass:
        """See ``base.Model``: a whole pass, or one that starts at a layer."""
        options: dict[str, Any] = {
            "read": read, "keep": keep, "cache": cache, "use_cache": use_cache,
            "gradients": gradients,
        }  # fmt: skip
        if start is None:
            return self.plain.run(tokens, mask, edits=edits, **options)
        name, stream = hook_point(start.layer), start.stream.to(self.dtype)
        entering = {**(edits or {}), name: lambda _: stream}
        with self._skipped(start.layer):
            return self.plain.run(tokens, mask, edits=entering, **options)

    @contextmanager
    def _skipped(self, layer: int) -> Iterator[None]:
        """The blocks below ``layer`` return their input."""
        below = self.plain.blocks[:layer]
        identity = _identity(self.plain.n_returned)
        try:
            for block in below:
                block.__dict__["forward"] = identity
            yield
        finally:
            for block in below:
                block.__dict__.pop("forward", None)


def _identity(n_returned: int | None) -> Callable[..., Any]:
    """A forward that returns its stream in the form that the model expects of a block."""
    if n_returned is None:
        return lambda hidden_states, *_, **__: hidden_states
    others = (None,) * (n_returned - 1)
    return lambda hidden_states, *_, **__: (hidden_states, *others)
