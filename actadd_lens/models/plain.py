"""The plain Hugging Face model that shares a bridge's weights, for passes that need no hook points.

A steering vector acts on the prompt: once the cache of keys and values is filled, nothing has to be
hooked. The bridge still pays for its hook points, and for attention in its slowest form, at every
token. The plain model is of the same class and configuration, built without storage on the meta
device and given the bridge's own parameters and buffers. No weight is held twice, and what is
changed in place in one is changed in both.

The bridge wraps modules and does not rewrite them. A parameter keeps its Hugging Face name but for
an inserted component, so every tensor of the plain model is found by name.

Some bridged models cannot be rebuilt (quantised ones, ones spread over devices), and others compute
with split copies of fused weights, which a caller may edit. So the plain model is used only after a
check that it continues a padded batch as the bridge does. The check is repeated whenever a tensor
of the bridge was replaced, moved or written to.

Its passes can start at a layer. A vector at layer l leaves the blocks below l as they were, so of a
sweep over coefficients only the blocks from l on have to run again, on the clean stream that enters
block l plus the vector. In such a pass the blocks below l return their input unchanged, and block l
receives the given stream. What the model derives from tokens and mask (positions, masks, biases of
attention) it derives as ever, which makes this exact on every architecture that has a plain model.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Int
from torch import Tensor, nn

from actadd_lens.errors import LayerError
from actadd_lens.models import bridge as bridged
from actadd_lens.models.base import Bridge, Edit, Feature, Model, Pass, Start

_log = logging.getLogger("actadd_lens")

_INSERTED = "_original_component."
"""What the bridge inserts into the name of a parameter that it has wrapped."""


@dataclass(frozen=True)
class PlainModel:
    """A plain Hugging Face model that shares every tensor with a bridge; see ``base.Model``."""

    bridge: Bridge
    module: nn.Module
    takes_positions: bool
    """Whether it wants to be told positions where the batch is padded; others derive them."""
    blocks: tuple[nn.Module, ...]
    """The transformer blocks, lowest first."""
    n_returned: int | None
    """Items in the tuple that a block returns; None where it returns the stream alone."""

    @property
    def dtype(self) -> torch.dtype:
        """Of parameters and stream."""
        return next(self.module.parameters()).dtype

    def supports(self, feature: Feature) -> bool:
        """See ``base.Model``."""
        own = bridged.BridgeModel(self.bridge)
        return feature == "start at a layer" or own.supports(feature)

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
        """See ``base.Model``.

        A mask of None is quicker than one full of ones. Streams are returned in the model's dtype.

        Raises:
            LayerError: A hook point that is not the stream entering a block.
        """
        streams: dict[str, Tensor] = {}

        def reading(name: str, edit: Edit | None) -> Edit:
            def read_stream(stream: Tensor) -> Tensor:
                stream = stream if edit is None else edit(stream)
                streams[name] = stream.clone()
                return stream

            return read_stream

        chosen = dict(edits or {})
        if start is not None:
            given = start.stream.to(self.dtype)
            chosen[bridged.hook_point(start.layer)] = lambda _: given
        chosen |= {name: reading(name, chosen.get(name)) for name in read}
        options: dict[str, Any] = {"use_cache": use_cache or cache is not None}
        if cache is not None:
            options["past_key_values"] = cache
        if mask is not None:
            options["attention_mask"] = mask
            if self.takes_positions:
                positions = (mask.cumsum(dim=1) - 1).clamp(min=0)
                options["position_ids"] = positions[:, -tokens.shape[1] :]
        with (
            torch.set_grad_enabled(gradients),
            self._skipped(0 if start is None else start.layer),
            self._edited(chosen),
        ):
            output = self.module(tokens, logits_to_keep=1 if keep is None else keep, **options)
        logits = None if keep is None else output.logits
        return Pass(logits, streams, output.past_key_values if options["use_cache"] else None)

    @contextmanager
    def _skipped(self, layer: int) -> Iterator[None]:
        """The blocks below ``layer`` return their input."""
        others = (None,) * ((self.n_returned or 1) - 1)

        def identity(hidden_states: Tensor, *_: Any, **__: Any) -> Any:
            return hidden_states if self.n_returned is None else (hidden_states, *others)

        below = self.blocks[:layer]
        try:
            for block in below:
                block.__dict__["forward"] = identity
            yield
        finally:
            for block in below:
                block.__dict__.pop("forward", None)

    @contextmanager
    def _edited(self, edits: Mapping[str, Edit]) -> Iterator[None]:
        """Change the streams that enter blocks in the passes inside."""

        def entering(edit: Edit) -> Callable[..., Any]:
            def enter(_: nn.Module, args: Any, kwargs: Any) -> Any:
                if args:
                    return (edit(args[0]), *args[1:]), kwargs
                return args, {**kwargs, "hidden_states": edit(kwargs["hidden_states"])}

            return enter

        handles = []
        try:
            for name, edit in edits.items():
                layer = bridged.entered_layer(self.bridge, name)
                if layer is None:
                    raise LayerError(f"{name!r} is not the stream that enters a block")
                block = self.blocks[layer]
                hook = entering(edit)
                handles.append(block.register_forward_pre_hook(hook, with_kwargs=True))
            yield
        finally:
            for handle in handles:
                handle.remove()


def fast_model(model: Bridge, points: Iterable[str] = ()) -> Model:
    """The shared-weight plain model where it can do the work, else the bridge.

    It cannot while a caller's hooks are attached to the bridge, where an edited or read hook point
    is not the stream that enters a block, and for models that cannot be rebuilt. The reason is
    logged once for each model.

    Args:
        model: In eval mode.
        points: Hook points that are edited or read.
    """
    plain = shared_model(model)
    if plain is None or any(bridged.entered_layer(model, name) is None for name in points):
        return bridged.BridgeModel(model)
    return plain


def shared_model(model: Bridge) -> PlainModel | None:
    """The plain model that shares the weights of ``model``; None where the bridge must run itself.

    That is while hooks are attached to the bridge, and where no plain model can be built that
    continues text as the bridge does; why not is logged once. It is kept as long as the bridge
    lives and its tensors are the same. The bridge is expected in eval mode.
    """
    hooked = sorted(set(hooked_points(model)))
    if hooked:
        _log_once(model, f"hooks are attached to {', '.join(hooked)}", logging.INFO)
        return None
    known = _known.get(model)
    if known is None or known.fingerprint != _fingerprint(model, known.copies):
        built = _build(model)
        copies = frozenset() if isinstance(built, str) else _copies(model, built)
        if isinstance(built, str):
            _log_once(model, built)
        parts = None if isinstance(built, str) else tuple(vars(built).values())[1:]
        known = _known[model] = _Known(parts, copies, _fingerprint(model, copies))
    return None if known.parts is None else PlainModel(model, *known.parts)


def _log_once(model: Bridge, reason: str, level: int = logging.WARNING) -> None:
    said = _logged.setdefault(model, set())
    if reason not in said:
        said.add(reason)
        name = bridged.BridgeModel(model).name
        _log.log(level, "%s runs without its fast path, on the bridge alone: %s", name, reason)


def hooked_points(model: Bridge) -> Iterator[str]:
    """Hook points, or classes of modules, that a caller's forward hooks are attached to."""
    for module in bridged.modules_of(model, model.original_model):
        if not all(_is_internal(hook) for hook in _forward_hooks(module)):
            yield str(getattr(module, "name", None) or type(module).__name__)


@dataclass(frozen=True)
class _Known:
    parts: tuple[Any, ...] | None
    """Fields of the plain model; it would itself keep the bridge alive."""
    copies: frozenset[int]
    """Identities of tensors that may stand for the same weight; the bridge reads some of them."""
    fingerprint: tuple[Any, ...]


_known: WeakKeyDictionary[Any, _Known] = WeakKeyDictionary()
_logged: WeakKeyDictionary[Any, set[str]] = WeakKeyDictionary()


def _forward_hooks(module: nn.Module) -> Iterator[Any]:
    """Callbacks on a module; for those on a hook point, what TransformerLens has wrapped."""
    if not (module._forward_hooks or module._forward_pre_hooks):
        return
    yield from module._forward_pre_hooks.values()
    if hasattr(module, "fwd_hooks"):
        handles: Any = module.fwd_hooks
        for handle in handles:
            if not hasattr(handle, "user_hook"):
                raise LayerError(
                    f"this TransformerLens keeps no user_hook on {type(handle).__name__}: hooks of "
                    "a caller cannot be seen; install transformer-lens>=4.3,<5"
                )
            yield handle.user_hook
    else:
        yield from module._forward_hooks.values()


def _is_internal(hook: Any) -> bool:
    """Whether a hook is one of those that the libraries leave behind, and that change nothing."""
    return str(getattr(hook, "__module__", "")).startswith(("transformers.", "transformer_lens."))


def _tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from module.named_parameters(remove_duplicate=False)
    yield from module.named_buffers(remove_duplicate=False)


def _fingerprint(model: Bridge, copies: frozenset[int]) -> tuple[Any, ...]:
    """Changes when a tensor of the bridge is replaced, moved, cast or written to.

    A write through ``.data`` leaves no trace in a tensor's version. It need not where bridge and
    plain model read the same storage; where one of them reads a copy, the values are summed too.
    """
    tensors = {
        id(tensor): tensor
        for module in bridged.modules_of(model.original_model)
        for slots in (module._parameters, module._buffers)
        for tensor in slots.values()
        if tensor is not None
    }
    return tuple(
        (
            tensor.data_ptr(),
            0 if tensor.is_inference() else tensor._version,
            tensor.dtype,
            float(tensor.detach().sum(dtype=torch.float32)) if key in copies else None,
        )
        for key, tensor in tensors.items()
    )


def _copies(model: Bridge, plain: PlainModel) -> frozenset[int]:
    """Tensors that the plain model does not share, split copies of a weight, and their neighbours.

    The fused weight is a neighbour: the plain model reads it, the bridge need not.
    """
    named = dict(_tensors(model.original_model))
    shared = {tensor.untyped_storage().data_ptr() for _, tensor in _tensors(plain.module)}
    parents = {
        _parent(name)
        for name, tensor in named.items()
        if tensor.untyped_storage().data_ptr() not in shared
    }
    return frozenset(id(tensor) for name, tensor in named.items() if _parent(name) in parents)


def _parent(name: str) -> str:
    """The module around the one that a tensor belongs to; of the outermost, the tensor alone."""
    parts = name.replace(_INSERTED, "").split(".")
    return ".".join(parts[:-2] or parts)


def _build(model: Bridge) -> PlainModel | str:
    """A plain model that was seen to continue text as the bridge does, or why there is none.

    Any failure inside foreign modelling code means the same: the bridge runs itself.
    """
    from transformer_lens.utilities.position_ids import accepts_mask_derived_position_ids

    try:
        module = _rebuilt(model.original_model)
        blocks = tuple(blocks_of(module, bridged.BridgeModel(model).n_layers))
        returned: list[Any] = []
        handle = blocks[0].register_forward_hook(lambda *call: returned.append(call[-1]))
        plain = PlainModel(model, module, accepts_mask_derived_position_ids(module), blocks, None)
        difference = _difference(model, plain)
        handle.remove()
    except Exception as error:
        return f"it cannot be rebuilt ({type(error).__name__}: {error})"
    half = plain.dtype in (torch.float16, torch.bfloat16)
    tolerance = 0.1 if half else 1e-3
    if difference <= tolerance:
        n_returned = len(returned[0]) if isinstance(returned[0], tuple) else None
        return replace(plain, n_returned=n_returned)
    return f"rebuilt, its logits differ by {difference:.2g} of the largest"


def _rebuilt(original: Any) -> nn.Module:
    """The same class and configuration again, holding the tensors of ``original``."""
    from transformers.initialization import no_init_weights

    attention = "sdpa" if original._supports_sdpa else "eager"
    with torch.device("meta"), no_init_weights():
        module: nn.Module = type(original)._from_config(
            deepcopy(original.config), attn_implementation=attention
        )
    tensors = {name.replace(_INSERTED, ""): tensor for name, tensor in _tensors(original)}
    for path, part in module.named_modules():
        prefix = f"{path}." if path else ""
        for slots in (part._parameters, part._buffers):
            for name, tensor in slots.items():
                if tensor is not None:
                    slots[name] = tensors[prefix + name]
    return module.eval()


def blocks_of(module: nn.Module, n_layers: int) -> nn.ModuleList:
    """The transformer blocks of a Hugging Face model, lowest first."""
    return next(
        part
        for part in module.modules()
        if isinstance(part, nn.ModuleList) and len(part) == n_layers
    )


def _difference(model: Bridge, plain: PlainModel) -> float:
    """How far bridge and plain model are apart after a cached, left-padded batch, as a share."""
    own = bridged.BridgeModel(model)
    tokens = torch.arange(10, device=own.device).reshape(2, 5) * (own.d_vocab // 11) + 1
    mask = torch.ones_like(tokens)
    mask[0, :2] = 0

    def continued(runner: bridged.BridgeModel | PlainModel) -> Tensor:
        cache = own.run(tokens[:, :4], mask[:, :4], keep=1, use_cache=True).cache
        logits = runner.run(tokens[:, 4:], mask, cache=cache, keep=1).last_logits
        return logits - logits.mean(dim=-1, keepdim=True)

    expected = continued(own)
    return float((continued(plain) - expected).abs().max() / expected.abs().max())
