"""The only room that knows TransformerBridge's insides.

Three of its habits make this room hard:

* A hook sees a tensor and its hook point, never the attention mask or the key-value cache. Both
  are read where every call path meets, at the wrapped Hugging Face model (``watched``).
* A list of strings is padded on the right without any mask, as a causal model needs none. Its
  padding is recognised one level up, where the strings are still there.
* ``hook_resid_mid`` is the entry of the MLP branch, which the skip connection passes by: what is
  written there does not reach the stream (``injection_points``).
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from inspect import signature
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from actadd_lens.errors import LayerError, PositionError, VectorError

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

    Bridge: TypeAlias = TransformerBridge
else:
    Bridge = Any  # transformer_lens takes seconds to import: only where a model is really loaded

Hook = Callable[..., Tensor | None]
"""A callback of a hook point: called as ``fn(tensor, hook=hook_point)``."""

SITES = ("resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out")
"""Where in a block a vector can be read: the stream before, amid and after it; what is added."""


def n_layers(model: Bridge) -> int:
    """Number of transformer blocks."""
    return int(model.cfg.n_layers)


def d_model(model: Bridge) -> int:
    """Width of the residual stream."""
    return int(model.cfg.d_model)


def n_ctx(model: Bridge) -> int:
    """Longest sequence the model reads, in tokens."""
    return int(model.cfg.n_ctx)


def has_processed_weights(model: Bridge) -> bool:
    """Whether weights were folded or centred, so that the stream is no longer the raw model's."""
    return bool(getattr(model, "_weights_processed", False))


def device(model: Bridge) -> torch.device:
    """Where the model expects its tokens."""
    return torch.device(model.cfg.device or "cpu")


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


def check_layers(model: Bridge, layers: Sequence[int]) -> None:
    """Raise ``LayerError`` unless every layer is one of the model's."""
    for layer in layers:
        if isinstance(layer, bool) or not hasattr(layer, "__index__"):
            raise LayerError(f"layer {layer!r} is no integer: give one, 0 is the first")
        if not 0 <= layer < n_layers(model):
            counted = "; negative ones do not count from the end" if layer < 0 else ""
            raise LayerError(
                f"layer {layer} is out of range: {model.cfg.model_name} has {n_layers(model)} "
                f"layers, 0 to {n_layers(model) - 1}{counted}"
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
    point = point_of(model, name)
    if name.endswith("hook_resid_mid") and str(point.name).endswith(
        (".ln2.hook_in", "mlp.hook_in")
    ):
        return name, hook_point(layer_of(name), "resid_post")
    return (name,)


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
    try:
        model.check_hooks_to_add(point, name, hook)
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


class _AllCaptured(Exception):
    """Every named point was read: the rest of the pass is not needed."""


def capture(
    model: Bridge,
    tokens: Int[Tensor, "batch pos"],
    mask: Int[Tensor, "batch pos"],
    hook_points: Sequence[str],
    hooks: Sequence[tuple[str, Hook]] = (),
) -> dict[str, Float[Tensor, "batch pos d_model"]]:
    """Read the stream at the named points in one pass that ends at the last of them.

    Args:
        model: Any TransformerBridge.
        tokens: Token ids.
        mask: 1 for a real token, 0 for padding.
        hook_points: Names, none of them twice.
        hooks: In place during the pass, and before the reading where they share a point.

    Returns:
        A float32 copy of the activation at each point.

    Raises:
        LayerError: The model has no such point, or never reaches it.
    """
    captured: dict[str, Tensor] = {}

    def keep(name: str, tensor: Tensor) -> None:
        captured[name] = tensor
        if len(captured) == len(hook_points):
            raise _AllCaptured

    readers = _readers(hook_points, keep)
    with torch.no_grad(), eval_mode(model), attached(model, [*hooks, *readers]):
        try:
            model(tokens, attention_mask=mask, return_type=None)
        except _AllCaptured:
            return captured
    unread = sorted(set(hook_points) - captured.keys())
    raise LayerError(f"{model.cfg.model_name} never reached the hook points {unread}")


def _readers(
    hook_points: Sequence[str], keep: Callable[[str, Tensor], object]
) -> list[tuple[str, Hook]]:
    """Hooks that hand a float32 copy of the activation at each point to ``keep``."""

    def reader(name: str) -> Hook:
        def read(tensor: Tensor, hook: Any) -> None:  # noqa: ARG001 - passed by name
            keep(name, tensor.detach().to(torch.float32, copy=True))

        return read

    return [(name, reader(name)) for name in hook_points]


def logits(
    model: Bridge,
    tokens: Int[Tensor, "batch pos"],
    mask: Int[Tensor, "batch pos"],
    hooks: Sequence[tuple[str, Hook]] = (),
    keep: int = 0,
) -> Float[Tensor, "batch kept vocab"]:
    """Logits after every token, or after the last ``keep`` columns, with ``hooks`` in place."""
    with torch.no_grad(), eval_mode(model), attached(model, hooks):
        read: Tensor = model(
            tokens,
            attention_mask=mask,
            return_type="logits",
            use_cache=False,
            logits_to_keep=keep,
        )
    return read


def logits_and_streams(
    model: Bridge,
    tokens: Int[Tensor, "batch pos"],
    mask: Int[Tensor, "batch pos"],
    hook_points: Sequence[str],
    keep: int = 0,
) -> tuple[Float[Tensor, "batch kept vocab"], dict[str, Float[Tensor, "batch pos d_model"]]]:
    """As ``logits``, clean, with a float32 copy of the activation at each of the points."""
    streams: dict[str, Tensor] = {}
    found = logits(model, tokens, mask, _readers(hook_points, streams.__setitem__), keep)
    return found, streams


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
        read: Tensor = (centred * folded) @ unembed.W_U.float()
        return read - read.mean(dim=1, keepdim=True)


def prefill(
    model: Bridge,
    tokens: Int[Tensor, "batch pos"],
    mask: Int[Tensor, "batch pos"],
    hooks: Sequence[tuple[str, Hook]] = (),
) -> tuple[Float[Tensor, "batch vocab"], Any]:
    """Read left-padded prompts with ``hooks`` in place.

    Returns:
        Logits after each prompt's last token, and the Hugging Face key-value cache.
    """
    with torch.no_grad(), eval_mode(model), attached(model, hooks):
        logits, cache = model(
            tokens,
            attention_mask=mask,
            return_type="logits_and_cache",
            use_cache=True,
            logits_to_keep=1,
        )
    return logits[:, -1], cache


def decode_step(
    model: Bridge,
    tokens: Int[Tensor, "batch"],
    cache: Any,
    mask: Int[Tensor, "batch total"],
    hooks: Sequence[tuple[str, Hook]] = (),
) -> tuple[Float[Tensor, "batch vocab"], Any]:
    """Continue each row of ``cache`` by one token.

    Args:
        model: Any TransformerBridge.
        tokens: The token to append to each row.
        cache: What ``prefill`` or the last step returned; it may be changed in place.
        mask: 1 for a real token, 0 for padding, over the cached tokens and the new one.
        hooks: For this step alone.

    Returns:
        Logits after the new token, and the cache to go on with.
    """
    with torch.no_grad(), attached(model, hooks):
        logits, cache = model(
            tokens[:, None],
            attention_mask=mask,
            past_key_values=cache,
            return_type="logits_and_cache",
            use_cache=True,
            logits_to_keep=1,
        )
    return logits[:, -1], cache


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
        if _is_filled(kwargs.get("past_key_values")):
            self.call = Call(continues=True)
            return
        tokens = args[0] if args else kwargs.get("input_ids")
        shape = (kwargs["inputs_embeds"] if tokens is None else tokens).shape[:2]
        self.call = Call(real=_real_tokens(kwargs.get("attention_mask"), self.lengths, shape))

    def _end(self, *_: Any) -> None:
        self.call = Call()


_watches: dict[Any, _Watch] = {}


def _is_filled(cache: Any) -> bool:
    """Whether a key-value cache already holds tokens."""
    if cache is None:
        return False
    if hasattr(cache, "get_seq_length"):
        return int(cache.get_seq_length()) > 0
    return len(cache) > 0


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
