"""TransformerBridge: hook points, and passes with edits.

Two habits of TransformerBridge make this file hard:

* ``hook_resid_mid`` is the entry of the MLP branch, which the skip connection passes by: what is
  written there does not reach the stream (``injection_points``).
* Hooks and training mode belong to the model, which all threads share. So a hook acts in the thread
  that attached it alone, and one pass of this package runs at a time on each model (``pass_lock``).
"""

import re
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import wraps
from pathlib import Path
from types import MappingProxyType
from typing import Any
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from actadd_lens.errors import LayerError, ModelTypeError, PromptError, VectorError, called
from actadd_lens.models import kv_cache
from actadd_lens.models.base import Bridge, Edit, Feature, Pass, Start

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


class _AllRead(Exception):
    """Every stream that is to be read was read: the rest of the pass is not needed."""


def as_hook(edit: Edit) -> Hook:
    """An edit as a callback of a hook point."""

    def hook(tensor: Tensor, hook: Any) -> Tensor:  # noqa: ARG001 - passed by name
        return edit(tensor)

    return hook


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


def agree(own: BridgeModel, found: Tensor, expected: Tensor) -> bool:
    """Whether two calculations of logits differ by rounding alone."""
    found, expected = (x.float() - x.float().mean(dim=-1, keepdim=True) for x in (found, expected))
    tolerance = 0.1 if own.dtype in (torch.float16, torch.bfloat16) else 1e-3
    return bool((found - expected).abs().max() <= tolerance * expected.abs().max())


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
