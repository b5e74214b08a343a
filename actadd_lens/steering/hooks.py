"""Adding vectors to the residual stream (Algorithm 1, step 4).

All vectors of one hook point are summed in float32 before the stream sees them, and only elements
with something to add are touched. So ``v`` and ``-v`` leave the very bits of the clean run, in any
precision, and two vectors at one point are their sum.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import reduce
from typing import Any, TypeAlias

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import pad

from actadd_lens.errors import VectorError
from actadd_lens.models import bridge
from actadd_lens.models.bridge import Bridge, Call, Hook
from actadd_lens.steering import positions
from actadd_lens.vectors.vector import SteeringVector

Steering: TypeAlias = SteeringVector | Sequence[SteeringVector] | None
"""What a run is steered with: nothing, one vector, or several that add up."""


def as_vectors(model: Bridge, steering: Steering) -> tuple[SteeringVector, ...]:
    """The vectors of ``steering``, each of them fit for ``model``.

    Raises:
        VectorError: Not a vector, or one of another width.
        LayerError: A layer or hook point that the model does not have.
    """
    if steering is None:
        return ()
    vectors = tuple(steering) if isinstance(steering, Sequence) else (steering,)
    for vector in vectors:
        if isinstance(vector, Mapping):
            raise VectorError(
                f"cannot steer with a {type(vector).__name__}: take the vector of one layer, "
                f"e.g. vectors[{next(iter(vector), 3)!r}]"
            )
        if not isinstance(vector, SteeringVector):
            raise VectorError(
                f"cannot steer with a {type(vector).__name__}: give SteeringVectors, "
                "e.g. SteeringVector(rows, 'blocks.6.hook_resid_pre')"
            )
        bridge.point_of(model, vector.hook_point)
        width = vector.rows.shape[1]
        if width != bridge.d_model(model):
            raise VectorError(
                f"vector has width {width}, {model.cfg.model_name} has d_model "
                f"{bridge.d_model(model)}: extract it from this model"
            )
    return vectors


def check_fit(prompts: Sequence[Sequence[int]], vectors: Sequence[SteeringVector]) -> None:
    """Raise ``PositionError`` if a vector does not fit on some prompt, before anything runs."""
    lengths = torch.tensor([len(ids) for ids in prompts])
    real = torch.arange(int(lengths.max())) < lengths[:, None]
    for vector in vectors:
        positions.row_index(positions.parse(vector.position), real, len(vector.rows))


@contextmanager
def steer(model: Bridge, steering: Steering) -> Iterator[None]:
    """Steer every forward pass and cached generation inside the block.

    Steering contexts nest and add up. On exit, also by an exception, the model is as it was, the
    caller's own hooks included. Padding is taken from the attention mask, or from the strings when
    the bridge pads them itself; a tensor of tokens without a mask has no padding. Generation must
    use its key-value cache, as is the default, for generated tokens to be told from the prompt's.

    Args:
        model: Any TransformerBridge.
        steering: A vector, several that add up, or None.

    Raises:
        VectorError, LayerError: The vector does not fit the model.
        PositionError: From a pass inside the block, if a vector does not fit on a prompt.

    >>> model = load_model("testbed")
    >>> vector = SteeringVector.from_pair(model, ("Love", "Hate"), layer=1)
    >>> clean = model("I hate you")
    >>> with steer(model, 5 * vector):
    ...     steered = model("I hate you")
    >>> torch.equal(clean, steered), torch.equal(clean, model("I hate you"))
    (False, True)
    """
    points = _by_point(model, as_vectors(model, steering))
    with bridge.watched(model) as current:
        hooks = [(name, _adder(vectors, current)) for name, vectors in points.items()]
        with bridge.attached(model, hooks):
            yield


def fwd_hooks(
    model: Bridge, steering: Steering, attention_mask: Int[Tensor, "batch pos"] | None = None
) -> list[tuple[str, Hook]]:
    """Hooks that steer one pass over prompts, for ``model.run_with_hooks(..., fwd_hooks=...)``.

    Args:
        model: Any TransformerBridge.
        steering: A vector, several that add up, or None.
        attention_mask: 1 for a real token, 0 for padding; no padding by default.

    Returns:
        Pairs of hook point and callback.

    Raises:
        VectorError, LayerError: The vector does not fit the model.
        PositionError: From the pass itself, if a vector does not fit on a prompt.

    >>> model = load_model("testbed")
    >>> vector = SteeringVector.from_pair(model, ("Love", "Hate"), layer=1)
    >>> logits = model.run_with_hooks("I hate you", fwd_hooks=fwd_hooks(model, 5 * vector))
    """
    call = Call(real=None if attention_mask is None else attention_mask.bool())
    points = _by_point(model, as_vectors(model, steering))
    return [(name, _adder(vectors, lambda: call)) for name, vectors in points.items()]


def mixed_hooks(
    model: Bridge,
    steerings: Sequence[Steering],
    attention_mask: Int[Tensor, "batch pos"],
) -> list[tuple[str, Hook]]:
    """Hooks that steer each row of a batch by something else, in one pass over prompts.

    Rows may differ in vectors, coefficients, layers and positions; a row steered with None is
    clean. So many configurations of a prompt can be read side by side.

    Args:
        model: Any TransformerBridge.
        steerings: For each row a vector, several that add up, or None.
        attention_mask: 1 for a real token, 0 for padding.

    Raises:
        VectorError: A vector that does not fit the model, or not one steering for each row.
        LayerError: A vector at a layer that the model does not have.
        PositionError: From the pass itself, if a vector does not fit on its prompt.
    """
    if len(steerings) != len(attention_mask):
        raise VectorError(
            f"{len(steerings)} steerings for a batch of {len(attention_mask)} prompts: "
            "give one for each, None for a clean one"
        )
    alike: dict[int, list[int]] = {}
    for row, steering in enumerate(steerings):
        alike.setdefault(id(steering), []).append(row)
    points: dict[str, list[tuple[list[int], list[SteeringVector]]]] = {}
    for rows in alike.values():
        steered = _by_point(model, as_vectors(model, steerings[rows[0]]))
        for name, vectors in steered.items():
            points.setdefault(name, []).append((rows, vectors))
    real = attention_mask.bool()

    def adder(placed: list[tuple[list[int], list[SteeringVector]]]) -> Hook:
        def add(residual: Tensor, hook: Any) -> Tensor:  # noqa: ARG001 - passed by name
            total = torch.zeros(residual.shape, device=residual.device)
            for rows, vectors in placed:
                total[rows] = added(vectors, real[rows].to(residual.device), rows)
            return _add(residual, total)

        return add

    return [(name, adder(placed)) for name, placed in points.items()]


def decode_rows(
    model: Bridge, steerings: Sequence[Steering]
) -> dict[str, Float[Tensor, "batch d_model"]]:
    """What is added to each row of a batch at every decode step, by hook point; mostly nothing.

    Only vectors at the positions "generated" and "all" steer generated tokens.
    """
    rows: dict[str, Tensor] = {}
    for place, steering in enumerate(steerings):
        generated = [
            vector
            for vector in as_vectors(model, steering)
            if positions.parse(vector.position).steers_generated
        ]
        for name, vectors in _by_point(model, generated).items():
            width = vectors[0].rows.shape[1]
            rows.setdefault(name, torch.zeros(len(steerings), width))
            rows[name][place] = sum(v.rows[0] for v in vectors)
    return rows


def decode_hooks(rows: Mapping[str, Float[Tensor, "batch d_model"]]) -> list[tuple[str, Hook]]:
    """Hooks that add to each row of a batch, at its one token, what ``decode_rows`` gave."""

    def adder(total: Tensor) -> Hook:
        def add(residual: Tensor, hook: Any) -> Tensor:  # noqa: ARG001 - passed by name
            return add_each(residual, total)

        return add

    return [(name, adder(total)) for name, total in rows.items()]


def add_each(
    residual: Float[Tensor, "batch pos d_model"], total: Float[Tensor, "batch d_model"]
) -> Float[Tensor, "batch pos d_model"]:
    """The stream of a batch with one row added to all tokens of each sequence."""
    return _add(residual, total[:, None].to(residual.device))


def add_rows(
    residual: Float[Tensor, "batch pos d_model"],
    vectors: Sequence[SteeringVector],
    real: Bool[Tensor, "batch pos"],
) -> Float[Tensor, "batch pos d_model"]:
    """The stream of a batch of prompts with the rows of all vectors added where they belong.

    Args:
        residual: Never edited in place.
        vectors: All of one hook point.
        real: True for a real token, False for padding.

    Raises:
        PositionError: A vector does not fit on one of the prompts.
        VectorError: The sum is beyond the range of the stream's dtype.

    >>> vector = SteeringVector(torch.tensor([[2.0], [4.0]]), "blocks.1.hook_resid_pre", "back")
    >>> add_rows(torch.ones(1, 4, 1), [vector], torch.ones(1, 4, dtype=torch.bool)).flatten()
    tensor([1., 1., 3., 5.])
    """
    return _add(residual, added(vectors, real))


def added(
    vectors: Sequence[SteeringVector],
    real: Bool[Tensor, "batch pos"],
    prompts: Sequence[int] | None = None,
) -> Float[Tensor, "batch pos d_model"]:
    """What vectors of one hook point, one at least, add to each token of a batch of prompts.

    Args:
        vectors: All of one hook point.
        real: True for a real token, False for padding.
        prompts: Index of each prompt, for the message of an error.

    Raises:
        PositionError: A vector does not fit on one of the prompts.
    """

    def spread(vector: SteeringVector) -> Tensor:
        plan = positions.parse(vector.position)
        rows = pad(vector.rows.to(real.device), (0, 0, 0, 1))  # row -1: nothing is added
        return rows[positions.row_index(plan, real, len(vector.rows), prompts)]

    return reduce(torch.add, map(spread, vectors))


def _add(residual: Tensor, total: Tensor) -> Tensor:
    """Add in the stream's dtype, leaving the bits of every element that gets nothing."""
    cast = total.to(residual.dtype)
    steered = torch.where(cast == 0, residual, residual + cast)
    # The others' range is float32's, and looking at every element makes a GPU wait.
    if residual.dtype == torch.float16 and not steered.isfinite().all():
        raise VectorError(
            f"the steering reaches {float(total.abs().max()):.3g}, and with the stream it is "
            "beyond float16: use a smaller coefficient, or load the model in float32 or bfloat16"
        )
    return steered


def _adder(vectors: Sequence[SteeringVector], current: Callable[[], Call]) -> Hook:
    generated = [v for v in vectors if positions.parse(v.position).steers_generated]
    rows = sum((v.rows for v in generated), start=torch.zeros(1, 1))

    def add(residual: Tensor, hook: Any) -> Tensor | None:
        if residual.ndim != 3:
            raise VectorError(
                f"{hook.name} carries {tuple(residual.shape)}, not [batch, pos, d_model]: "
                "steer at another hook point"
            )
        call = current()
        if call.continues:
            return _add(residual, rows.to(residual.device)) if generated else None
        real = call.real
        if real is None:
            real = torch.ones(residual.shape[:2], dtype=torch.bool)
        bridge.check_mask(real, residual.shape[:2])
        return add_rows(residual, vectors, real.to(residual.device))

    return add


def _by_point(model: Bridge, vectors: Sequence[SteeringVector]) -> dict[str, list[SteeringVector]]:
    """Vectors by the hook point that they are added at."""
    points: dict[str, list[SteeringVector]] = {}
    for vector in vectors:
        for name in bridge.injection_points(model, vector.hook_point):
            points.setdefault(name, []).append(vector)
    return points
