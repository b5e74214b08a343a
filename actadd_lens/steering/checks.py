"""Whether interventions fit a model and its prompts, before anything runs."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor

from actadd_lens.errors import ModelMismatchWarning, VectorError, warn_caller
from actadd_lens.models.base import Bridge
from actadd_lens.models.bridge import BridgeModel
from actadd_lens.models.load import same_model
from actadd_lens.models.plain import BareModel
from actadd_lens.steering import positions
from actadd_lens.steering.interventions import (
    Intervention,
    Steering,
    conditions_of,
    n_rows,
)


def as_interventions(
    model: Bridge, steering: Steering, *, warn: bool = True
) -> tuple[Intervention, ...]:
    """The interventions of ``steering``, each of them fit for ``model``.

    Args:
        model: Any TransformerBridge.
        steering: An intervention, several, or None.
        warn: Whether to warn of vectors that were read from another model, or are zero. A function
            that a user calls does so once.

    Raises:
        ModelTypeError: Something else in the model's place.
        VectorError: Not an intervention, or one of another width.
        LayerError: A layer or hook point that the model does not have.
    """
    given = fitting(BridgeModel(model), steering)
    if warn:
        warn_of(BridgeModel(model), given)
    return given


def fitting(own: BridgeModel | BareModel, steering: Steering) -> tuple[Intervention, ...]:
    """As ``as_interventions``, for any kind of model, and without a warning."""
    if steering is None:
        return ()
    given: tuple[Any, ...] = (steering,)
    if isinstance(steering, Sequence) and not isinstance(steering, Intervention):
        given = tuple(steering)
    for item in given:
        if isinstance(item, Mapping):
            raise VectorError(
                f"cannot steer with a {type(item).__name__}: take the vector of one layer, "
                f"e.g. vectors[{next(iter(item), 3)!r}]"
            )
        if isinstance(item, type) or not isinstance(item, Intervention):
            raise VectorError(
                f"cannot steer with a {_named(item)}: give SteeringVectors, "
                "e.g. SteeringVector(rows, 'blocks.6.hook_resid_pre'), or other interventions"
            )
        own.check_point(item.hook_point)
        for condition in conditions_of([item]):
            own.check_point(condition.condition.hook_point)
        positions.check_rows(item.position, n_rows(item))
        widths = [getattr(item, "d_model", None)]
        widths += [getattr(found.condition, "d_model", None) for found in conditions_of([item])]
        for width in widths:
            if width is not None and width != own.d_model:
                raise VectorError(
                    f"vector has width {width}, {own.name} has d_model {own.d_model}: extract it "
                    "from this model"
                )
    return given


def warn_of(own: BridgeModel | BareModel, given: Sequence[Any]) -> None:
    """Warn of vectors of another model, and of those that are zero by themselves, once each."""
    here = {"model": own.name, "n_layers": own.n_layers}
    found: dict[str, type[Warning]] = {}
    for item in given:
        while hasattr(item, "inner"):  # an intervention around another one
            item = item.inner
        origin = getattr(item, "provenance", None)
        origin = origin if isinstance(origin, Mapping) else {}
        if not same_model(origin, here):
            text = (
                f"a vector of the model {origin.get('model')!r} ({origin.get('n_layers', '?')} "
                f"layers) steers {own.name!r} ({own.n_layers} layers): the directions of one model "
                "are not those of another, extract it from this one"
            )
            found[text] = ModelMismatchWarning
        rows = getattr(item, "rows", None)
        if isinstance(rows, Tensor) and not (
            rows.requires_grad or rows.any() or _made_zero(origin)
        ):
            text = f"the vector {item!r} is zero, so it changes nothing: steer with another"
            found[text] = UserWarning
    for text, category in found.items():
        warn_caller(text, category)


def _made_zero(origin: Mapping[str, Any]) -> bool:
    """Whether a vector became zero by a coefficient or a difference, which is meant."""
    steps = origin.get("steps")
    scales = [
        step["scale"]
        for step in (steps if isinstance(steps, list) else [])
        if isinstance(step, dict) and isinstance(step.get("scale"), (int, float))
    ]
    return origin.get("kind") == "sum" or any(abs(scale) < 1e-30 for scale in scales)


def check_fit(prompts: Sequence[Sequence[int]], interventions: Sequence[Intervention]) -> None:
    """Raise ``PositionError`` if one does not fit on some prompt, before anything runs."""
    lengths = torch.tensor([len(ids) for ids in prompts])
    real = torch.arange(int(lengths.max())) < lengths[:, None]
    tokens_edited(interventions, real, contents=prompts)
    for conditional in conditions_of(interventions):
        plan = positions.parse(conditional.condition.position)
        positions.row_index(plan, real, 1, contents=prompts)


def tokens_edited(
    interventions: Sequence[Intervention],
    real: Bool[Tensor, "batch pos"],
    prompts: Sequence[int] | None = None,
    contents: Sequence[Sequence[int]] | None = None,
) -> list[Bool[Tensor, "batch pos"]]:
    """Which tokens of a batch of whole prompts each intervention edits.

    Args:
        interventions: At any hook points.
        real: True for a real token, False for padding.
        prompts: Index of each prompt, for the message of an error.
        contents: The prompts themselves, for positions that depend on what they say.

    Raises:
        PositionError: One of them does not fit on one of the prompts.
    """
    return [
        positions.row_index(positions.parse(item.position), real, n_rows(item), prompts, contents)
        != positions.NO_ROW
        for item in interventions
    ]


def _named(item: object) -> str:
    return item.__name__ if isinstance(item, type) else type(item).__name__
