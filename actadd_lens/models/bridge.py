"""TransformerBridge: hook points, passes, and what a hook needs to know of the pass it is in.

Three habits of TransformerBridge make this file hard:

* A hook sees a tensor and its hook point, never the attention mask or the cache of keys and values.
  Both are read where every call path meets, at the wrapped Hugging Face model (``watched``).
* A list of strings is padded on the right without any mask, as a causal model needs none. Its
  padding is recognised one level up, where the strings are still there.
* ``hook_resid_mid`` is the entry of the MLP branch, which the skip connection passes by: what is
  written there does not reach the stream (``injection_points``).
"""

import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from inspect import signature
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from actadd_lens.errors import LayerError, ModelTypeError, PositionError, VectorError, called
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
    match = re.fullmatch(r"blocks\.(\d{1,4})\.[\w.]+", name)
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
        for name, hook in hooks:
            point = point_of(model, name)
            _check_fires(model, point, name, hook)
            added.append((point, point.add_hook(hook, is_permanent=True)))
        yield
    finally:
        for point, handle in added:
            handle.hook.remove()
            point.fwd_hooks[:] = [other for other in point.fwd_hooks if other is not handle]


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


@contextmanager
def eval_mode(model: Bridge) -> Iterator[None]:
    """Without dropout, which draws from the global random state; each module's mode is restored."""
    training = [m for m in modules_of(model, model.original_model) if m.training]
    try:
        for module in training:
            module.training = False
        yield
    finally:
        for module in training:
            module.training = True


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

    def supports(self, feature: Feature) -> bool:
        """See ``base.Model``."""
        recurrent = bool(getattr(self.module, "_is_stateful", False))
        return {"share a prefill": not recurrent, "recurrent state": recurrent}.get(feature, False)

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
        streams: dict[str, Tensor] = {}

        def reader(name: str) -> Hook:
            def store(tensor: Tensor, hook: Any) -> None:  # noqa: ARG001 - passed by name
                copied = tensor.to(torch.float32, copy=True)
                streams[name] = copied if gradients else copied.detach()
                if keep is None and len(streams) == len(read):
                    raise _AllRead

            return store

        hooks = [(name, as_hook(edit)) for name, edit in (edits or {}).items()]
        hooks += [(name, reader(name)) for name in read]
        options: dict[str, Any] = {"use_cache": use_cache or cache is not None}
        if cache is not None:
            options["past_key_values"] = cache
        returned = "logits_and_cache" if options["use_cache"] else "logits"
        with ExitStack() as stack:
            stack.enter_context(torch.set_grad_enabled(gradients))
            if cache is None:  # a decode step runs where a prefill has set the mode already
                stack.enter_context(eval_mode(self.bridge))
            stack.enter_context(attached(self.bridge, hooks))
            try:
                output = self.bridge(
                    tokens,
                    attention_mask=mask,
                    return_type=None if keep is None else returned,
                    logits_to_keep=keep or 0,
                    **options,
                )
            except _AllRead:
                return Pass(None, streams)
        unread = sorted(set(read) - streams.keys())
        if unread:
            raise LayerError(f"{self.name} never reached the hook points {unread}")
        if keep is None:
            return Pass(None, streams)
        logits, cache = output if options["use_cache"] else (output, None)
        return Pass(logits, streams, cache)


@dataclass(frozen=True)
class Call:
    """What a hook needs to know of the forward pass that it is called in."""

    real: Bool[Tensor, "batch pos"] | None = None
    """True for a real token, False for padding; None when every token is real."""

    continues: bool = False
    """Whether the tokens continue a filled key-value cache, so that none is of the prompt."""


@contextmanager
def watched(model: Bridge) -> Iterator[Callable[[], Call]]:
    """Know of every forward pass inside the block what a hook cannot see.

    Yields:
        A function that tells of the pass it is called in.
    """
    watch = _watches.setdefault(model, _Watch(model))
    watch.enter()
    try:
        yield lambda: watch.call
    finally:
        watch.leave()
        if not watch.users:
            del _watches[model]


@dataclass(eq=False)
class _Watch:
    """One model's watch, shared by nested blocks so that the order they end in is free."""

    model: Bridge
    call: Call = Call()
    users: int = 0
    lengths: list[int] | None = None
    plain: Callable[..., Any] = field(init=False)
    replaced: Callable[..., Any] | None = None
    handles: list[Any] = field(default_factory=list)

    def enter(self) -> None:
        if not self.users:
            wrapped = self.model.original_model
            self.handles = [
                wrapped.register_forward_pre_hook(self._begin, with_kwargs=True, prepend=True),
                wrapped.register_forward_hook(self._end, always_call=True),
            ]
            self.plain = self.model.forward
            self.replaced = self.model.__dict__.get("forward")
            self.model.__dict__["forward"] = self._forward
        self.users += 1

    def leave(self) -> None:
        self.users -= 1
        if not self.users:
            del self.model.__dict__["forward"]
            if self.replaced is not None:
                self.model.__dict__["forward"] = self.replaced
            for handle in self.handles:
                handle.remove()

    def _forward(self, input: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: A002 - the bridge's name
        """Stands in for the bridge's ``forward``, which pads a list of strings without a mask."""
        if isinstance(input, list) and len(input) > 1:
            given = signature(self.plain).bind(input, *args, **kwargs)
            bos = given.arguments.get("prepend_bos")
            self.lengths = [self.model.to_tokens(t, prepend_bos=bos).shape[1] for t in input]
        try:
            return self.plain(input, *args, **kwargs)
        finally:
            self.lengths = None

    def _begin(
        self,
        module: Any,  # noqa: ARG002 - as torch calls it
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
    ) -> None:
        if kv_cache.is_filled(kwargs.get("past_key_values")):
            self.call = Call(continues=True)
            return
        tokens = args[0] if args else kwargs.get("input_ids")
        shape = (kwargs["inputs_embeds"] if tokens is None else tokens).shape[:2]
        self.call = Call(real=_real_tokens(kwargs.get("attention_mask"), self.lengths, shape))

    def _end(self, *_: Any) -> None:
        self.call = Call()


_watches: dict[Any, _Watch] = {}


def _real_tokens(
    mask: Any, lengths: list[int] | None, shape: torch.Size
) -> Bool[Tensor, "batch pos"] | None:
    if mask is not None:
        check_mask(mask, shape)
        real: Tensor = mask.bool()
        return real
    if lengths is not None:
        return torch.arange(shape[1]) < torch.tensor(lengths)[:, None]
    return None


def check_mask(mask: Any, shape: torch.Size) -> None:
    """Raise ``PositionError`` unless ``mask`` tells which tokens of [batch, pos] are real."""
    if isinstance(mask, Tensor) and mask.shape == shape:
        return
    described = tuple(mask.shape) if isinstance(mask, Tensor) else type(mask).__name__
    raise PositionError(
        f"attention mask {described} does not say which of {tuple(shape)} tokens are padding: "
        "pass one of zeros and ones, [batch, pos]"
    )
