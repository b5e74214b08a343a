"""Where a vector comes from: plain JSON that is carried along, saved, and told when it is shown."""

import json
from collections.abc import Mapping, Sequence
from hashlib import sha256
from importlib.metadata import version
from reprlib import repr as short
from typing import Any

from actadd_lens import __version__
from actadd_lens.errors import VectorError
from actadd_lens.models.base import Bridge
from actadd_lens.models.bridge import BridgeModel
from actadd_lens.steering import positions
from actadd_lens.steering.interventions import Intervention
from actadd_lens.steering.positions import PositionLike


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
        "position": positions.parse(intervention.position).saved,
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


def with_step(provenance: Mapping[str, Any], step: Mapping[str, Any]) -> dict[str, Any]:
    """A provenance after one more step; scales, and positions, in a row become one.

    >>> with_step({"kind": "mine", "steps": [{"scale": 2.0}]}, {"scale": 3.0})
    {'kind': 'mine', 'steps': [{'scale': 6.0}]}
    """
    steps, step = steps_of(provenance), dict(step)
    if "scale" in step and steps and "scale" in steps[-1]:
        step = {"scale": steps[-1]["scale"] * step["scale"]}
        steps = steps[:-1]
    if "at" in step and steps and "at" in steps[-1]:
        steps = steps[:-1]
    return {**provenance, "steps": [*steps, step]}


def summed(a: Mapping[str, Any], b: Mapping[str, Any], sign: float) -> dict[str, Any]:
    """The provenance of a + sign * b: a linear combination of different origins.

    Equal origins become one term, and a sum of sums that is long is told by a hash, so that it
    stays small however long a chain is.

    >>> summed({"kind": "v"}, {"kind": "w"}, -1)["terms"]
    [{'coefficient': 1.0, 'of': {'kind': 'v'}}, {'coefficient': -1.0, 'of': {'kind': 'w'}}]
    """
    found: dict[str, dict[str, Any]] = {}
    for provenance, factor in ((a, 1.0), (b, sign)):
        for term in _terms_of(provenance):
            key, origin = json.dumps(term["of"], sort_keys=True), term["of"]
            if len(key) > _LONG:
                origin = {"kind": label_of(origin), "sha256": sha256(key.encode()).hexdigest()}
            known = found.setdefault(key, {"coefficient": 0.0, "of": origin})
            known["coefficient"] += factor * term["coefficient"]
    terms = [*found.values()]
    if len(terms) == 1:
        return with_step(terms[0]["of"], {"scale": terms[0]["coefficient"]})
    alike = a.get("model") == b.get("model")
    shared = {k: v for k, v in a.items() if alike and k in _OF_MODEL and b.get(k) == v}
    return {"kind": "sum", "terms": terms, **shared}


_LONG = 10_000
"""Characters of an origin within a sum."""
_OF_MODEL = ("model", "n_layers", "dtype", "processed_weights", "versions")


def _terms_of(provenance: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A provenance as a linear combination: the terms of a sum, or one term."""
    steps, factor = steps_of(provenance), 1.0
    if steps and "scale" in steps[-1]:
        factor = float(steps.pop()["scale"])
    terms = provenance.get("terms")
    if provenance.get("kind") == "sum" and isinstance(terms, list) and not steps:
        return [{**term, "coefficient": factor * term["coefficient"]} for term in terms]
    origin = {k: v for k, v in provenance.items() if k != "steps"}
    return [{"coefficient": factor, "of": {**origin, "steps": steps} if steps else origin}]


def label_of(provenance: Mapping[str, Any]) -> str:
    """What a vector is called: its contrast pair or prompt, if it was made of one.

    >>> label_of({"kind": "pair", "positive": "Love", "negative": "Hate"})
    "'Love' - 'Hate'"
    """
    kind, terms = provenance.get("kind", "vector"), provenance.get("terms")
    if kind == "sum" and isinstance(terms, list):
        return _sum(terms)
    parts = {"pair": ["positive", "negative"], "prompt": ["prompt"]}
    names = parts.get(kind, []) if isinstance(kind, str) else []
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
_SHOWN = 300
"""Characters of an expression that are shown."""
_TERMS = 4
"""Terms of a sum that are shown."""


def expression(provenance: Mapping[str, Any]) -> str:
    """A vector as a term: what it is made of, and what was done to it since.

    >>> expression({"kind": "pair", "positive": "Love", "negative": "Hate"})
    "'Love' - 'Hate'"
    >>> both = summed({"kind": "mine"}, {"kind": "yours"}, -2)
    >>> expression({**both, "steps": [{"scale": 0.5}]})
    '0.5 x (mine - 2 x yours)'
    """
    text = _term(provenance)[0]
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 60]} ... {text[-50:]}"


def _term(provenance: Mapping[str, Any]) -> tuple[str, bool]:
    """The text of ``expression``, and whether it is a sum or a difference."""
    several = provenance.get("kind") == "pair"
    text = label_of(provenance)
    terms = provenance.get("terms")
    if provenance.get("kind") == "sum" and isinstance(terms, list):
        text, several = _sum(terms), len(terms) > 1
    for step in steps_of(provenance):
        for name, value in step.items():
            if name == "scale" and isinstance(value, (int, float)) and value != 1:
                text, several = f"{value:g} x {_grouped(text, several)}", False
            elif name in _OPERATIONS:
                done = _OPERATIONS[name].format(value if isinstance(value, str) else short(value))
                text, several = f"{done} {_grouped(text, several)}", False
    return text, several


def _sum(terms: Sequence[Mapping[str, Any]]) -> str:
    """A linear combination; of many terms the first ones and the last."""
    shown = [*terms[: _TERMS - 2], *terms[-1:]] if len(terms) > _TERMS else terms
    parts: list[str] = []
    for term in shown:
        factor, text = float(term["coefficient"]), _grouped(*_term(term["of"]))
        size = "" if abs(factor) == 1 else f"{abs(factor):g} x "
        parts.append(f"{'-' if factor < 0 else '+'} {size}{text}")
    if len(terms) > len(shown):
        parts.insert(-1, f"... ({len(terms)} terms)")
    return " ".join(parts).removeprefix("+ ")


def _grouped(text: str, several: bool) -> str:
    return f"({text})" if several else text


def described(hook_point: str, position: PositionLike, provenance: Mapping[str, Any]) -> str:
    """A vector in a line: what it is made of, and where it acts.

    >>> described("blocks.1.hook_resid_pre", "front", {"kind": "mine", "steps": [{"scale": 2.0}]})
    '2 x mine at blocks.1.hook_resid_pre, front'
    """
    label = positions.parse(position).label
    place = label if isinstance(label, str) else f"position {label}"
    return f"{expression(provenance)} at {hook_point}, {place}"


def as_json(provenance: Mapping[str, Any]) -> dict[str, Any]:
    """A private copy, and the proof that it can be saved."""
    try:
        copy: dict[str, Any] = json.loads(json.dumps(dict(provenance)))
    except (TypeError, ValueError, RecursionError) as error:
        raise VectorError(f"provenance must be plain JSON: {error}") from error
    return copy
