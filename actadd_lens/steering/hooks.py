"""Steering passes that a caller makes: ``steer`` and ``fwd_hooks``."""

import inspect
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ContextDecorator, ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from actadd_lens.errors import VectorError
from actadd_lens.models import hook_points
from actadd_lens.models.base import Bridge, Edit
from actadd_lens.models.hook_points import Hook
from actadd_lens.models.plain import BareModel, entering, is_bare
from actadd_lens.models.tokens import as_prompt
from actadd_lens.models.watch import Call, check_mask, watched
from actadd_lens.steering import positions
from actadd_lens.steering.checks import as_interventions, fitting, warn_of
from actadd_lens.steering.edits import call_edits
from actadd_lens.steering.interventions import (
    Intervention,
    Steering,
    conditions_of,
)


def steer(model: Bridge, steering: Steering) -> AbstractContextManager[None]:
    """Steer every forward pass and cached generation of this thread inside the block.

    Steering contexts nest and add up; one that is never entered warns. On exit, also by an
    exception, the model is as it was, the caller's own hooks included. Padding is taken from the
    attention mask, or from the strings when the bridge pads them itself; a tensor of tokens without
    a mask has no padding. Gradients flow to rows that require them.

    A pass on a filled cache is a decode step if it has one token, and a chat's next turn if it has
    several. "front" and integers from 0 on count from the first token of the whole context; the
    other positions mean the tokens of this turn. Inside ``generate`` the whole prompt is one turn,
    also where it is read in chunks.

    Args:
        model: Any TransformerBridge; or a causal model of transformers, which is steered at
            hook_resid_pre and hook_resid_post.
        steering: A vector or another intervention, several, or None. Vectors of one hook point add
            up; other interventions are applied after the sum, in the order given.

    Raises:
        VectorError, LayerError: The intervention does not fit the model.
        PositionError: From a pass inside the block, if it does not fit on a prompt, or if a cache
            does not tell where the tokens are in the context.

    >>> model = load_model("testbed")
    >>> vector = SteeringVector.from_pair(model, ("Love", "Hate"), layer=1)
    >>> clean = model("I hate you")
    >>> with steer(model, 5 * vector):
    ...     steered = model("I hate you")
    >>> torch.equal(clean, steered), torch.equal(clean, model("I hate you"))
    (False, True)
    """
    if is_bare(model):
        bare = BareModel.of(model)
        given = fitting(bare, steering)
        warn_of(bare, given)
        return _Steered(partial(_steered, model, bare, given))
    return _Steered(partial(_steered, model, model, as_interventions(model, steering)))


@contextmanager
def _steered(
    watch: Any, model: Bridge | BareModel, interventions: Sequence[Intervention]
) -> Iterator[None]:
    with ExitStack() as stack:
        edits = _edits_of_calls(model, interventions, stack.enter_context(watched(watch)))
        if isinstance(model, BareModel):
            at = [(model.entered(name), edit) for name, edit in edits]
            stack.enter_context(entering(model.blocks, at))
        else:
            hooks = [(name, _checked(edit)) for name, edit in edits]
            stack.enter_context(hook_points.attached(model, hooks))
        yield


class _Steered(ContextDecorator, AbstractContextManager[None]):
    """A steering context; it warns if it is dropped without having been entered."""

    def __init__(self, make: Callable[[], AbstractContextManager[None]]) -> None:
        self.make = make
        self.used = False
        # As a decorator it may be entered in several threads.
        self.entered: list[tuple[int, AbstractContextManager[None]]] = []

    def __call__(self, function: Any) -> Any:
        self.used = True
        later = inspect.iscoroutinefunction, inspect.isgeneratorfunction, inspect.isasyncgenfunction
        if any(runs_later(function) for runs_later in later):
            raise VectorError(
                f"{function.__name__} runs after the call of it, and would not be steered: write "
                "`with al.steer(...):` inside of it"
            )
        return super().__call__(function)

    def __enter__(self) -> None:
        self.used = True
        context = self.make()
        context.__enter__()
        self.entered.append((threading.get_ident(), context))

    def __exit__(self, *error: Any) -> bool | None:
        here = [i for i, (thread, _) in enumerate(self.entered) if thread == threading.get_ident()]
        _, context = self.entered.pop(here[-1] if here else -1)
        return context.__exit__(*error)

    def __del__(self) -> None:
        if not self.used:
            warnings.warn(
                "al.steer(...) was never entered, so nothing was steered: write "
                "`with al.steer(...):` around the passes",
                UserWarning,
                stacklevel=2,
            )


def fwd_hooks(
    model: Bridge, steering: Steering, attention_mask: Int[Tensor, "batch pos"] | None = None
) -> list[tuple[str, Hook]]:
    """Hooks that steer one pass over prompts, for ``model.run_with_hooks(..., fwd_hooks=...)``.

    Args:
        model: Any TransformerBridge.
        steering: A vector or another intervention, several, or None.
        attention_mask: 1 for a real token, 0 for padding; no padding by default.

    Returns:
        Pairs of hook point and callback.

    Raises:
        VectorError, LayerError: The intervention does not fit the model.
        PositionError: From the pass itself, if it does not fit on a prompt.

    >>> model = load_model("testbed")
    >>> vector = SteeringVector.from_pair(model, ("Love", "Hate"), layer=1)
    >>> logits = model.run_with_hooks("I hate you", fwd_hooks=fwd_hooks(model, 5 * vector))
    """
    interventions = as_interventions(model, steering)
    call = Call(real=None if attention_mask is None else attention_mask.bool())
    seen = [call]

    def read(tensor: Tensor, hook: Any) -> None:  # noqa: ARG001 - passed by name
        seen[:] = [replace(call, tokens=tensor)]

    readers: list[tuple[str, Hook]] = [("embed.hook_in", read)] * _read_prompts(interventions)
    edits = _edits_of_calls(model, interventions, lambda: seen[0])
    return [*readers, *((name, _checked(edit)) for name, edit in edits)]


def _edits_of_calls(
    model: Bridge | BareModel, interventions: Sequence[Intervention], current: Callable[[], Call]
) -> list[tuple[str, Edit]]:
    """Edits that steer passes of a caller, whose shape is known when they run."""
    reads = _read_prompts(interventions)

    def call_of(stream: Tensor) -> Call:
        call, shape = current(), stream.shape[:2]
        if call.generated is True:
            return call
        real = None if call.real is None else call.real.cpu()
        call = replace(call, real=real)
        if call.n_tokens is not None and shape[1] < call.n_tokens:
            return call.of_last(call.n_tokens, shape)
        real = torch.ones(shape, dtype=torch.bool) if real is None else real
        check_mask(real, shape)
        contents = None
        if reads and call.tokens is not None and not isinstance(model, BareModel):
            rows = zip(call.tokens.cpu(), real, strict=True)
            contents = [as_prompt(model, row[own], empty=True) for row, own in rows]
        return replace(call, real=real, contents=contents)

    return call_edits(model, interventions, call_of, {})


def _read_prompts(interventions: Sequence[Intervention]) -> bool:
    """Whether some position depends on what a prompt says."""
    judged = [item.condition.position for item in conditions_of(interventions)]
    every = [*judged, *(item.position for item in interventions)]
    return any(positions.parse(position).reads_prompt for position in every)


def _checked(edit: Edit) -> Hook:
    """An edit as a callback that says so where the hook point carries something else."""

    def hook(tensor: Tensor, hook: Any) -> Tensor:
        if tensor.ndim != 3:
            raise VectorError(
                f"{hook.name} carries {tuple(tensor.shape)}, not [batch, pos, d_model]: "
                "steer at another hook point"
            )
        return edit(tensor)

    return hook
