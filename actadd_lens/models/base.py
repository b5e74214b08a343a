"""What the rest of the package is written against: one call that runs a model.

A call says which tokens, what is edited where, what is to be read, which logits are needed, where
the pass starts and which cache it continues. Two implementations answer it: TransformerBridge
(``bridge``) and the plain Hugging Face model with the same weights (``plain``), whose passes can
start at a layer. They differ in speed, never in values. ``plain.fast_model`` decides which one
answers, by what the call asks for and what the model supports.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

    Bridge: TypeAlias = TransformerBridge
else:
    Bridge = Any  # transformer_lens takes seconds to import: only where a model is really loaded

Edit: TypeAlias = Callable[[Tensor], Tensor]
"""Takes the stream at a hook point, [batch, pos, d_model], and returns what replaces it."""

Feature: TypeAlias = Literal["padding", "cache", "start at a layer"]
"""What a model may support: batches padded on the left; a cache that continues a prompt as a whole
pass would and whose rows can be selected; passes that start at a layer."""


@dataclass(frozen=True)
class Start:
    """Where a partial pass begins."""

    layer: int
    """The first block that runs."""
    stream: Float[Tensor, "batch pos d_model"]
    """The stream that enters it, already edited; it is not changed in place."""


@dataclass(frozen=True)
class Pass:
    """What a pass returns."""

    logits: Float[Tensor, "batch kept vocab"] | None
    """After the last ``keep`` columns; None where none were asked for."""
    streams: Mapping[str, Float[Tensor, "batch pos d_model"]]
    """Copies of the stream by hook point, after the edits there."""
    cache: Any = None
    """The Hugging Face cache of keys and values, where one was asked for."""

    @property
    def last_logits(self) -> Float[Tensor, "batch vocab"]:
        """Logits after the last column."""
        assert self.logits is not None
        return self.logits[:, -1]


@runtime_checkable
class Model(Protocol):
    """A causal language model, whichever code runs it."""

    @property
    def dtype(self) -> torch.dtype:
        """Of parameters and stream."""

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
        """Run the model on a batch of tokens.

        Args:
            tokens: Token ids; those after the cached ones if there is a cache.
            mask: 1 for a real token, 0 for padding, over cached tokens and new ones; None where no
                token is padding. On the left only where ``supports("padding")``.
            edits: What becomes of the stream, by hook point.
            read: Hook points whose stream is returned.
            keep: How many of the last columns have logits; 0 is all of them. None makes none, and
                the pass may end at the deepest stream that is read.
            start: Where a partial pass begins; only where ``supports("start at a layer", layer)``.
            cache: The cache to continue; it may be changed in place.
            use_cache: Whether the cache is returned. Always so where one is continued.
            gradients: Whether the result carries gradients.
        """

    def supports(self, feature: Feature, layer: int | None = None) -> bool:
        """Whether the model has a feature; passes that start, at this layer."""
