"""Contrast pairs: two prompts whose difference is a direction to steer in."""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from actadd_lens.errors import AlignmentWarning, PromptError, warn_caller
from actadd_lens.models.base import Bridge
from actadd_lens.models.tokens import (
    Prompt,
    PromptLike,
    as_prompt,
    check_context,
    is_prompt,
    pad_id,
    pad_right,
    token_texts,
)

DEFAULT_PAD = " "


@dataclass(frozen=True)
class ContrastPair:
    """Two prompts whose difference is the direction to steer in (p+ and p- of the paper).

    Each is a text, token ids, or what ``al.chat`` returns. One of the two may be an empty text: it
    is then nothing but padding.

    >>> ContrastPair("Love", "Hate").positive
    'Love'
    """

    positive: PromptLike
    """The prompt to steer towards."""
    negative: PromptLike
    """The prompt to steer away from."""
    pad: str | int = DEFAULT_PAD
    """What the shorter prompt is filled up with: a string of one token, or a token id."""

    def __post_init__(self) -> None:
        for name in ("positive", "negative"):
            prompt = getattr(self, name)
            if not is_prompt(prompt):
                raise PromptError(
                    f"{prompt!r} is not a prompt: a pair is of two texts, token ids or chats"
                )
            if not isinstance(prompt, (str, Prompt)):  # a list cannot be hashed
                ids = prompt.tolist() if hasattr(prompt, "tolist") else prompt
                object.__setattr__(self, name, tuple(ids))
        if not any(map(len, (self.positive, self.negative))):
            raise PromptError("both prompts of the contrast pair are empty: give one a text")

    def prompts(self, model: Bridge) -> tuple[Prompt, Prompt]:
        """Both prompts as the model reads them alone, the positive one first.

        Raises:
            PromptError: One cannot be used, or is beyond the context.
        """
        positive, negative = (
            as_prompt(model, side, f"the {name} prompt of the contrast pair", empty=True)
            for name, side in (("positive", self.positive), ("negative", self.negative))
        )
        check_context(model, max(len(positive), len(negative)), "a prompt of the contrast pair")
        return positive, negative

    def tokens(self, model: Bridge) -> Int[Tensor, "2 pos"]:
        """Token ids of the positive prompt (row 0) and the negative one (row 1).

        BOS first where the model has one, the shorter padded on the right (Algorithm 1, step 1).
        Two prompts that begin alike, such as chats of one template, are so aligned up to the first
        token that differs.

        Raises:
            PromptError: ``pad`` is not one token, or a prompt is beyond the context.

        Warns:
            AlignmentWarning: The prompts have different numbers of tokens, so that a row may be the
                difference of two unrelated tokens; or they are the same, and all rows are zero.

        >>> model = load_model("testbed")
        >>> len(ContrastPair("Love", "Hate").tokens(model))
        2
        """
        positive, negative = self.prompts(model)
        if len(positive) == len(negative) and self.pad == DEFAULT_PAD:
            padded = torch.tensor([positive.tokens, negative.tokens])
        else:  # a model may well have no such token
            padded = pad_right([positive.tokens, negative.tokens], pad_id(model, self.pad))[0]
        if len(positive) != len(negative) or positive.tokens == negative.tokens:
            sides = [token_texts(model, side) for side in (positive, negative)]
            told = (
                f"{len(positive)} and {len(negative)} tokens, so the shorter is padded on the right"
                if len(positive) != len(negative)
                else "the same tokens, so the vector is zero"
            )
            warn_caller(
                f"the sides of the contrast pair have {told}: {sides[0]} and {sides[1]}; choose "
                "prompts whose words correspond token by token",
                AlignmentWarning,
            )
        return padded

    @property
    def labels(self) -> tuple[str, str]:
        """What tables call both: chats by their first message that differs."""
        both = self.positive, self.negative
        told = [str(getattr(side, "label", side)) for side in both]
        turns = [getattr(side, "messages", ()) for side in both]
        if told[0] == told[1]:
            told = next(([a[1], b[1]] for a, b in zip(*turns, strict=False) if a != b), told)
        return told[0], told[1]

    @property
    def identity(self) -> list[Any]:
        """Both prompts and the padding as plain JSON: texts as texts, others as token ids."""
        both = self.positive, self.negative
        return [*(side if isinstance(side, str) else list(side) for side in both), self.pad]


def as_pair(pair: object) -> ContrastPair:
    """The pair itself, or one made of two prompts.

    Raises:
        PromptError: Anything else, a single string among it.
    """
    if isinstance(pair, ContrastPair):
        return pair
    match pair:
        case (positive, negative) if is_prompt(positive) and is_prompt(negative):
            return ContrastPair(positive, negative)
    raise PromptError(f"{pair!r} is not a contrast pair: give two prompts, or a ContrastPair")
