"""Interventions: edits of the residual stream at one hook point.

Addition is one of several (``SteeringVector``). What they share is small: where they act (a hook
point and a position), how they change the stream, and an identity by which stores and provenance
know them. Everything that runs a model takes any of them, a class of your own included:

>>> @dataclass(frozen=True, eq=False)
... class Scale:
...     factor: float
...     hook_point: str
...     position: str = "all"
...     additive = False
...
...     def apply(self, stream, at):
...         return torch.where(at[..., None], self.factor * stream, stream)
...
...     def identity(self):
...         return {"kind": "scale", "factor": self.factor, "hook_point": self.hook_point}
>>> isinstance(Scale(0.5, "blocks.1.hook_resid_pre"), Intervention)
True

Order: the additive interventions of a hook point are summed in float32 before the stream sees them,
so that their order does not matter. The others are applied after the sum, in the order given.
"""

import hashlib
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Protocol, TypeAlias, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from actadd_lens.errors import LayerError, PositionError, VectorError
from actadd_lens.models.hook_points import SITES, layer_of
from actadd_lens.steering import positions
from actadd_lens.steering.positions import Position, PositionLike


@runtime_checkable
class Intervention(Protocol):
    """An edit of the stream at one hook point.

    It may also have ``n_rows``: the number of tokens that it edits from its position on. The
    default is 1. The positions "prompt", "generated" and "all" repeat one row.
    """

    @property
    def hook_point(self) -> str:
        """Name of the TransformerLens hook point."""

    @property
    def position(self) -> Position:
        """On which tokens: see ``SteeringVector.position``."""

    @property
    def additive(self) -> bool:
        """Whether what is added depends on the position alone, and not on the stream."""

    def apply(
        self, stream: Float[Tensor, "batch pos d_model"], at: Bool[Tensor, "batch pos"]
    ) -> Float[Tensor, "batch pos d_model"]:
        """The edited stream, as a new tensor.

        Args:
            stream: In the model's dtype; an additive intervention gets zeros in float32. Do not
                change it in place.
            at: True for the tokens to edit; the others keep their bits.
        """

    def identity(self) -> Mapping[str, Any]:
        """Plain JSON; it is equal for two interventions exactly if they do the same."""


Steering: TypeAlias = Intervention | Sequence[Intervention] | None
"""What a run is steered with: nothing, one intervention, or several."""

Direction: TypeAlias = Any
"""A tensor [d_model] in the units of the stream, or a steering vector of one row."""


def n_rows(intervention: Intervention) -> int:
    """On how many tokens an intervention acts from its position on."""
    return int(getattr(intervention, "n_rows", 1))


def conditions_of(interventions: Sequence[Intervention]) -> "list[When]":
    """Those of the interventions that depend on a condition."""
    return [item for item in interventions if isinstance(item, When)]


def own_point(interventions: Sequence[Intervention]) -> str | None:
    """The one hook point that all of them read and edit; None if there are several."""
    points = {item.hook_point for item in interventions}
    points |= {item.condition.hook_point for item in conditions_of(interventions)}
    return points.pop() if len(points) == 1 else None


def added(
    interventions: Sequence[Intervention],
    at: Sequence[Bool[Tensor, "batch pos"]],
    width: int,
) -> Float[Tensor, "batch pos d_model"]:
    """The sum of additive interventions, one at least, in float32.

    Args:
        interventions: All of one hook point.
        at: For each of them the tokens that it edits.
        width: Of the stream.
    """
    zeros = torch.zeros(*at[0].shape, width, device=at[0].device)
    total = interventions[0].apply(zeros, at[0])
    for item, tokens in zip(interventions[1:], at[1:], strict=True):
        total = total + item.apply(zeros, tokens)
    return total


def applied(
    stream: Float[Tensor, "batch pos d_model"],
    interventions: Sequence[Intervention],
    at: Sequence[Bool[Tensor, "batch pos"]],
) -> Float[Tensor, "batch pos d_model"]:
    """The stream after all interventions of one hook point.

    Args:
        stream: It is not changed in place.
        interventions: In the order given.
        at: For each of them the tokens that it edits.

    Raises:
        VectorError: An intervention changes the stream's shape, or the result is beyond the range
            of float16.
    """
    adding = [place for place, item in enumerate(interventions) if item.additive]
    result, total = stream, None
    if adding:
        chosen = [interventions[place] for place in adding]
        total = added(chosen, [at[place] for place in adding], stream.shape[-1])
        result = add(result, total)
    for item, tokens in zip(interventions, at, strict=True):
        if not item.additive:
            edited = item.apply(result, tokens)
            if edited.shape != stream.shape:
                raise VectorError(
                    f"{type(item).__name__}.apply returned {tuple(edited.shape)} for a stream of "
                    f"{tuple(stream.shape)}: return the same shape"
                )
            result = edited.to(stream.dtype)
    return in_range(result, total)


def in_range(stream: Tensor, total: Tensor | None) -> Tensor:
    """The edited stream, which must be finite in float16.

    The range of other types is float32's, and looking at every element makes a GPU wait.

    Raises:
        VectorError: It is not.
    """
    if stream.dtype == torch.float16 and not stream.isfinite().all():
        reach = "" if total is None else f" reaches {float(total.abs().max()):.3g}, and"
        raise VectorError(
            f"the steering{reach} with the stream it is beyond float16: use a smaller "
            "coefficient, or load the model in float32 or bfloat16"
        )
    return stream


def add(
    stream: Float[Tensor, "*batch d_model"], total: Float[Tensor, "*#batch d_model"]
) -> Float[Tensor, "*batch d_model"]:
    """Add in the stream's dtype and place; elements that get nothing keep their bits.

    If a gradient flows to what is added, it flows to its zeros too.
    """
    cast = total.to(stream.device, stream.dtype)
    if cast.requires_grad and torch.is_grad_enabled():
        return stream + cast
    return torch.where(cast == 0, stream, stream + cast)


class _Edit(ABC):
    """What the interventions below share: they edit each token alone, and keep the other bits."""

    additive: ClassVar[bool] = False
    hook_point: str
    position: Position

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if name in ("direction", "a", "b"):
                object.__setattr__(self, name, _direction(name, value))
            elif name in ("value", "degrees"):
                object.__setattr__(self, name, _finite(name, value))
        layer_of(self.hook_point)
        parsed = positions.parse(self.position)
        object.__setattr__(self, "position", parsed.position)

    @property
    def d_model(self) -> int:
        """Width of the stream."""
        return next(len(value) for value in vars(self).values() if isinstance(value, Tensor))

    def at(self, position: PositionLike) -> "Intervention":
        """The same intervention at another position."""
        # Every subclass is a dataclass, which mypy does not see from here.
        moved: Intervention = replace(self, position=position)  # type: ignore[type-var]
        return moved

    @abstractmethod
    def edit(self, stream: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch d_model"]:
        """What becomes of every token."""

    def apply(
        self, stream: Float[Tensor, "batch pos d_model"], at: Bool[Tensor, "batch pos"]
    ) -> Float[Tensor, "batch pos d_model"]:
        """See ``Intervention``; computed in float32."""
        edited = self.edit(stream.float()).to(stream.dtype)
        return torch.where(at[..., None], edited, stream)

    def identity(self) -> dict[str, Any]:
        """See ``Intervention``."""
        values = {k: hash_of(v) if isinstance(v, Tensor) else v for k, v in vars(self).items()}
        return {
            "kind": type(self).__name__, **values, "position": positions.parse(self.position).saved
        }  # fmt: skip

    def control(self, name: str, seed: int) -> "Intervention | None":
        """The control of a sweep: "random" has random directions of the same norm; see each."""
        if name != "random":
            return None
        generator = torch.Generator().manual_seed(seed)
        drawn = {}
        for key, value in vars(self).items():
            if isinstance(value, Tensor):
                noise = torch.randn(value.shape, generator=generator)
                drawn[key] = noise * (value.norm() / noise.norm())
        found: Intervention = replace(self, **drawn)  # type: ignore[type-var]  # as in ``at``
        return found


@dataclass(frozen=True, eq=False)
class Project(_Edit):
    """Remove the component of the stream along a direction (directional ablation).

    x - (x . u) u, with u the direction scaled to unit length (Arditi et al. 2406.11717, section
    2.4).

    Raises:
        VectorError: A direction that is zero, not finite, or not [d_model]; no such hook point.
        PositionError: An unknown position.

    >>> project = Project(torch.tensor([2.0, 0.0]), "blocks.1.hook_resid_pre")
    >>> project.apply(torch.tensor([[[3.0, 4.0]]]), torch.tensor([[True]]))
    tensor([[[0., 4.]]])
    """

    direction: Direction
    hook_point: str
    position: Position = "all"

    def edit(self, stream: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch d_model"]:
        """x - (x . u) u."""
        u = _unit(self.direction, stream)
        return stream - (stream @ u)[..., None] * u


@dataclass(frozen=True, eq=False)
class Clamp(_Edit):
    """Set the component of the stream along a direction to a value.

    x + (value - x . u) u, with u the direction scaled to unit length; ``value`` is in the units of
    the stream. A value of 0 gives ``Project``. The control "negated" has the negative value.

    Raises:
        VectorError, PositionError: As of ``Project``.

    >>> clamp = Clamp(torch.tensor([2.0, 0.0]), 5, "blocks.1.hook_resid_pre")
    >>> clamp.apply(torch.tensor([[[3.0, 4.0]]]), torch.tensor([[True]]))
    tensor([[[5., 4.]]])
    """

    direction: Direction
    value: float
    hook_point: str
    position: Position = "all"

    def edit(self, stream: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch d_model"]:
        """x + (value - x . u) u."""
        u = _unit(self.direction, stream)
        return stream + (self.value - stream @ u)[..., None] * u

    def control(self, name: str, seed: int) -> "Intervention | None":
        """The control of a sweep: "random" or "negated"; None for another name."""
        if name == "negated":
            return replace(self, value=-self.value)
        return super().control(name, seed)


@dataclass(frozen=True, eq=False)
class Rotate(_Edit):
    """Rotate the stream in the plane of two directions, from the first towards the second.

    The part of the stream outside the plane does not change, nor does the norm. A rotation by 90
    degrees turns a stream along ``a`` into one along the part of ``b`` that is orthogonal to ``a``.
    The control "negated" rotates the other way.

    Raises:
        VectorError: Directions that are parallel, zero, not finite, or not [d_model].
        PositionError: An unknown position.

    >>> a, b = torch.tensor([1.0, 0.0, 0.0]), torch.tensor([0.0, 1.0, 0.0])
    >>> rotate = Rotate(a, b, 90, "blocks.1.hook_resid_pre")
    >>> rotate.apply(torch.tensor([[[2.0, 0.0, 7.0]]]), torch.tensor([[True]])).round(decimals=5)
    tensor([[[0., 2., 7.]]])
    """

    a: Direction
    b: Direction
    degrees: float
    hook_point: str
    position: Position = "all"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.a.shape != self.b.shape:
            raise VectorError(
                f"a has {len(self.a)} dimensions, b has {len(self.b)}: take both from one model"
            )
        across = self.b - (self.b @ self.a) / (self.a @ self.a) * self.a
        if float(across.norm()) < 1e-6 * float(self.b.norm()):
            raise VectorError("a and b are parallel: they span no plane to rotate in")

    def edit(self, stream: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch d_model"]:
        """The rotation by ``degrees``."""
        e1, b = _unit(self.a, stream), _unit(self.b, stream)
        across = b - (b @ e1) * e1
        e2 = across / across.norm()
        x1, x2 = (stream @ e1)[..., None], (stream @ e2)[..., None]
        angle = math.radians(self.degrees)
        cosine, sine = math.cos(angle) - 1, math.sin(angle)
        rotated: Tensor = stream + cosine * (x1 * e1 + x2 * e2) + sine * (x1 * e2 - x2 * e1)
        return rotated

    def control(self, name: str, seed: int) -> "Intervention | None":
        """The control of a sweep: "random" or "negated"; None for another name."""
        if name == "negated":
            return replace(self, degrees=-self.degrees)
        return super().control(name, seed)


class _Around(ABC):
    """What the interventions below share: they act where another one does."""

    additive: ClassVar[bool] = False

    @property
    @abstractmethod
    def inner(self) -> Any:
        """The other intervention."""

    @abstractmethod
    def around(self, inner: Any) -> "Intervention":
        """The same around another intervention."""

    @property
    def hook_point(self) -> str:
        """That of the other."""
        return str(self.inner.hook_point)

    @property
    def position(self) -> Position:
        """That of the other."""
        position: Position = self.inner.position
        return position

    @property
    def n_rows(self) -> int:
        """That of the other."""
        return n_rows(self.inner)

    @property
    def d_model(self) -> int | None:
        """That of the other, if it says so."""
        return getattr(self.inner, "d_model", None)

    def at(self, position: PositionLike) -> "Intervention":
        """The same at another position."""
        return self.around(self.inner.at(position))

    def __mul__(self, coefficient: float) -> "Intervention":
        return self.around(coefficient * self.inner)

    __rmul__ = __mul__

    def control(self, name: str, seed: int) -> "Intervention | None":
        """The same around the other's control."""
        found = control_of(self.inner, name, seed)
        return None if found is None else self.around(found)


@dataclass(frozen=True, eq=False)
class KeepNorm(_Around):
    """Apply another intervention, then rescale each edited token to the norm that it had.

    >>> keep = KeepNorm(Clamp(torch.tensor([1.0, 0.0]), 4, "blocks.1.hook_resid_pre"))
    >>> keep.apply(torch.tensor([[[0.0, 3.0]]]), torch.tensor([[True]])).norm().round(decimals=4)
    tensor(3.)
    """

    of: Intervention

    def __post_init__(self) -> None:
        _check_intervention("KeepNorm", self.of)

    @property
    def inner(self) -> Any:
        """The intervention after which the norm is restored."""
        return self.of

    def around(self, inner: Any) -> "KeepNorm":
        """The same around another intervention."""
        return KeepNorm(inner)

    def apply(
        self, stream: Float[Tensor, "batch pos d_model"], at: Bool[Tensor, "batch pos"]
    ) -> Float[Tensor, "batch pos d_model"]:
        """See ``Intervention``; a token that the other leaves as it is keeps its bits."""
        before = stream.float()
        edited = _alone(self.of, before, at)
        # In double precision: the square of a large coefficient is beyond single.
        old, new = (x.double().norm(dim=-1, keepdim=True) for x in (before, edited))
        # Where nothing was changed, the factor is 1.
        scaled = (edited * (old / new.clamp_min(1e-300))).to(stream.dtype)
        return torch.where(at[..., None], scaled, stream)

    def identity(self) -> dict[str, Any]:
        """See ``Intervention``."""
        return {"kind": "KeepNorm", "of": dict(self.of.identity())}


@dataclass(frozen=True, eq=False)
class Similarity:
    """A condition: the stream of a prompt is similar to a direction.

    It holds for a prompt if the cosine between stream and direction, averaged over the tokens at
    ``position``, is at least ``threshold`` (conditional activation steering, Lee et al.
    2409.05907). It is evaluated once, when the prompt is read.

    >>> like = Similarity(torch.tensor([1.0, 0.0]), "blocks.1.hook_resid_pre", 0.5)
    >>> like.holds(torch.tensor([[[2.0, 0.1]], [[-1.0, 0.0]]]), torch.tensor([[True], [True]]))
    tensor([ True, False])
    """

    direction: Direction
    hook_point: str
    threshold: float
    position: Position = "back"

    def __post_init__(self) -> None:
        object.__setattr__(self, "direction", _direction("direction", self.direction))
        object.__setattr__(self, "threshold", _finite("threshold", self.threshold))
        layer_of(self.hook_point)
        position = positions.parse(self.position).position
        if position == "generated":
            raise PositionError("a condition is judged on the prompt, not on generated tokens")
        object.__setattr__(self, "position", position)

    @property
    def d_model(self) -> int:
        """Width of the stream."""
        return len(self.direction)

    def holds(
        self, stream: Float[Tensor, "batch pos d_model"], at: Bool[Tensor, "batch pos"]
    ) -> Bool[Tensor, "batch"]:
        """Whether it holds for each prompt, read at the tokens given."""
        u = _unit(self.direction, stream)
        cosine = torch.nn.functional.cosine_similarity(stream.float(), u.float(), dim=-1)
        mean = cosine.where(at, 0).sum(dim=1) / at.sum(dim=1)
        found: Tensor = mean >= self.threshold
        return found

    def identity(self) -> dict[str, Any]:
        """Plain JSON; it is equal for two conditions exactly if they are the same."""
        own = {
            "direction": hash_of(self.direction),
            "position": positions.parse(self.position).saved,
        }
        return {"kind": "Similarity", **vars(self), **own}


_OF_CONDITION = ("holds", "hook_point", "position", "identity")


@dataclass(frozen=True, eq=False)
class When(_Around):
    """An intervention on those prompts for which a condition holds.

    The condition reads the stream at its own hook point, before any edit there. It decides for the
    prompt and for all tokens generated after it.

    Raises:
        LayerError: The condition is read after the place where the intervention acts.

    >>> here = "blocks.1.hook_resid_pre"
    >>> like = Similarity(torch.tensor([1.0, 0.0]), here, 0.5)
    >>> When(like, Project(torch.tensor([1.0, 0.0]), here)).position
    'all'
    """

    condition: Similarity
    then: Intervention

    def __post_init__(self) -> None:
        if not all(hasattr(self.condition, name) for name in _OF_CONDITION):
            raise VectorError(
                f"a {type(self.condition).__name__} is not a condition: give "
                "Similarity(direction, hook_point, threshold)"
            )
        _check_intervention("When", self.then)
        read, acts = (_depth(name) for name in (self.condition.hook_point, self.then.hook_point))
        if read > acts:
            raise LayerError(
                f"the condition is read at {self.condition.hook_point}, after "
                f"{self.then.hook_point}, where the intervention acts: read it earlier"
            )

    @property
    def inner(self) -> Any:
        """The intervention that the condition decides on."""
        return self.then

    def around(self, inner: Any) -> "When":
        """The same condition with another intervention."""
        return When(self.condition, inner)

    def apply(
        self, stream: Float[Tensor, "batch pos d_model"], at: Bool[Tensor, "batch pos"]
    ) -> Float[Tensor, "batch pos d_model"]:
        """See ``Intervention``; ``at`` is False on prompts for which the condition fails."""
        return _alone(self.then, stream, at)

    def identity(self) -> dict[str, Any]:
        """See ``Intervention``."""
        condition, then = dict(self.condition.identity()), dict(self.then.identity())
        return {"kind": "When", "condition": condition, "then": then}


def control_of(intervention: Intervention, name: str, seed: int) -> Intervention | None:
    """The control of a sweep called "random", "negated" or "shuffled"; None where there is none."""
    made = getattr(intervention, "control", None)
    return None if made is None else made(name, seed)


def _alone(
    intervention: Intervention,
    stream: Float[Tensor, "batch pos d_model"],
    at: Bool[Tensor, "batch pos"],
) -> Float[Tensor, "batch pos d_model"]:
    """The stream after one intervention; an additive one is only ever given zeros."""
    if intervention.additive:
        return add(stream, added([intervention], [at], stream.shape[-1]))
    return intervention.apply(stream, at)


def _check_intervention(what: str, given: object) -> None:
    if not isinstance(given, Intervention):
        raise VectorError(
            f"{what} takes an intervention, not a {type(given).__name__}: give a SteeringVector, "
            "or an object with hook_point, position, additive, apply and identity"
        )
    if isinstance(given, When):
        raise VectorError(
            f"{what} cannot take a When, whose condition is judged outside: put When outermost, "
            "e.g. When(condition, KeepNorm(v))"
        )


def _direction(name: str, given: Any) -> Float[Tensor, "d_model"]:
    """A direction as a private float32 copy."""
    rows = getattr(given, "rows", given)
    if isinstance(rows, Tensor) and rows.ndim == 2 and len(rows) == 1:
        rows = rows[0]
    if not isinstance(rows, Tensor) or rows.ndim != 1:
        shape = tuple(rows.shape) if isinstance(rows, Tensor) else type(given).__name__
        raise VectorError(
            f"{name} is {shape}: give a tensor [d_model], or a vector of one row, "
            "e.g. v.collapse('last')"
        )
    direction = rows.detach().to("cpu", torch.float32, copy=True)
    if not direction.isfinite().all() or not direction.any():
        raise VectorError(f"{name} is zero or not finite: it points nowhere")
    return direction


def _finite(name: str, value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError, RuntimeError):
        number = math.nan
    if not math.isfinite(number):
        raise VectorError(f"{name} is {value!r}: give a finite number")
    return number


def _unit(
    direction: Float[Tensor, "d_model"], stream: Float[Tensor, "*batch d_model"]
) -> Float[Tensor, "d_model"]:
    unit: Tensor = (direction.double() / direction.double().norm()).to(stream)
    return unit


def _depth(hook_point: str) -> tuple[int, int]:
    site = hook_point.rpartition("hook_")[2]
    order = ("resid_pre", "attn_out", "resid_mid", "mlp_out", "resid_post")
    return layer_of(hook_point), order.index(site) if site in SITES else len(order)


def hash_of(tensor: Tensor) -> str:
    """Of shape and bytes."""
    digest = hashlib.sha256(tensor.detach().numpy().tobytes()).hexdigest()[:16]
    return f"{tuple(tensor.shape)} {digest}"
