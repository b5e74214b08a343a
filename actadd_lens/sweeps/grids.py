"""Which layer, which coefficient, which position, and is it more than noise: in one call."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from os import PathLike
from typing import Any
from weakref import ref

from actadd_lens.errors import SweepError
from actadd_lens.metrics.registry import Metric
from actadd_lens.models import bridge
from actadd_lens.models.base import Bridge
from actadd_lens.steering.positions import parse
from actadd_lens.sweeps.cells import (
    STEERED,
    Cell,
    Pairs,
    Run,
    check_axes,
    clean_cell,
    labelled,
    numbers,
    several,
)
from actadd_lens.sweeps.controls import DEFAULT, Controls, check_controls
from actadd_lens.sweeps.identity import fingerprint
from actadd_lens.sweeps.measuring import measure, resolve, sampling_of
from actadd_lens.sweeps.search import SweepResult
from actadd_lens.vectors.extraction import extract
from actadd_lens.vectors.pair import ContrastPair


def sweep(
    model: Bridge,
    pairs: Pairs,
    prompts: str | Sequence[str],
    *,
    layers: Sequence[int] | None = None,
    coefficients: Sequence[float] = (1.0,),
    positions: Sequence[int | str] = ("front",),
    metrics: str | Metric | Sequence[object],
    samples: int = 0,
    controls: Sequence[str] = DEFAULT,
    seed: int = 0,
    store: str | PathLike[str] | None = None,
    progress: bool = True,
    batch_tokens: int | None = None,
    **sampling: Any,
) -> SweepResult:
    """Measure pairs x layers x coefficients x positions x prompts, with controls.

    One extraction serves the grid. Each prompt is read once, clean; a cell then costs the blocks
    from its layer on, and cells share passes. Completions of all cells are decoded side by side.
    Every cell has the value that it would have alone, and the same random numbers: completions are
    those of ``generate`` with the same seed.

    Args:
        model: Any TransformerBridge with a tokenizer.
        pairs: A contrast pair, several, or a mapping from label to pair.
        prompts: Texts to read or to continue.
        layers: Injection layers; every one by default.
        coefficients: What the vector is multiplied by.
        positions: Where its rows land; see ``SteeringVector.position``.
        metrics: Logit metrics and, with ``samples``, completion metrics, or their names.
        samples: Completions of each prompt; 0 generates nothing.
        controls: Of every cell, by name: "random" (rows of the same norms in random directions;
            "random:1", "random:2", ... are more draws), "negated", "shuffled" (rows in another
            order), "prompted" (the positive prompt as text), "mean_difference" (over all pairs,
            at position "all"). The clean run is always there.
        seed: Of the completions' random streams, and of random and shuffled vectors.
        store: A file (SQLite) to which rows are committed as they are made. The same call goes on
            where it was stopped; another one is refused.
        progress: Whether to show progress.
        batch_tokens: Tokens in one pass; by default what a fifth of the free memory holds.
        **sampling: ``max_new_tokens``, ``temperature``, ``top_p``, ``top_k``,
            ``frequency_penalty``, ``stop_at_eos``, ``batch_size``, as of ``generate``.

    Returns:
        A ``SweepResult``. After Ctrl-C it holds what was done, and ``complete`` is False.

    Raises:
        SweepError: An empty axis, a value twice, an unknown control, or completion metrics
            without samples.
        LayerError, PositionError, PromptError, MetricError, SamplingError: As where they are used.
        SweepFileError, OutputError: The store is of something else, in use, or can't be written.

    >>> model = load_model("testbed")
    >>> result = sweep(
    ...     model,
    ...     ("Love", "Hate"),
    ...     ["My friend", "The day"],
    ...     layers=[1, 2],
    ...     coefficients=[2, 4],
    ...     metrics=["kl"],
    ...     progress=False,
    ... )
    >>> len(result.summary().query("run == 'steered'"))
    4
    >>> result.best("kl").searched
    4
    """
    grid = Grid(
        labelled(pairs),
        _layers(model, layers),
        tuple(numbers("coefficients", coefficients)),
        tuple(parse(position).position for position in several("positions", positions)),
        tuple(several("controls", controls)),
    )
    options = {
        "samples": samples, "seed": seed, "progress": progress, "batch_tokens": batch_tokens,
        **sampling,
    }  # fmt: skip
    return _measured(model, grid, prompts, metrics, store, options)


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
    ...     model,
    ...     ("Love", "Hate"),
    ...     "My friend",
    ...     layer=1,
    ...     coefficients=[1, 2, 4],
    ...     metrics="kl",
    ...     progress=False,
    ... )
    >>> result.frame["coefficient"].dropna().unique().tolist()
    [1.0, 2.0, 4.0]
    """
    return sweep(
        model, pair, prompts, layers=[layer], coefficients=coefficients, metrics=metrics, **options
    )


@dataclass(frozen=True)
class Grid:
    """What is tried, checked when it is made."""

    pairs: Mapping[str, ContrastPair]
    layers: tuple[int, ...]
    coefficients: tuple[float, ...]
    positions: tuple[int | str, ...]
    controls: tuple[str, ...]
    only: str | None = None
    """Label of the one pair that gets cells; the others serve the controls then."""

    def __post_init__(self) -> None:
        check_axes(layers=self.layers, coefficients=self.coefficients, positions=self.positions)
        for position in self.positions:
            if parse(position).one_row_only:
                raise SweepError(
                    f"position {position!r} takes one row, and the vector of a pair has one for "
                    "each token: sweep 'front', 'middle', 'back' or integers; the control "
                    "'mean_difference' has one row at 'all'"
                )
        check_controls(self.controls, len(self.pairs))

    @property
    def settings(self) -> dict[str, Any]:
        """The grid as plain JSON."""
        pairs = [[label, p.positive, p.negative, p.pad] for label, p in self.pairs.items()]
        own = {name: list(getattr(self, name)) for name in _AXES}
        return {"kind": "sweep", "pairs": pairs, **own, "only": self.only}

    def cells(self, model: Bridge, seed: int) -> Iterator[Cell]:
        """The clean cell, then every steered one with its controls; one extraction a pair."""
        yield clean_cell()
        pairs = {k: v for k, v in self.pairs.items() if self.only in (None, k)}
        controls = Controls(model, self.controls, list(self.pairs.values()), self.layers, seed)
        for label, pair in pairs.items():
            vectors = extract(model, pair, self.layers)
            for layer, c, position in product(self.layers, self.coefficients, self.positions):
                vector = (c * vectors[layer]).at(position)
                where = {"pair": label, "layer": layer, "coefficient": c, "position": position}
                yield Cell({**where, "run": STEERED}, Run((vector,)))
                for name in self.controls:
                    run = controls.run(name, pair, vector, c)
                    yield Cell({**where, "run": name}, run)


_AXES = ("layers", "coefficients", "positions", "controls")


def _measured(
    model: Bridge,
    grid: Grid,
    prompts: str | Sequence[str],
    metrics: str | Metric | Sequence[object],
    store: str | PathLike[str] | None,
    options: Mapping[str, Any],
) -> SweepResult:
    # Before anything is extracted, what can be wrong with the rest.
    resolve(model, metrics, options["samples"])
    own = ("samples", "seed", "progress", "batch_tokens")
    rest = {name: value for name, value in options.items() if name not in own}
    sampling_of(options["samples"], options["seed"], rest)
    cells = list(grid.cells(model, options["seed"]))
    alive = ref(model)

    def again(weights: str, cell: Mapping[str, Any], others: Sequence[str]) -> SweepResult:
        still = alive()
        if still is None or fingerprint(still) != weights:
            raise SweepError(
                "the model of this sweep is gone, or its weights have changed: call al.sweep on "
                "the test prompts"
            )
        one = replace(
            grid,
            layers=(int(cell["layer"]),),
            coefficients=(float(cell["coefficient"]),),
            positions=(cell["position"],),
            only=str(cell["pair"]),
        )
        return _measured(still, one, others, metrics, None, options)

    kind = partial(SweepResult, again=again)
    found: SweepResult = measure(
        kind, model, cells, prompts, metrics, grid.settings, store=store, **options
    )
    return found


def _layers(model: Bridge, layers: Sequence[int] | None) -> tuple[int, ...]:
    if layers is None:
        return tuple(range(bridge.n_layers(model)))
    wanted = tuple(numbers("layers", layers, int))
    bridge.check_layers(model, wanted)
    return wanted
