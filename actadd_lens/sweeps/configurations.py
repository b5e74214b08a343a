"""What a sweep tries: configurations, the runs of the model that they share, and their controls.

A control is a function from a ``Steered`` configuration to what is run in its place: a vector, an
intervention, several of them, or a text that is put in front of every prompt. ``register_control``
gives it the name by which sweeps and ablations know it.
"""

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from operator import index
from typing import Any, Literal, TypeAlias

from actadd_lens.errors import SweepError
from actadd_lens.models.base import Bridge
from actadd_lens.models.tokens import PromptLike, is_prompt
from actadd_lens.steering.interventions import control_of
from actadd_lens.sweeps.identity import described
from actadd_lens.vectors.extraction import mean_differences
from actadd_lens.vectors.pair import ContrastPair, as_pair
from actadd_lens.vectors.vector import SteeringVector

KEYS = ("vector", "layer", "coefficient", "position", "run")
"""Columns that name a configuration."""
STEERED = "steered"
"""The run of the vector itself, in the column ``run``."""
CLEAN = "clean"
"""The run without steering."""
DEFAULT: tuple[str, ...] = ("random", "negated")

_LARGEST = 3.4e38


Pairs: TypeAlias = (
    ContrastPair
    | tuple[PromptLike, PromptLike]
    | Sequence[ContrastPair | tuple[PromptLike, PromptLike]]
    | Mapping[str, ContrastPair | tuple[PromptLike, PromptLike]]
)
Needs: TypeAlias = Literal["vector", "rows", "pair", "pairs"]
"""What a control is made from: the vector; the order of its rows; its contrast pair, or all."""


@dataclass(frozen=True, eq=False)
class Run:
    """How the model is run on every prompt: steered, after other words, or clean.

    Configurations that hold the same run share its work.
    """

    steering: tuple[Any, ...] = ()
    """Vectors, already times the coefficient, and interventions."""
    prefix: str = ""
    """Text put in front of every prompt."""

    @property
    def is_clean(self) -> bool:
        """Whether nothing is added and nothing is put in front."""
        return not self.prefix and all(
            isinstance(item, SteeringVector) and not item.rows.any() for item in self.steering
        )

    def prompted(self, prompt: str) -> str:
        """The prompt after the prefix.

        >>> Run(prefix="Love.").prompted("My friend")
        'Love. My friend'
        """
        gap = "" if not self.prefix or self.prefix[-1].isspace() else " "
        return f"{self.prefix}{gap}{prompt}"


@dataclass(frozen=True, eq=False)
class Configuration:
    """A run, and how results name it."""

    labels: Mapping[str, Any]
    """A value for each of ``KEYS``, None where it has none, and maybe more."""
    run: Run


def clean_configuration(**more: Any) -> Configuration:
    """The configuration of the clean run."""
    return Configuration({**dict.fromkeys(KEYS), "run": CLEAN, **more}, Run())


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

    @property
    def own_seed(self) -> int:
        """The seed of this configuration's draw.

        It differs from layer to layer and from coefficient to coefficient, so that an unlucky
        direction is not met all over a grid, and it does not depend on the rest of the grid.
        """
        if self.layer is None and self.coefficient is None:
            return (int(self.seed) + self.draw) % 2**64
        layer = None if self.layer is None else int(self.layer)
        c = None if self.coefficient is None else float(self.coefficient)
        key = repr((int(self.seed), self.draw, layer, c)).encode()
        return int.from_bytes(hashlib.sha256(key).digest()[:8], "big")

    def own_control(self, name: str) -> Any:
        """The control that an intervention makes for itself, by its method ``control``.

        Raises:
            SweepError: It makes none of this name.
        """
        made = control_of(self.vector, name, self.own_seed)
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
    """Raise ``SweepError`` for a control that is unknown, given twice, or lacks what it needs."""
    for name in as_list("controls", controls):
        needs = _find(name)[0].needs
        if list(controls).count(name) > 1:
            raise SweepError(f"control {name!r} given more than once: name each once")
        if needs in lacking:
            raise SweepError(f"control {name!r} {lacking[needs]}")


def make_control(name: str, of: Steered) -> Any:
    """What is run for the control ``name`` of a configuration: steering, or a text in front."""
    control, draw = _find(name)
    return control.make(replace(of, draw=draw))


def control_settings(controls: Sequence[str], steering: Iterable[Any] = ()) -> dict[str, Any]:
    """Controls as plain JSON: their names, and the code of those that this package does not make.

    Interventions may make some of them by a method ``control``.
    """
    package = f"{__name__.partition('.')[0]}."
    makers: list[Any] = [_find(name)[0].make for name in controls]
    for item in steering if controls else ():
        while item is not None:
            own = getattr(item, "control", None)
            makers.append(getattr(own, "__func__", own))
            wraps = type(item).__module__.startswith(package)
            item = getattr(item, "inner", None) if wraps else None
    own_code = dict.fromkeys(
        described(make)
        for make in makers
        if make is not None and not str(getattr(make, "__module__", "")).startswith(package)
    )
    return {"controls": list(controls)} | ({"control_code": [*own_code]} if own_code else {})


def _find(name: str) -> tuple[Control, int]:
    """A control and the number of its draw, 0 where none is named."""
    drawn = re.fullmatch(r"(.+):([1-9]\d{0,5})", str(name))
    if name in _CONTROLS:
        return _CONTROLS[name], 0
    if drawn and drawn[1] in _CONTROLS and _CONTROLS[drawn[1]].draws:
        return _CONTROLS[drawn[1]], int(drawn[2])
    why = f" ({name!r} configurations are always there)" if name in (STEERED, CLEAN) else ""
    raise SweepError(
        f"unknown control {name!r}{why}: choose from {', '.join(_CONTROLS)}, and "
        "random:1, random:2, ... for more draws"
    )


@register_control("random", draws=True)
def random(of: Steered) -> Any:
    """Rows of the same norms in random directions, drawn anew for each layer and coefficient."""
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


def with_controls(
    of: Steered,
    labels: Mapping[str, Any],
    controls: Sequence[str],
    runs: dict[Any, Run] | None = None,
    lenient: bool = False,
) -> list[Configuration]:
    """A steered configuration, then its controls; leniently, those that can be made.

    A control that is made of the same objects as one of the ``runs`` until now shares that run.
    """
    runs = {} if runs is None else runs
    found = [Configuration({**labels, "run": STEERED}, Run((of.vector,)))]
    for name in controls:
        try:
            made = make_control(name, of)
        except SweepError:
            if lenient:
                continue
            raise
        prefix = made if isinstance(made, str) else ""
        steering = () if prefix else tuple(made) if isinstance(made, Sequence) else (made,)
        run = runs.setdefault((prefix, *map(id, steering)), Run(steering, prefix))
        found.append(Configuration({**labels, "run": name}, run))
    return found


def labelled(pairs: Pairs) -> dict[str, ContrastPair]:
    """Pairs by the label they go by in results; by default both texts, quoted.

    >>> list(labelled(("Love", "Hate")))
    ["'Love' - 'Hate'"]
    >>> list(labelled({"sentiment": ("Love", "Hate")}))
    ['sentiment']
    """
    if isinstance(pairs, Mapping):
        named = [(str(label), as_pair(pair)) for label, pair in pairs.items()]
    else:
        one = isinstance(pairs, ContrastPair) or is_prompt(pairs)
        items = [pairs] if one else as_list("pairs", pairs)
        single = bool(items) and all(map(is_prompt, items))
        made = [as_pair(tuple(items))] if single else [as_pair(item) for item in items]
        named = [(" - ".join(map(repr, pair.labels)), pair) for pair in made]
    labels = [label for label, _ in named]
    if len({*labels}) < len(labels) == len({pair for _, pair in named}):
        raise SweepError(
            f"pairs {', '.join(dict.fromkeys(labels))} differ in their padding alone: give a "
            "mapping from label to pair"
        )
    check_axes(pairs=labels)
    return dict(named)


def as_list(name: str, values: Any) -> list[Any]:
    """The values of an axis as a list; ``SweepError`` for one value, or none, instead of a list."""
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise SweepError(f"{name} is {values!r}: give a list, [{values!r}]")
    return list(values)


def numbers(name: str, values: Any, kind: type[int] | type[float] = float) -> list[Any]:
    """The values of an axis as numbers that single precision holds, or as integers."""
    found = []
    for value in as_list(name, values):
        try:
            if isinstance(value, str):
                raise TypeError
            number = index(value) if kind is int else float(value)
        except TypeError:
            what = "an integer" if kind is int else "a number"
            raise SweepError(f"{name} has {value!r}: it must be {what}") from None
        if not abs(number) < _LARGEST:
            raise SweepError(f"{name} has {number}, which single precision does not hold")
        found.append(number)
    return found


def check_axes(**axes: Sequence[object] | None) -> None:
    """Raise ``SweepError`` if there is nothing to try along an axis, or a value twice."""
    for name, values in axes.items():
        if values is None:
            continue
        if not values:
            raise SweepError(f"no {name} to try: give at least one")
        twice = list(dict.fromkeys(str(v) for v in values if list(values).count(v) > 1))
        if twice:
            raise SweepError(f"{name} {', '.join(twice)} given more than once: name each once")
