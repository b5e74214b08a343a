"""The group of commands, and how a run of one ends.

Only click and cloup are imported here. Each command imports what it needs when it runs, so that
help appears at once.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import NoReturn

import click
import cloup

from actadd_lens import __version__
from actadd_lens.cli.terminal import drop_output, quiet

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
