"""A clean twin of a bridged model, for decode steps that need no hooks.

An ActAdd vector acts on the prompt alone: once its key-value cache is filled, nothing has to be
hooked. The bridge still pays for its hook points, and for attention in its slowest form, at every
generated token. The twin is the plain Hugging Face model of the same class and configuration,
built without storage on the meta device and given the bridge's own parameters and buffers. No
weight is held twice, and what is changed in place in one is changed in both.

The bridge wraps modules rather than rewriting them. A parameter keeps its Hugging Face name but
for an inserted component, so every tensor of the twin is found by name.

Some bridged models cannot be rebuilt (quantised ones, ones spread over devices), and others
compute with split copies of fused weights, which a caller may edit. So a twin is used only after a
check that it continues a padded batch as the bridge does, and the check is repeated whenever a
tensor of the bridge was replaced, moved or written to.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, TypeAlias
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from actadd_lens.models import bridge
from actadd_lens.models.bridge import Bridge

_INSERTED = "_original_component."
"""What the bridge inserts into the name of a parameter that it has wrapped."""


StreamEdit: TypeAlias = Callable[[Tensor], Tensor]
"""Takes the stream entering a block, [batch, pos, d_model], and gives what enters instead."""


@dataclass(frozen=True)
class Twin:
    """A plain Hugging Face model that shares every tensor with a bridge."""

    module: nn.Module
    takes_positions: bool
    """Whether it wants to be told positions where the batch is padded; others derive them."""
    blocks: tuple[nn.Module, ...]
    """The transformer blocks, lowest first."""

    def decode_step(
        self,
        tokens: Int[Tensor, "batch"],
        cache: Any,
        mask: Int[Tensor, "batch total"] | None,
        edits: Mapping[int, StreamEdit] | None = None,
    ) -> tuple[Float[Tensor, "batch vocab"], Any]:
        """Continue each row of ``cache`` by one token, as ``bridge.decode_step`` does.

        Args:
            tokens: The token to append to each row.
            cache: A key-value cache; it is changed in place.
            mask: 1 for a real token; None says that no row is padded, which is quicker than one
                full of ones.
            edits: By layer, what becomes of the stream that enters the block.
        """
        options: dict[str, Any] = {}
        if mask is not None:
            options["attention_mask"] = mask
            if self.takes_positions:
                options["position_ids"] = mask.sum(dim=1, keepdim=True) - 1
        with torch.no_grad(), self.edited(edits or {}):
            output = self.module(tokens[:, None], past_key_values=cache, use_cache=True, **options)
        return output.logits[:, -1], output.past_key_values

    @contextmanager
    def edited(self, edits: Mapping[int, StreamEdit]) -> Iterator[None]:
        """Change the streams that enter blocks, by layer, in the passes inside."""

        def entering(edit: StreamEdit) -> Any:
            def enter(_: nn.Module, args: Any, kwargs: Any) -> Any:
                if args:
                    return (edit(args[0]), *args[1:]), kwargs
                return args, {**kwargs, "hidden_states": edit(kwargs["hidden_states"])}

            return enter

        handles = [
            self.blocks[layer].register_forward_pre_hook(entering(edit), with_kwargs=True)
            for layer, edit in edits.items()
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()


def clean_twin(model: Bridge) -> Twin | None:
    """The twin of ``model``; None where the bridge must decode itself.

    That is while hooks are attached to the model, and where no twin can be built that continues
    text as the bridge does. The twin is kept as long as the model lives and its tensors are the
    same. The model is expected in eval mode.
    """
    if is_hooked(model):
        return None
    known = _twins.get(model)
    if known is None or known.fingerprint != _fingerprint(model, known.copies):
        twin = _build(model)
        copies = frozenset() if twin is None else _copies(model, twin)
        known = _twins[model] = _Known(twin, copies, _fingerprint(model, copies))
    return known.twin


def is_hooked(model: Bridge) -> bool:
    """Whether a caller's forward hooks are attached to the model's hook points or modules."""
    return any(True for _ in hooked_points(model))


def hooked_points(model: Bridge) -> Iterator[str]:
    """Hook points, or classes of modules, that a caller's forward hooks are attached to."""
    for module in bridge.modules_of(model, model.original_model):
        if not all(_is_internal(hook) for hook in _forward_hooks(module)):
            yield str(getattr(module, "name", None) or type(module).__name__)


@dataclass(frozen=True)
class _Known:
    twin: Twin | None
    copies: frozenset[int]
    """Identities of tensors that may stand for the same weight; the bridge reads some of them."""
    fingerprint: tuple[Any, ...]


_twins: WeakKeyDictionary[Any, _Known] = WeakKeyDictionary()


def _forward_hooks(module: nn.Module) -> Iterator[Any]:
    """Callbacks on a module; for those on a hook point, what TransformerLens has wrapped."""
    if not (module._forward_hooks or module._forward_pre_hooks):
        return
    yield from module._forward_pre_hooks.values()
    if hasattr(module, "fwd_hooks"):
        handles: Any = module.fwd_hooks
        yield from (handle.user_hook for handle in handles)
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
    twin read the same storage; where one of them reads a copy, the values are summed as well.
    """
    tensors = {
        id(tensor): tensor
        for module in bridge.modules_of(model.original_model)
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


def _copies(model: Bridge, twin: Twin) -> frozenset[int]:
    """Tensors that the twin does not share, split copies of a fused weight, and their neighbours.

    The fused weight is a neighbour: the twin reads it, the bridge need not.
    """
    named = dict(_tensors(model.original_model))
    shared = {tensor.untyped_storage().data_ptr() for _, tensor in _tensors(twin.module)}
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


def _build(model: Bridge) -> Twin | None:
    """A twin that was seen to continue text as the bridge does, or None.

    Any failure inside foreign modelling code means the same: the bridge decodes itself.
    """
    from transformer_lens.utilities.position_ids import accepts_mask_derived_position_ids

    try:
        module = _rebuilt(model.original_model)
        takes_positions = accepts_mask_derived_position_ids(module)
        twin = Twin(module, takes_positions, _blocks(module, bridge.n_layers(model)))
        return twin if _agrees(model, twin) else None
    except Exception:
        return None


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


def _blocks(module: nn.Module, n_layers: int) -> tuple[nn.Module, ...]:
    return next(
        tuple(part)
        for part in module.modules()
        if isinstance(part, nn.ModuleList) and len(part) == n_layers
    )


def _agrees(model: Bridge, twin: Twin) -> bool:
    """Whether bridge and twin give the same logits after a cached, left-padded batch."""
    vocab, device = int(model.cfg.d_vocab), bridge.device(model)
    tokens = torch.arange(10, device=device).reshape(2, 5) * (vocab // 11) + 1
    mask = torch.ones_like(tokens)
    mask[0, :2] = 0

    def continued(step: Any) -> Tensor:
        _, cache = bridge.prefill(model, tokens[:, :4], mask[:, :4])
        logits: Tensor = step(tokens[:, 4], cache, mask)[0]
        return logits - logits.mean(dim=-1, keepdim=True)

    bridged = continued(lambda *args: bridge.decode_step(model, *args))
    plain = continued(twin.decode_step)
    tolerance = 0.1 if plain.dtype in (torch.float16, torch.bfloat16) else 1e-3
    return bool((plain - bridged).abs().max() <= tolerance * bridged.abs().max())
