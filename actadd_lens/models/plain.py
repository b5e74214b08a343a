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
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Int
from torch import Tensor, nn

from actadd_lens.errors import LayerError
from actadd_lens.models import bridge as bridged
from actadd_lens.models import hook_points, kv_cache
from actadd_lens.models.base import Bridge, Edit, Feature, Model, Pass, Start
from actadd_lens.models.bridge import BridgeModel

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
    starts: dict[int, bool]
    """Whether a pass that starts at a layer gives what a whole pass gives, as far as known."""

    @property
    def dtype(self) -> torch.dtype:
        """Of parameters and stream."""
        return next(self.module.parameters()).dtype

    def supports(self, feature: Feature, layer: int | None = None) -> bool:
        """See ``base.Model``; a layer is compared with a whole pass when it is first asked for."""
        if feature != "start at a layer" or layer is None:
            return feature == "start at a layer" or BridgeModel(self.bridge).supports(feature)
        if layer not in self.starts:
            with hook_points.pass_lock(self.bridge):
                self.starts[layer] = self._reproduces(layer)
        return self.starts[layer]

    def _reproduces(self, layer: int) -> bool:
        """Whether a pass that starts at ``layer`` gives the logits of a whole one."""
        own, name = BridgeModel(self.bridge), hook_points.hook_point(layer)
        tokens = bridged.trial_tokens(own)
        whole = self.run(tokens, None, read=[name])
        try:
            part = self.run(tokens, None, start=Start(layer, whole.streams[name]))
        except Exception as error:  # foreign code: blocks that need what others leave behind
            self._log_whole(layer, f"it raises {type(error).__name__}")
            return False
        assert whole.logits is not None
        assert part.logits is not None
        if not bridged.agree(own, part.logits, whole.logits):
            self._log_whole(layer, "its logits differ")
            return False
        return True

    def _log_whole(self, layer: int, reason: str) -> None:
        name = BridgeModel(self.bridge).name
        _log.info("%s: passes from layer %d on run whole: %s", name, layer, reason)

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
            chosen[hook_points.hook_point(start.layer)] = lambda _: given
        chosen |= {name: reading(name, chosen.get(name)) for name in read}
        own = BridgeModel(self.bridge)
        options: dict[str, Any] = {"use_cache": use_cache or cache is not None}
        if cache is not None:
            options[str(own.cache_name)] = cache
        mask = own.usable_mask(mask, cache)
        if mask is not None:
            options["attention_mask"] = mask
            if self.takes_positions:
                positions = (mask.cumsum(dim=1) - 1).clamp(min=0)
                options["position_ids"] = positions[:, -tokens.shape[1] :]
        with (
            hook_points.pass_lock(self.bridge),
            torch.set_grad_enabled(gradients),
            self._skipped(0 if start is None else start.layer),
            self._edited(chosen),
        ):
            kept = 0 if own.drops_tokens else 1 if keep is None else keep
            output = self.module(tokens, logits_to_keep=kept, **options)
        logits = None if keep is None else output.logits[:, -keep:]
        return Pass(logits, streams, kv_cache.cache_in(output) if options["use_cache"] else None)

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

    def _edited(self, edits: Mapping[str, Edit]) -> AbstractContextManager[None]:
        """Change the streams that enter blocks in the passes inside."""
        chosen = []
        for name, edit in edits.items():
            layer = hook_points.entered_layer(self.bridge, name)
            if layer is None:
                raise LayerError(f"{name!r} is not the stream that enters a block")
            chosen.append((layer, edit))
        return entering(self.blocks, chosen)


def is_bare(model: Any) -> bool:
    """Whether it is a model of transformers, and no TransformerBridge."""
    ours = hasattr(model, "original_model") or hasattr(model, "hook_dict")
    return isinstance(model, nn.Module) and hasattr(model, "config") and not ours


@dataclass(frozen=True)
class BareModel:
    """A Hugging Face model of a caller that no bridge wraps, as far as steering needs it."""

    name: str
    d_model: int
    blocks: tuple[nn.Module, ...]
    """The transformer blocks, lowest first."""

    @classmethod
    def of(cls, module: Any) -> "BareModel":
        """Read a causal model's configuration; ``LayerError`` where its blocks are not found."""
        try:
            config = module.config.get_text_config()
            blocks = tuple(blocks_of(module, int(config.num_hidden_layers)))
            name = str(getattr(module.config, "_name_or_path", "") or type(module).__name__)
            return cls(name, int(config.hidden_size), blocks)
        except (AttributeError, StopIteration) as error:
            raise LayerError(
                f"no transformer blocks found in a {type(module).__name__}: load the model with "
                "load_model, and steer the bridge"
            ) from error

    @property
    def n_layers(self) -> int:
        """Number of transformer blocks."""
        return len(self.blocks)

    def check_point(self, name: str) -> None:
        """Raise ``LayerError`` unless ``entered`` knows the hook point."""
        self.entered(name)

    def entered(self, name: str) -> int:
        """Index of the block that the stream at a hook point enters; see ``entering``.

        Raises:
            LayerError: There is no such layer, or the point is not the stream between blocks.
        """
        layer, n_layers = hook_points.layer_of(name), len(self.blocks)
        after = name == hook_points.hook_point(layer, "resid_post")
        if layer >= n_layers:
            raise LayerError(
                f"layer {layer} is out of range: {self.name} has {n_layers} layers, "
                f"0 to {n_layers - 1}"
            )
        if not after and name != hook_points.hook_point(layer):
            raise LayerError(
                f"{name} is not known of a bare {self.name}: steer at hook_resid_pre or "
                "hook_resid_post, or load the model with load_model"
            )
        return layer + after


@contextmanager
def entering(blocks: Sequence[nn.Module], edits: Sequence[tuple[int, Edit]]) -> Iterator[None]:
    """Change the streams that enter blocks in the passes of this thread inside.

    Args:
        blocks: The transformer blocks, lowest first.
        edits: Index of a block, and what becomes of the stream that enters it; the number of blocks
            stands for the stream that leaves the last one. Edits of one stream act in this order.
    """
    here = threading.get_ident()

    def before(edit: Edit) -> Callable[..., Any]:
        def enter(_: nn.Module, args: Any, kwargs: Any) -> Any:
            if threading.get_ident() != here:
                return None
            if args:
                return (edit(args[0]), *args[1:]), kwargs
            return args, {**kwargs, "hidden_states": edit(kwargs["hidden_states"])}

        return enter

    def after(edit: Edit) -> Callable[..., Any]:
        def leave(_: nn.Module, __: Any, output: Any) -> Any:
            if threading.get_ident() != here:
                return None
            return (edit(output[0]), *output[1:]) if isinstance(output, tuple) else edit(output)

        return leave

    handles = []
    try:
        for layer, edit in edits:
            if layer < len(blocks):
                hook = blocks[layer].register_forward_pre_hook(before(edit), with_kwargs=True)
            else:
                hook = blocks[-1].register_forward_hook(after(edit))
            handles.append(hook)
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
    if plain is None or any(hook_points.entered_layer(model, name) is None for name in points):
        return BridgeModel(model)
    return plain


def shared_model(model: Bridge) -> PlainModel | None:
    """The plain model that shares the weights of ``model``; None where the bridge must run itself.

    That is while hooks are attached to the bridge, and where no plain model can be built that
    continues text as the bridge does; why not is logged once. It is kept as long as the bridge
    lives and its tensors are the same. The bridge is expected in eval mode.
    """
    hooked = sorted(set(hook_points.hooked_points(model)))
    if hooked:
        _log_once(model, f"hooks are attached to {', '.join(hooked)}", logging.INFO)
        return None
    with hook_points.pass_lock(model):
        known = _known.get(model)
        if known is None or known.fingerprint != _fingerprint(model, known.copies):
            built = _build(model)
            copies = frozenset() if isinstance(built, str) else _copies(model, built)
            if isinstance(built, str):
                _log_once(model, built)
            parts = {} if isinstance(built, str) else {**vars(built), "bridge": None}
            known = _known[model] = _Known(parts, copies, _fingerprint(model, copies))
    return PlainModel(**{**known.parts, "bridge": model}) if known.parts else None


def _log_once(model: Bridge, reason: str, level: int = logging.WARNING) -> None:
    said = _logged.setdefault(model, set())
    if reason not in said:
        said.add(reason)
        name = BridgeModel(model).name
        _log.log(level, "%s runs without its fast path, on the bridge alone: %s", name, reason)


@dataclass(frozen=True)
class _Known:
    parts: Mapping[str, Any]
    """Fields of the plain model, but for the bridge, which it would keep alive; empty for none."""
    copies: frozenset[int]
    """Identities of tensors that may stand for the same weight; the bridge reads some of them."""
    fingerprint: tuple[Any, ...]


_known: WeakKeyDictionary[Any, _Known] = WeakKeyDictionary()
_logged: WeakKeyDictionary[Any, set[str]] = WeakKeyDictionary()


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
        for module in hook_points.modules_of(model.original_model)
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
        blocks = tuple(blocks_of(module, BridgeModel(model).n_layers))
        returned: list[Any] = []
        handle = blocks[0].register_forward_hook(lambda *call: returned.append(call[-1]))
        positions = accepts_mask_derived_position_ids(module)
        plain = PlainModel(model, module, positions, blocks, None, {})
        both = _continued(model, plain)
        handle.remove()
    except Exception as error:
        return f"it cannot be rebuilt ({type(error).__name__}: {error})"
    if not bridged.agree(BridgeModel(model), *both):
        return f"rebuilt, its logits differ by {bridged.apart(*both):.2g} of the largest"
    n_returned = len(returned[0]) if isinstance(returned[0], (tuple, list)) else None
    return replace(plain, n_returned=n_returned)


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


def _continued(model: Bridge, plain: PlainModel) -> tuple[Tensor, Tensor]:
    """Logits of the plain model and of the bridge.

    After a cached, left-padded batch; without cache or padding where the model does not support it.
    """
    own = BridgeModel(model)
    tokens = bridged.trial_tokens(own)
    mask: Tensor | None = None
    if own.supports("padding"):
        mask = torch.ones_like(tokens)
        mask[0, :2] = 0

    def continued(runner: Model) -> Tensor:
        if own.supports("cache"):
            part = None if mask is None else mask[:, :4]
            cache = own.run(tokens[:, :4], part, keep=1, use_cache=True).cache
            return runner.run(tokens[:, 4:], mask, cache=cache, keep=1).last_logits
        return runner.run(tokens, mask, keep=1).last_logits

    return continued(plain), continued(own)
