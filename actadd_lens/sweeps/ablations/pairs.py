"""Many pairs for one concept: do they steer alike?"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from actadd_lens.errors import SweepError
from actadd_lens.metrics.registry import Metric
from actadd_lens.models.base import Bridge
from actadd_lens.sweeps.ablations.results import CONTROLS, Ablation, arms, check_vector_controls
from actadd_lens.sweeps.cells import Pairs, clean_cell, labelled
from actadd_lens.sweeps.measuring import measure
from actadd_lens.vectors.extraction import extract
from actadd_lens.vectors.norms import cosines


def pair_variance(
    model: Bridge,
    pairs: Pairs,
    prompts: str | Sequence[str],
    *,
    layer: int,
    coefficient: float,
    metrics: str | Metric | Sequence[object],
    position: int | str = "front",
    controls: Sequence[str] = CONTROLS,
    seed: int = 0,
    **options: Any,
) -> Ablation:
    """The effect of each of several pairs, and the cosines between their vectors.

    Args:
        model: Any TransformerBridge with a tokenizer.
        pairs: Two contrast pairs or more, or a mapping from label to pair.
        prompts: Texts to read or to continue.
        layer: Injection layer.
        coefficient: What every vector is multiplied by.
        metrics: As of ``sweep``.
        position: Where the rows land.
        controls: "random", "random:1", ... and "negated", of every pair.
        seed: Of completions and of random directions.
        **options: ``samples``, ``store``, ``progress``, ``batch_tokens`` and sampling options, as
            of ``sweep``.

    Returns:
        An ``Ablation`` with a cell for each pair; its ``cosines`` are of whole vectors, row by row.

    Raises:
        SweepError: Fewer than two pairs; otherwise as of ``sweep``.

    >>> model = load_model("testbed")
    >>> pairs = [("Love.", "Hate."), ("Joy.", "Grief.")]
    >>> result = pair_variance(
    ...     model, pairs, "My friend", layer=1, coefficient=4, metrics="kl", progress=False
    ... )
    >>> result.cosines.shape
    (2, 2)
    """
    check_vector_controls(controls)
    named = labelled(pairs)
    if len(named) < 2:
        raise SweepError(f"a variance over pairs needs two at least, not {len(named)}")
    vectors = {label: extract(model, pair, [layer])[layer] for label, pair in named.items()}
    cells = [
        cell
        for label, vector in vectors.items()
        for cell in arms(
            (coefficient * vector).at(position),
            {"pair": label, "coefficient": coefficient},
            controls,
            seed,
        )
    ]
    between = cosines(vectors)
    settings = {
        "kind": "pair_variance",
        "pairs": [[label, p.positive, p.negative, p.pad] for label, p in named.items()],
        "layer": layer,
        "coefficient": float(coefficient),
        "position": position,
        "controls": list(controls),
    }
    angles = {"pairs": list(between.index), "values": between.to_numpy().round(6).tolist()}
    found: Ablation = measure(
        Ablation, model, [clean_cell(), *cells], prompts, metrics, settings, seed=seed, **options
    )
    return replace(found, provenance={**found.provenance, "cosines": angles})
