"""What all commands share: their group, options, how a run of one ends, and how it prints.

Nothing heavy is imported here. Each command imports what it needs when it runs, so that help
appears at once.
"""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click
import cloup
from cloup.constraints import ConstraintViolated, accept_none
from cloup.constraints.common import get_params_whose_value_is_set, join_param_labels

from actadd_lens import __version__
from actadd_lens.errors import ActAddError

if TYPE_CHECKING:
    from rich.console import Console

    from actadd_lens import ContrastPair

Command = TypeVar("Command", bound=Callable[..., Any])
Options = dict[str, Any]
"""Values of a command's options by name."""

INTERRUPTED = 130
BAD_INPUT = 2


@cloup.group(
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="actadd-lens")
@click.pass_context
def cli(context: click.Context) -> None:
    """Steer language models by Activation Addition."""
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


def main(args: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit: 0, 2 for bad input, 130 when interrupted.

    Notices and progress bars of the model libraries are hidden; errors arrive as exceptions.
    """
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        try:
            code = _run(args)
        finally:
            logging.disable(logging.NOTSET)
    sys.exit(code)


def _run(args: Sequence[str] | None) -> int:
    try:
        cli.main(args=None if args is None else list(args), standalone_mode=False)
        sys.stdout.flush()
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except BrokenPipeError:
        return _drop_output(0)  # the reader of the pipe has seen enough (`| head`)
    except click.ClickException as error:
        return _complain(error.format_message())
    except ActAddError as error:
        return _complain(str(error))
    except OSError as error:
        return _drop_output(_complain(str(error)))
    return 0


def _complain(message: str) -> int:
    click.echo(f"actadd-lens: error: {' '.join(message.split())}", err=True)
    return BAD_INPUT


def _drop_output(code: int) -> int:
    """Nothing can read the output any more: keep the interpreter from flushing into it at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return code


model_option = cloup.option(
    "--model",
    default="testbed",
    show_default=True,
    help="testbed, a local directory or a hub name (see actadd-lens models).",
)

stop_option = cloup.option(
    "--stop", multiple=True, help="Text that ends a completion; may be repeated."
)

pair_options = (
    cloup.option("--positive", help="Prompt steered towards."),
    cloup.option("--negative", help="Prompt steered away from."),
    cloup.option("--pad", help="String of one token that pads the shorter. [default: a space]"),
)


def all_of(*decorators: Callable[[Any], Any]) -> Callable[[Command], Command]:
    """One decorator of several, applied from the last to the first."""

    def add(command: Command) -> Command:
        for decorator in reversed(decorators):
            command = decorator(command)
        return command

    return add


def _to_leave_out(violated: ConstraintViolated) -> str:
    given = get_params_whose_value_is_set(violated.params, click.get_current_context().params)
    return f"leave {join_param_labels(given)} out"


forbidden = accept_none.rephrased(error=_to_leave_out)
"""``accept_none``, whose error names the options that were given."""


def out_option(default: str, help: str) -> Callable[[Command], Command]:  # noqa: A002 - as in click
    """A directory for results."""
    place = cloup.dir_path()
    return cloup.option("--out", type=place, default=Path(default), show_default=True, help=help)


def pair_of(options: Options) -> ContrastPair:
    """The pair that the options name."""
    from actadd_lens import ContrastPair

    pad = {} if options["pad"] is None else {"pad": options["pad"]}
    return ContrastPair(options["positive"], options["negative"], **pad)


def position_of(text: str) -> int | str:
    """A position by name, or an index."""
    try:
        return int(text)
    except ValueError:
        return text.strip()


def loaded(model: str) -> Any:
    """The model; for one as small as the bundled one a second thread only costs time."""
    import torch

    from actadd_lens.models.load import load_model

    if model == "testbed":
        torch.set_num_threads(1)
    return load_model(model)


def table(rows: Iterable[Sequence[object]], digits: int = 4) -> None:
    """Print aligned columns in a terminal, tab-separated fields in a pipe; floats are rounded."""
    lines = [
        [f"{field:.{digits}g}" if isinstance(field, float) else escaped(field) for field in row]
        for row in rows
    ]
    if not sys.stdout.isatty():
        for line in lines:
            click.echo("\t".join(line))
        return
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        padded = (f"{field:{width}}" for field, width in zip(line, widths, strict=True))
        click.echo("  ".join(padded).rstrip())


def escaped(field: object) -> str:
    """One line without tabs: backslashes and what cannot be printed as Python escapes them."""
    return "".join(
        char if char.isprintable() and char != "\\" else char.encode("unicode_escape").decode()
        for char in str(field)
    )


def status(doing: str) -> AbstractContextManager[object]:
    """Say what is being done, on standard error, if it is a terminal."""
    if not sys.stderr.isatty():
        return nullcontext()
    from rich.console import Console

    return Console(stderr=True).status(doing)


def result_console() -> Console:
    """A console on standard output, without colours and narrow columns in a pipe."""
    from rich.console import Console

    return Console() if sys.stdout.isatty() else Console(width=200, no_color=True)
