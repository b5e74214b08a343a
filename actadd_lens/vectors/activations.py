"""Residual-stream rows of prompts, read in one truncated pass.

Algorithm 1, step 2: h+ and h- are the rows of the residual stream entering a block when the model
reads each prompt, one per token.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from actadd_lens.errors import PositionError
from actadd_lens.models import bridge
from actadd_lens.models.bridge import Bridge
from actadd_lens.models.memory import batches
from actadd_lens.models.tokens import ContrastPair, check_context, pad_right


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


def token_rows(
    model: Bridge,
    prompts: Sequence[Sequence[int]],
    labels: Sequence[str],
    hook_points: Sequence[str],
    token: int,
) -> Float[Tensor, "point prompt d_model"]:
    """The row of one token of each prompt at hook points; a label says which prompt is wrong.

    Raises:
        PromptError: A prompt is beyond the context.
        PositionError: A prompt has no such token.
    """
    for label, ids in zip(labels, prompts, strict=True):
        check_context(model, len(ids), label)
        if not -len(ids) <= token < len(ids):
            raise PositionError(
                f"{label} has {len(ids)} tokens, token {token} is asked for: choose one it has"
            )
    read: dict[int, Tensor] = {}
    width = len(hook_points) * bridge.d_model(model)
    for batch in batches([len(ids) for ids in prompts], width):
        streams = prompt_streams(model, [prompts[index] for index in batch], hook_points)
        read |= {index: rows[:, token] for index, rows in zip(batch, streams, strict=True)}
    return torch.stack([read[index] for index in range(len(prompts))], dim=1)


def _capture(
    model: Bridge,
    tokens: Int[Tensor, "batch pos"],
    mask: Int[Tensor, "batch pos"],
    hook_points: Sequence[str],
) -> dict[str, Float[Tensor, "batch pos d_model"]]:
    place = bridge.device(model)
    captured = bridge.capture(model, tokens.to(place), mask.to(place), hook_points)
    return {name: rows.cpu() for name, rows in captured.items()}
