"""What a hook cannot see of the forward pass that it is called in.

A hook sees a tensor and its hook point, never the attention mask, the cache or who called. All of
it is read where every call path meets: at the forward pass of the Hugging Face model.

* A pass on a filled cache has tokens of the context before it. It is a decode step if it has one
  token, and a prompt if it has several: a chat's next turn, or a chunk of a prefill.
* Inside ``generate`` it is known how long the prompt is. So a prefill in chunks, a pass that reads
  prompt and generated tokens again, and candidates of assisted decoding are all distinguished.
* A list of strings is padded on the right without any mask, as a causal model needs none. Its
  padding is recognised at the bridge, where the strings are still there.
* Threads share the model and its hooks. What is noted of a pass belongs to the thread that runs it.
"""

import threading
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache, partial
from inspect import signature
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn

from actadd_lens.errors import PositionError
from actadd_lens.models import kv_cache
from actadd_lens.models.hook_points import pass_lock


@dataclass(frozen=True)
class Turn:
    """Where the tokens of a pass are in the whole context, in real tokens, for each row."""

    before: Int[Tensor, "batch"]
    """Tokens of the context before this pass."""
    start: Int[Tensor, "batch"]
    """Position of the prompt's first token: 0, or what a cache held before this turn."""
    end: Int[Tensor, "batch"]
    """Position after the prompt's last token."""
    known: bool = True
    """Whether the length of the context before this turn is known. If not, ``start`` is 0."""


@dataclass(frozen=True)
class Call:
    """What a hook needs to know of the forward pass that it is called in."""

    n_tokens: int | None = None
    """Columns of the pass; None if it is not watched."""
    tokens: Int[Tensor, "batch pos"] | None = None
    """The token ids; None where the pass was given something else."""
    contents: Sequence[Any] | None = None
    """The prompts themselves, where they are known."""
    real: Bool[Tensor, "batch pos"] | None = None
    """True for a real token of the prompt, False for padding; None when every token is one."""
    generated: Bool[Tensor, "batch pos"] | bool = False
    """Which tokens are generated ones; True for all, as in a decode step."""
    turn: Turn | None = None
    """None where the pass begins the context and reads the whole prompt."""

    def of_last(self, n_tokens: int, shape: Sequence[int]) -> "Call":
        """What is known of the last tokens of the pass, where ``shape`` is of those that go on.

        Models whose last layers share the keys and values of earlier ones (Gemma 4) go on with the
        tokens alone whose logits are needed.
        """
        real = torch.ones(shape[0], n_tokens, dtype=torch.bool) if self.real is None else self.real
        turn, left = self.turn, n_tokens - shape[1]
        if turn is None:
            start = real.new_zeros(len(real), dtype=torch.long)
            turn = Turn(start, start, real.sum(dim=1))
        generated = self.generated
        if isinstance(generated, Tensor):
            generated = generated[:, left:]
        moved = replace(turn, before=turn.before + real[:, :left].sum(dim=1))
        return replace(self, real=real[:, left:], generated=generated, turn=moved)


@contextmanager
def watched(model: Any) -> Iterator[Callable[[], Call]]:
    """Know of every forward pass inside the block what a hook cannot see.

    Args:
        model: A TransformerBridge, or a Hugging Face model.

    Yields:
        A function that describes the pass it is called in.
    """
    wrapped: nn.Module = getattr(model, "original_model", model)
    with pass_lock(model), _lock:
        watch = _watches.setdefault(wrapped, _Watch(wrapped))
        watch.enter(model)
    try:
        yield lambda: watch.local.call
    finally:
        with pass_lock(model), _lock:
            watch.leave()
            if not watch.users:
                del _watches[wrapped]


@dataclass
class _Generation:
    """A call of ``generate``."""

    columns: int | None
    """Of its prompt; None until its first pass."""
    mask: Tensor | None
    """Of its prompt, where it is given."""
    start: Tensor | None = None
    """Real tokens before the prompt, for each row; None until its first pass."""

    def mask_upto(self, n_columns: int, n_rows: int, given: Any) -> Any:
        """The mask of the first columns, in place of what static caches are given."""
        if self.mask is None or self.mask.ndim != 2:
            return given
        later = self.mask.new_ones(len(self.mask), max(0, n_columns - self.mask.shape[1]))
        whole = torch.cat([self.mask, later], dim=1)[:, :n_columns]
        return whole.repeat_interleave(n_rows // len(whole), dim=0)


class _Local(threading.local):
    """What is noted of the passes of one thread."""

    def __init__(self) -> None:
        self.call = Call()
        self.lengths: list[int] | None = None
        self.generations: list[_Generation] = []


@dataclass(eq=False)
class _Watch:
    """The watch of a Hugging Face model, shared by all blocks, whatever order they end in."""

    wrapped: nn.Module
    users: int = 0
    local: _Local = field(default_factory=_Local)
    undo: list[Callable[[], None]] = field(default_factory=list)
    replaced: dict[tuple[int, str], Any] = field(default_factory=dict)
    """What stands in a method's place, by owner and name."""
    held: dict[int, int] = field(default_factory=dict)
    """Columns in caches that do not know it themselves, by identity."""

    def enter(self, model: Any) -> None:
        """Begin a block around a model, which is a bridge or the Hugging Face model itself."""
        if not self.users:
            begin = self.wrapped.register_forward_pre_hook(
                self._begin, with_kwargs=True, prepend=True
            )
            end = self.wrapped.register_forward_hook(self._end, always_call=True)
            self.undo = [begin.remove, end.remove]
        for owner in (self.wrapped, model):
            self._replace(owner, "generate", partial(self._generate, model))
        if model is not self.wrapped:
            self._replace(model, "forward", partial(self._forward, model))
        self.users += 1

    def leave(self) -> None:
        """End a block; the last one leaves the model as it was."""
        self.users -= 1
        if not self.users:
            for undo in self.undo:
                undo()
            self.replaced.clear()

    def _replace(self, owner: Any, name: str, function: Callable[..., Any]) -> None:
        """Put ``function(method, ...)`` in a method's place, once; a caller's own stays."""
        if (id(owner), name) in self.replaced or not hasattr(owner, name):
            return
        before, own = owner.__dict__.get(name), partial(function, getattr(owner, name))
        self.replaced[id(owner), name] = owner.__dict__[name] = own

        def undo() -> None:
            if owner.__dict__.get(name) is own:
                del owner.__dict__[name]
                if before is not None:
                    owner.__dict__[name] = before

        self.undo.append(undo)

    def _forward(
        self,
        model: Any,
        plain: Callable[..., Any],
        input: Any,  # noqa: A002 - the bridge's name
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        """Stands in for the bridge's ``forward``, which pads a list of strings without a mask."""
        if isinstance(input, list) and len(input) > 1:
            given = signature(plain).bind(input, *args, **kwargs)
            bos = given.arguments.get("prepend_bos")
            self.local.lengths = [model.to_tokens(t, prepend_bos=bos).shape[1] for t in input]
        try:
            with pass_lock(model):
                return plain(input, *args, **kwargs)
        finally:
            self.local.lengths = None

    def _generate(self, model: Any, plain: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Stands in for ``generate``: the passes inside know how long its prompt is.

        A call inside another one, as drafts of assisted decoding make it, has the outer prompt.
        """
        names = ("input", "inputs", "input_ids")  # TransformerBridge's, transformers'
        given: Any = args[0] if args else next((kwargs[n] for n in names if n in kwargs), None)
        inside = self.local.generations[0] if self.local.generations else _Generation(None, None)
        known = isinstance(given, Tensor) and given.ndim == 2 and not given.is_floating_point()
        if known and inside.columns is None:
            inside.columns, inside.mask = given.shape[1], kwargs.get("attention_mask")
        self.local.generations.append(inside)
        try:
            # The bridge keeps the cache of its generation on itself.
            with pass_lock(model):
                return plain(*args, **kwargs)
        finally:
            self.local.generations.pop()

    def _begin(
        self,
        module: Any,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
    ) -> None:
        # A model of transformers may be called with the mask or the cache by position.
        given = {**dict(zip(_parameters(type(module).forward), args, strict=False)), **kwargs}
        read: Any = [given[k] for k in ("input_ids", "inputs_embeds") if given.get(k) is not None]
        shape = read[0].shape[:2]
        cache, mask = kv_cache.cache_in(given), given.get("attention_mask")
        inside = self.local.generations[-1] if self.local.generations else None
        held: int | None = 0
        if kv_cache.is_filled(cache):
            held = kv_cache.length(cache)
            held = self.held.get(id(cache)) if held is None else held
        odd = mask is not None and getattr(mask, "ndim", None) != 2
        if odd and inside is not None and held is not None:
            mask = inside.mask_upto(held + shape[1], shape[0], mask)
        call = self._described(mask, shape, held, inside)
        self.local.call = replace(call, n_tokens=shape[1], tokens=given.get("input_ids"))
        if hasattr(cache, "layers") and kv_cache.length(cache) is None:
            if id(cache) not in self.held:
                weakref.finalize(cache, self.held.pop, id(cache), None)
            self.held[id(cache)] = (held or 0) + shape[1]

    def _described(
        self, mask: Any, shape: Sequence[int], held: int | None, inside: _Generation | None
    ) -> Call:
        """The pass of ``shape`` tokens after ``held`` cached ones; None if it is not known."""
        n_rows, n_new = shape
        of_prompt = inside is not None and held is not None and held < (inside.columns or held + 1)
        if held != 0 and n_new == 1 and not of_prompt:
            return Call(generated=True)
        if held == 0 and (inside is None or inside.columns in (None, n_new)):
            if inside is not None:
                inside.columns, inside.start = n_new, torch.zeros(n_rows, dtype=torch.long)
            return Call(real=_real_tokens(mask, self.local.lengths, shape))
        if (
            inside is not None
            and inside.start is not None
            and n_new < (inside.columns or 0)
            and not held
        ):
            raise PositionError(
                f"generate gives the model {n_new} of {inside.columns} tokens and no cache that it "
                "can read: pass use_past_kv_cache=False, or use actadd_lens.generate"
            )
        columns = held or 0
        whole = torch.ones(n_rows, columns + n_new, dtype=torch.bool)
        if mask is not None and held is not None:
            check_mask(mask, whole.shape)
            whole = mask.bool().cpu()
        before, real = whole[:, :columns].sum(dim=1), whole[:, columns:]
        if inside is None or held is None:
            end = before + real.sum(dim=1)
            return Call(real=real, turn=Turn(before, before, end, held is not None))
        if inside.start is None:
            inside.start = before
            inside.columns = inside.columns or columns + n_new
        assert inside.columns is not None
        generated = (torch.arange(n_new) + columns >= inside.columns).expand(shape)
        turn = Turn(before, inside.start, _prompt_lengths(inside, whole))
        return Call(real=real & ~generated, generated=real & generated, turn=turn)

    def _end(self, *_: Any) -> None:
        self.local.call = Call()


_watches: dict[Any, _Watch] = {}
_lock = threading.RLock()


@cache
def _parameters(forward: Callable[..., Any]) -> list[str]:
    """Names of the parameters of a forward pass, in order."""
    return list(signature(forward).parameters)[1:]


def _prompt_lengths(inside: _Generation, whole: Bool[Tensor, "batch pos"]) -> Int[Tensor, "batch"]:
    """Real tokens of each prompt of a generation, by a pass whose mask is ``whole``."""
    assert inside.columns is not None
    if inside.mask is not None:
        lengths: Tensor = inside.mask.bool().cpu().sum(dim=1)
        return lengths.repeat_interleave(len(whole) // len(lengths))  # several samples or beams
    if whole.shape[1] < inside.columns and not whole.all():
        raise PositionError(
            f"a prompt of {inside.columns} columns is read in parts of which the first has "
            f"{whole.shape[1]}, with padding: pass its attention_mask to generate"
        )
    return whole[:, : inside.columns].sum(dim=1) + max(0, inside.columns - whole.shape[1])


def _real_tokens(
    mask: Any, lengths: list[int] | None, shape: Sequence[int]
) -> Bool[Tensor, "batch pos"] | None:
    if mask is not None:
        check_mask(mask, shape)
        real: Tensor = mask.bool()
        return real
    if lengths is not None:
        return torch.arange(shape[1]) < torch.tensor(lengths)[:, None]
    return None


def check_mask(mask: Any, shape: Sequence[int]) -> None:
    """Raise ``PositionError`` unless ``mask`` tells which tokens of [batch, pos] are real."""
    if isinstance(mask, Tensor) and tuple(mask.shape) == tuple(shape):
        return
    described = tuple(mask.shape) if isinstance(mask, Tensor) else type(mask).__name__
    raise PositionError(
        f"attention mask {described} does not say which of {tuple(shape)} tokens are padding: "
        "pass one of zeros and ones, [batch, pos]"
    )
