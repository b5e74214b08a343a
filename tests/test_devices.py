"""A model over several devices: no operation takes tensors of two.

There is one device here, so the second is simulated: a marked tensor is elsewhere, and an operation
on a marked and an unmarked one raises, as it does between two GPUs.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch
from conftest import D_MODEL
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_flatten, tree_map

import actadd_lens as al
from actadd_lens.models.bridge import BridgeModel
from actadd_lens.models.plain import PlainModel

ELSEWHERE = torch.device("meta")
PROMPTS = ["I love you", "I hate you because you are late"]
V = al.SteeringVector(torch.ones(2, D_MODEL), "blocks.2.hook_resid_pre")


class Marked(Tensor):
    """A tensor on the other device."""


def unmarked(value: Any) -> Any:
    return value.as_subclass(Tensor) if isinstance(value, Marked) else value


def marked(value: Any) -> Any:
    return value.as_subclass(Marked) if type(value) is Tensor else value


class TwoDevices(TorchFunctionMode):
    """Keep track of which tensors are elsewhere, but for the model's own code."""

    watching = True

    @classmethod
    @contextmanager
    def switched(cls, on: bool) -> Iterator[None]:
        before, cls.watching = cls.watching, on
        try:
            yield
        finally:
            cls.watching = before

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not self.watching:
            return func(*args, **(kwargs or {}))
        given, _ = tree_flatten((args, kwargs or {}))
        name = getattr(func, "__name__", "")
        if func == Tensor.device.__get__:
            return ELSEWHERE if isinstance(args[0], Marked) else func(*args)
        if func == Tensor.as_subclass:
            return func(*args)
        targets = [x for x in given if isinstance(x, torch.device)]
        if name == "to":
            others = [x for x in args[1:] if isinstance(x, Tensor)]
            targets += [ELSEWHERE if isinstance(x, Marked) else x.device for x in others]
            targets += [torch.device(x) for x in given if x == "cpu"]
        tensors = [x for x in given if isinstance(x, Tensor) and (x.ndim or isinstance(x, Marked))]
        there = [isinstance(x, Marked) for x in tensors]
        if name != "to" and any(there) and not all(there):
            raise RuntimeError(f"{name}: expected all tensors to be on the same device")
        own = ELSEWHERE in targets if targets else any(there)
        here = lambda x: torch.device("cpu") if x == ELSEWHERE else unmarked(x)  # noqa: E731
        made = func(*tree_map(here, args), **tree_map(here, kwargs or {}))
        return tree_map(marked if own and name != "cpu" else unmarked, made)


@pytest.fixture
def spread(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every pass returns its streams and logits elsewhere; edits there see the stream elsewhere."""

    def elsewhere(run: Any) -> Any:
        def wrapped(*args: Any, start: Any = None, edits: Any = None, **options: Any) -> Any:
            def moved(edit: Any) -> Any:
                def edit_there(stream: Tensor) -> Tensor:
                    with TwoDevices.switched(on=True):
                        return unmarked(edit(marked(stream)))

                return edit_there

            edits = {name: moved(edit) for name, edit in (edits or {}).items()}
            if start is not None:
                assert isinstance(start.stream, Marked)
                start = replace(start, stream=unmarked(start.stream))
            with TwoDevices.switched(on=False):
                done = run(*args, start=start, edits=edits, **options)
            streams = {name: marked(stream) for name, stream in done.streams.items()}
            return replace(done, logits=marked(done.logits), streams=streams)

        return wrapped

    for kind in (BridgeModel, PlainModel):
        monkeypatch.setattr(kind, "run", elsewhere(kind.run))
    with TwoDevices():
        yield


def uses(model: Any) -> Iterator[Any]:
    """Numbers of every function that combines streams, vectors, masks or logits."""
    one = al.SteeringVector(V.rows[:1], V.hook_point, "all")
    options = {"controls": ["random"], "progress": False, "seed": 1}
    what = {"v": V, "clamp": al.Clamp(V.rows[0], 3, V.hook_point), "keep": al.KeepNorm(V)}
    swept = al.sweep(model, what, PROMPTS, metrics=["kl", "total_variation"], **options).frame
    yield from (swept[column] for column in ("value", "dose", "kl"))
    yield al.position_ablation(model, V, PROMPTS, metrics="kl", **options).frame["value"]
    yield al.dose(model, V, PROMPTS)["dose"]
    yield al.residual_norms(model, PROMPTS)["norm"]
    yield al.extract(model, ("Love", "Hate"))[1].rows.flatten().tolist()
    for steering in (None, V, [one, al.KeepNorm(one)]):
        yield al.next_token_logprobs(model, PROMPTS, steering).flatten().tolist()
        yield torch.cat(al.token_logprobs(model, PROMPTS, steering)).tolist()
        for temperature in (0, 1):
            made = al.generate(
                model, PROMPTS, steering, temperature=temperature, samples=2, max_new_tokens=4
            )
            yield [logprob for completion in made for logprob in completion.logprobs]


def test_the_simulation_sees_two_devices():
    with TwoDevices():
        here, there = torch.ones(2, 3), marked(torch.ones(2, 3))
        for wrong in (lambda: here + there, lambda: torch.where(there > 0, here, 0)):
            with pytest.raises(RuntimeError, match="same device"):
                wrong()
        assert isinstance(here.to(there.device) + there, Marked)
        assert isinstance(torch.zeros(2, device=there.device), Marked)
        assert not isinstance(there.cpu() + here, Marked)
        assert not isinstance(there.to(here), Marked)


@pytest.mark.slow
def test_no_operation_mixes_devices(model, request):
    expected = list(uses(model))
    request.getfixturevalue("spread")
    found = list(uses(model))
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        assert list(a) == pytest.approx(list(b), rel=1e-5, nan_ok=True)
