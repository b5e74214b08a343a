"""Injection positions: parsed once into a plan, applied to any batch.

Algorithm 1 of the paper adds row i of the steering vector to position a + i of the prompt. Here
the position a is written "front" (a = 0, the paper's), as an integer, or as "middle" or "back".
Positions count real tokens only, so padding on either side moves nothing. Other positions name
tokens: a list of integers, the messages of a role in a chat, or the tokens that spell a text.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import index
from typing import Any, Literal, SupportsIndex, TypeAlias, TypeGuard

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from actadd_lens.errors import PositionError
from actadd_lens.models.tokens import Prompt
from actadd_lens.models.watch import Turn

ANCHORS = ("front", "middle", "back")
SPREADS = ("prompt", "generated", "all")
SINK = "sink"
ROLES = ("system", "user", "assistant")

NO_ROW = -1
"""In an index of rows: no row lands on this token."""


@dataclass(frozen=True, repr=False)
class Find:
    """The position of the tokens that spell a text; see ``find``."""

    text: str
    which: str = "first"

    def __post_init__(self) -> None:
        given: Any = self.text
        if not isinstance(given, str) or not given:
            raise PositionError(f"find is given {self.text!r}: give the text to look for")
        if self.which not in ("first", "last", "all"):
            raise PositionError(f"which is {self.which!r}: choose 'first', 'last' or 'all'")

    def __repr__(self) -> str:
        return f"find({self.text!r}{'' if self.which == 'first' else f', {self.which!r}'})"


Position: TypeAlias = int | str | Sequence[int] | Find
"""A position; a list is a tuple once it is parsed."""
PositionLike: TypeAlias = Position | SupportsIndex | Mapping[str, str]
"""A position as ``parse`` reads it: also any other integer, or what a file has."""


def find(text: str, which: Literal["first", "last", "all"] = "first") -> Find:
    """The position of the tokens that spell a text in a prompt.

    One row is added to all these tokens, those included that the text covers in part. Several rows
    start at the first of them.

    Args:
        text: It is looked for in the prompt as its tokens spell it, BOS and a chat's template
            included.
        which: Which of the places where the text is.

    Raises:
        PositionError: No text, or another ``which``; when it is used, a prompt without the text.

    >>> model = load_model("testbed")
    >>> vector = SteeringVector.from_pair(model, ("Love", "Hate"), layer=1).collapse("last")
    >>> frame = al.placement(model, vector.at(find("hate")), "I hate you")
    >>> frame["token"][frame["row"] == 0].tolist()
    [' hate']
    """
    return Find(text, which)


@dataclass(frozen=True)
class Plan:
    """A position, parsed."""

    position: Position
    """As the caller wrote it; a list as a tuple."""

    @property
    def one_row_only(self) -> bool:
        """Whether it takes vectors of one row alone."""
        return self.position in (*SPREADS, SINK) or isinstance(self.position, tuple)

    @property
    def from_front(self) -> bool:
        """Whether it counts from the first token of the context, whatever was read before."""
        if isinstance(self.position, int):
            return self.position >= 0
        return self.position in ("front", SINK) or isinstance(self.position, tuple)

    @property
    def steers_generated(self) -> bool:
        """Whether generated tokens are steered."""
        return self.position in ("generated", "all")

    @property
    def names_tokens(self) -> bool:
        """Whether it names tokens, instead of a start that follows from lengths."""
        return isinstance(self.position, tuple) or self.reads_prompt

    @property
    def reads_prompt(self) -> bool:
        """Whether it depends on what a prompt says."""
        return isinstance(self.position, Find) or self.position in ROLES

    @property
    def label(self) -> int | str:
        """As tables name it."""
        if isinstance(self.position, (int, str)):
            return self.position
        return str(self.position if isinstance(self.position, Find) else list(self.position))

    @property
    def saved(self) -> int | str | list[int] | dict[str, str]:
        """As plain JSON, which ``parse`` reads."""
        if isinstance(self.position, Find):
            return dict(vars(self.position))
        return self.position if isinstance(self.position, (int, str)) else list(self.position)

    def end_from_front(self, n_rows: int) -> int | None:
        """Position behind the last row, where it is the same on every prompt; None where not."""
        if self.position == "generated":
            return 0
        if self.position in ("front", SINK):
            return n_rows
        if isinstance(self.position, int) and self.position >= 0:
            return self.position + n_rows
        if isinstance(self.position, tuple) and min(self.position) >= 0:
            return int(max(self.position)) + 1
        return None

    def starts(self, lengths: Int[Tensor, "batch"], n_rows: int) -> Int[Tensor, "batch"]:
        """Position of row 0 on prompts of these lengths; may lie outside the prompt."""
        if isinstance(self.position, int):
            return self.position + (lengths if self.position < 0 else torch.zeros_like(lengths))
        if self.position == "middle":
            return lengths // 2 - n_rows // 2
        if self.position == "back":
            return lengths - n_rows
        return torch.zeros_like(lengths)

    def named(self, n_tokens: int, prompt: object, name: str) -> list[range]:
        """The tokens that it names in a prompt, a range for each message or place.

        Args:
            n_tokens: Length of the prompt.
            prompt: The prompt, if it is known.
            name: What messages call the prompt.

        Raises:
            PositionError: The prompt has no such tokens, or its text or messages are not known.
        """
        if isinstance(self.position, tuple):
            outside = [p for p in self.position if not -n_tokens <= p < n_tokens]
            if outside:
                raise PositionError(
                    f"{name} has {n_tokens} token{'s' * (n_tokens != 1)} (BOS included), and "
                    f"position {self.label} names token {outside[0]}: choose tokens that it has"
                )
            return [range(p % n_tokens, p % n_tokens + 1) for p in self.position]
        if not isinstance(prompt, Prompt):
            raise PositionError(
                f"position {self.label!r} depends on the words of {name}, and only its length is "
                "known here: steer a bridge, e.g. al.load_model(model, tokenizer=tokenizer)"
            )
        if isinstance(self.position, Find):
            found = [range(*place) for place in prompt.places(self.position.text)]
            if not found:
                raise PositionError(
                    f"{self.position.text!r} is not in {name}, {prompt.label!r}: choose a text "
                    "that the prompt has, spelt as in it"
                )
            return {"first": found[:1], "last": found[-1:]}.get(self.position.which, found)
        found = [range(s.start, s.stop) for s in prompt.spans if s.role == self.position]
        if not any(found):
            has = ", ".join(dict.fromkeys(span.role for span in prompt.spans))
            told = f"a chat with messages of {has} alone" if has else "not known as a chat"
            raise PositionError(
                f"position {self.label!r} is the tokens of a chat's {self.label} messages, and "
                f"{name}, {prompt.label!r}, is {told}: give a prompt that al.chat made with such "
                "a message to a function of al, or choose al.find(text) or integers"
            )
        # Several rows start in the last of the messages, whose turn it is.
        return [span for span in found if span][::-1]


def parse(position: object) -> Plan:
    """Read a position.

    >>> parse("back").starts(torch.tensor([9]), n_rows=4)
    tensor([5])

    Raises:
        PositionError: Not an integer and not one of the known names.
    """
    if isinstance(position, Find):
        return Plan(position)
    if isinstance(position, str) and position in (*ANCHORS, *SPREADS, SINK, *ROLES):
        return Plan(position)
    if isinstance(position, Mapping) and set(position) == {"text", "which"}:
        return Plan(Find(**position))
    if _is_integer(position):
        return Plan(index(position))
    if isinstance(position, (np.ndarray, Tensor)):
        position = position.tolist()
    if isinstance(position, (list, tuple)) and position and all(map(_is_integer, position)):
        return Plan(tuple(map(index, position)))
    raise PositionError(
        f"unknown position {position!r}: choose an integer, a list of integers, al.find(text) or "
        f"one of {', '.join(map(repr, (*ANCHORS, *SPREADS, SINK, *ROLES)))}"
    )


def _is_integer(value: object) -> TypeGuard[SupportsIndex]:
    several = isinstance(value, (np.ndarray, Tensor)) and value.ndim > 0
    return not isinstance(value, (str, bool)) and not several and hasattr(value, "__index__")


def check_rows(position: PositionLike, n_rows: int) -> None:
    """Raise ``PositionError`` if ``position`` takes one row only and there are several."""
    plan = parse(position)
    if plan.one_row_only and n_rows != 1:
        raise PositionError(
            f"position {plan.label!r} repeats one row, this vector has {n_rows}: "
            "reduce it first, e.g. v.collapse('mean') or v.collapse('last')"
        )


def row_index(
    plan: Plan,
    real: Bool[Tensor, "batch pos"],
    n_rows: int,
    prompts: Sequence[int] | None = None,
    contents: Sequence[Sequence[int]] | None = None,
    turn: Turn | None = None,
) -> Int[Tensor, "batch pos"]:
    """Which row lands on which token of a batch of prompts; ``NO_ROW`` where none does.

    Args:
        plan: From ``parse``.
        real: True for a real token, False for padding, wherever it is.
        n_rows: Number of rows of the vector.
        prompts: Index of each prompt, for the message of an error; 0, 1, ... by default.
        contents: The prompts themselves, for positions that depend on what they say.
        turn: Where the tokens are in the whole context, if a cache holds some before them.

    Raises:
        PositionError: The rows do not fit on one of the prompts, or it is not known where they are.
    """
    if plan.position == "generated":
        return torch.full_like(real, NO_ROW, dtype=torch.long)
    if plan.position in SPREADS:
        return real.long() - 1
    lengths, place = real.sum(dim=1), real.cumsum(dim=1) - 1
    first = torch.zeros_like(lengths)
    if turn is not None:
        lengths, first, place = _in_turn(plan, lengths, place, turn)
    if plan.names_tokens:
        named = _named(plan, lengths, prompts, contents)
        if n_rows == 1:
            chosen = torch.stack(
                [
                    torch.isin(row, torch.tensor([p for span in spans for p in span]).to(row))
                    for row, spans in zip(place - first[:, None], named, strict=True)
                ]
            )
            return (chosen & real).long() - 1
        starts = torch.tensor([spans[0].start for spans in named]).to(lengths)
    else:
        starts = plan.starts(lengths, n_rows)
    _check_fit(plan, lengths, starts, n_rows, prompts)
    index = place - (first + starts)[:, None]
    return index.where(real & (index >= 0) & (index < n_rows), NO_ROW)


def _in_turn(
    plan: Plan, lengths: Int[Tensor, "batch"], place: Int[Tensor, "batch pos"], turn: Turn
) -> tuple[Int[Tensor, "batch"], Int[Tensor, "batch"], Int[Tensor, "batch pos"]]:
    """How long the prompt is, where it begins, and where each token is in the whole context."""
    before, first, end = (x.to(lengths.device) for x in (turn.before, turn.start, turn.end))
    if plan.from_front and not turn.known:
        raise PositionError(
            f"position {plan.label!r} counts from the first token, and the cache does not say how "
            "many it holds: pass the attention_mask of all tokens, or use 'back'"
        )
    if plan.reads_prompt and bool(((before != first) | (lengths != end - first)).any()):
        raise PositionError(
            f"position {plan.label!r} depends on the words of the prompt, which is read in parts: "
            "read it in one pass"
        )
    if plan.from_front:
        return end, torch.zeros_like(first), place + before[:, None]
    return end - first, first, place + before[:, None]


def ends(
    position: PositionLike, prompts: Sequence[Sequence[int]], n_rows: int
) -> Int[Tensor, "prompt"]:
    """Position behind the last row on each prompt.

    0 where one row goes to all tokens: no text is behind them all, so none is set apart.
    """
    plan, lengths = parse(position), torch.tensor([len(prompt) for prompt in prompts])
    if plan.position in SPREADS:
        return torch.zeros_like(lengths)
    columns = torch.arange(int(lengths.max()))
    index = row_index(plan, columns < lengths[:, None], n_rows, contents=prompts)
    return ((index != NO_ROW) * (columns + 1)).amax(dim=1)


def _named(
    plan: Plan,
    lengths: Int[Tensor, "batch"],
    prompts: Sequence[int] | None,
    contents: Sequence[Sequence[int]] | None,
) -> list[list[range]]:
    return [
        plan.named(
            n_tokens,
            None if contents is None else contents[row],
            f"prompt {prompts[row] if prompts else row}",
        )
        for row, n_tokens in enumerate(lengths.tolist())
    ]


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
        f"(BOS included): at position {plan.label!r} it does not fit: {remedy}"
    )
