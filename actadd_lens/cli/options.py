"""Options that several commands have, in groups with their constraints, and what they mean."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
import cloup
from cloup.constraints import (
    AnySet,
    ConstraintViolated,
    If,
    IsSet,
    accept_none,
    constraint,
    require_all,
)
from cloup.constraints.common import get_params_whose_value_is_set, join_param_labels

if TYPE_CHECKING:
    from actadd_lens import ContrastPair, SteeringVector

Command = TypeVar("Command", bound=Callable[..., Any])
Taken = TypeVar("Taken")

SITES = ("resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out")
TASKS = ("sentiment", "topic", "register")

model_option = cloup.option(
    "--model",
    default="testbed",
    show_default=True,
    help="testbed, a local directory or a hub name (see actadd-lens models).",
)
stop_option = cloup.option(
    "--stop", multiple=True, help="Text that ends a completion; may be repeated."
)
coefficient_option = cloup.option("--coefficient", type=float, default=1.0, show_default=True)

_pair = (
    cloup.option("--positive", help="Prompt steered towards."),
    cloup.option("--negative", help="Prompt steered away from."),
    cloup.option("--pad", help="String of one token that pads the shorter. [default: a space]"),
)
_extraction = (
    *_pair,
    cloup.option("--layer", type=int, help="Injection layer, from 0."),
    cloup.option(
        "--site", type=click.Choice(SITES), help="Where in the layer. [default: resid_pre]"
    ),
    cloup.option(
        "--position",
        help="front, middle, back, sink or an index; one-row vectors: prompt, generated, all.",
    ),
)


def _all(*decorators: Callable[[Any], Any]) -> Callable[[Command], Command]:
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

pair_options = _all(
    cloup.option_group("Steering vector", *_extraction, coefficient_option),
    constraint(require_all, ["positive", "negative", "layer"]),
)
"""A contrast pair, where its vector is read and added, and how strongly."""


def source_options(required: bool) -> Callable[[Command], Command]:
    """A steering vector, from a pair or from a file; None may be given where it isn't required."""
    begun = AnySet("positive", "negative", "pad", "layer", "site", "position")
    by_pair = ~IsSet("vector") if required else begun & ~IsSet("vector")
    return _all(
        cloup.option_group(
            "Steering vector",
            *_extraction,
            cloup.option("--vector", type=cloup.path(), help="A saved vector, no pair."),
            coefficient_option,
        ),
        constraint(If("vector", then=forbidden), ["positive", "negative", "pad", "layer", "site"]),
        constraint(If(by_pair, then=require_all), ["positive", "negative", "layer"]),
    )


workload_options = _all(
    cloup.option_group(
        "Task, or pair and prompts",
        cloup.option(
            "--task",
            type=click.Choice(TASKS),
            help="Of the bundled model: its pair, prompts and exact metric.",
        ),
        *_pair,
        cloup.option("--prompts", type=cloup.path(), help="File with one prompt per line."),
        cloup.option("--n", type=click.IntRange(min=1), help="Prompts at most."),
        cloup.option("--metric", "metrics", multiple=True, help="A built-in one; may be repeated."),
    ),
    constraint(If("task", then=forbidden), ["positive", "negative", "pad", "prompts"]),
    constraint(If(~IsSet("task"), then=require_all), ["positive", "negative", "prompts"]),
)
"""What is measured: a task of the bundled model, or a pair and a file of prompts."""

measuring_options = cloup.option_group(
    "Measurement",
    cloup.option("--control", "controls", multiple=True, help="By name; may be repeated."),
    cloup.option("--samples", type=int, help="Completions per prompt; 0 reads logits alone."),
    cloup.option("--max-new-tokens", type=int, default=24, show_default=True),
    cloup.option("--temperature", type=float, default=1.0, show_default=True),
    stop_option,
    cloup.option("--seed", type=int, default=0, show_default=True),
    cloup.option("--store", type=cloup.path(), help="SQLite file to resume."),
)
"""How it is measured, and where the values are stored."""


def out_option(default: str, help: str) -> Callable[[Command], Command]:  # noqa: A002 - as in click
    """A directory for results."""
    place = cloup.dir_path()
    return cloup.option("--out", type=place, default=Path(default), show_default=True, help=help)


def taken(kind: type[Taken], options: dict[str, Any]) -> Taken:
    """A dataclass of options, which are taken out of those of a command."""
    # mypy cannot tell that a type variable is a dataclass.
    return kind(**{field.name: options.pop(field.name) for field in fields(kind)})  # type: ignore[arg-type]


@dataclass(frozen=True)
class Workload:
    """The values of ``workload_options``."""

    task: str | None
    positive: str | None
    negative: str | None
    pad: str | None
    prompts: Path | None
    n: int | None
    metrics: tuple[str, ...]

    @property
    def pair(self) -> ContrastPair:
        """The contrast pair."""
        if self.task is None:
            return pair_of(self.positive, self.negative, self.pad)
        from actadd_lens import testbed

        return testbed.pairs[self.task]

    def texts(self, split: Any = "selection") -> list[str]:
        """The prompts."""
        if self.task is not None:
            from actadd_lens import testbed

            return list(testbed.prompts(testbed.TASKS[self.task].prompts, split, self.n or 100))
        assert self.prompts is not None
        return lines_of(self.prompts)[: self.n]

    @property
    def measured(self) -> list[Any]:
        """The metrics, the task's own first."""
        if self.task is None:
            return [*self.metrics]
        from actadd_lens import testbed

        return [testbed.Success(testbed.TASKS[self.task]), testbed.Valid(), *self.metrics]

    @property
    def unit(self) -> str | None:
        """Of the first metric, for figures."""
        return None if self.task is None else "%"


@dataclass(frozen=True)
class Source:
    """The values of ``source_options`` or ``pair_options``: where the steering vector is from."""

    positive: str | None
    negative: str | None
    pad: str | None
    layer: int | None
    site: str | None
    position: str | None
    coefficient: float
    vector: Path | None = None

    @property
    def is_given(self) -> bool:
        """Whether there is a vector to steer with."""
        return self.vector is not None or self.layer is not None

    def load(self, model: Any) -> SteeringVector:
        """The vector, at its position and times the coefficient."""
        from actadd_lens.vectors.vector import SteeringVector

        if self.vector:
            vector = SteeringVector.load(self.vector)
        else:
            pair = pair_of(self.positive, self.negative, self.pad)
            vector = vector_of(model, pair, self.layer, self.site)
        if self.position is not None:
            vector = vector.at(position_of(self.position))
        return self.coefficient * vector


def lines_of(path: Path) -> list[str]:
    """The texts of a file."""
    from actadd_lens.texts import read_texts

    return [record["text"] for record in read_texts(path)]


def check_writable(output: Path) -> None:
    """Fail before the model is loaded, not after."""
    from actadd_lens.errors import OutputError

    if not output.parent.is_dir() or not os.access(output.parent, os.W_OK):
        raise OutputError(f"cannot write {output}: {output.parent} is not a writable directory")


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


def pair_of(positive: Any, negative: Any, pad: str | None) -> ContrastPair:
    """The pair that the options name."""
    from actadd_lens.vectors.pair import ContrastPair

    return ContrastPair(positive, negative, **({} if pad is None else {"pad": pad}))


def vector_of(model: Any, pair: Any, layer: Any, site: str | None = None) -> SteeringVector:
    """The vector of a pair at a layer."""
    from actadd_lens.vectors.extraction import extract

    return extract(model, pair, [layer], site=site or "resid_pre")[layer]
