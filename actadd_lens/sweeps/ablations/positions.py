"""Which row of a vector carries the effect, and where in the prompt it has to be."""

from collections.abc import Sequence
from typing import Any

from actadd_lens.errors import PositionError
from actadd_lens.metrics.registry import Metric
from actadd_lens.models.base import Bridge
from actadd_lens.models.tokens import tokenize
from actadd_lens.steering import positions
from actadd_lens.sweeps.ablations.results import (
    CONTROLS,
    WHOLE,
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


def position_ablation(
    model: Bridge,
    vector: SteeringVector,
    prompts: str | Sequence[str],
    *,
    metrics: str | Metric | Sequence[object],
    starts: Sequence[int] | None = None,
    controls: Sequence[str] = CONTROLS,
    seed: int = 0,
    **options: Any,
) -> Ablation:
    """Each row of a vector alone, each left out, and the vector moved along the prompt.

    Args:
        model: Any TransformerBridge with a tokenizer.
        vector: Already times its coefficient. Rows that are zero, as BOS's, are not taken apart.
        prompts: Texts to read or to continue.
        metrics: As of ``sweep``.
        starts: Positions to move row 0 to; by default every one where the rows fit on all prompts.
            Not for vectors whose one row goes to many tokens.
        controls: "random", "random:1", ... and "negated", of every part.
        seed: Of completions and of random directions.
        **options: ``samples``, ``store``, ``progress``, ``batch_tokens`` and sampling options, as
            of ``sweep``.

    Returns:
        An ``Ablation`` with the columns ``ablation`` ("whole", "alone", "left out" or "moved") and
        ``part``: the row that is alone or left out, or the position of row 0, as text.

    Raises:
        PositionError: The vector does not fit on a prompt at one of the ``starts``.
        SweepError, VectorError, MetricError, PromptError, SamplingError: As of ``sweep``.

    >>> model = load_model("testbed")
    >>> vector = 4 * SteeringVector.from_pair(model, ("Love.", "Hate."), layer=1)
    >>> result = position_ablation(
    ...     model, vector, ["My friend went home."], metrics=["kl"], progress=False
    ... )
    >>> sorted(result.frame["ablation"].dropna().unique())
    ['alone', 'left out', 'moved', 'whole']
    """
    check_vector(model, vector)
    check_vector_controls(controls)
    lengths = [len(ids) for ids in tokenize(model, prompts)]
    n_rows, label = len(vector.rows), label_of(vector.provenance)
    kept = [row for row in range(n_rows) if vector.rows[row].any()]
    parts = [(WHOLE, WHOLE, vector)]
    parts += [("alone", f"row {row}", vector.with_rows([row])) for row in kept]
    others = {row: [i for i in range(n_rows) if i != row] for row in kept}
    parts += [("left out", f"row {row}", vector.with_rows(others[row])) for row in kept]
    if not positions.parse(vector.position).one_row_only:
        every = list(range(min(lengths) - n_rows + 1))
        places = every if starts is None else numbers("starts", starts, int)
        check_axes(starts=places)
        parts += [("moved", f"at {start}", vector.at(start)) for start in places]
    elif starts is not None:
        raise PositionError(
            f"a vector at {vector.position!r} goes to many tokens and can't start at {starts}: "
            "give it another position, or leave starts out"
        )
    cells = [
        cell
        for ablation, part, arm in parts
        for cell in arms(
            arm, {"pair": label, "coefficient": None, "ablation": ablation, "part": part},
            controls, seed,
        )
    ]  # fmt: skip
    settings = {
        "kind": "position_ablation",
        "vector": described(vector),
        "parts": [f"{ablation} {part}" for ablation, part, _ in parts],
        "controls": list(controls),
    }
    clean = clean_cell(ablation=None, part=None)
    found: Ablation = measure(
        Ablation, model, [clean, *cells], prompts, metrics, settings, seed=seed, **options
    )
    return found
