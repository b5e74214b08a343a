"""Sweeps: which layer, which coefficient, which position, and is it more than noise?"""

from collections.abc import Callable, Mapping, Sequence
from itertools import product
from os import PathLike
from typing import Any, TypeAlias
from weakref import ref

from actadd_lens.errors import SweepError
from actadd_lens.metrics.registry import Metric
from actadd_lens.models import bridge, hook_points
from actadd_lens.models.base import Bridge
from actadd_lens.models.hook_points import check_model
from actadd_lens.models.tokens import PromptLike, Prompts
from actadd_lens.steering.checks import as_interventions
from actadd_lens.steering.interventions import Intervention
from actadd_lens.steering.positions import SINK, PositionLike, parse
from actadd_lens.sweeps.configurations import (
    DEFAULT,
    Configuration,
    Needs,
    Pairs,
    Run,
    Steered,
    as_list,
    check_axes,
    check_controls,
    clean_configuration,
    control_settings,
    labelled,
    numbers,
    with_controls,
)
from actadd_lens.sweeps.identity import plain
from actadd_lens.sweeps.measurement import resolve, sampling_of
from actadd_lens.sweeps.search import Recipe, SweepResult
from actadd_lens.vectors.extraction import extract
from actadd_lens.vectors.pair import ContrastPair, as_pair

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


def sweep(
    model: Bridge,
    what: What,
    prompts: Prompts,
    *,
    layers: Sequence[int] | None = None,
    coefficients: Sequence[float] | None = None,
    positions: Sequence[PositionLike] | None = None,
    metrics: str | Metric | Sequence[object],
    samples: int = 0,
    controls: Sequence[str] = DEFAULT,
    seed: int = 0,
    store: str | PathLike[str] | None = None,
    progress: bool | None = None,
    batch_tokens: int | None = None,
    **sampling: Any,
) -> SweepResult:
    """Measure vectors x layers x coefficients x positions x prompts, with controls.

    One extraction serves the grid. Each prompt is read once, clean; a configuration then costs the
    blocks from its layer on, and configurations share passes. Completions of all configurations
    are decoded together. Each configuration has the value that it would have alone, and the same
    random numbers: completions are those of ``generate`` with the same seed.

    Args:
        model: Any TransformerBridge with a tokenizer.
        what: A contrast pair, several, or a mapping from label to pair, vector, intervention, or
            function of the layer that gives a vector or an intervention.
        prompts: Texts to read or to continue.
        layers: Injection layers of pairs and functions; every one by default. A vector or
            intervention has its own.
        coefficients: What vectors are multiplied by; 1 by default. An intervention that cannot be
            multiplied takes none.
        positions: Where row 0 is added; see ``SteeringVector.position``. By default "front" for
            pairs, and their own for vectors and interventions.
        metrics: Logit metrics and, with ``samples``, completion metrics, or their names.
        samples: Completions of each prompt; 0 generates nothing.
        controls: Of every configuration, by name: "random" (rows of the same norms in random
            directions; "random:1", "random:2", ... are more draws), "negated", "shuffled" (rows in
            another order), "prompted" (the positive prompt as text), "mean_difference" (over all
            pairs, at position "all"), and those of ``register_control``. An intervention makes
            them by a method ``control(name, seed)``; by default those it lacks are left out. The
            clean run is always there.
        seed: Of the completions' random streams, and of random and shuffled vectors.
        store: A file (SQLite) to which rows are committed as they are made. The same call resumes
            where it was stopped; another call raises an error.
        progress: Whether to show progress; by default when it takes more than a moment.
        batch_tokens: Tokens in one pass; by default what a fifth of the free memory holds.
        **sampling: ``max_new_tokens``, ``temperature``, ``top_p``, ``top_k``,
            ``frequency_penalty``, ``stop_at_eos``, ``stop``, ``batch_size``, as of ``generate``.

    Returns:
        A ``SweepResult``. After Ctrl-C it holds what was done, and ``complete`` is False.

    Raises:
        SweepError: An empty axis, a value twice, an unknown control or one that an intervention
            does not have, an axis that ``what`` does not take, or completion metrics without
            samples.
        LayerError, PositionError, PromptError, MetricError, SamplingError: As where they are used.
        SweepFileError, OutputError: The store is of something else, in use, or cannot be written.

    >>> model = load_model("testbed")
    >>> result = sweep(
    ...     model, ("Love", "Hate"), ["My friend", "The day"], layers=[1, 2], coefficients=[2, 4],
    ...     metrics=["kl"], progress=False,
    ... )  # fmt: skip
    >>> len(result.summary().query("run == 'steered'"))
    4
    >>> result.best("kl").searched
    4
    """
    # Before anything is extracted, what can be wrong with the rest.
    check_model(model)
    resolve(model, metrics, samples)
    sampling_of(samples, seed, sampling)
    sources, tried = sources_of(model, what, layers)
    steering = [i for s in sources.values() if isinstance(s, Mapping) for i in s.values()]
    as_interventions(model, steering)
    factors = None if coefficients is None else numbers("coefficients", coefficients)
    places = None if positions is None else as_list("positions", positions)
    places = None if places is None else [parse(position).position for position in places]
    names, lenient = as_list("controls", controls), controls is DEFAULT
    configurations = grid(model, sources, tried, factors, places, names, seed=seed, lenient=lenient)
    settings = {
        "kind": "sweep",
        "vectors": [
            [label, *source.identity]
            if isinstance(source, ContrastPair)
            else [label, {str(layer): plain(item.identity()) for layer, item in source.items()}]
            for label, source in sources.items()
        ],
        "layers": tried,
        "coefficients": factors,
        "positions": places and [parse(position).saved for position in places],
        **control_settings(names, steering),
        "only": None,
    }
    options = {
        "samples": samples, "seed": seed, "progress": progress, "batch_tokens": batch_tokens,
        **sampling,
    }  # fmt: skip
    return Recipe(ref(model), configurations, metrics, settings, options).run(prompts, store)


def layer_sweep(
    model: Bridge,
    pair: ContrastPair | tuple[PromptLike, PromptLike],
    prompts: Prompts,
    *,
    coefficient: float,
    metrics: str | Metric | Sequence[object],
    **options: Any,
) -> SweepResult:
    """One pair at one coefficient, at every layer or at ``layers=``.

    Other arguments, result and errors are those of ``sweep``.

    >>> model = load_model("testbed")
    >>> result = layer_sweep(
    ...     model, ("Love", "Hate"), "My friend", coefficient=2, metrics="kl", progress=False
    ... )
    >>> sorted(result.frame["layer"].dropna().unique().tolist()) == list(range(model.cfg.n_layers))
    True
    """
    return sweep(model, pair, prompts, coefficients=[coefficient], metrics=metrics, **options)


def coefficient_sweep(
    model: Bridge,
    pair: ContrastPair | tuple[PromptLike, PromptLike],
    prompts: Prompts,
    *,
    layer: int,
    coefficients: Sequence[float],
    metrics: str | Metric | Sequence[object],
    **options: Any,
) -> SweepResult:
    """One pair at one layer, at several coefficients.

    Other arguments, result and errors are those of ``sweep``.

    >>> model = load_model("testbed")
    >>> result = coefficient_sweep(
    ...     model, ("Love", "Hate"), "My friend", layer=1, coefficients=[1, 2, 4], metrics="kl",
    ...     progress=False,
    ... )  # fmt: skip
    >>> result.frame["coefficient"].dropna().unique().tolist()
    [1.0, 2.0, 4.0]
    """
    return sweep(
        model, pair, prompts, layers=[layer], coefficients=coefficients, metrics=metrics, **options
    )


def grid(
    model: Bridge,
    sources: Mapping[str, Source],
    layers: Sequence[int],
    coefficients: Sequence[float] | None = None,
    positions: Sequence[PositionLike] | None = None,
    controls: Sequence[str] = (),
    *,
    seed: int = 0,
    only: str | None = None,
    lenient: bool = False,
) -> list[Configuration]:
    """The clean configuration, then every steered one with its controls; one extraction a pair.

    Arguments are those of ``sweep``, the sources by label. ``only`` is the one label that gets
    configurations: the other pairs serve its controls. ``lenient`` leaves out a control that an
    intervention does not have, instead of refusing it.
    """
    pairs = [source for source in sources.values() if isinstance(source, ContrastPair)]
    check_axes(layers=layers if pairs else None, coefficients=coefficients, positions=positions)
    for position in positions or ():
        if pairs and position != SINK and parse(position).one_row_only:
            raise SweepError(
                f"position {parse(position).label!r} takes one row, and the vector of a pair "
                "has one for each token: sweep 'front', 'middle', 'back', 'sink', integers or "
                "al.find(text); the control 'mean_difference' has one row at 'all'"
            )
    lacking: dict[Needs, str] = {}
    for label, source in sources.items():
        if isinstance(source, ContrastPair):
            continue
        lack = f"is made from a contrast pair, and {label} has none: leave it out"
        lacking.setdefault("pair", lack)
        fixed = [type(item).__name__ for item in source.values() if not _scales(item)]
        if fixed and coefficients is not None:
            raise SweepError(
                f"{label} is a {fixed[0]}, which no coefficient multiplies: leave coefficients "
                "out, or give one intervention for each strength"
            )
    if len(pairs) < 2:
        lacking["pairs"] = (
            f"is over several pairs, the sweep has {len(pairs)}: give more pairs, or leave it out"
        )
    check_controls(controls, lacking)
    found, shared, runs = [clean_configuration()], dict[Any, Any](), dict[Any, Run]()
    for label, source in sources.items():
        if only not in (None, label):
            continue
        pair = source if isinstance(source, ContrastPair) else None
        vectors: Any = extract(model, pair, layers) if pair else source
        for layer, vector in vectors.items():
            factors: Sequence[Any] = (coefficients or [1.0]) if _scales(vector) else [None]
            places: Sequence[Any] = positions or (["front"] if pair else [None])
            for c, position in product(factors, places if hasattr(vector, "at") else [None]):
                item = vector if c is None else c * vector
                item = item if position is None else item.at(position)
                of = Steered(item, seed, 0, model, layer, c, pair, pairs, layers, shared)
                place = parse(item.position).label
                labels = {"vector": label, "layer": layer, "coefficient": c, "position": place}
                found += with_controls(of, labels, controls, runs, lenient)
    return found


def sources_of(
    model: Bridge, what: What, layers: Sequence[int] | None
) -> tuple[dict[str, Source], list[int]]:
    """What steers, by label, and the layers that pairs and factories are tried at."""
    if isinstance(what, Mapping):
        given: Mapping[str, Any] = what
    else:
        items: Any = what if isinstance(what, (list, tuple)) else [what]
        bare = [item for item in items if isinstance(item, Intervention) or callable(item)]
        if bare:
            raise SweepError(
                f"a {type(bare[0]).__name__} needs a label: give a mapping, {{'my vector': vector}}"
            )
        given = labelled(what)
    check_axes(pairs=list(map(str, given)))
    fixed = [str(label) for label, item in given.items() if isinstance(item, Intervention)]
    tried: list[int] = []
    if len(fixed) < len(given):
        every = range(bridge.BridgeModel(model).n_layers)
        tried = numbers("layers", every if layers is None else layers, int)
        hook_points.check_layers(model, tried)
    elif layers is not None:
        raise SweepError(
            f"layers is {layers!r}, but {', '.join(fixed)} have their own: leave layers out, or "
            "give a function of the layer, {'name': lambda layer: vectors[layer]}"
        )
    sources: dict[str, Source] = {}
    for label, item in given.items():
        if isinstance(item, Intervention):
            sources[str(label)] = {hook_points.layer_of(item.hook_point): item}
        elif callable(item):
            made = {layer: item(layer) for layer in tried}
            sources[str(label)] = made
            for layer, steering in made.items():
                if not isinstance(steering, Intervention):
                    raise SweepError(
                        f"{label} gave a {type(steering).__name__} for layer {layer}: it must give "
                        "a vector or an intervention"
                    )
        else:
            sources[str(label)] = as_pair(item)
    return sources, tried


def _scales(item: object) -> bool:
    try:
        return 1.0 * item is not None  # type: ignore[operator]
    except TypeError:
        return False
