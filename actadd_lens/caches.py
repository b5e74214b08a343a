"""Residual-stream rows of prompts, read in one truncated pass.

Algorithm 1, step 2: h+ and h- are the rows of the residual stream entering a block when the model
reads each prompt, one per token.
"""

from collections.abc import Sequence

from jaxtyping import Float, Int
from torch import Tensor

from actadd_lens import forward
from actadd_lens.forward import Bridge
from actadd_lens.prompts import ContrastPair, pad_right


def pair_rows(
    model: Bridge, pair: ContrastPair, hook_points: Sequence[str]
) -> tuple[Int[Tensor, "2 pos"], dict[str, Float[Tensor, "2 pos d_model"]]]:
    """Tokens of a pair, and the rows of both prompts at each point, from one batch of two.

    Padding is part of the shorter prompt here: nothing is masked, as in the paper.
    """
    tokens = pair.tokens(model)
    return tokens, _capture(model, tokens, tokens.new_ones(tokens.shape), hook_points)


def prompt_rows(
    model: Bridge, prompts: Sequence[Sequence[int]], name: str
) -> list[Float[Tensor, "pos d_model"]]:
    """Rows of each prompt at one point, given as token ids, padding left out."""
    tokens, mask = pad_right(prompts, pad=0)
    batch = _capture(model, tokens, mask, [name])[name]
    return [rows[: len(prompt)] for rows, prompt in zip(batch, prompts, strict=True)]


def _capture(
    model: Bridge,
    tokens: Int[Tensor, "batch pos"],
    mask: Int[Tensor, "batch pos"],
    hook_points: Sequence[str],
) -> dict[str, Float[Tensor, "batch pos d_model"]]:
    place = forward.device(model)
    captured = forward.capture(model, tokens.to(place), mask.to(place), hook_points)
    return {name: rows.cpu() for name, rows in captured.items()}
