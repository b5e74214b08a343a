"""Residual-stream rows of prompts, read in one truncated pass.

Algorithm 1, step 2: h+ and h- are the rows of the residual stream entering a block when the model
reads each prompt, one per token.
"""

from collections.abc import Sequence

import torch
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
    return [rows for [rows] in prompt_streams(model, prompts, [name])]


def prompt_streams(
    model: Bridge, prompts: Sequence[Sequence[int]], hook_points: Sequence[str]
) -> list[Float[Tensor, "point pos d_model"]]:
    """As ``prompt_rows``, at several points."""
    tokens, mask = pad_right(prompts, pad=0)
    captured = _capture(model, tokens, mask, hook_points)
    batch = torch.stack([captured[name] for name in hook_points], dim=1)
    return [rows[:, : len(prompt)] for rows, prompt in zip(batch, prompts, strict=True)]


def _capture(
    model: Bridge,
    tokens: Int[Tensor, "batch pos"],
    mask: Int[Tensor, "batch pos"],
    hook_points: Sequence[str],
) -> dict[str, Float[Tensor, "batch pos d_model"]]:
    place = forward.device(model)
    captured = forward.capture(model, tokens.to(place), mask.to(place), hook_points)
    return {name: rows.cpu() for name, rows in captured.items()}
