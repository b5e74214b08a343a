"""Contrast pairs: two prompts whose difference is a direction to steer in."""

from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from actadd_lens.errors import PromptError
from actadd_lens.models.base import Bridge
from actadd_lens.models.tokens import check_context, encode, pad_id, pad_right

DEFAULT_PAD = " "


@dataclass(frozen=True)
class ContrastPair:
    """Two prompts whose difference is the direction to steer in (p+ and p- of the paper).

    One of the two may be empty: it is then nothing but padding.

    >>> ContrastPair("Love", "Hate").positive
    'Love'
    """

    positive: str
    """The prompt to steer towards."""
    negative: str
    """The prompt to steer away from."""
    pad: str | int = DEFAULT_PAD
    """What the shorter prompt is filled up with: a string of one token, or a token id."""

    def __post_init__(self) -> None:
        for text in (self.positive, self.negative):
            if not isinstance(text, str):
                raise PromptError(f"{text!r} is no prompt: a contrast pair is of two strings")
        if not self.positive and not self.negative:
            raise PromptError("both prompts of the contrast pair are empty: give one a text")

    def tokens(self, model: Bridge) -> Int[Tensor, "2 pos"]:
        """Token ids of the positive prompt (row 0) and the negative one (row 1).

        BOS first, the shorter padded on the right (Algorithm 1, step 1).

        Raises:
            PromptError: ``pad`` is not one token, or a prompt is beyond the context.

        >>> model = load_model("testbed")
        >>> len(ContrastPair("Love", "Hate").tokens(model))
        2
        """
        positive, negative = (encode(model, text) for text in (self.positive, self.negative))
        lengths = len(positive), len(negative)
        check_context(model, max(lengths), "a prompt of the contrast pair")
        if lengths[0] == lengths[1] and self.pad == DEFAULT_PAD:
            return torch.tensor([positive, negative])  # a model may well have no such token
        pad = pad_id(model, self.pad)
        return pad_right([positive, negative], pad)[0]


def as_pair(pair: object) -> ContrastPair:
    """The pair itself, or one made of two strings.

    Raises:
        PromptError: Anything else, a single string among it.
    """
    if isinstance(pair, ContrastPair):
        return pair
    match pair:
        case (str(positive), str(negative)):
            return ContrastPair(positive, negative)
    raise PromptError(f"{pair!r} is no contrast pair: give two strings, or a ContrastPair")
