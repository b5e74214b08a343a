"""Is a direction the same at every layer? Vectors recorded at one layer, injected at another."""

from collections.abc import Sequence
from itertools import product
from typing import Any

import torch
from einops import einsum

from actadd_lens.metrics.registry import Metric
from actadd_lens.models import bridge
from actadd_lens.models.base import Bridge
from actadd_lens.sweeps.ablations.results import CONTROLS, Ablation, arms, check_vector_controls
from actadd_lens.sweeps.cells import Cell, check_axes, clean_cell, numbers
from actadd_lens.sweeps.measuring import measure
from actadd_lens.vectors.extraction import extract
from actadd_lens.vectors.pair import ContrastPair, as_pair
from actadd_lens.vectors.provenance import label_of
from actadd_lens.vectors.vector import SteeringVector


def layer_transplant(
    model: Bridge,
    pair: ContrastPair | tuple[str, str],
    prompts: str | Sequence[str],
    *,
    coefficient: float,
    metrics: str | Metric | Sequence[object],
    recorded: Sequence[int] | None = None,
    injected: Sequence[int] | None = None,
    norm_matched: bool = False,
    position: int | str = "front",
    controls: Sequence[str] = CONTROLS,
    seed: int = 0,
    **options: Any,
) -> Ablation:
    """The vector of every layer s, injected at every layer t.

    Args:
        model: Any TransformerBridge with a tokenizer.
        pair: Contrast pair.
        prompts: Texts to read or to continue.
        coefficient: What every vector is multiplied by.
        metrics: As of ``sweep``.
        recorded: Layers s; every one by default.
        injected: Layers t; every one by default.
        norm_matched: Whether each row is given the norm that the vector of layer t has there, so
            that only the direction is moved.
        position: Where the rows land.
        controls: "random", "random:1", ... and "negated", of every cell.
        seed: Of completions and of random directions.
        **options: ``samples``, ``store``, ``progress``, ``batch_tokens`` and sampling options, as
            of ``sweep``.

    Returns:
        An ``Ablation`` with the column ``recorded``: layer s; ``layer`` is t.

    Raises:
        SweepError, LayerError, PositionError, PromptError, MetricError: As of ``sweep``.

    >>> model = load_model("testbed")
    >>> result = layer_transplant(
    ...     model,
    ...     ("Love.", "Hate."),
    ...     "My friend",
    ...     coefficient=4,
    ...     recorded=[1, 2],
    ...     injected=[1, 2],
    ...     metrics="kl",
    ...     progress=False,
    ... )
    >>> len(result.summary().query("run == 'steered'"))
    4
    """
    check_vector_controls(controls)
    every = list(range(bridge.n_layers(model)))
    sources = every if recorded is None else numbers("recorded", recorded, int)
    targets = every if injected is None else numbers("injected", injected, int)
    check_axes(recorded=sources, injected=targets)
    vectors = extract(model, as_pair(pair), sorted({*sources, *targets}))
    cells: list[Cell] = []
    for s, t in product(sources, targets):
        rows = vectors[s].to_hook_point(bridge.hook_point(t))
        moved = coefficient * (with_norms_of(rows, vectors[t]) if norm_matched else rows)
        labels = {
            "pair": label_of(vectors[s].provenance),
            "coefficient": coefficient,
            "recorded": s,
        }
        cells += arms(moved.at(position), labels, controls, seed)
    settings = {
        "kind": "layer_transplant",
        "pair": [as_pair(pair).positive, as_pair(pair).negative, as_pair(pair).pad],
        "coefficient": float(coefficient),
        "recorded": sources,
        "injected": targets,
        "norm_matched": norm_matched,
        "position": position,
        "controls": list(controls),
    }
    clean = clean_cell(recorded=None)
    found: Ablation = measure(
        Ablation, model, [clean, *cells], prompts, metrics, settings, seed=seed, **options
    )
    return found


def with_norms_of(vector: SteeringVector, other: SteeringVector) -> SteeringVector:
    """The rows of one vector with the norms of another's; rows that are zero stay so."""
    scale = torch.where(vector.norms() > 0, other.norms() / vector.norms(), 0.0)
    rows = einsum(vector.rows, scale, "pos d_model, pos -> pos d_model")
    origin = {**vector.provenance, "norms_of": other.hook_point}
    return SteeringVector(rows, vector.hook_point, vector.position, origin)
