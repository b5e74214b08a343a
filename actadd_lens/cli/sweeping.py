"""`actadd-lens sweep` and `ablate`: which layer, coefficient and position, and what carries it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from actadd_lens.cli.app import INTERRUPTED, cli
from actadd_lens.cli.options import (
    Question,
    lines_of,
    loaded,
    measuring_options,
    model_option,
    numbers,
    question_options,
    vector_of,
)
from actadd_lens.cli.terminal import status, table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from actadd_lens.sweeps import Result

ABLATIONS = ("positions", "dimensions", "layers", "reach")


@cli.command()
@model_option
@question_options
@click.option("--layers", help="E.g. 1-4,8. [default: all]")
@click.option("--coefficients", default="1,2,4,8", show_default=True)
@click.option("--positions", default="front", show_default=True, help="Parted by commas.")
@measuring_options
@click.option("--best", help="Metric to choose a cell by. [default: the first]")
@click.option("--subject-to", multiple=True, help="Limit of the choice, e.g. 'kl <= 2'.")
@click.option("--test-prompts", type=click.Path(path_type=Path), help="File of held-out prompts.")
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("out/sweep"),
    show_default=True,
    help="Directory for the table and the figures.",
)
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

    Writes the table, its summary and figures, and prints the best cell: chosen on the prompts,
    measured again on held-out ones (with --task, those of the test split).
    """
    question = Question.among(options)
    grid: dict[str, Any] = {
        "layers": None if layers is None else numbers(layers, int),
        "coefficients": numbers(coefficients, float),
        "positions": [_position(part) for part in positions.split(",")],
    }
    with status(f"loading {model}"):
        from actadd_lens import sweeps
        from actadd_lens.sweeps.search import limit_of
        from actadd_lens.vectors.files import prepare_directory

        for limit in subject_to:
            limit_of(limit)
        held_out = lines_of(test_prompts) if test_prompts else None
        prompts = question.texts()
        prepare_directory(out)
        bridge = loaded(model)
    settings = _settings(question, options, ("random", "random:1", "random:2", "negated"))
    result = sweeps.sweep(
        bridge, question.pair, prompts, metrics=question.measured, **grid, **settings
    )
    _write(result, out, options["store"])
    name = best or result.metrics[0]
    if question.task and held_out is None:
        held_out = question.texts("test")
    chosen = result.best(name, subject_to=subject_to, test_prompts=held_out)
    unit = question.unit if name == result.metrics[0] else None
    _draw(name, result.plot(name, chosen=chosen, unit=unit), out)
    if name != "kl":
        _draw("pareto", result.plot_pareto(name, "kl", success_unit=unit, cost_unit="nats"), out)
    click.echo(str(chosen))
    if chosen.held_out is not None:
        click.echo("\non held-out prompts")
        _print(chosen.held_out, ["run"])


@cli.command()
@click.argument("kind", type=click.Choice(ABLATIONS))
@model_option
@question_options
@click.option("--layer", type=int, help="Injection layer. [default with --task: recommended]")
@click.option("--coefficient", type=float, help="[default with --task: recommended, else 1]")
@measuring_options
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("out/ablate"),
    show_default=True,
    help="Directory for the table and the figure.",
)
def ablate(
    kind: str,
    model: str,
    layer: int | None,
    coefficient: float | None,
    out: Path,
    **options: Any,
) -> None:
    """Take a steering vector apart: by positions, dimensions or layers; or see its reach.

    \b
    positions:   each row alone, each left out, all of them moved along the prompt
    dimensions:  the first, the largest and random dimensions
    layers:      recorded at one layer, injected at another
    reach:       KL(steered || clean) of each generated token
    """
    question = Question.among(options, needs_metric=kind != "reach")
    if layer is None and question.task is None and kind != "layers":
        raise click.UsageError("--layer missing: give the injection layer")
    if layer is not None and kind == "layers":
        raise click.UsageError("layers takes every layer: leave --layer out")
    if kind == "reach" and (options["store"] or question.metrics):
        raise click.UsageError("reach has one metric and no store: leave --metric, --store out")
    with status(f"loading {model}"):
        from actadd_lens import sweeps, testbed
        from actadd_lens.vectors.files import prepare_directory

        prepare_directory(out)
        prompts = question.texts()
        bridge = loaded(model)
        known = testbed.recommended(question.task) if question.task else (layer, 1.0)
        layer = known[0] if layer is None else layer
        c = known[1] if coefficient is None else coefficient
    settings = _settings(question, options, ("random",))
    result: sweeps.Ablation
    if kind == "layers":
        result = sweeps.layer_transplant(
            bridge, question.pair, prompts, coefficient=c, metrics=question.measured, **settings
        )
    else:
        vector = c * vector_of(bridge, question.pair, layer)
        if kind == "reach":
            settings = {k: v for k, v in settings.items() if k != "store"}
            settings["samples"] = max(1, settings["samples"])
            result = sweeps.steering_reach(bridge, vector, prompts, **settings)
        else:
            by_position = kind == "positions"
            take_apart = sweeps.position_ablation if by_position else sweeps.dimension_ablation
            result = take_apart(bridge, vector, prompts, metrics=question.measured, **settings)
    _write(result, out, options["store"])
    name = result.metrics[0]
    unit = "nats" if kind == "reach" else question.unit
    _draw(f"{kind}_{name}", result.plot(name, unit=unit), out)
    _print(result, [key for key in result.keys if key not in ("vector", "coefficient")], name)


def _settings(
    question: Question, options: dict[str, Any], controls: Sequence[str]
) -> dict[str, Any]:
    """Arguments of a measurement; those of generation only where something is generated."""
    samples = options.pop("samples")
    if samples is None:
        samples = 1 if question.task else 0
    given = options.pop("controls")
    shown = sys.stderr.isatty()
    return {"samples": samples, "controls": given or controls, "progress": shown, **options}


def _position(text: str) -> int | str:
    try:
        return int(text)
    except ValueError:
        return text.strip()


def _write(result: Result, out: Path, store: Path | None) -> None:
    """Table and summary; each path is printed. What was interrupted ends here.

    A part of a result takes no name that a whole one has.
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
    """A figure in two formats; each path is printed."""
    from actadd_lens import plots

    stem = "".join(c if c.isalnum() or c in "-_" else "_" for c in name)
    for suffix in ("png", "pdf"):
        click.echo(plots.save(figure, out / f"{stem}.{suffix}"))


def _print(result: Result, keys: Sequence[str], metric: str | None = None) -> None:
    """Means with intervals, a line for each cell and metric, or for each cell."""
    columns = [*keys, "metric", "mean", "low", "high", "n", "dose", "kl"]
    summary = result.summary()[columns].astype(object)
    if metric is not None:
        summary = summary[summary["metric"] == metric]
    lines = summary.where(summary.notna(), "").itertuples(index=False)
    rounded = [[f"{x:.3g}" if isinstance(x, float) else str(x) for x in line] for line in lines]
    table([columns, *rounded])
