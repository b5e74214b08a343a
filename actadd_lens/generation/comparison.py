"""Clean and steered completions of the same prompts with the same random numbers."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from inspect import signature
from io import StringIO
from typing import TYPE_CHECKING, Any

from actadd_lens import display
from actadd_lens.errors import unexpected_option
from actadd_lens.generation.completions import Completion, Completions, generate
from actadd_lens.models.base import Bridge
from actadd_lens.models.tokens import Prompts
from actadd_lens.steering.interventions import Steering
from actadd_lens.vectors.provenance import described

if TYPE_CHECKING:
    from pandas import DataFrame
    from rich.console import Console, ConsoleOptions, RenderResult
else:
    # Neither pandas nor rich is needed before something is shown.
    DataFrame = Console = ConsoleOptions = RenderResult = Any

_COLUMNS = ("prompt", "clean", "steered")


@dataclass(frozen=True, repr=False)
class Comparison:
    """A clean and a steered run with the same random numbers, printed as a table."""

    clean: Completions
    """Without steering."""
    steered: Completions
    """With steering; the i-th has the prompt and the random numbers of the i-th clean one."""

    @property
    def pairs(self) -> Iterator[tuple[Completion, Completion]]:
        """Each clean completion with its steered counterpart."""
        return zip(self.clean, self.steered, strict=True)

    @property
    def frame(self) -> DataFrame:
        """One row a completion: the fields of ``Completion``, and which "run" it is of."""
        import pandas as pd

        runs = {"clean": self.clean.frame, "steered": self.steered.frame}
        frame = pd.concat(runs, names=["run", None]).reset_index("run")
        return frame.sort_values(["prompt_index", "sample_index", "run"], ignore_index=True)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from rich.table import Table
        from rich.text import Text

        table = Table(*_COLUMNS, show_lines=True)
        for clean, steered in self.pairs:
            # As Text: square brackets in a completion are no markup.
            table.add_row(Text(clean.prompt), Text(clean.text), Text(steered.text))
        yield table

    def __str__(self) -> str:
        from rich.console import Console

        buffer = StringIO()
        width = shutil.get_terminal_size().columns
        # Rich would show the table in a notebook by itself, beside what is returned.
        Console(file=buffer, width=width, force_jupyter=False).print(self)
        return buffer.getvalue().rstrip("\n")

    __repr__ = __str__

    def _repr_html_(self) -> str:
        rows = [(clean.prompt, clean.text, steered.text) for clean, steered in self.pairs]
        steering = self.steered.provenance.get("steering", [])
        told = "; ".join(described(**vector) for vector in steering)
        return display.block(
            f"Comparison of {len(self.clean)} completions",
            display.muted(told or "not steered"),
            display.table(_COLUMNS, rows, tinted=2),
        )


def compare(
    model: Bridge,
    prompts: Prompts,
    steering: Steering,
    *,
    samples: int = 3,
    **sampling: Any,
) -> Comparison:
    """Continue prompts clean and steered, with the same random numbers.

    Args:
        model: Any TransformerBridge with a tokenizer.
        prompts: What to continue: a text, token ids, a chat, or a list of these.
        steering: An intervention such as a vector, or several of them.
        samples: Completions of each prompt and run.
        **sampling: Further keywords of ``generate``, e.g. ``temperature``, ``seed``.

    Returns:
        A ``Comparison``: its i-th clean and its i-th steered completion share prompt, sample index
        and random numbers.

    Raises:
        TypeError: A keyword that ``generate`` does not have.
        ActAddError: What ``generate`` raises.

    >>> model = load_model("testbed")
    >>> vector = SteeringVector.from_pair(model, ("Love", "Hate"), layer=1)
    >>> compare(model, "I hate you", 0 * vector, samples=1).frame["run"].tolist()
    ['clean', 'steered']
    """
    known = signature(generate).parameters
    for option in sorted(sampling.keys() - known.keys()):
        raise unexpected_option(option, known)
    steered = generate(model, prompts, steering, samples=samples, **sampling)
    return Comparison(generate(model, prompts, samples=samples, **sampling), steered)
