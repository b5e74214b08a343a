"""Hook points of TransformerBridge: their names, and hooks that come and go.

Two habits of TransformerBridge make this file hard:

* ``hook_resid_mid`` is the entry of the MLP branch, which the skip connection passes by: what is
  written there does not reach the stream (``injection_points``).
* Hooks and training mode belong to the model, which all threads share. So a hook acts in the thread
  that attached it alone, and one pass of this package runs at a time on each model (``pass_lock``).
"""

import re
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import wraps
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from torch import Tensor, nn

from actadd_lens.errors import LayerError, ModelTypeError, VectorError, called
from actadd_lens.models.base import Bridge, Edit

Hook = Callable[..., Tensor | None]
"""A callback of a hook point: called as ``fn(tensor, hook=hook_point)``."""


SITES = ("resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out")
"""Where in a block a vector can be read: the stream before, amid and after it; what is added."""


def hook_point(layer: int, site: str = "resid_pre") -> str:
    """Name of the hook point of ``site`` in block ``layer``.

    >>> hook_point(6)
    'blocks.6.hook_resid_pre'
    """
    if site not in SITES:
        raise LayerError(f"unknown site {site!r}: choose one of {', '.join(SITES)}")
    return f"blocks.{layer}.hook_{site}"


def layer_of(name: str) -> int:
    """Layer that a hook point belongs to.

    >>> layer_of("blocks.6.hook_resid_pre")
    6
    """
    match = re.fullmatch(r"blocks\.(\d{1,4})\.[\w.]+", str(name))
    if match is None:
        raise VectorError(
            f"hook point {name!r} names no block: write e.g. 'blocks.6.hook_resid_pre'"
        )
    return int(match.group(1))


def is_bridge(value: object) -> bool:
    """Whether a value is a TransformerBridge; there is none before TransformerLens is imported."""
    module = sys.modules.get("transformer_lens.model_bridge")
    return module is not None and isinstance(value, module.TransformerBridge)


def check_model(model: object) -> None:
    """Raise ``ModelTypeError`` unless ``model`` is a TransformerBridge.

    The message says how to make one of what was given, or how the arguments belong.
    """
    if is_bridge(model):
        return
    function, parameters, values = called()
    place = next((i for i, name in enumerate(parameters) if is_bridge(values.get(name))), None)
    if place:
        in_order = ", ".join(parameters[: place + 1])
        remedy = f"the arguments are swapped: al.{function}({in_order})"
    elif isinstance(model, (str, Path)):
        remedy = f'load it first, model = al.load_model("{model}")'
    elif hasattr(model, "hook_dict") and hasattr(model, "cfg"):
        name = getattr(model.cfg, "model_name", "gpt2")
        remedy = (
            "this package is for the TransformerBridge of TransformerLens 4: "
            f'model = al.load_model("{name}")'
        )
    elif isinstance(model, nn.Module):
        remedy = "wrap it first, model = al.load_model(model, tokenizer=tokenizer)"
    else:
        remedy = 'give what load_model returns, e.g. model = al.load_model("gpt2")'
    plain = isinstance(model, (str, Path)) or model is None
    got = repr(model) if plain else f"a value of type {type(model).__name__}"
    raise ModelTypeError(f"model is {got}, not a TransformerBridge: {remedy}")


def check_layers(model: Bridge, layers: Sequence[int]) -> None:
    """Raise ``LayerError`` unless every layer is one of the model's."""
    check_model(model)
    for layer in layers:
        if isinstance(layer, bool) or not hasattr(layer, "__index__"):
            raise LayerError(f"layer {layer!r} is no integer: give one, 0 is the first")
        n_layers = int(model.cfg.n_layers)
        if not 0 <= layer < n_layers:
            counted = "; negative ones do not count from the end" if layer < 0 else ""
            raise LayerError(
                f"layer {layer} is out of range: {model.cfg.model_name} has {n_layers} layers, "
                f"0 to {n_layers - 1}{counted}"
            )


def point_of(model: Bridge, name: str) -> Any:
    """The hook point called ``name``, aliases included; ``LayerError`` if the model has none."""
    check_layers(model, [layer_of(name)])
    point = model.get_hook_point(name)
    if point is None:
        parallel = (
            "; its attention and MLP run in parallel, so there is no stream between them"
            if name.endswith("hook_resid_mid")
            else ": see model.hook_dict for those there are"
        )
        raise LayerError(f"{model.cfg.model_name} has no hook point {name!r}{parallel}")
    return point


def injection_points(model: Bridge, name: str) -> tuple[str, ...]:
    """Hook points to write at so that a change at ``name`` changes the stream there.

    That is ``name`` itself, but for ``hook_resid_mid`` where the bridge reads it at the entry of
    the MLP branch. The skip connection has left the stream by then, so the same rows are added
    once more where the block ends and both meet.
    """
    canonical = str(point_of(model, name).name)
    if not name.endswith("hook_resid_mid") or canonical.endswith("hook_resid_mid"):
        return (name,)
    if not canonical.endswith((".ln2.hook_in", "mlp.hook_in")):
        raise LayerError(
            f"TransformerLens reads {name} at {canonical}, and it is not known whether a change "
            "there reaches the stream: steer at hook_resid_pre or hook_resid_post"
        )
    return name, hook_point(layer_of(name), "resid_post")


def entered_layer(model: Bridge, name: str) -> int | None:
    """The block that the stream at a hook point enters; None for a point elsewhere.

    ``blocks.l.hook_resid_post`` is the stream that enters block l + 1.
    """
    layer = layer_of(name)
    if name == hook_point(layer):
        return layer
    if name == hook_point(layer, "resid_post") and layer + 1 < int(model.cfg.n_layers):
        return layer + 1
    return None


@contextmanager
def attached(model: Bridge, hooks: Sequence[tuple[str, Hook]]) -> Iterator[None]:
    """Add hooks and take away exactly these, by handle, however the block is left.

    They are permanent in TransformerLens's sense: its ``reset_hooks`` leaves them alone.
    """
    added: list[tuple[Any, Any]] = []
    try:
        with pass_lock(model):
            for name, hook in hooks:
                point = point_of(model, name)
                _check_fires(model, point, name, hook)
                added.append((point, point.add_hook(_of_this_thread(hook), is_permanent=True)))
        yield
    finally:
        with pass_lock(model):
            for point, handle in added:
                handle.hook.remove()
                point.fwd_hooks[:] = [other for other in point.fwd_hooks if other is not handle]


def _of_this_thread(hook: Hook) -> Hook:
    """A hook that leaves the passes of other threads alone."""
    here, callback = threading.get_ident(), hook

    @wraps(callback)
    def own(tensor: Tensor, hook: Any) -> Tensor | None:
        return None if threading.get_ident() != here else callback(tensor, hook=hook)

    vars(own)["thread"] = here
    return own


def is_of_another_thread(hook: Any) -> bool:
    """Whether a hook was attached by this package in another thread."""
    return getattr(hook, "thread", threading.get_ident()) != threading.get_ident()


def pass_lock(model: Bridge) -> AbstractContextManager[Any]:
    """The lock of a model: held during each pass, so that threads take turns."""
    with _lock:
        found: AbstractContextManager[Any] = _locks.setdefault(model, threading.RLock())
        return found


_lock = threading.Lock()


_locks: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()


def _check_fires(model: Bridge, point: Any, name: str, hook: Hook) -> None:
    """Some points never fire until the bridge is told to compute them."""
    check = getattr(model, "check_hooks_to_add", None)
    if check is None:
        raise LayerError(
            "this TransformerLens has no check_hooks_to_add, so hooks that never fire cannot be "
            "seen: install transformer-lens>=4.3,<5"
        )
    try:
        check(point, name, hook)
    except ValueError as error:
        raise LayerError(f"{model.cfg.model_name} does not fire {name!r}: {error}") from error


def modules_of(*roots: nn.Module) -> Iterator[nn.Module]:
    """Every module once; ``nn.Module.modules`` is several times slower on deep trees."""
    seen: set[nn.Module] = set()
    stack: list[nn.Module | None] = [*roots]
    while stack:
        module = stack.pop()
        if module is not None and module not in seen:
            seen.add(module)
            stack += module._modules.values()
            yield module


def hooked_points(model: Bridge) -> list[str]:
    """Hook points, or classes of modules, that a caller's forward hooks are attached to.

    Those that this package has attached in another thread do not count: they do not act here.
    """
    with pass_lock(model):
        return [
            str(getattr(module, "name", None) or type(module).__name__)
            for module in modules_of(model, model.original_model)
            if not all(map(_is_internal, _forward_hooks(module)))
        ]


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
    """Whether a hook changes nothing here: of a library, of ``watch``, or of another thread."""
    of_libraries = ("transformers.", "transformer_lens.", "actadd_lens.models.watch")
    return is_of_another_thread(hook) or str(getattr(hook, "__module__", "")).startswith(
        of_libraries
    )


@contextmanager
def unhooked(model: Bridge) -> Iterator[None]:
    """Without the hooks of a caller, which come back afterwards."""
    names = ("_forward_hooks", "_forward_pre_hooks")
    hooked = [
        (module, {name: vars(module)[name] for name in names})
        for module in modules_of(model, model.original_model)
        if not all(map(_is_internal, _forward_hooks(module)))
    ]
    try:
        for module, hooks in hooked:
            vars(module).update({name: type(found)() for name, found in hooks.items()})
        yield
    finally:
        for module, hooks in hooked:
            vars(module).update(hooks)


@contextmanager
def eval_mode(model: Bridge) -> Iterator[None]:
    """Without dropout, which draws from the global random state; each module's mode is restored.

    Blocks may overlap, also in several threads: the mode is restored when the last one ends.
    """
    with pass_lock(model):
        mode = _modes.setdefault(model, _Mode())
        mode.users += 1
        for module in modules_of(model, model.original_model):
            if module.training:
                mode.training.append(module)
                module.training = False
    try:
        yield
    finally:
        with pass_lock(model):
            mode.users -= 1
            while mode.training and not mode.users:
                mode.training.pop().training = True


@dataclass
class _Mode:
    """Who needs a model in eval mode, and which of its modules were in training mode."""

    users: int = 0
    training: list[nn.Module] = field(default_factory=list)


_modes: WeakKeyDictionary[Any, _Mode] = WeakKeyDictionary()


def as_hook(edit: Edit) -> Hook:
    """An edit as a callback of a hook point."""

    def hook(tensor: Tensor, hook: Any) -> Tensor:  # noqa: ARG001 - passed by name
        return edit(tensor)

    return hook
