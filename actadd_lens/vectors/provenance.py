"""Where a vector comes from: plain JSON that is carried along, saved, and told when it is shown."""

import json
from collections.abc import Mapping
from importlib.metadata import version
from reprlib import repr as short
from typing import Any

from actadd_lens import __version__
from actadd_lens.errors import VectorError
from actadd_lens.models.base import Bridge
from actadd_lens.models.bridge import BridgeModel
from actadd_lens.steering.interventions import Intervention


def source(model: Bridge) -> dict[str, Any]:
    """What a vector read from ``model`` says about its origin: the model, its weights, versions."""
    own, packages = BridgeModel(model), ("transformer-lens", "transformers", "torch")
    versions = {"actadd-lens": __version__} | {name: version(name) for name in packages}
    return {
        "model": own.name,
        "n_layers": own.n_layers,
        "dtype": str(own.dtype).removeprefix("torch."),
        "processed_weights": own.has_processed_weights,
        "versions": versions,
    }


def source_of(intervention: Intervention) -> dict[str, Any]:
    """Where an intervention acts and what it is made of, for the provenance of results."""
    return {
        "hook_point": intervention.hook_point,
        "position": intervention.position,
        "provenance": getattr(intervention, "provenance", None) or dict(intervention.identity()),
    }


def texts_of_rows(provenance: Mapping[str, Any], n_rows: int) -> list[list[str]]:
    """Texts of the tokens that each row is of, by prompt; none where rows are no longer of one."""
    kept = {"scale", "at", "to_hook_point", "with_rows", "with_dims", "random_like"}
    found = provenance.get("texts")
    several: Any = found if provenance.get("kind") == "pair" else [found]
    fits = (
        isinstance(several, list)
        and len(several) <= 2
        and all(
            isinstance(row, list) and [type(text) for text in row] == n_rows * [str]
            for row in several
        )
    )
    kept_all = all(name in kept for step in steps_of(provenance) for name in step)
    return several if fits and kept_all else []


def steps_of(provenance: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What was done to a vector since it was made; what a caller's own JSON says else is none."""
    steps = provenance.get("steps")
    return [step for step in steps if isinstance(step, dict)] if isinstance(steps, list) else []


def label_of(provenance: Mapping[str, Any]) -> str:
    """What a vector is called: its contrast pair or prompt, if it was made of one.

    >>> label_of({"kind": "pair", "positive": "Love", "negative": "Hate"})
    "'Love' - 'Hate'"
    """
    kind = provenance.get("kind", "vector")
    named = {"pair": ["positive", "negative"], "prompt": ["prompt"]}
    names = named.get(kind, []) if isinstance(kind, str) else []
    if not names or any(name not in provenance for name in names):
        return str(kind)
    return " - ".join(repr(provenance[name]) for name in names)


_OPERATIONS = {
    "with_rows": "rows {} of",
    "with_dims": "dimensions {} of",
    "random_like": "random (seed {}), as long as",
    "shuffled": "shuffled (seed {})",
    "collapse": "{} row of",
}
"""What was done to a vector, in words; what is not here does not change the rows."""
_TERMS = 4
"""Terms of a sum that are shown."""


def expression(provenance: Mapping[str, Any]) -> str:
    """A vector as a term: what it is made of, and what was done to it since.

    >>> expression({"kind": "pair", "positive": "Love", "negative": "Hate"})
    "'Love' - 'Hate'"
    >>> mine = {"kind": "mine", "steps": [{"add": {"kind": "yours"}}, {"scale": 0.5}]}
    >>> expression(mine)
    '0.5 x (mine + yours)'
    """
    return _term(provenance)[0]


def _term(provenance: Mapping[str, Any]) -> tuple[str, bool]:
    """The text of ``expression``, and whether it is a sum or a difference."""
    coefficient, terms, difference = 1.0, [label_of(provenance)], provenance.get("kind") == "pair"

    def whole() -> tuple[str, bool]:
        left_out = [f"... ({len(terms)} terms)"] if len(terms) > _TERMS else []
        text = " ".join([*terms[:2], *left_out, *terms[-1:]] if left_out else terms)
        found = text, difference or len(terms) > 1
        return found if coefficient == 1 else (f"{coefficient:g} x {_grouped(*found)}", False)

    for step in steps_of(provenance):
        for name, value in step.items():
            if name == "scale" and isinstance(value, (int, float)):
                coefficient *= value
                continue
            if name in ("add", "subtract") and isinstance(value, Mapping):
                first = terms if len(terms) > 1 and coefficient == 1 else [_grouped(*whole())]
                terms = [*first, f"{'+' if name == 'add' else '-'} {_grouped(*_term(value))}"]
            elif name in _OPERATIONS:
                done = _OPERATIONS[name].format(value if isinstance(value, str) else short(value))
                terms = [f"{done} {_grouped(*whole())}"]
            else:
                continue
            coefficient, difference = 1.0, False
    return whole()


def _grouped(text: str, several: bool) -> str:
    return f"({text})" if several else text


def described(hook_point: str, position: int | str, provenance: Mapping[str, Any]) -> str:
    """A vector in a line: what it is made of, and where it acts.

    >>> described("blocks.1.hook_resid_pre", "front", {"kind": "mine", "steps": [{"scale": 2.0}]})
    '2 x mine at blocks.1.hook_resid_pre, front'
    """
    place = position if isinstance(position, str) else f"position {position}"
    return f"{expression(provenance)} at {hook_point}, {place}"


def as_json(provenance: Mapping[str, Any]) -> dict[str, Any]:
    """A private copy, and the proof that it can be saved."""
    try:
        copy: dict[str, Any] = json.loads(json.dumps(dict(provenance)))
    except (TypeError, ValueError, RecursionError) as error:
        raise VectorError(f"provenance must be plain JSON: {error}") from error
    return copy
