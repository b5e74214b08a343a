"""Controls: what a steered configuration is compared with, by name.

A control is a function from a ``Steered`` configuration to what is run in its place: a vector, an
intervention, several of them, or a text that is put in front of every prompt. ``register_control``
gives it the name by which sweeps and ablations know it:

    @register_control("halved")
    def halved(of: Steered) -> SteeringVector:
        return 0.5 * of.vector

    al.sweep(model, ("Love", "Hate"), prompts, metrics="kl", controls=["random", "halved"])
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeAlias

from actadd_lens.errors import SweepError
from actadd_lens.models.base import Bridge
from actadd_lens.steering.interventions import control_of
from actadd_lens.vectors.extraction import mean_differences
from actadd_lens.vectors.pair import ContrastPair
from actadd_lens.vectors.vector import SteeringVector

STEERED = "steered"
"""The run of the vector itself, in the column ``run``."""
CLEAN = "clean"
"""The run without steering."""
DEFAULT: tuple[str, ...] = ("random", "negated")

Needs: TypeAlias = Literal["vector", "rows", "pair", "pairs"]
"""What a control is made from: the vector; the order of its rows; its contrast pair, or all."""


@dataclass(frozen=True, eq=False)
class Steered:
    """A steered configuration, and what it was made from."""

    vector: Any
    """The vector or intervention: times its coefficient, at its position."""
    seed: int = 0
    draw: int = 0
    """The k of "random:k"."""
    model: Bridge | None = None
    layer: int | None = None
    coefficient: float | None = None
    pair: ContrastPair | None = None
    """The pair that the vector was extracted from, if any."""
    pairs: Sequence[ContrastPair] = ()
    """All pairs of the sweep."""
    layers: Sequence[int] = ()
    """All layers that pairs are extracted at."""
    shared: dict[Any, Any] = field(default_factory=dict)
    """What a control keeps for other configurations of the sweep. Configurations that get the same
    object from it share the work."""

    def own_control(self, name: str) -> Any:
        """The control that an intervention makes for itself, by its method ``control``.

        Raises:
            SweepError: It makes none of this name.
        """
        made = control_of(self.vector, name, (self.seed + self.draw) % 2**64)
        if made is None:
            raise SweepError(
                f"{type(self.vector).__name__} has no control {name!r}: leave it out, "
                "e.g. controls=(), or give the class a method control(name, seed)"
            )
        return made


@dataclass(frozen=True)
class Control:
    """A registered control."""

    make: Callable[[Steered], Any]
    needs: Needs
    draws: bool


_CONTROLS: dict[str, Control] = {}


def register_control(
    name: str, *, needs: Needs = "vector", draws: bool = False
) -> Callable[[Callable[[Steered], Any]], Callable[[Steered], Any]]:
    """Register a control under a name; a decorator.

    Args:
        name: Of the control, as in ``sweep(controls=[name])`` and the column ``run``.
        needs: What it is made from. Ablations have "vector" only.
        draws: Whether "name:1", "name:2", ... are further draws; ``Steered.draw`` is the number.

    Raises:
        SweepError: The name is reserved, or another module's.

    >>> @register_control("halved")
    ... def halved(of):
    ...     return 0.5 * of.vector
    """

    def register(make: Callable[[Steered], Any]) -> Callable[[Steered], Any]:
        known = _CONTROLS.get(name)
        if name in (STEERED, CLEAN) or (known and known.make.__module__ != make.__module__):
            raise SweepError(f"the control {name!r} exists already: choose another name")
        _CONTROLS[name] = Control(make, needs, draws)
        return make

    return register


def check_controls(controls: Sequence[str], lacking: Mapping[Needs, str]) -> None:
    """Raise ``SweepError`` for a control that is unknown, given twice, or cannot be made.

    Args:
        controls: Names.
        lacking: What there is not, and how an error says so.
    """
    if isinstance(controls, str):
        raise SweepError(f"controls is {controls!r}: give a list, [{controls!r}]")
    for name in controls:
        found = _find(name)
        if found is None:
            why = ""
            if name in (STEERED, CLEAN):
                why = f" ({name!r} configurations are always there)"
            raise SweepError(
                f"unknown control {name!r}{why}: choose from {', '.join(_CONTROLS)}, and "
                "random:1, random:2, ... for more draws"
            )
        if list(controls).count(name) > 1:
            raise SweepError(f"control {name!r} given more than once: name each once")
        if found[0].needs in lacking:
            raise SweepError(f"control {name!r} {lacking[found[0].needs]}")


def make_control(name: str, of: Steered) -> Any:
    """What is run for the control ``name`` of a configuration: steering, or a text in front."""
    found = _find(name)
    if found is None:
        raise SweepError(f"unknown control {name!r}: register it")
    control, draw = found
    return control.make(replace(of, draw=draw))


def _find(name: str) -> tuple[Control, int] | None:
    """A control and the number of its draw, 0 where none is named."""
    if name in _CONTROLS:
        return _CONTROLS[name], 0
    found = re.fullmatch(r"(.+):([1-9]\d{0,5})", str(name))
    control = _CONTROLS.get(found[1]) if found else None
    return (control, int(found[2])) if found and control and control.draws else None


@register_control("random", draws=True)
def random(of: Steered) -> Any:
    """Rows of the same norms in random directions."""
    return of.own_control("random")


@register_control("negated")
def negated(of: Steered) -> Any:
    """The vector's negative."""
    return of.own_control("negated")


@register_control("prompted", needs="pair")
def prompted(of: Steered) -> str:
    """No vector; the positive prompt is put in front as text."""
    if of.pair is None:
        raise SweepError("control 'prompted' needs a contrast pair: leave it out")
    if not isinstance(of.pair.positive, str):
        raise SweepError(
            "control 'prompted' puts the pair's positive text in front of each prompt, and the "
            f"positive prompt is a {type(of.pair.positive).__name__}: leave the control out"
        )
    return of.pair.positive


@register_control("shuffled", needs="rows")
def shuffled(of: Steered) -> Any:
    """The vector's rows in another order."""
    return of.own_control("shuffled")


@register_control("mean_difference", needs="pairs")
def mean_difference(of: Steered) -> SteeringVector:
    """Contrastive activation addition over all pairs of the sweep, at position "all"."""
    if of.model is None or of.layer is None:
        raise SweepError("control 'mean_difference' needs a model and a layer")
    means, key = of.shared.setdefault("means", {}), ("mean", of.layer, of.coefficient)
    if of.layer not in means:
        layers = of.layers if of.layer in of.layers else [of.layer]
        means.update(mean_differences(of.model, of.pairs, layers))
    c = 1.0 if of.coefficient is None else of.coefficient
    made: SteeringVector = of.shared.setdefault(key, c * means[of.layer])
    return made
