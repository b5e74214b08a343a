"""The command line.

Results go to standard output: tables in a terminal, tab-separated fields in a pipe (a tab, a line
break or a backslash in a text is escaped as in Python). Errors are one line on standard error with
exit code 2.
"""

from actadd_lens.cli import reproducing, steering, sweeping
from actadd_lens.cli.app import cli, main

__all__ = ["cli", "main", "reproducing", "steering", "sweeping"]
