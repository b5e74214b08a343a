"""`actadd-lens reproduce`: the paper's experiments, each with a report, and one of them all."""

from __future__ import annotations

import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from actadd_lens.cli import app

if TYPE_CHECKING:
    from actadd_lens.reproduction.outcome import SavedOutcome
    from actadd_lens.reproduction.registry import Experiment


@app.cli.command()
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
@app.out_option("out/reproductions", "Directory for tables, figures and reports.")
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
        app.table([(name, named(name).question) for name in known()])
        return
    if every and names:
        raise click.UsageError(f"--all and {', '.join(names)} exclude each other")
    if not every and not names:
        raise click.UsageError(f"name an experiment, or give --all. There are {', '.join(known())}")
    chosen = known() if every else names
    check_names(chosen)
    # On the testbed, options of real models would do nothing, and yet be in the report.
    real = {"data": data, **{k: v for k, v in options.items() if k not in ("n", "new_tokens")}}
    if model == "testbed" and (useless := _typed(real)):
        raise click.UsageError(
            f"the testbed has its own data and judges, and runs on the CPU: leave "
            f"{', '.join(useless)} out, or give --model"
        )
    if options["device"] and options["n_devices"]:
        raise click.UsageError("--device and --n-devices exclude each other")
    with app.status(f"loading {model}"):
        from actadd_lens.reproduction.running import reproduce as run
        from actadd_lens.vectors.files import prepare_directory

        prepare_directory(out)
        bridge, data_set, sizes, rows = _prepared(model, data, options)
    own = {"model": None if model == "testbed" else model, "data": data, "seed": seed or None}
    given = [f"{name} {value}" for name, value in _typed({**own, **options}).items()]
    command = " ".join(["actadd-lens reproduce", *given])
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
        raise SystemExit(app.INTERRUPTED) from None
    click.echo(out / "report.md")


def _typed(options: app.Options) -> dict[str, str]:
    """The options that were given and their values, as they are typed."""
    given = {name: str(value) for name, value in options.items() if value is not None}
    return {f"--{name.replace('_', '-')}": shlex.quote(value) for name, value in given.items()}


def _prepared(
    model: str, data: str | None, options: app.Options
) -> tuple[Any, Any, Any, int | None]:
    """The model, the data set, how much is measured, and how many rows are decoded at once."""
    from actadd_lens.reproduction import sizes

    chosen = sizes.TESTBED if model == "testbed" else sizes.PAPER
    if options["n"] is not None:
        chosen = chosen.with_prompts(options["n"])
    if options["new_tokens"] is not None:
        chosen = replace(chosen, new_tokens=options["new_tokens"])
    if model == "testbed":
        from actadd_lens.reproduction.bundled import Bundled

        return app.loaded(model), Bundled(), chosen, None
    from actadd_lens.reproduction.real import PROMPT_TOKENS, Judges, Real

    judges = {name: options[f"{name}_judge"] for name in ("sentiment", "toxicity", "relevance")}
    judges = {name: judge for name, judge in judges.items() if judge is not None}
    bridge, rows = _real_model(model, options, 2 * PROMPT_TOKENS + chosen.new_tokens)
    return bridge, Real(bridge, data, chosen.prompts, Judges(**judges)), chosen, rows


def _real_model(name: str, options: app.Options, n_tokens: int) -> tuple[Any, int | None]:
    """A model that will fit, and how many rows of so many tokens fit with it.

    What it needs is printed before it is loaded. This is unknown for hub models without a preset,
    and for models spread over devices it is unknown how much each will hold.
    """
    import torch

    from actadd_lens.models.footprint import ROWS, check_memory
    from actadd_lens.models.load import load_model
    from actadd_lens.models.memory import free_memory
    from actadd_lens.models.presets import PRESETS

    place = _device(options["device"])
    preset = PRESETS.get(name)
    precision = preset.dtype_on(place) if preset else torch.float32
    if options["dtype"] is not None:
        precision = getattr(torch, options["dtype"])
    if options["n_devices"] is not None:
        return load_model(name, n_devices=options["n_devices"], dtype=precision), None
    rows, remark = None, "memory unknown before loading"
    if preset or Path(name).is_dir():
        needed = check_memory(name, dtype=precision, device=place, tokens=n_tokens)
        rows = min(ROWS, needed.rows_that_fit(free_memory(place)))
        remark = f"{needed}; {rows} rows at once"
    short = str(precision).removeprefix("torch.")
    click.echo(f"{name} in {short} on {place}: {remark}", err=True)
    return load_model(name, device=place, dtype=precision), rows


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


def _print(own: Experiment, saved: SavedOutcome, was_there: bool) -> None:
    """A line for each verdict."""
    seconds = "done before" if was_there else f"{saved.seconds:.0f} s"
    click.echo(f"{own.name} ({seconds}): {own.question}")
    for verdict in saved.verdicts:
        click.echo(f"  {verdict.key} {verdict.word}: {verdict.evidence}")
