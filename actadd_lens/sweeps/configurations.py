"""What a sweep tries: the runs of the model, and the configurations that they belong to."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import index
from typing import Any, TypeAlias

from actadd_lens.errors import SweepError
from actadd_lens.models import bridge
from actadd_lens.models.base import Bridge
from actadd_lens.models.tokens import PromptLike, is_prompt
from actadd_lens.steering.interventions import Intervention
from actadd_lens.steering.positions import SINK, Position, parse
from actadd_lens.sweeps.controls import CLEAN as CLEAN
from actadd_lens.sweeps.controls import STEERED as STEERED
from actadd_lens.sweeps.controls import Needs, Steered, check_controls, make_control
from actadd_lens.sweeps.identity import plain
from actadd_lens.vectors.extraction import extract
from actadd_lens.vectors.pair import ContrastPair, as_pair
from actadd_lens.vectors.vector import SteeringVector

KEYS = ("vector", "layer", "coefficient", "position", "run")
"""Columns that name a configuration."""

_LARGEST = 3.4e38


Pairs: TypeAlias = (
    ContrastPair
    | tuple[PromptLike, PromptLike]
    | Sequence[ContrastPair | tuple[PromptLike, PromptLike]]
    | Mapping[str, ContrastPair | tuple[PromptLike, PromptLike]]
)
What: TypeAlias = (
    Pairs
    | Mapping[
        str,
        ContrastPair | tuple[PromptLike, PromptLike] | Intervention | Callable[[int], Intervention],
    ]
)
"""What ``sweep`` takes: pairs, or vectors, interventions and factories by their labels."""
Source: TypeAlias = ContrastPair | Mapping[int, Intervention]
"""A pair, which is extracted at each layer of a grid; or what steers at each layer."""


@dataclass(frozen=True, eq=False)
class Run:
    """How the model is run on every prompt: steered, behind other words, or clean.

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
        """The prompt behind the prefix.

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
    """The run that nothing was done to."""
    return Configuration({**dict.fromkeys(KEYS), "run": CLEAN, **more}, Run())


def with_controls(
    of: Steered,
    labels: Mapping[str, Any],
    controls: Sequence[str],
    runs: dict[Any, Run] | None = None,
    lenient: bool = False,
) -> Iterator[Configuration]:
    """A steered configuration, then its controls.

    Args:
        of: What steers, and what it was made from.
        labels: Of the configuration and its controls.
        controls: Names.
        runs: Runs until now, by what they are made of: a control that is one of them shares it.
        lenient: Whether a control that cannot be made of what steers is left out.
    """
    runs = {} if runs is None else runs
    yield Configuration({**labels, "run": STEERED}, Run((of.vector,)))
    for name in controls:
        try:
            made = make_control(name, of)
        except SweepError:
            if not lenient:
                raise
            continue
        prefix = made if isinstance(made, str) else ""
        steering = () if prefix else tuple(made) if isinstance(made, Sequence) else (made,)
        run = runs.setdefault((prefix, *map(id, steering)), Run(steering, prefix))
        yield Configuration({**labels, "run": name}, run)


@dataclass(frozen=True)
class Grid:
    """The configurations of a sweep: every vector, layer, coefficient and position.

    Raises:
        SweepError: An empty axis, a value twice, an unknown control, or axes that a source cannot
            be given.
    """

    sources: Mapping[str, Source]
    """By label."""
    layers: tuple[int, ...]
    """That pairs are extracted at."""
    coefficients: tuple[float, ...] | None = None
    """1 by default, and none for what cannot be multiplied."""
    positions: tuple[Position, ...] | None = None
    """By default "front" for pairs; vectors and interventions stay at their own."""
    controls: tuple[str, ...] = ()
    only: str | None = None
    """The one label that gets configurations; the other pairs serve its controls."""
    lenient: bool = False
    """Whether a control that an intervention does not have is left out, not refused."""

    def __post_init__(self) -> None:
        pairs = self.pairs
        if pairs:
            check_axes(layers=self.layers)
        for name in ("coefficients", "positions"):
            values = getattr(self, name)
            if values is not None:
                check_axes(**{name: values})
        for position in self.positions or ():
            if pairs and position != SINK and parse(position).one_row_only:
                raise SweepError(
                    f"position {parse(position).label!r} takes one row, and the vector of a pair "
                    "has one for each token: sweep 'front', 'middle', 'back', 'sink', integers or "
                    "al.find(text); the control 'mean_difference' has one row at 'all'"
                )
        for label, source in self.sources.items():
            items = () if isinstance(source, ContrastPair) else source.values()
            fixed = [type(item).__name__ for item in items if not _scales(item)]
            if fixed and self.coefficients is not None:
                raise SweepError(
                    f"{label} is a {fixed[0]}, which no coefficient multiplies: leave coefficients "
                    "out, or give one intervention for each strength"
                )
        check_controls(self.controls, self._lacking())

    @property
    def pairs(self) -> list[ContrastPair]:
        """The sources that are pairs."""
        return [source for source in self.sources.values() if isinstance(source, ContrastPair)]

    def _lacking(self) -> dict[Needs, str]:
        """What controls cannot be made from here."""
        found: dict[Needs, str] = {}
        pairs = self.pairs
        others = [name for name, source in self.sources.items() if source not in pairs]
        if others:
            found["pair"] = f"is made from a contrast pair, and {others[0]} has none: leave it out"
        if len(pairs) < 2:
            found["pairs"] = (
                f"is over several pairs, the sweep has {len(pairs)}: give more pairs, or leave it "
                "out"
            )
        return found

    @property
    def settings(self) -> dict[str, Any]:
        """The grid as plain JSON."""
        described = [
            [label, *source.identity]
            if isinstance(source, ContrastPair)
            else [label, {str(layer): plain(item.identity()) for layer, item in source.items()}]
            for label, source in self.sources.items()
        ]
        return {
            "kind": "sweep",
            "vectors": described,
            "layers": list(self.layers),
            "coefficients": None if self.coefficients is None else list(self.coefficients),
            "positions": None
            if self.positions is None
            else [parse(position).saved for position in self.positions],
            "controls": list(self.controls),
            "only": self.only,
        }

    def configurations(self, model: Bridge, seed: int) -> Iterator[Configuration]:
        """The clean one, then every steered one with its controls; one extraction a pair."""
        yield clean_configuration()
        pairs, shared = self.pairs, dict[Any, Any]()
        runs: dict[Any, Run] = {}
        for label, source in self.sources.items():
            if self.only not in (None, label):
                continue
            pair = source if isinstance(source, ContrastPair) else None
            vectors: Mapping[int, Any] = (
                extract(model, source, self.layers) if isinstance(source, ContrastPair) else source
            )
            for layer, vector in vectors.items():
                for item, c in self._scaled(vector):
                    for placed in self._placed(item, default="front" if pair else None):
                        of = Steered(
                            placed, seed, 0, model, layer, c, pair, pairs, self.layers, shared
                        )
                        where = {
                            "vector": label,
                            "layer": layer,
                            "coefficient": c,
                            "position": parse(placed.position).label,
                        }
                        yield from with_controls(of, where, self.controls, runs, self.lenient)

    def _scaled(self, item: Any) -> Iterator[tuple[Any, float | None]]:
        if not _scales(item):
            yield item, None
            return
        for c in (1.0,) if self.coefficients is None else self.coefficients:
            yield c * item, c

    def _placed(self, item: Any, default: str | None) -> Iterator[Any]:
        positions = self.positions if self.positions is not None else (default,) * bool(default)
        if not positions or not hasattr(item, "at"):
            yield item
            return
        for position in positions:
            yield item.at(position)

    def narrowed(self, labels: Mapping[str, Any]) -> "Grid":
        """The grid of the one configuration that has these labels, and of its controls."""
        label, layer, c = str(labels["vector"]), int(labels["layer"]), labels["coefficient"]
        source = self.sources[label]
        sources = dict(self.sources)
        if not isinstance(source, ContrastPair):
            sources[label] = {layer: source[layer]}
        places = [p for p in self.positions or () if parse(p).label == labels["position"]]
        return replace(
            self,
            sources=sources,
            layers=(layer,) if layer in self.layers else self.layers,
            coefficients=self.coefficients if c is None or self.coefficients is None else (c,),
            positions=tuple(places) or self.positions,
            only=label,
        )


def sources_of(
    model: Bridge, what: What, layers: Sequence[int] | None
) -> tuple[dict[str, Source], tuple[int, ...]]:
    """What steers, by label, and the layers that pairs and factories are tried at.

    Raises:
        SweepError: Nothing, a label twice, something that does not steer, or layers for vectors
            that all have their own.
        PromptError: Something that is no pair.
        LayerError: The model has no such layer.
    """
    if not isinstance(what, Mapping):
        items: Any = what if isinstance(what, (list, tuple)) else [what]
        bare = [item for item in items if isinstance(item, Intervention) or callable(item)]
        if bare:
            raise SweepError(
                f"a {type(bare[0]).__name__} needs a label: give a mapping, {{'my vector': vector}}"
            )
        return dict(labelled(what)), _layers(model, layers)
    check_axes(pairs=list(map(str, what)))
    fixed = [str(label) for label, item in what.items() if isinstance(item, Intervention)]
    if layers is not None and len(fixed) == len(what):
        raise SweepError(
            f"layers is {layers!r}, but {', '.join(fixed)} have their own: leave layers out, or "
            "give a function of the layer, {'name': lambda layer: vectors[layer]}"
        )
    tried = () if len(fixed) == len(what) else _layers(model, layers)
    return {str(label): _source(str(label), item, tried) for label, item in what.items()}, tried


def _source(label: str, item: Any, layers: Sequence[int]) -> Source:
    if isinstance(item, Intervention):
        return {bridge.layer_of(item.hook_point): item}
    if not callable(item):
        return as_pair(item)
    made = {layer: item(layer) for layer in layers}
    for layer, found in made.items():
        if not isinstance(found, Intervention):
            raise SweepError(
                f"{label} gave a {type(found).__name__} for layer {layer}: it must give a vector "
                "or an intervention"
            )
    return made


def _layers(model: Bridge, layers: Sequence[int] | None) -> tuple[int, ...]:
    if layers is None:
        return tuple(range(bridge.BridgeModel(model).n_layers))
    wanted = tuple(numbers("layers", layers, int))
    bridge.check_layers(model, wanted)
    return wanted


def _scales(item: object) -> bool:
    try:
        return 1.0 * item is not None  # type: ignore[operator]
    except TypeError:
        return False


def labelled(pairs: Pairs) -> dict[str, ContrastPair]:
    """Pairs by the label they go by in results; by default both texts, quoted.

    >>> list(labelled(("Love", "Hate")))
    ["'Love' - 'Hate'"]
    >>> list(labelled({"sentiment": ("Love", "Hate")}))
    ['sentiment']

    Raises:
        SweepError: No pair, or two of one label.
        PromptError: Something that is no pair.
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
    """The values of an axis as a list.

    Raises:
        SweepError: One value, or none, instead of a list.
    """
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise SweepError(f"{name} is {values!r}: give a list, [{values!r}]")
    return list(values)


def numbers(name: str, values: Any, kind: type[int] | type[float] = float) -> list[Any]:
    """The values of an axis as numbers that single precision holds, or as integers.

    Raises:
        SweepError: Not a list, or something else in it.
    """
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


def check_axes(**axes: Sequence[object]) -> None:
    """Raise ``SweepError`` if there is nothing to try along one of the axes, or a value twice."""
    for name, values in axes.items():
        if not values:
            raise SweepError(f"no {name} to try: give at least one")
        twice = list(dict.fromkeys(str(v) for v in values if list(values).count(v) > 1))
        if twice:
            raise SweepError(f"{name} {', '.join(twice)} given more than once: name each once")
