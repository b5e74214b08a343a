"""Sweeps: which layer, which coefficient, which position, and is it more than noise?"""

from collections.abc import Sequence
from os import PathLike
from typing import Any
from weakref import ref

from actadd_lens.metrics.registry import Metric
from actadd_lens.models.base import Bridge
from actadd_lens.models.bridge import check_model
from actadd_lens.steering.hooks import as_interventions
from actadd_lens.steering.positions import parse
from actadd_lens.sweeps.configurations import Grid, What, as_list, numbers, sources_of
from actadd_lens.sweeps.controls import DEFAULT
from actadd_lens.sweeps.measurement import resolve, sampling_of
from actadd_lens.sweeps.search import Recipe, SweepResult, measure_grid
from actadd_lens.vectors.pair import ContrastPair


def sweep(
    model: Bridge,
    what: What,
    prompts: str | Sequence[str],
    *,
    layers: Sequence[int] | None = None,
    coefficients: Sequence[float] | None = None,
    positions: Sequence[int | str] | None = None,
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
            ``frequency_penalty``, ``stop_at_eos``, ``batch_size``, as of ``generate``.

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
    given = [source for source in sources.values() if not isinstance(source, ContrastPair)]
    as_interventions(model, [item for source in given for item in source.values()])
    if coefficients is not None:
        coefficients = tuple(numbers("coefficients", coefficients))
    if positions is not None:
        positions = tuple(parse(p).position for p in as_list("positions", positions))
    grid = Grid(
        sources,
        tried,
        coefficients,
        positions,
        tuple(as_list("controls", controls)),
        lenient=controls is DEFAULT,
    )
    options = {
        "samples": samples, "seed": seed, "progress": progress, "batch_tokens": batch_tokens,
        **sampling,
    }  # fmt: skip
    recipe = Recipe(ref(model), grid, metrics, options)
    return measure_grid(model, recipe, prompts, store=store)


def layer_sweep(
    model: Bridge,
    pair: ContrastPair | tuple[str, str],
    prompts: str | Sequence[str],
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
    pair: ContrastPair | tuple[str, str],
    prompts: str | Sequence[str],
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
