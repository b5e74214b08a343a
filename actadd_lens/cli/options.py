"""Options that several commands have, and what they mean."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from actadd_lens import SteeringVector

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
        from actadd_lens.vectors import SteeringVector

        vector = (
            SteeringVector.load(self.vector)
            if self.vector
            else vector_of(model, self.positive, self.negative, self.pad, self.layer, self.site)
        )
        return self.coefficient * placed(vector, self.position)


def check_writable(output: Path) -> None:
    """Fail before the model is loaded, not after."""
    from actadd_lens.errors import OutputError

    if not output.parent.is_dir() or not os.access(output.parent, os.W_OK):
        raise OutputError(f"cannot write {output}: {output.parent} is not a writable directory")


def vector_of(
    model: Any, positive: Any, negative: Any, pad: str | None, layer: Any, site: str | None
) -> SteeringVector:
    """The vector of the pair that the options name."""
    from actadd_lens.extraction import extract
    from actadd_lens.prompts import ContrastPair

    pair = ContrastPair(positive, negative, **({} if pad is None else {"pad": pad}))
    return extract(model, pair, [layer], site=site or "resid_pre")[layer]


def placed(vector: SteeringVector, position: str | None) -> SteeringVector:
    """The vector at the position that the options name, if they do."""
    if position is None:
        return vector
    try:
        return vector.at(int(position))
    except ValueError:
        return vector.at(position)
