"""Output of the command line: tables in a terminal, tab-separated fields in a pipe."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from rich.console import Console


def drop_output(code: int) -> int:
    """Nothing can read the output any more: keep the interpreter from flushing into it at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return code


@contextmanager
def quiet() -> Iterator[None]:
    """Hide notices and progress bars of the model libraries; errors arrive as exceptions."""
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(logging.NOTSET)


def table(rows: Iterable[Sequence[object]]) -> None:
    """Print aligned columns in a terminal, tab-separated fields in a pipe."""
    lines = [[escaped(field) for field in row] for row in rows]
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


@contextmanager
def status(doing: str) -> Iterator[None]:
    """Say what is being done, on standard error, if it is a terminal."""
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console

    with Console(stderr=True).status(doing):
        yield


def result_console() -> Console:
    """A console on standard output, without colours and narrow columns in a pipe."""
    from rich.console import Console

    return Console() if sys.stdout.isatty() else Console(width=200, no_color=True)
