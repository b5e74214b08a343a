"""The command line: `actadd-lens demo`, `steer`, `extract`, `show`, `models`.

Only click is imported here; each command imports what it needs, so that help answers at once.
Results go to standard output: tables in a terminal, tab-separated fields in a pipe (a tab, a line
break or a backslash in a text is escaped as in Python). Errors are one line on standard error with
exit code 2.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click

from actadd_lens import __version__
from actadd_lens.terminal import drop_output, quiet, result_console, status, table

if TYPE_CHECKING:
    from actadd_lens import SteeringVector

Command = TypeVar("Command", bound=Callable[..., Any])
INTERRUPTED = 130
BAD_INPUT = 2

# name, architecture, layers, a setting known to work (pair, layer, coefficient: the paper's).
MODELS = (
    ("testbed", "gpt-neo", "6", "bundled, offline; actadd-lens demo uses it"),
    ("gpt2-xl", "gpt2", "48", '"Love" - "Hate", layer 6, coefficient 5'),
    ("facebook/opt-6.7b", "opt", "32", '"Love" - "Hate"'),
    ("meta-llama/Meta-Llama-3-8B", "llama", "32", '"Love" - "Hate"'),
)
ARCHITECTURES = "bloom, gemma2, gpt2, gpt-j, gpt-neo, gpt-neox, llama, mistral, opt, qwen2, qwen3"


def _model_option(command: Command) -> Command:
    text = "testbed, a local directory or a hub name (see actadd-lens models)."
    return click.option("--model", default="testbed", show_default=True, help=text)(command)


def _options(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    def add(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return add


def _pair_options(required: bool) -> Callable[[Command], Command]:
    return _options(
        click.option("--positive", required=required, help="Prompt steered towards."),
        click.option("--negative", required=required, help="Prompt steered away from."),
        click.option("--pad", help="String of one token that pads the shorter. [default: a space]"),
        click.option(
            "--layer",
            type=int,
            required=required,
            help="Injection layer, from 0.",
        ),
        click.option(
            "--site",
            type=click.Choice(["resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out"]),
            help="Where in the layer. [default: resid_pre]",
        ),
        click.option(
            "--position",
            help="front, middle, back, an index; one-row vectors: prompt, generated, all.",
        ),
    )


@click.group(
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="actadd-lens")
@click.pass_context
def cli(context: click.Context) -> None:
    """Steer language models by Activation Addition."""
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


@cli.command()
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("out/demo"),
    show_default=True,
    help="Directory for figures, rows and vectors.",
)
def demo(out: Path) -> None:
    """Steer the bundled model: completions, success rates with controls, figures."""
    with status("loading the bundled model"):
        import torch
        from rich.console import Console

        from actadd_lens.demo import heading, questions, run_demo
        from actadd_lens.models import load_model

        torch.set_num_threads(1)  # for a model this small a second thread only gets in the way
        model = load_model("testbed")
    console = result_console()
    written = run_demo(model, questions(), out, console=console, progress=Console(stderr=True))
    heading(console, "written")
    for path in written:
        click.echo(path)


@cli.command()
@click.argument("prompts", nargs=-1, required=True)
@_model_option
@_pair_options(required=False)
@click.option("--vector", type=click.Path(path_type=Path), help="A saved vector, not a pair.")
@click.option("--coefficient", type=float, default=1.0, show_default=True)
@click.option("--samples", type=int, default=3, show_default=True, help="Completions a prompt.")
@click.option("--max-new-tokens", type=int, default=40, show_default=True)
@click.option("--temperature", type=float, default=1.0, show_default=True, help="0 is greedy.")
@click.option("--top-p", type=float, default=1.0, show_default=True)
@click.option("--top-k", type=int)
@click.option("--frequency-penalty", type=float, default=0.0, show_default=True)
@click.option("--seed", type=int, default=0, show_default=True)
def steer(
    prompts: tuple[str, ...],
    model: str,
    vector: Path | None,
    coefficient: float,
    position: str | None,
    positive: str | None,
    negative: str | None,
    pad: str | None,
    layer: int | None,
    site: str | None,
    **sampling: Any,
) -> None:
    """Complete PROMPTS clean and steered, by a pair of prompts or a saved vector.

    In a pipe: a header, then one line per completion, clean ones first.
    """
    pair = {"positive": positive, "negative": negative, "layer": layer}
    _check_source(vector, pair, {"pad": pad, "site": site})
    with status(f"loading {model}"):
        from actadd_lens.comparison import compare
        from actadd_lens.models import load_model
        from actadd_lens.vectors import SteeringVector

        saved = SteeringVector.load(vector) if vector else None
        bridge = load_model(model)
    steering = saved or _extract(bridge, positive, negative, pad, layer, site)
    steering = coefficient * _placed(steering, position)
    with status("completing"):
        comparison = compare(bridge, list(prompts), steering, **sampling)
    if sys.stdout.isatty():
        result_console().print(comparison)
        return
    runs = (("clean", comparison.clean), ("steered", comparison.steered))
    header = ("run", "prompt_index", "sample_index", "prompt", "text")
    lines = [
        (run, c.prompt_index, c.sample_index, c.prompt, c.text)
        for run, completions in runs
        for c in completions
    ]
    table([header, *lines])


@cli.command("extract")
@_model_option
@_pair_options(required=True)
@click.option("--coefficient", type=float, default=1.0, show_default=True)
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    required=True,
    help="File to write (safetensors).",
)
def extract_command(
    model: str,
    positive: str,
    negative: str,
    pad: str | None,
    layer: int,
    site: str | None,
    position: str | None,
    coefficient: float,
    output: Path,
) -> None:
    """Write the steering vector of a pair of prompts to a file."""
    _check_writable(output)
    with status(f"loading {model}"):
        from actadd_lens.models import load_model

        bridge = load_model(model)
    vector = _extract(bridge, positive, negative, pad, layer, site)
    (coefficient * _placed(vector, position)).save(output)
    click.echo(output)


@cli.command()
@click.argument("path", type=click.Path(path_type=Path))
def show(path: Path) -> None:
    """Print what the vector file PATH holds: where it acts, whence it comes (as JSON), its rows."""
    with status("reading"):
        from actadd_lens.vectors import SteeringVector

        vector = SteeringVector.load(path)
    origin = dict(vector.provenance)
    tokens = origin.pop("tokens", [])
    n_rows, width = vector.rows.shape
    facts = {
        "hook point": vector.hook_point,
        "layer": vector.layer,
        "position": vector.position,
        "rows": n_rows,
        "width": width,
        **{name: json.dumps(value, ensure_ascii=False) for name, value in origin.items()},
    }
    table(facts.items())
    click.echo()
    norms = [f"{norm:.4g}" for norm in vector.norms().tolist()]
    columns = _token_columns(tokens, n_rows)
    table([("row", "norm", *columns), *zip(range(n_rows), norms, *columns.values(), strict=True)])


@cli.command()
def models() -> None:
    """List the bundled model, the paper's models, and how to name another."""
    table([("name", "architecture", "layers", "known to work"), *MODELS])
    click.echo()
    click.echo(f"Architectures under test: {ARCHITECTURES}.")
    click.echo("--model takes any Hugging Face hub name that TransformerLens supports, and any")
    click.echo("local directory with config.json, weights and tokenizer files; the latter offline.")


def main(args: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit: 0, 2 for bad input, 130 when interrupted."""
    with quiet():
        code = _run(args)
    sys.exit(code)


def _run(args: Sequence[str] | None) -> int:
    from actadd_lens.errors import ActAddError

    try:
        cli.main(args=None if args is None else list(args), standalone_mode=False)
        sys.stdout.flush()
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except BrokenPipeError:
        return drop_output(0)  # the reader of the pipe has seen enough (`| head`)
    except click.ClickException as error:
        return _complain(error.format_message())
    except ActAddError as error:
        return _complain(str(error))
    except OSError as error:
        return drop_output(_complain(str(error)))
    return 0


def _complain(message: str) -> int:
    click.echo(f"actadd-lens: error: {' '.join(message.split())}", err=True)
    return BAD_INPUT


def _check_source(
    vector: Path | None, pair: dict[str, str | int | None], extras: dict[str, str | None]
) -> None:
    given = [f"--{name}" for name, value in {**pair, **extras}.items() if value is not None]
    missing = [f"--{name}" for name, value in pair.items() if value is None]
    if vector and given:
        raise click.UsageError(f"--vector and {', '.join(given)} exclude each other")
    if not vector and missing:
        raise click.UsageError(
            f"{', '.join(missing)} missing: give a pair and a layer, or --vector"
        )


def _check_writable(output: Path) -> None:
    """Fail before the model is loaded, not after."""
    from actadd_lens.errors import OutputError

    if not output.parent.is_dir() or not os.access(output.parent, os.W_OK):
        raise OutputError(f"cannot write {output}: {output.parent} is not a writable directory")


def _extract(
    model: Any, positive: Any, negative: Any, pad: str | None, layer: Any, site: str | None
) -> SteeringVector:
    from actadd_lens.extraction import extract
    from actadd_lens.prompts import ContrastPair

    pair = ContrastPair(positive, negative, **({} if pad is None else {"pad": pad}))
    return extract(model, pair, [layer], site=site or "resid_pre")[layer]


def _token_columns(tokens: Any, n_rows: int) -> dict[str, list[Any]]:
    """Token ids of each row's prompts, where the file knows them: it may hold anything there."""
    match tokens:
        case [[*positive], [*negative]] if len(positive) == len(negative) == n_rows:
            return {"positive token": positive, "negative token": negative}
        case [[*only]] if len(only) == n_rows:
            return {"token": only}
    return {}


def _placed(vector: SteeringVector, position: str | None) -> SteeringVector:
    if position is None:
        return vector
    try:
        return vector.at(int(position))
    except ValueError:
        return vector.at(position)


if __name__ == "__main__":
    main()
