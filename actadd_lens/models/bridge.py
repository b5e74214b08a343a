"""Passes of TransformerBridge with edits, what a model supports, and its readouts."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from actadd_lens.errors import LayerError, PromptError
from actadd_lens.models import kv_cache
from actadd_lens.models.base import Bridge, Edit, Feature, Pass, Start
from actadd_lens.models.hook_points import (
    Hook,
    as_hook,
    attached,
    check_model,
    eval_mode,
    pass_lock,
    point_of,
    unhooked,
)


class _AllRead(Exception):
    """Every stream that is to be read was read: the rest of the pass is not needed."""


def direct_logits(model: Bridge, rows: Float[Tensor, "row d_model"]) -> Float[Tensor, "row vocab"]:
    """What rows of the stream add to the logits directly, up to the final norm's scale.

    Of what lies between, this is the linear part: the final norm's centring and weights and the
    unembedding, as TransformerLens folds them into one (``fold_ln``, ``center_unembed``). Its
    biases, and what some models do to the logits last, are left out.

    Returns:
        Logits relative to their mean over the vocabulary, which softmax does not see.

    Raises:
        LayerError: The bridge has no final norm or unembedding of its own.
    """
    norm, unembed = (getattr(model, name, None) for name in ("ln_final", "unembed"))
    if norm is None or unembed is None:
        raise LayerError(
            f"{model.cfg.model_name} has no ln_final and unembed in TransformerLens: "
            "its vectors cannot be read as tokens"
        )
    with torch.no_grad():
        folded = norm.weight.float() + float(norm.uses_weight_offset)
        rows = rows.to(folded.device)
        centred = rows if norm.uses_rms_norm else rows - rows.mean(dim=1, keepdim=True)
        written = unembed.W_U.float()
        read: Tensor = (centred * folded).to(written.device) @ written
        return read - read.mean(dim=1, keepdim=True)


def lens_logprobs(
    model: Bridge, stream: Float[Tensor, "pos d_model"]
) -> Float[Tensor, "pos vocab"]:
    """Log-probs of a stream by the final norm and the unembedding (the logit lens).

    Raises:
        LayerError: The model has no such unembedding, or is not a decoder.
    """
    from transformer_lens.tools.analysis import logit_readout

    try:
        read: Tensor = logit_readout(model, stream, return_type="log_probs").values
    except (ValueError, NotImplementedError) as error:
        raise LayerError(f"{model.cfg.model_name} cannot be looked into: {error}") from error
    return read.to(stream.device)


@dataclass(frozen=True)
class BridgeModel:
    """A TransformerBridge as the rest of the package sees it; implements ``base.Model``.

    Raises:
        ModelTypeError: Something else is given.
    """

    bridge: Bridge

    def __post_init__(self) -> None:
        check_model(self.bridge)

    @property
    def name(self) -> str:
        """What the model is called."""
        return str(self.bridge.cfg.model_name)

    @property
    def n_layers(self) -> int:
        """Number of transformer blocks."""
        return int(self.bridge.cfg.n_layers)

    @property
    def d_model(self) -> int:
        """Width of the residual stream."""
        return int(self.bridge.cfg.d_model)

    @property
    def d_vocab(self) -> int:
        """Number of logits."""
        return int(self.bridge.cfg.d_vocab)

    @property
    def n_ctx(self) -> int:
        """Longest sequence that the model reads, in tokens."""
        return int(self.bridge.cfg.n_ctx)

    @property
    def dtype(self) -> torch.dtype:
        """Of parameters and stream; the bridge's configuration may say otherwise."""
        floating = (p.dtype for p in self.module.parameters() if p.is_floating_point())
        dtype: torch.dtype = next(floating, self.bridge.cfg.dtype)
        return dtype

    @property
    def device(self) -> torch.device:
        """Where the model expects its tokens."""
        return torch.device(self.bridge.cfg.device or "cpu")

    def check_point(self, name: str) -> None:
        """Raise ``LayerError`` unless the model has the hook point."""
        point_of(self.bridge, name)

    @property
    def has_processed_weights(self) -> bool:
        """Whether weights were folded or centred, so that the stream differs from the raw model's.

        TransformerLens marks it on the bridge, under no public name.
        """
        return bool(getattr(self.bridge, "_weights_processed", False))

    @property
    def module(self) -> nn.Module:
        """The wrapped Hugging Face model."""
        module: nn.Module = self.bridge.original_model
        return module

    @property
    def cache_name(self) -> str | None:
        """What the model's forward pass calls its cache; None if it takes none that can be used."""
        return kv_cache.name_for(type(self.module).forward)

    @property
    def drops_tokens(self) -> bool:
        """Whether the last layers of a pass go on with the tokens alone whose logits are kept.

        So do models whose last layers share keys and values (Gemma 4 in transformers 5.23).
        """
        config: Any = self.module.config
        return getattr(config.get_text_config(), "num_kv_shared_layers", 0) > 0

    def supports(self, feature: Feature, layer: int | None = None) -> bool:  # noqa: ARG002 - plain's
        """See ``base.Model``; found out by passes over a few tokens, once for each model."""
        with pass_lock(self.bridge):
            if self.bridge not in _supported:
                with eval_mode(self.bridge), unhooked(self.bridge):
                    _supported[self.bridge] = _tried(self)
        return feature in _supported[self.bridge]

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
        """See ``base.Model``; streams are returned as float32 copies.

        Raises:
            LayerError: The model has no such hook point, or never reaches one that is read.
        """
        if start is not None:
            raise LayerError(f"a pass of TransformerBridge cannot start at layer {start.layer}")
        mask = self.usable_mask(mask, cache)
        with pass_lock(self.bridge):
            return self._pass(tokens, mask, edits or {}, read, keep, cache, use_cache, gradients)

    def usable_mask(
        self, mask: Int[Tensor, "batch total"] | None, cache: Any
    ) -> Int[Tensor, "batch total"] | None:
        """The mask that a pass may be given: None where the model would misread it.

        Padding on the right comes after all tokens, which never see it. Recurrent states alone have
        left padding out already, and transformers 5.23 applies the mask of all columns to the one
        new token of Mamba and FalconMamba.

        Raises:
            PromptError: The batch is padded on the left, and the model does not understand that.
        """
        if mask is None or (kv_cache.is_filled(cache) and kv_cache.length(cache) is None):
            return None
        if self.supports("padding"):
            return mask
        if bool((mask.diff(dim=1) > 0).any()):
            raise PromptError(
                f"{self.name} does not understand padding on the left: read prompts of equal "
                "length together"
            )
        return None

    def _pass(
        self,
        tokens: Int[Tensor, "batch pos"],
        mask: Int[Tensor, "batch total"] | None,
        edits: Mapping[str, Edit] = MappingProxyType({}),
        read: Sequence[str] = (),
        keep: int | None = 1,
        cache: Any = None,
        use_cache: bool = False,
        gradients: bool = False,
    ) -> Pass:
        streams: dict[str, Tensor] = {}

        def reader(name: str) -> Hook:
            def store(tensor: Tensor, hook: Any) -> None:  # noqa: ARG001 - passed by name
                copied = tensor.to(torch.float32, copy=True)
                streams[name] = copied if gradients else copied.detach()
                if keep is None and len(streams) == len(read):
                    raise _AllRead

            return store

        hooks = [(name, as_hook(edit)) for name, edit in edits.items()]
        hooks += [(name, reader(name)) for name in read]
        name, begins = self.cache_name, cache is None
        if use_cache and begins and name == "cache_params":
            cache = kv_cache.empty(self.module)  # the bridge returns past_key_values alone
        options: dict[str, Any] = {"use_cache": use_cache or cache is not None}
        if cache is not None:
            options[str(name)] = cache
        returned = "logits_and_cache" if options["use_cache"] else "logits"
        with ExitStack() as stack:
            stack.enter_context(torch.set_grad_enabled(gradients))
            if begins:  # a decode step runs where a prefill has set the mode already
                stack.enter_context(eval_mode(self.bridge))
            stack.enter_context(attached(self.bridge, hooks))
            try:
                output = self.bridge(
                    tokens,
                    attention_mask=mask,
                    return_type=None if keep is None else returned,
                    logits_to_keep=0 if self.drops_tokens else keep or 0,
                    **options,
                )
            except _AllRead:
                return Pass(None, streams)
        unread = sorted(set(read) - streams.keys())
        if unread:
            raise LayerError(f"{self.name} never reached the hook points {unread}")
        if keep is None:
            return Pass(None, streams)
        logits, made = output if options["use_cache"] else (output, None)
        return Pass(logits[:, -keep:], streams, cache if made is None else made)


_supported: WeakKeyDictionary[Any, frozenset[Feature]] = WeakKeyDictionary()


def trial_tokens(own: BridgeModel) -> Int[Tensor, "two pos"]:
    """Two rows of five tokens, to try out what a model does."""
    return torch.arange(10, device=own.device).reshape(2, 5) * (own.d_vocab // 11) + 1


def apart(found: Tensor, expected: Tensor) -> float:
    """The largest difference of logits, up to a constant a row, as a share of the largest."""
    found, expected = (x.float() - x.float().mean(dim=-1, keepdim=True) for x in (found, expected))
    return float((found - expected).abs().max() / expected.abs().max())


def agree(own: BridgeModel, found: Tensor, expected: Tensor) -> bool:
    """Whether two calculations of logits differ by rounding alone."""
    return apart(found, expected) <= (0.1 if own.dtype in (torch.float16, torch.bfloat16) else 1e-3)


def _tried(own: BridgeModel) -> frozenset[Feature]:
    """What a model supports, by comparison with whole passes over single rows."""
    tokens = trial_tokens(own)
    padded = torch.ones_like(tokens)
    padded[0, :2] = 0
    alone = [own._pass(row[None], None).last_logits for row in (tokens[0, 2:], *tokens)]
    found: set[Feature] = set()
    with suppress(Exception):  # foreign code: whatever it raises, the model lacks the feature
        if agree(own, own._pass(tokens, padded).last_logits, torch.cat([alone[0], alone[2]])):
            found.add("padding")
    with suppress(Exception):
        masks = [padded, None] if found else [None]
        expected = [
            torch.cat([alone[0] if mask is not None else alone[1], alone[2]]) for mask in masks
        ]
        if all(
            agree(own, _continued(own, tokens, mask), logits)
            for mask, logits in zip(masks, expected, strict=True)
        ):
            found.add("cache")
    return frozenset(found)


def _continued(own: BridgeModel, tokens: Tensor, mask: Tensor | None) -> Tensor:
    """Logits after the last token, two of them after a cache whose rows were exchanged twice."""
    swap = torch.tensor([1, 0], device=tokens.device)
    first = None if mask is None else mask[:, :3]
    cache = kv_cache.selected(own._pass(tokens[:, :3], first, use_cache=True).cache, swap)
    for n in (4, 5):
        so_far = None
        if mask is not None and kv_cache.length(cache) is not None:
            so_far = mask[swap, :n]
        run = own._pass(tokens[swap, n - 1 : n], so_far, cache=cache, use_cache=True)
        cache = run.cache
    return run.last_logits[swap]
