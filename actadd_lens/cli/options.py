"""Options that several commands have, and what they mean."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from actadd_lens import ContrastPair, SteeringVector

Command = TypeVar("Command", bound=Callable[..., Any])


def model_option(command: Command) -> Command:
    """The model that is loaded."""
    text = "testbed, a local directory or a hub name (see actadd-lens models)."
    return click.option("--model", default="testbed", show_default=True, help=text)(command)


def _options(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    def add(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return add


def pair_options(required: bool) -> Callable[[Command], Command]:
    """A contrast pair, and where its vector is read and added."""
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


def source_options(command: Command) -> Command:
    """A steering vector: from a pair, or from a file."""
    add = _options(
        pair_options(required=False),
        click.option("--vector", type=click.Path(path_type=Path), help="A saved vector, no pair."),
        click.option("--coefficient", type=float, default=1.0, show_default=True),
    )
    return add(command)


def question_options(command: Command) -> Command:
    """What is asked of the model: a task of the bundled one, or a pair and files of prompts."""
    add = _options(
        click.option(
            "--task",
            type=click.Choice(["sentiment", "topic", "register"]),
            help="Of the bundled model: its pair, prompts and exact metric.",
        ),
        click.option("--positive", help="Prompt steered towards."),
        click.option("--negative", help="Prompt steered away from."),
        click.option("--pad", help="String of one token that pads the shorter. [default: a space]"),
        click.option(
            "--prompts", type=click.Path(path_type=Path), help="File with a prompt a line."
        ),
        click.option("--n", type=click.IntRange(min=1), help="Prompts at most."),
        click.option("--metric", "metrics", multiple=True, help="Built-in; may be repeated."),
    )
    return add(command)


def measuring_options(command: Command) -> Command:
    """How it is measured, and where the results go."""
    add = _options(
        click.option("--control", "controls", multiple=True, help="By name; may be repeated."),
        click.option("--samples", type=int, help="Completions a prompt; 0 reads logits alone."),
        click.option("--max-new-tokens", type=int, default=24, show_default=True),
        click.option("--temperature", type=float, default=1.0, show_default=True),
        click.option("--seed", type=int, default=0, show_default=True),
        click.option("--store", type=click.Path(path_type=Path), help="SQLite file to resume."),
    )
    return add(command)


@dataclass(frozen=True)
class Question:
    """What ``question_options`` say."""

    task: str | None
    positive: str | None
    negative: str | None
    pad: str | None
    prompts: Path | None
    n: int | None
    metrics: tuple[str, ...]

    @classmethod
    def among(cls, options: dict[str, Any], *, needs_metric: bool = True) -> Question:
        """Take the options of a question out of a command's, if they make one."""
        question = cls(**{field.name: options.pop(field.name) for field in fields(cls)})
        if question.task is not None:
            given = {
                "--positive": question.positive, "--negative": question.negative,
                "--pad": question.pad, "--prompts": question.prompts,
            }  # fmt: skip
            clashing = [name for name, value in given.items() if value is not None]
            if clashing:
                raise click.UsageError(f"--task and {', '.join(clashing)} exclude each other")
        else:
            needed = {
                "--positive": question.positive, "--negative": question.negative,
                "--prompts": question.prompts,
            }  # fmt: skip
            missing = [name for name, value in needed.items() if value is None]
            if missing:
                raise click.UsageError(
                    f"{', '.join(missing)} missing: give a pair and a file of prompts, or --task"
                )
            if needs_metric and not question.metrics:
                raise click.UsageError("nothing to measure: give --metric, or --task")
        return question

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


def lines_of(path: Path) -> list[str]:
    """The texts of a file."""
    from actadd_lens.texts import read_texts

    return [record["text"] for record in read_texts(path)]


@dataclass(frozen=True)
class Source:
    """What ``source_options`` say: where the steering vector comes from."""

    positive: str | None
    negative: str | None
    pad: str | None
    layer: int | None
    site: str | None
    position: str | None
    vector: Path | None
    coefficient: float

    @classmethod
    def among(cls, options: dict[str, Any], *, required: bool) -> Source:
        """Take the options of a source out of a command's; it is whole then, or empty if it may."""
        source = cls(**{field.name: options.pop(field.name) for field in fields(cls)})
        pair = {
            "--positive": source.positive,
            "--negative": source.negative,
            "--layer": source.layer,
        }
        extras = {"--pad": source.pad, "--site": source.site}
        given = [name for name, value in (pair | extras).items() if value is not None]
        missing = [name for name, value in pair.items() if value is None]
        if source.vector and given:
            raise click.UsageError(f"--vector and {', '.join(given)} exclude each other")
        if not source.vector and missing and (required or source.is_given):
            raise click.UsageError(
                f"{', '.join(missing)} missing: give a pair and a layer, or --vector"
            )
        return source

    @property
    def is_given(self) -> bool:
        """Whether there is anything to steer with."""
        named = (self.positive, self.negative, self.pad, self.layer, self.site, self.vector)
        return self.position is not None or any(value is not None for value in named)

    def load(self, model: Any) -> SteeringVector:
        """The vector, at its position and times the coefficient."""
        from actadd_lens.vectors.vector import SteeringVector

        vector = (
            SteeringVector.load(self.vector)
            if self.vector
            else vector_of(
                model, pair_of(self.positive, self.negative, self.pad), self.layer, self.site
            )
        )
        return self.coefficient * placed(vector, self.position)


def check_writable(output: Path) -> None:
    """Fail before the model is loaded, not after."""
    from actadd_lens.errors import OutputError

    if not output.parent.is_dir() or not os.access(output.parent, os.W_OK):
        raise OutputError(f"cannot write {output}: {output.parent} is not a writable directory")


def numbers(text: str, kind: type[int] | type[float]) -> list[Any]:
    """Numbers parted by commas; of integers "1-4" is a range, both ends in it.

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
                f"cannot read {part!r} in {text!r}: write numbers parted by commas"
            ) from None
    return found


def loaded(model: str) -> Any:
    """The model; for one as small as the bundled one a second thread only gets in the way."""
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


def placed(vector: SteeringVector, position: str | None) -> SteeringVector:
    """The vector at the position that the options name, if they do."""
    if position is None:
        return vector
    try:
        return vector.at(int(position))
    except ValueError:
        return vector.at(position)
