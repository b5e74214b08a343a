"""How much of a vector's effect a fraction of its dimensions has."""

from collections.abc import Sequence
from typing import Any

import torch

from actadd_lens.errors import SweepError
from actadd_lens.metrics.registry import Metric
from actadd_lens.models.base import Bridge
from actadd_lens.sweeps.ablations.results import (
    CONTROLS,
    Ablation,
    arms,
    check_vector,
    check_vector_controls,
    described,
)
from actadd_lens.sweeps.cells import check_axes, clean_cell, numbers
from actadd_lens.sweeps.measuring import measure
from actadd_lens.vectors.provenance import label_of
from actadd_lens.vectors.vector import SteeringVector

CHOICES = ("first", "top", "random")


def dimension_ablation(
    model: Bridge,
    vector: SteeringVector,
    prompts: str | Sequence[str],
    *,
    fractions: Sequence[float] = (0.1, 0.25, 0.5, 0.75, 1.0),
    metrics: str | Metric | Sequence[object],
    controls: Sequence[str] = CONTROLS,
    seed: int = 0,
    **options: Any,
) -> Ablation:
    """A vector with a fraction of its dimensions: the first, the largest, or a random choice.

    The dimensions left out are set to zero, nothing is rescaled. "top" takes those with the largest
    norm over all rows.

    Args:
        model: Any TransformerBridge with a tokenizer.
        vector: Already times its coefficient.
        prompts: Texts to read or to continue.
        fractions: Of d_model, in (0, 1].
        metrics: As of ``sweep``.
        controls: "random", "random:1", ... and "negated", of every part.
        seed: Of completions, of the random choice and of random directions.
        **options: ``samples``, ``store``, ``progress``, ``batch_tokens`` and sampling options, as
            of ``sweep``.

    Returns:
        An ``Ablation`` with the columns ``ablation`` ("first", "top" or "random") and ``fraction``.

    Raises:
        SweepError: A fraction out of range, or one twice; otherwise as of ``sweep``.

    >>> model = load_model("testbed")
    >>> vector = 4 * SteeringVector.from_pair(model, ("Love.", "Hate."), layer=1)
    >>> result = dimension_ablation(
    ...     model, vector, "My friend", fractions=[0.5, 1], metrics="kl", progress=False
    ... )
    >>> result.summary()["ablation"].dropna().unique().tolist()
    ['first', 'top', 'random']
    """
    check_vector(model, vector)
    check_vector_controls(controls)
    shares = numbers("fractions", fractions)
    check_axes(fractions=shares)
    for share in shares:
        if not 0 < share <= 1:
            raise SweepError(f"fraction {share:g} is out of range: it must be in (0, 1]")
    label = label_of(vector.provenance)
    taken = orders(vector, seed)
    cells = [
        cell
        for choice, order in taken.items()
        for share in shares
        for cell in arms(
            vector.with_dims(order[: max(1, round(share * len(order)))]),
            {"pair": label, "coefficient": None, "ablation": choice, "fraction": share},
            controls, seed,
        )
    ]  # fmt: skip
    settings = {
        "kind": "dimension_ablation",
        "vector": described(vector),
        "fractions": shares,
        "controls": list(controls),
    }
    clean = clean_cell(ablation=None, fraction=None)
    found: Ablation = measure(
        Ablation, model, [clean, *cells], prompts, metrics, settings, seed=seed, **options
    )
    return found


def orders(vector: SteeringVector, seed: int) -> dict[str, list[int]]:
    """Dimensions in the order in which each choice takes them."""
    width = vector.rows.shape[1]
    norms = torch.linalg.vector_norm(vector.rows, dim=0)
    generator = torch.Generator().manual_seed(seed)
    ways = (
        torch.arange(width),
        norms.argsort(descending=True, stable=True),
        torch.randperm(width, generator=generator),
    )
    return {choice: order.tolist() for choice, order in zip(CHOICES, ways, strict=True)}
