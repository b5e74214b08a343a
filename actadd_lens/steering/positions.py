"""Injection positions: parsed once into a plan, applied to any batch.

Algorithm 1 of the paper adds row i of the steering vector to position a + i of the prompt. Here
the position a is written "front" (a = 0, the paper's), as an integer, or as "middle" or "back".
Positions count real tokens only, so padding on either side moves nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from operator import index
from typing import SupportsIndex

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from actadd_lens.errors import PositionError
from actadd_lens.models.watch import Turn

ANCHORS = ("front", "middle", "back")
SPREADS = ("prompt", "generated", "all")

NO_ROW = -1
"""In an index of rows: no row lands on this token."""


@dataclass(frozen=True)
class Plan:
    """A position, parsed."""

    position: int | str
    """As the caller wrote it."""

    @property
    def one_row_only(self) -> bool:
        """Whether the one row goes to many tokens, instead of row i to the i-th from a start."""
        return self.position in SPREADS

    @property
    def from_front(self) -> bool:
        """Whether it counts from the first token of the context, whatever was read before."""
        return self.position == "front" or (isinstance(self.position, int) and self.position >= 0)

    @property
    def steers_generated(self) -> bool:
        """Whether generated tokens are steered."""
        return self.position in ("generated", "all")

    def end_from_front(self, n_rows: int) -> int | None:
        """Position behind the last row, where it is the same on every prompt; None where not."""
        if self.position == "generated":
            return 0
        if self.position == "front":
            return n_rows
        if isinstance(self.position, int) and self.position >= 0:
            return self.position + n_rows
        return None

    def ends(self, lengths: Int[Tensor, "batch"], n_rows: int) -> Int[Tensor, "batch"]:
        """Position behind the last row on prompts of these lengths.

        0 where one row goes to many tokens: no text is behind them all, so none is set apart.
        """
        if self.one_row_only:
            return torch.zeros_like(lengths)
        return self.starts(lengths, n_rows) + n_rows

    def starts(self, lengths: Int[Tensor, "batch"], n_rows: int) -> Int[Tensor, "batch"]:
        """Position of row 0 on prompts of these lengths; may lie outside the prompt."""
        if isinstance(self.position, int):
            return self.position + (lengths if self.position < 0 else torch.zeros_like(lengths))
        if self.position == "middle":
            return lengths // 2 - n_rows // 2
        if self.position == "back":
            return lengths - n_rows
        return torch.zeros_like(lengths)


def parse(position: SupportsIndex | str) -> Plan:
    """Read a position.

    >>> parse("back").starts(torch.tensor([9]), n_rows=4)
    tensor([5])

    Raises:
        PositionError: Not an integer and not one of the known names.
    """
    if isinstance(position, str) and position in ANCHORS + SPREADS:
        return Plan(position)
    if not isinstance(position, (str, bool)) and hasattr(position, "__index__"):
        return Plan(index(position))
    raise PositionError(
        f"unknown position {position!r}: choose an integer or one of "
        f"{', '.join(map(repr, ANCHORS + SPREADS))}"
    )


def check_rows(position: int | str, n_rows: int) -> None:
    """Raise ``PositionError`` if ``position`` takes one row only and there are several."""
    if parse(position).one_row_only and n_rows != 1:
        raise PositionError(
            f"position {position!r} repeats one row, this vector has {n_rows}: "
            "reduce it first, e.g. v.collapse('mean') or v.collapse('last')"
        )


def row_index(
    plan: Plan,
    real: Bool[Tensor, "batch pos"],
    n_rows: int,
    prompts: Sequence[int] | None = None,
    turn: Turn | None = None,
) -> Int[Tensor, "batch pos"]:
    """Which row lands on which token of a batch of prompts; ``NO_ROW`` where none does.

    Args:
        plan: From ``parse``.
        real: True for a real token, False for padding, wherever it is.
        n_rows: Number of rows of the vector.
        prompts: Index of each prompt, for the message of an error; 0, 1, ... by default.
        turn: Where the tokens are in the whole context, if a cache holds some before them.

    Raises:
        PositionError: The rows do not fit on one of the prompts, or it is not known where they are.
    """
    if plan.position == "generated":
        return torch.full_like(real, NO_ROW, dtype=torch.long)
    if plan.one_row_only:
        return real.long() - 1
    lengths, before = real.sum(dim=1), torch.zeros_like(real[:, 0], dtype=torch.long)
    first = before
    if turn is not None:
        before, first, end = (x.to(real.device) for x in (turn.before, turn.start, turn.end))
        lengths = end if plan.from_front else end - first
        if plan.from_front and not turn.known:
            raise PositionError(
                f"position {plan.position!r} counts from the first token, and the cache does not "
                "say how many it holds: pass the attention_mask of all tokens, or use 'back'"
            )
    starts = plan.starts(lengths, n_rows)
    _check_fit(plan, lengths, starts, n_rows, prompts)
    if not plan.from_front:
        starts = starts + first
    index = before[:, None] + real.cumsum(dim=1) - 1 - starts[:, None]
    return index.where(real & (index >= 0) & (index < n_rows), NO_ROW)


def _check_fit(
    plan: Plan,
    lengths: Int[Tensor, "batch"],
    starts: Int[Tensor, "batch"],
    n_rows: int,
    prompts: Sequence[int] | None,
) -> None:
    outside = ((starts < 0) | (starts + n_rows > lengths)).nonzero()
    if not len(outside):
        return
    prompt = int(outside[0])
    n_tokens = int(lengths[prompt])
    remedy = (
        "lengthen the prompt, or cut the vector, e.g. SteeringVector(v.rows[:k], v.hook_point)"
        if n_rows > n_tokens
        else "start elsewhere, e.g. at 'front' or 'back'"
    )
    rows = f"{n_rows} row{'s' * (n_rows != 1)}"
    raise PositionError(
        f"vector has {rows}, prompt {prompts[prompt] if prompts else prompt} has "
        f"{n_tokens} token{'s' * (n_tokens != 1)} "
        f"(BOS included): at position {plan.position!r} it does not fit: {remedy}"
    )
