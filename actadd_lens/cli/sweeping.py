"""`actadd-lens sweep` and `ablate`: which layer and coefficient, and which part has the effect."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import cloup
from cloup.constraints import Equal, If, IsSet, constraint, require_all

from actadd_lens.cli.app import INTERRUPTED, cli
from actadd_lens.cli.options import (
    Workload,
    forbidden,
    lines_of,
    loaded,
    measuring_options,
    model_option,
    numbers,
    out_option,
    position_of,
    taken,
    vector_of,
    workload_options,
)
from actadd_lens.cli.terminal import status, table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from actadd_lens.sweeps import Result

ABLATIONS = ("positions", "dimensions", "layers", "reach")


@cli.command()
@model_option
@workload_options
@cloup.option_group(
    "Grid",
    cloup.option("--layers", help="E.g. 1-4,8. [default: all]"),
    cloup.option("--coefficients", default="1,2,4,8", show_default=True),
    cloup.option("--positions", default="front", show_default=True, help="Separated by commas."),
)
@measuring_options
@cloup.option_group(
    "Choice of the best configuration",
    cloup.option("--best", help="Metric to choose by. [default: the first]"),
    cloup.option("--subject-to", multiple=True, help="Limit of the choice, e.g. 'kl <= 2'."),
    cloup.option("--test-prompts", type=cloup.path(), help="File of held-out prompts."),
)
@out_option("out/sweep", "Directory for the table and the figures.")
@constraint(If(~IsSet("task"), then=require_all), ["metrics"])
def sweep(
    model: str,
    layers: str | None,
    coefficients: str,
    positions: str,
    best: str | None,
    subject_to: tuple[str, ...],
    test_prompts: Path | None,
    out: Path,
    **options: Any,
) -> None:
    """Measure a pair at every layer, coefficient and position, with controls.

    Writes the table, its summary and figures, and prints the best configuration: chosen on the
    prompts, measured again on held-out ones (with --task, those of the test split).
    """
    workload = taken(Workload, options)
    grid: dict[str, Any] = {
        "layers": None if layers is None else numbers(layers, int),
        "coefficients": numbers(coefficients, float),
        "positions": [position_of(part) for part in positions.split(",")],
    }
    with status(f"loading {model}"):
        from actadd_lens import sweeps
        from actadd_lens.sweeps.search import limit_of
        from actadd_lens.vectors.files import prepare_directory

        for limit in subject_to:
            limit_of(limit)
        held_out = lines_of(test_prompts) if test_prompts else None
        prompts = workload.texts()
        prepare_directory(out)
        bridge = loaded(model)
    settings = _settings(workload, options, ("random", "random:1", "random:2", "negated"))
    result = sweeps.sweep(
        bridge, workload.pair, prompts, metrics=workload.measured, **grid, **settings
    )
    _write(result, out, options["store"])
    name = best or result.metrics[0]
    if workload.task and held_out is None:
        held_out = workload.texts("test")
    chosen = result.best(name, subject_to=subject_to, test_prompts=held_out)
    unit = workload.unit if name == result.metrics[0] else None
    _draw(name, result.plot(name, chosen=chosen, unit=unit), out)
    if name != "kl":
        _draw("pareto", result.plot_pareto(name, "kl", success_unit=unit, cost_unit="nats"), out)
    click.echo(str(chosen))
    if chosen.held_out is not None:
        click.echo("\non held-out prompts")
        _print(chosen.held_out, ["run"])


@cli.command()
@cloup.argument("kind", type=click.Choice(ABLATIONS))
@model_option
@workload_options
@cloup.option("--layer", type=int, help="Injection layer. [default with --task: recommended]")
@cloup.option("--coefficient", type=float, help="[default with --task: recommended, else 1]")
@measuring_options
@out_option("out/ablate", "Directory for the table and the figure.")
@constraint(If(~IsSet("task") & ~Equal("kind", "reach"), then=require_all), ["metrics"])
@constraint(If(~IsSet("task") & ~Equal("kind", "layers"), then=require_all), ["layer"])
@constraint(If(Equal("kind", "layers"), then=forbidden), ["layer"])
@constraint(If(Equal("kind", "reach"), then=forbidden), ["metrics", "store"])
def ablate(
    kind: str,
    model: str,
    layer: int | None,
    coefficient: float | None,
    out: Path,
    **options: Any,
) -> None:
    """Take a steering vector apart: by positions, dimensions or layers; or by generated token.

    \b
    positions:   each row alone, each left out, all of them moved along the prompt
    dimensions:  the first, the largest and random dimensions
    layers:      recorded at one layer, injected at another
    reach:       KL(steered || clean) of each generated token
    """
    workload = taken(Workload, options)
    with status(f"loading {model}"):
        from actadd_lens import sweeps, testbed
        from actadd_lens.vectors.files import prepare_directory

        prepare_directory(out)
        prompts = workload.texts()
        bridge = loaded(model)
        known = testbed.recommended(workload.task) if workload.task else (layer, 1.0)
        layer = known[0] if layer is None else layer
        c = known[1] if coefficient is None else coefficient
    settings = _settings(workload, options, ("random",))
    result: sweeps.Ablation
    if kind == "layers":
        result = sweeps.layer_transplant(
            bridge, workload.pair, prompts, coefficient=c, metrics=workload.measured, **settings
        )
    else:
        vector = c * vector_of(bridge, workload.pair, layer)
        if kind == "reach":
            settings = {k: v for k, v in settings.items() if k != "store"}
            settings["samples"] = max(1, settings["samples"])
            result = sweeps.steering_reach(bridge, vector, prompts, **settings)
        else:
            by_position = kind == "positions"
            take_apart = sweeps.position_ablation if by_position else sweeps.dimension_ablation
            result = take_apart(bridge, vector, prompts, metrics=workload.measured, **settings)
    _write(result, out, options["store"])
    name = result.metrics[0]
    unit = "nats" if kind == "reach" else workload.unit
    _draw(f"{kind}_{name}", result.plot(name, unit=unit), out)
    _print(result, [key for key in result.keys if key not in ("vector", "coefficient")], name)


def _settings(
    workload: Workload, options: dict[str, Any], controls: Sequence[str]
) -> dict[str, Any]:
    """Arguments of a measurement; those of generation only where something is generated."""
    samples = options.pop("samples")
    if samples is None:
        samples = 1 if workload.task else 0
    given = options.pop("controls")
    shown = sys.stderr.isatty()
    return {"samples": samples, "controls": given or controls, "progress": shown, **options}


def _write(result: Result, out: Path, store: Path | None) -> None:
    """Save table and summary and print each path. An interrupted command ends here.

    A part of a result never has the file name of a whole one.
    """
    from actadd_lens.vectors.files import write_atomically

    kind = ("" if result.complete else "interrupted_") + str(result.provenance["kind"])
    written = [out / f"{kind}.parquet", out / f"{kind}_summary.csv"]
    result.save(written[0])
    write_atomically(written[1], result.summary().to_csv(index=False).encode())
    for path in written:
        click.echo(path)
    if not result.complete:
        how = "the same command goes on from there" if store else "with --store it can be resumed"
        click.echo(f"actadd-lens: interrupted: what was done is in {written[0]}; {how}", err=True)
        raise SystemExit(INTERRUPTED)


def _draw(name: str, figure: Figure, out: Path) -> None:
    """Save a figure in two formats and print each path."""
    from actadd_lens import plots

    stem = "".join(c if c.isalnum() or c in "-_" else "_" for c in name)
    for suffix in ("png", "pdf"):
        click.echo(plots.save(figure, out / f"{stem}.{suffix}"))


def _print(result: Result, keys: Sequence[str], metric: str | None = None) -> None:
    """Print means with intervals, a line per configuration and metric, or per configuration."""
    columns = [*keys, "metric", "mean", "low", "high", "n", "dose", "kl"]
    summary = result.summary()[columns].astype(object)
    if metric is not None:
        summary = summary[summary["metric"] == metric]
    lines = summary.where(summary.notna(), "").itertuples(index=False)
    rounded = [[f"{x:.3g}" if isinstance(x, float) else str(x) for x in line] for line in lines]
    table([columns, *rounded])
