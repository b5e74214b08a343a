"""Steering vectors and their algebra.

The vector of the paper is h_A = h+ - h-, one row per token of the padded contrast prompts
(Algorithm 1, step 3). Row 0 belongs to BOS.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from operator import index
from os import PathLike
from typing import Any, ClassVar, Literal, Protocol, SupportsFloat, SupportsIndex, runtime_checkable

import torch
from einops import einsum, reduce
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import pad

from actadd_lens import display
from actadd_lens.errors import (
    ActAddError,
    ModelMismatchWarning,
    VectorError,
    VectorFileError,
    warn_caller,
)
from actadd_lens.models.base import Bridge
from actadd_lens.models.hook_points import check_layers, check_model, layer_of
from actadd_lens.models.hook_points import hook_point as hook_point_of
from actadd_lens.models.load import same_model
from actadd_lens.models.tokens import PromptLike, as_prompt, check_context, token_texts
from actadd_lens.steering import positions
from actadd_lens.steering.checks import as_interventions
from actadd_lens.steering.interventions import Steering, add, hash_of
from actadd_lens.steering.positions import Position, PositionLike
from actadd_lens.vectors import activations, files
from actadd_lens.vectors.pair import ContrastPair, as_pair
from actadd_lens.vectors.provenance import (
    as_json,
    described,
    source,
    steps_of,
    summed,
    texts_of_rows,
    with_step,
)


@runtime_checkable
class Cache(Protocol):
    """Activations by hook point: a TransformerLens ``ActivationCache``, or a plain mapping."""

    def __getitem__(self, name: str, /) -> Tensor: ...


class OperandError(VectorError, TypeError):
    """Something of a type that the algebra does not take, so also a ``TypeError``."""


@dataclass(frozen=True, eq=False, repr=False)
class SteeringVector:
    """Rows to add to the residual stream, and where.

    Rows are a private float32 copy on the CPU; they are cast and moved when they are added to a
    stream. Do not edit them in place: edit ``v.rows.clone()``. Gradients flow to the tensor that
    rows were given as, if it requires them. Two vectors are equal when their rows, hook points and
    positions are.

    >>> v = SteeringVector(torch.ones(2, 4), "blocks.1.hook_resid_pre")
    >>> (3 * v).norms()
    tensor([6., 6.])

    Raises:
        VectorError: Rows that are not finite or not [pos, d_model], or a hook point of no block.
        PositionError: An unknown position, or one for one row with several rows.
    """

    rows: Float[Tensor, "pos d_model"]
    """What is added, in the units of the stream; row i goes to the i-th position from the start."""

    hook_point: str
    """Name of the TransformerLens hook point where the rows are added."""

    position: Position = "front"
    """Where row 0 is added: "front" (position 0, that of BOS), an integer (a negative one counts
    from the prompt's end), "middle", or "back" (the last row on the last token). For one row also
    "prompt", "generated" or "all": every token of these; or a list of integers. ``al.find(text)``
    and "system", "user" or "assistant" are the tokens that spell a text, and those of a chat's
    messages: one row is added to all of them, several rows start at the first (of the last message
    of the role). At "sink", position 0, a vector keeps its last row alone."""

    provenance: Mapping[str, Any] = field(default_factory=dict)
    """Where the rows come from, and the steps since: plain JSON."""

    additive: ClassVar[bool] = True
    __array_ufunc__: ClassVar[None] = None  # so that an array of numpy leaves ``*`` to the vector

    def __post_init__(self) -> None:
        if not isinstance(self.rows, Tensor):
            raise VectorError(
                f"rows are a {type(self.rows).__name__}: give a tensor [pos, d_model]"
            )
        rows = self.rows.to("cpu", torch.float32, copy=True)
        if rows.ndim != 2 or not rows.numel():
            raise VectorError(
                f"rows have shape {tuple(rows.shape)}: give at least one row, [pos, d_model]"
            )
        if not rows.isfinite().all():
            bad = sorted({int(row) for row in (~rows.isfinite()).nonzero()[:, 0]})
            raise VectorError(
                f"rows {bad} of the vector are not finite: check what they are made of"
            )
        layer_of(self.hook_point)
        plan = positions.parse(self.position)
        rows = rows[-1:].clone() if plan.position == positions.SINK else rows
        positions.check_rows(plan.position, len(rows))
        object.__setattr__(self, "position", plan.position)
        object.__setattr__(self, "rows", rows)
        object.__setattr__(self, "provenance", as_json(self.provenance))

    @classmethod
    def from_pair(
        cls, model: Bridge, pair: ContrastPair | tuple[PromptLike, PromptLike], layer: int
    ) -> "SteeringVector":
        """The vector of a contrast pair at one layer: h+ - h- entering block ``layer``.

        For several layers ``extract`` needs a single pass.

        Raises:
            LayerError: The model has no such layer.
            PromptError: See ``ContrastPair.tokens``.

        >>> vector = SteeringVector.from_pair(load_model("testbed"), ("Love", "Hate"), layer=1)
        >>> vector.layer, float(vector.norms()[0])
        (1, 0.0)
        """
        check_model(model)
        return contrasts(model, as_pair(pair), [layer])[layer]

    @classmethod
    def from_prompt(cls, model: Bridge, prompt: PromptLike, layer: int) -> "SteeringVector":
        """The rows of one prompt entering block ``layer``, with no contrast: h+ alone.

        Row 0, that of BOS where there is one, is not zero then, and on many models larger than all
        others.

        Raises:
            LayerError: The model has no such layer.
            PromptError: An empty prompt, or one beyond the context.

        >>> len(SteeringVector.from_prompt(load_model("testbed"), "Love", layer=1).rows) >= 2
        True
        """
        check_layers(model, [layer])
        name = hook_point_of(layer)
        given = as_prompt(model, prompt)
        check_context(model, len(given), "the prompt")
        [[rows]] = activations.prompt_streams(model, [given], [name])
        origin = {
            "kind": "prompt",
            "prompt": given.label,
            "tokens": [list(given.tokens)],
            "texts": token_texts(model, given),
            **source(model),
        }
        return cls(rows, name, provenance=origin)

    @classmethod
    def from_caches(cls, positive: Cache, negative: Cache, hook_point: str) -> "SteeringVector":
        """The difference of two TransformerLens caches that the caller made, at one hook point.

        Args:
            positive: ``ActivationCache`` of a single prompt, batch dimension of one or removed.
            negative: Likewise, of a prompt of as many tokens.
            hook_point: Name of a point that is in both.

        Raises:
            VectorError: The point is missing, or the shapes differ or hold several prompts.

        >>> name = "blocks.1.hook_resid_pre"
        >>> plus, minus = {name: torch.ones(1, 3, 4)}, {name: torch.zeros(1, 3, 4)}
        >>> SteeringVector.from_caches(plus, minus, name).rows.shape
        torch.Size([3, 4])
        """
        plus, minus = (_cached_rows(cache, hook_point) for cache in (positive, negative))
        if plus.shape != minus.shape:
            raise VectorError(
                f"the caches hold {tuple(plus.shape)} and {tuple(minus.shape)} at {hook_point}: "
                "pad the shorter prompt to as many tokens"
            )
        rows = plus.detach().float() - minus.detach().float()
        return cls(rows, hook_point, provenance={"kind": "caches"})

    @classmethod
    def load(cls, path: str | PathLike[str]) -> "SteeringVector":
        """Read a vector that ``save`` wrote.

        Raises:
            VectorFileError: No such file, or it holds something else.
        """
        rows, metadata = files.load_rows(path)
        try:
            position = positions.parse(metadata["position"]).position
            return cls(rows, metadata["hook_point"], position, metadata["provenance"])
        except (ActAddError, KeyError, TypeError, AttributeError) as error:
            raise VectorFileError(f"{path} does not describe a steering vector: {error}") from error

    def save(self, path: str | PathLike[str]) -> None:
        """Write rows, hook point, position and provenance as safetensors, atomically.

        Raises:
            OutputError: The directory is missing or not writable.
        """
        metadata = {
            "hook_point": self.hook_point,
            "position": positions.parse(self.position).saved,
            "provenance": self.provenance,
        }
        files.save_rows(path, self.rows.detach(), metadata)

    @property
    def layer(self) -> int:
        """Layer of the hook point."""
        return layer_of(self.hook_point)

    @property
    def n_rows(self) -> int:
        """Number of rows."""
        return len(self.rows)

    @property
    def d_model(self) -> int:
        """Width of the rows."""
        return self.rows.shape[1]

    def apply(
        self, stream: Float[Tensor, "batch pos d_model"], at: Bool[Tensor, "batch pos"]
    ) -> Float[Tensor, "batch pos d_model"]:
        """The stream with row i added to the i-th of the tokens given (see ``Intervention``).

        A vector of one row is added to all of them.
        """
        rows = pad(self.rows.to(stream.device), (0, 0, 0, 1))  # row -1: nothing is added
        index = at.long() - 1 if self.n_rows == 1 else (at.cumsum(dim=1) - 1).where(at, -1)
        return add(stream, rows[index])

    def identity(self) -> dict[str, Any]:
        """Where it acts and a hash of its rows (see ``Intervention``)."""
        return {
            "kind": "SteeringVector",
            "hook_point": self.hook_point,
            "position": positions.parse(self.position).saved,
            "rows": hash_of(self.rows),
        }

    def control(self, name: str, seed: int) -> "SteeringVector | None":
        """The control of a sweep called "random", "negated" or "shuffled"."""
        if name == "random":
            return self.random_like(seed)
        if name == "negated":
            return -self
        if name == "shuffled":
            return self.shuffled(seed) if self.rows.any() else self
        return None

    def norms(self) -> Float[Tensor, "pos"]:
        """L2 norm of each row."""
        norms: Tensor = torch.linalg.vector_norm(self.rows, dim=1)
        return norms

    def at(self, position: PositionLike) -> "SteeringVector":
        """The same rows at another position: see ``SteeringVector.position``.

        Raises:
            PositionError: An unknown position, or one for one row with several rows.

        >>> SteeringVector(torch.ones(1, 4), "blocks.1.hook_resid_pre").at("back").position
        'back'
        """
        plan = positions.parse(position)
        if plan.position == positions.SINK and self.n_rows > 1:
            return self.collapse("last").at(plan.position)
        return self._step({"at": plan.saved}, position=plan.position)

    def to_hook_point(self, name: str) -> "SteeringVector":
        """The same rows, added at another hook point.

        Raises:
            LayerError: The name is that of no block.

        >>> v = SteeringVector(torch.ones(1, 4), "blocks.1.hook_resid_pre")
        >>> v.to_hook_point("blocks.2.hook_resid_pre").layer
        2
        """
        return self._step({"to_hook_point": name}, hook_point=name)

    def with_rows(self, which: Iterable[SupportsIndex]) -> "SteeringVector":
        """The rows named, negative ones counting from the end; all others zero.

        Raises:
            VectorError: There is no such row.

        >>> SteeringVector(torch.ones(3, 4), "blocks.1.hook_resid_pre").with_rows([1]).norms()
        tensor([0., 2., 0.])
        """
        try:
            chosen = [index(row) for row in which]
        except TypeError as error:
            raise VectorError(f"rows {which!r} are no list: write e.g. [1, 2]") from error
        missing = [row for row in chosen if not -len(self.rows) <= row < len(self.rows)]
        if missing:
            raise VectorError(f"no rows {missing}: the vector has {len(self.rows)} rows")
        which_rows = torch.zeros(self.n_rows, 1, dtype=torch.bool)
        which_rows[chosen] = True
        rows = self.rows.where(which_rows, 0)
        return self._step({"with_rows": chosen}, rows=rows)

    def with_dims(self, which: slice | Iterable[SupportsIndex]) -> "SteeringVector":
        """The dimensions of the stream that a slice or a list names; all others zero.

        Raises:
            VectorError: There is no such dimension, or neither a slice nor a list is given.

        >>> v = SteeringVector(torch.ones(1, 4), "blocks.1.hook_resid_pre")
        >>> v.with_dims(slice(None, 2)).rows, v.with_dims([3]).rows
        (tensor([[1., 1., 0., 0.]]), tensor([[0., 0., 0., 1.]]))
        """
        width = self.rows.shape[1]
        try:
            chosen = range(width)[which] if isinstance(which, slice) else which
            dims = [index(dim) for dim in chosen]
        except TypeError as error:
            raise VectorError(
                f"dimensions {which!r} are no slice or list: write e.g. slice(0, 64) or [3, 17]"
            ) from error
        missing = [dim for dim in dims if not -width <= dim < width]
        if missing:
            raise VectorError(f"no dimensions {missing}: the stream has {width}")
        which_dims = torch.zeros(width, dtype=torch.bool)
        which_dims[dims] = True
        rows = self.rows.where(which_dims, 0)
        spelt = [which.start, which.stop, which.step] if isinstance(which, slice) else dims
        return self._step({"with_dims": spelt}, rows=rows)

    def random_like(self, seed: SupportsIndex) -> "SteeringVector":
        """Rows of the same norms in directions drawn at random: the control for "just noise".

        Zero rows stay zero. The same seed gives the same rows; the global random state is not used.

        >>> v = SteeringVector(torch.ones(2, 4), "blocks.1.hook_resid_pre")
        >>> v.random_like(seed=0) == v, torch.allclose(v.random_like(seed=0).norms(), v.norms())
        (False, True)
        """
        generator = torch.Generator().manual_seed(index(seed))
        noise = torch.randn(self.rows.shape, generator=generator, dtype=torch.float64)
        scale = self.norms().detach().double() / torch.linalg.vector_norm(noise, dim=1)
        rows = einsum(noise, scale, "pos d_model, pos -> pos d_model").float()
        return self._step({"random_like": index(seed)}, rows=rows)

    def shuffled(self, seed: SupportsIndex) -> "SteeringVector":
        """The same rows in another order, drawn at random: the control for "where in the prompt".

        Raises:
            VectorError: All rows are alike, so that no order differs.

        >>> v = SteeringVector(torch.eye(3), "blocks.1.hook_resid_pre")
        >>> v.shuffled(seed=0).rows.sum(dim=0)
        tensor([1., 1., 1.])
        """
        if bool((self.rows == self.rows[0]).all()):
            raise VectorError(
                f"the vector's {len(self.rows)} rows are alike, no other order differs: "
                "a longer contrast prompt has rows to shuffle"
            )
        generator = torch.Generator().manual_seed(index(seed))
        rows = self.rows
        while torch.equal(rows, self.rows):
            rows = self.rows[torch.randperm(len(self.rows), generator=generator)]
        return self._step({"shuffled": index(seed)}, rows=rows)

    def collapse(self, how: Literal["mean", "last"]) -> "SteeringVector":
        """One row: the mean of all, or the last.

        Raises:
            VectorError: Neither "mean" nor "last".

        >>> SteeringVector(torch.eye(2), "blocks.1.hook_resid_pre").collapse("mean").rows
        tensor([[0.5000, 0.5000]])
        """
        if how not in ("mean", "last"):
            raise VectorError(f"unknown way to collapse {how!r}: choose 'mean' or 'last'")
        mean = reduce(self.rows, "pos d_model -> 1 d_model", "mean")
        return self._step({"collapse": how}, rows=mean if how == "mean" else self.rows[-1:])

    def __mul__(self, coefficient: SupportsFloat) -> "SteeringVector":
        factor = _number(coefficient)
        if not math.isfinite(factor):
            raise VectorError(f"coefficient {factor} is not finite: give a number")
        return self._step({"scale": factor}, rows=self.rows * factor)

    __rmul__ = __mul__

    def __truediv__(self, divisor: SupportsFloat) -> "SteeringVector":
        number = _number(divisor)
        if not number:
            raise VectorError("cannot divide a vector by 0: give another number")
        return self * (1 / number)

    def __neg__(self) -> "SteeringVector":
        return self * -1.0

    def __add__(self, other: "SteeringVector") -> "SteeringVector":
        return self._combine(other, "add", 1.0)

    def __radd__(self, other: Any) -> "SteeringVector":
        return self if isinstance(other, int) and other == 0 else self + other  # for ``sum``

    def __sub__(self, other: "SteeringVector") -> "SteeringVector":
        return self._combine(other, "subtract", -1.0)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, SteeringVector):
            return NotImplemented
        return (
            self.hook_point == other.hook_point
            and self.position == other.position
            and torch.equal(self.rows, other.rows)
        )

    def __hash__(self) -> int:
        return hash((self.hook_point, self.position, self.rows.shape))

    def __repr__(self) -> str:
        rows = "1 row" if self.n_rows == 1 else f"{self.n_rows} rows"
        return f"{described(self.hook_point, self.position, self.provenance)}, {rows}"

    def _repr_html_(self) -> str:
        norms, texts = self.norms().tolist(), texts_of_rows(self.provenance, len(self.rows))
        largest = max(norms) or 1.0
        names = ["token"] if len(texts) == 1 else ["positive", "negative"][: len(texts)]
        rows = [
            (row, *map(repr, tokens), norm, display.share_bar(norm / largest))
            for row, (norm, *tokens) in enumerate(zip(norms, *texts, strict=True))
        ]
        return display.block(
            f"SteeringVector, {len(norms)} x {self.rows.shape[1]}",
            display.muted(described(self.hook_point, self.position, self.provenance)),
            display.table(["row", *names, "norm", ""], rows),
        )

    def _combine(self, other: "SteeringVector", name: str, sign: float) -> "SteeringVector":
        if not isinstance(other, SteeringVector):
            raise OperandError(
                f"cannot {name} {other!r}: give a SteeringVector, or steer with a list of several"
            )
        if not same_model(self.provenance, other.provenance):
            models = " and ".join(repr(v.provenance.get("model")) for v in (self, other))
            warn_caller(
                f"vectors of the models {models} are combined: the directions of one model are not "
                "those of another, extract both from one",
                ModelMismatchWarning,
            )
        for what in ("hook_point", "position"):
            mine, theirs = getattr(self, what), getattr(other, what)
            if mine != theirs:
                raise VectorError(
                    f"cannot {name} vectors with {what} {mine!r} and {theirs!r}: "
                    "bring both to the same one, or steer with the list [v, w]"
                )
        if self.rows.shape[1] != other.rows.shape[1]:
            raise VectorError(
                f"cannot {name} vectors of width {self.rows.shape[1]} and {other.rows.shape[1]}: "
                "take both from the same model"
            )
        length = max(len(self.rows), len(other.rows))
        mine, theirs = (pad(v.rows, (0, 0, 0, length - len(v.rows))) for v in (self, other))
        origin = summed(self._origin, other._origin, sign)
        return replace(self, rows=mine + sign * theirs, provenance=origin)

    @property
    def _origin(self) -> dict[str, Any]:
        """The provenance, with a hash of the rows before the first step.

        Vectors by hand, from caches, or of several layers are distinguished by nothing else.
        """
        made = self.provenance.get("kind") == "sum" or steps_of(self.provenance)
        known = {} if made else {"rows_hash": self.identity()["rows"]}
        return {**self.provenance, **known}

    def _step(self, step: Mapping[str, Any], **changes: Any) -> "SteeringVector":
        return replace(self, **changes, provenance=with_step(self._origin, step))


def as_vectors(model: Bridge, steering: Steering) -> tuple[SteeringVector, ...]:
    """The steering vectors of ``steering``, each of them fit for ``model``.

    Raises:
        VectorError: Something else, another intervention included, or a vector of another width.
        LayerError: A layer or hook point that the model does not have.
    """
    found: list[SteeringVector] = []
    for item in as_interventions(model, steering, warn=False):
        if not isinstance(item, SteeringVector):
            raise VectorError(f"a {type(item).__name__} has no rows: give steering vectors")
        found.append(item)
    return tuple(found)


def contrasts(
    model: Bridge, pair: ContrastPair, layers: Sequence[int], site: str = "resid_pre"
) -> dict[int, SteeringVector]:
    """Vectors of a contrast pair at several layers, from one batched pass.

    Attention is causal, so as long as both prompts agree their rows do, and the difference is set
    to the zero that it is: a batch of two leaves round-off there. Errors are those of ``extract``.
    """
    check_layers(model, layers)
    names = {layer: hook_point_of(layer, site) for layer in layers}
    tokens = pair.tokens(model)
    # Padding is part of the shorter prompt: nothing is masked, as in the paper.
    captured = activations.capture(model, tokens, torch.ones_like(tokens), [*names.values()])
    agreed = int((tokens[0] == tokens[1]).long().cumprod(dim=0).sum())
    origin = {
        "kind": "pair",
        "positive": pair.labels[0],
        "negative": pair.labels[1],
        "pad": pair.pad,
        "tokens": tokens.tolist(),
        "texts": [token_texts(model, row) for row in tokens.tolist()],
        **source(model),
    }
    vectors = {}
    for layer, name in names.items():
        rows = captured[name][0] - captured[name][1]
        rows[:agreed] = 0
        vectors[layer] = SteeringVector(rows, name, provenance=origin)
    return vectors


def _number(value: Any) -> float:
    try:
        if isinstance(value, (str, bytes)):
            raise TypeError
        return float(value)
    except (TypeError, ValueError, RuntimeError) as error:
        got = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else repr(value)
        raise OperandError(
            f"a vector is multiplied and divided by one number, not by {got}: e.g. 6 * v"
        ) from error


def _cached_rows(cache: Cache, name: str) -> Float[Tensor, "pos d_model"]:
    try:
        rows = cache[name]
    except KeyError as error:
        raise VectorError(f"no {name!r} in the cache: ask run_with_cache for it") from error
    if rows.ndim == 3 and len(rows) == 1:
        return rows[0]
    if rows.ndim != 2:
        raise VectorError(
            f"the cache holds {tuple(rows.shape)} at {name}: it must be of one prompt, "
            "[1, pos, d_model] or [pos, d_model]"
        )
    return rows
