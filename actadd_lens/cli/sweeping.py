"""`actadd-lens sweep` and `ablate`: which layer and coefficient, and which part has the effect."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import cloup
from cloup.constraints import Equal, If, IsSet, constraint, require_all

from actadd_lens.cli import app
from actadd_lens.texts import read_texts

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from actadd_lens import ContrastPair
    from actadd_lens.sweeps import Result

ABLATIONS = {
    "positions": "position_ablation",
    "dimensions": "dimension_ablation",
    "layers": "layer_transplant",
    "reach": "steering_reach",
}
"""The function of ``sweeps`` that makes each kind."""
TASKS = ("sentiment", "topic", "register")


workload_options = app.all_of(
    cloup.option_group(
        "Task, or pair and prompts",
        cloup.option(
            "--task",
            type=click.Choice(TASKS),
            help="Of the bundled model: its pair, prompts and exact metric.",
        ),
        *app.pair_options,
        cloup.option("--prompts", type=cloup.path(), help="File with one prompt per line."),
        cloup.option("--n", type=click.IntRange(min=1), help="Prompts at most."),
        cloup.option("--metric", "metrics", multiple=True, help="A built-in one; may be repeated."),
    ),
    constraint(If("task", then=app.forbidden), ["positive", "negative", "pad", "prompts"]),
    constraint(If(~IsSet("task"), then=require_all), ["positive", "negative", "prompts"]),
)
"""What is measured: a task of the bundled model, or a pair and a file of prompts."""

measuring_options = cloup.option_group(
    "Measurement",
    cloup.option("--control", "controls", multiple=True, help="By name; may be repeated."),
    cloup.option("--samples", type=int, help="Completions per prompt; 0 reads logits alone."),
    cloup.option("--max-new-tokens", type=int, default=24, show_default=True),
    cloup.option("--temperature", type=float, default=1.0, show_default=True),
    app.stop_option,
    cloup.option("--seed", type=int, default=0, show_default=True),
    cloup.option("--store", type=cloup.path(), help="SQLite file to resume."),
)
"""How it is measured, and where the values are stored."""


@app.cli.command()
@app.model_option
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
@app.out_option("out/sweep", "Directory for the table and the figures.")
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
    grid: dict[str, Any] = {
        "layers": None if layers is None else numbers(layers, int),
        "coefficients": numbers(coefficients, float),
        "positions": [app.position_of(part) for part in positions.split(",")],
    }
    with app.status(f"loading {model}"):
        from actadd_lens import sweeps
        from actadd_lens.sweeps.search import limit_of
        from actadd_lens.vectors.files import prepare_directory

        for limit in subject_to:
            limit_of(limit)
        held_out = _lines_of(test_prompts) if test_prompts else None
        workload = _workload_of(options)
        prepare_directory(out)
        bridge = app.loaded(model)
    settings = _settings(options, ("random", "random:1", "random:2", "negated"))
    result = sweeps.sweep(
        bridge, workload.pair, workload.prompts, metrics=workload.metrics, **grid, **settings
    )
    _write(result, out, options["store"])
    name = best or result.metrics[0]
    held_out = workload.held_out if held_out is None else held_out
    chosen = result.best(name, subject_to=subject_to, test_prompts=held_out)
    unit = workload.unit if name == result.metrics[0] else None
    _draw(name, result.plot(name, chosen=chosen, unit=unit), out)
    if name != "kl":
        _draw("pareto", result.plot_pareto(name, "kl", success_unit=unit, cost_unit="nats"), out)
    click.echo(str(chosen))
    if chosen.held_out is not None:
        click.echo("\non held-out prompts")
        _print(chosen.held_out, ["run"])


@app.cli.command()
@cloup.argument("kind", type=click.Choice([*ABLATIONS]))
@app.model_option
@workload_options
@cloup.option("--layer", type=int, help="Injection layer. [default with --task: recommended]")
@cloup.option("--coefficient", type=float, help="[default with --task: recommended, else 1]")
@measuring_options
@app.out_option("out/ablate", "Directory for the table and the figure.")
@constraint(If(~IsSet("task") & ~Equal("kind", "reach"), then=require_all), ["metrics"])
@constraint(If(~IsSet("task") & ~Equal("kind", "layers"), then=require_all), ["layer"])
@constraint(If(Equal("kind", "layers"), then=app.forbidden), ["layer"])
@constraint(If(Equal("kind", "reach"), then=app.forbidden), ["metrics", "store"])
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
    with app.status(f"loading {model}"):
        from actadd_lens import SteeringVector, sweeps
        from actadd_lens.vectors.files import prepare_directory

        prepare_directory(out)
        workload = _workload_of(options)
        bridge = app.loaded(model)
    c = workload.coefficient if coefficient is None else coefficient
    settings = _settings(options, ("random",))
    if kind == "reach":
        del settings["store"]
        settings["samples"] = max(1, settings["samples"])
    else:
        settings["metrics"] = workload.metrics
    what: Any = workload.pair
    if kind == "layers":
        settings["coefficient"] = c
    else:
        at = workload.layer if layer is None else layer
        what = c * SteeringVector.from_pair(bridge, workload.pair, at)
    result = getattr(sweeps, ABLATIONS[kind])(bridge, what, workload.prompts, **settings)
    _write(result, out, options["store"])
    name = result.metrics[0]
    unit = "nats" if kind == "reach" else workload.unit
    _draw(f"{kind}_{name}", result.plot(name, unit=unit), out)
    _print(result, [key for key in result.keys if key not in ("vector", "coefficient")], name)


@dataclass(frozen=True)
class Workload:
    """What ``workload_options`` name."""

    pair: ContrastPair
    metrics: list[Any]
    """The task's own first."""
    prompts: list[str]
    held_out: list[str] | None = None
    """Prompts of the task's test split."""
    unit: str | None = None
    """Of the first metric, for figures."""
    layer: Any = None
    """Recommended for the task, as is the coefficient."""
    coefficient: float = 1.0


def _workload_of(options: app.Options) -> Workload:
    """The task of the bundled model, or the pair and the prompts of the file."""
    metrics, n = list(options["metrics"]), options["n"]
    if options["task"] is None:
        return Workload(app.pair_of(options), metrics, _lines_of(options["prompts"])[:n])
    from actadd_lens import testbed

    task = testbed.TASKS[options["task"]]
    metrics = [testbed.Success(task), testbed.Valid(), *metrics]
    prompts, held_out = (
        testbed.prompts(task.prompts, split, n or 100) for split in ("selection", "test")
    )
    return Workload(task.pair, metrics, prompts, held_out, "%", *testbed.recommended(task.name))


def _lines_of(path: Path) -> list[str]:
    """The texts of a file."""
    return [record["text"] for record in read_texts(path)]


def numbers(text: str, kind: type[int] | type[float]) -> list[Any]:
    """Numbers separated by commas; for integers "1-4" is a range that includes both ends.

    >>> numbers("0,2-4", int), numbers("-1, 2.5", float)
    ([0, 2, 3, 4], [-1.0, 2.5])
    """
    found: list[Any] = []
    for part in text.replace(" ", "").split(","):
        ends = re.fullmatch(r"(\d+)-(\d+)", part)
        try:
            if kind is int and ends:
                found += range(int(ends[1]), int(ends[2]) + 1)
            else:
                found.append(kind(part))
        except ValueError:
            raise click.UsageError(
                f"cannot read {part!r} in {text!r}: write numbers separated by commas"
            ) from None
    return found


def _settings(options: app.Options, controls: Sequence[str]) -> dict[str, Any]:
    """Arguments of a measurement; those of generation only where something is generated."""
    names = ("samples", "max_new_tokens", "temperature", "seed", "store")
    settings = {name: options[name] for name in names}
    if settings["samples"] is None:
        settings["samples"] = 1 if options["task"] else 0
    controls = options["controls"] or controls
    return {**settings, "controls": controls, "progress": sys.stderr.isatty()}


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
        raise SystemExit(app.INTERRUPTED)


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
    app.table([columns, *lines], digits=3)
