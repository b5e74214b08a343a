"""`actadd-lens reproduce`: the paper's experiments, each with a report, and one of them all."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from actadd_lens.cli.app import INTERRUPTED, cli
from actadd_lens.cli.options import loaded, out_option
from actadd_lens.cli.terminal import status, table

if TYPE_CHECKING:
    from actadd_lens.reproduction.outcome import SavedOutcome
    from actadd_lens.reproduction.registry import Experiment


@cli.command()
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--all", "every", is_flag=True, help="All experiments, and one report of them.")
@click.option("--list", "listed", is_flag=True, help="Name the experiments and their questions.")
@click.option(
    "--model",
    default="testbed",
    show_default=True,
    help="testbed, a local directory or a hub name, e.g. gpt2-xl.",
)
@click.option(
    "--data",
    help="For models other than the testbed: a data set's file, directory or hub name; or a "
    "directory with imdb, realtoxicityprompts, openwebtext and conceptnet in it. "
    "[default: the hub]",
)
@out_option("out/reproductions", "Directory for tables, figures and reports.")
@click.option("--n", type=click.IntRange(min=1), help="Prompts a split; other counts follow.")
@click.option("--new-tokens", type=click.IntRange(min=1), help="Of a completion.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--device", help="Where the model runs, e.g. cuda.  [default: the best there is]")
@click.option(
    "--dtype",
    type=click.Choice(["float32", "float16", "bfloat16"]),
    help="Precision of the model.  [default: the preset's on a GPU, else float32]",
)
@click.option("--n-devices", type=click.IntRange(min=2), help="Spread the model over GPUs.")
@click.option("--sentiment-judge", help="A text classifier.  [default: VADER]")
@click.option("--toxicity-judge", help="A text classifier with the label toxic.")
@click.option("--relevance-judge", help="A sentence-embedding model.")
def reproduce(
    names: tuple[str, ...],
    every: bool,
    listed: bool,
    model: str,
    data: str | None,
    out: Path,
    seed: int,
    **options: Any,
) -> None:
    """Run experiments of the paper; after an interrupt, the same command continues.

    Writes to OUT/NAME a tidy table, a summary, a figure and a report, and to OUT/report.md one
    report. On the testbed all of them take some minutes; with a real model and the real data they
    are at the paper's scale (see docs/scale.md).
    """
    from actadd_lens.reproduction.registry import check_names, named
    from actadd_lens.reproduction.registry import names as known

    if listed:
        table([(name, named(name).question) for name in known()])
        return
    if every and names:
        raise click.UsageError(f"--all and {', '.join(names)} exclude each other")
    if not every and not names:
        raise click.UsageError(f"name an experiment, or give --all. There are {', '.join(known())}")
    chosen = known() if every else names
    check_names(chosen)
    _check_testbed(model, data, options)
    if options["device"] and options["n_devices"]:
        raise click.UsageError("--device and --n-devices exclude each other")
    with status(f"loading {model}"):
        from actadd_lens.reproduction.running import reproduce as run
        from actadd_lens.vectors.files import prepare_directory

        prepare_directory(out)
        bridge, data_set, sizes, rows = _prepared(model, data, options)
    command = " ".join(["actadd-lens reproduce", *_given(model, data, seed, options)])
    try:
        run(
            bridge,
            data_set,
            chosen,
            out,
            sizes=sizes,
            seed=seed,
            command=command,
            progress=sys.stderr.isatty(),
            batch_size=rows,
            on_done=_print,
        )
    except KeyboardInterrupt:
        click.echo("actadd-lens: interrupted: the same command continues from there", err=True)
        raise SystemExit(INTERRUPTED) from None
    click.echo(out / "report.md")


def _check_testbed(model: str, data: str | None, options: dict[str, Any]) -> None:
    """Refuse options of real models: they would do nothing here, and yet be in the report."""
    real = {"data": data, **{k: v for k, v in options.items() if k not in ("n", "new_tokens")}}
    given = [f"--{name.replace('_', '-')}" for name, value in real.items() if value is not None]
    if model == "testbed" and given:
        raise click.UsageError(
            f"the testbed has its own data and judges, and runs on the CPU: leave "
            f"{', '.join(given)} out, or give --model"
        )


def _prepared(
    model: str, data: str | None, options: dict[str, Any]
) -> tuple[Any, Any, Any, int | None]:
    """The model, the data set, how much is measured, and how many rows are decoded at once."""
    from dataclasses import replace

    from actadd_lens.reproduction import sizes
    from actadd_lens.reproduction.bundled import Bundled

    chosen = sizes.TESTBED if model == "testbed" else sizes.PAPER
    if options["n"] is not None:
        chosen = chosen.with_prompts(options["n"])
    if options["new_tokens"] is not None:
        chosen = replace(chosen, new_tokens=options["new_tokens"])
    if model == "testbed":
        return loaded(model), Bundled(), chosen, None
    from actadd_lens.reproduction.real import PROMPT_TOKENS, Judges, Real

    given = {
        name: options[f"{name}_judge"]
        for name in ("sentiment", "toxicity", "relevance")
        if options[f"{name}_judge"] is not None
    }
    n_tokens = 2 * PROMPT_TOKENS + chosen.new_tokens
    bridge, rows = _real_model(model, options, n_tokens)
    return bridge, Real(bridge, data, chosen.prompts, Judges(**given)), chosen, rows


def _real_model(name: str, options: dict[str, Any], n_tokens: int) -> tuple[Any, int | None]:
    """A model that will fit, and how many rows of so many tokens fit with it.

    What it needs is printed before it is loaded. This is unknown for hub models without a preset,
    and for models spread over devices it is unknown how much each will hold.
    """
    import torch

    from actadd_lens.models.footprint import ROWS, check_memory
    from actadd_lens.models.load import load_model
    from actadd_lens.models.memory import free_memory
    from actadd_lens.models.presets import PRESETS

    device, dtype, n_devices = (options[name] for name in ("device", "dtype", "n_devices"))
    place = _device(device)
    known = PRESETS.get(name)
    precision = known.dtype_on(place) if known else torch.float32
    if dtype is not None:
        precision = getattr(torch, dtype)
    if n_devices is not None:
        return load_model(name, n_devices=n_devices, dtype=precision), None
    if known is None and not Path(name).is_dir():
        click.echo(
            f"{name} in {_short(precision)} on {place}: memory unknown before loading", err=True
        )
        return load_model(name, device=place, dtype=precision), None
    needed = check_memory(name, dtype=precision, device=place, tokens=n_tokens)
    rows = min(ROWS, needed.rows_that_fit(free_memory(place)))
    click.echo(f"{name} in {_short(precision)} on {place}: {needed}; {rows} rows at once", err=True)
    return load_model(name, device=place, dtype=precision), rows


def _short(precision: Any) -> str:
    return str(precision).removeprefix("torch.")


def _device(name: str | None) -> Any:
    """The device of that name, if there is one here; else the best there is."""
    import torch

    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        why = str(error).splitlines()[0]
        raise click.UsageError(f"cannot use --device {name} here: {why}") from error


def _given(model: str, data: str | None, seed: int, options: dict[str, Any]) -> list[str]:
    """The options that were given, as they are typed."""
    import shlex

    named = {"model": model if model != "testbed" else None, "data": data, "seed": seed or None}
    pairs = [(name, value) for name, value in {**named, **options}.items() if value is not None]
    return [f"--{name.replace('_', '-')} {shlex.quote(str(value))}" for name, value in pairs]


def _print(own: Experiment, saved: SavedOutcome, was_there: bool) -> None:
    """A line for each verdict."""
    seconds = "done before" if was_there else f"{saved.seconds:.0f} s"
    click.echo(f"{own.name} ({seconds}): {own.question}")
    for verdict in saved.verdicts:
        click.echo(f"  {verdict.key} {verdict.word}: {verdict.evidence}")
