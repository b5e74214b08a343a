"""Activations: the residual stream of prompts, read in passes that end at the deepest layer.

Algorithm 1, step 2: h+ and h- are the rows of the residual stream entering a block when the model
reads each prompt, one per token.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor

from actadd_lens.errors import LayerError, PositionError
from actadd_lens.models.base import Bridge
from actadd_lens.models.bridge import BridgeModel
from actadd_lens.models.hook_points import check_layers, hook_point
from actadd_lens.models.memory import batches, budget
from actadd_lens.models.tokens import Prompts, as_prompts, check_context, pad_right
from actadd_lens.vectors.pair import ContrastPair


def activations(
    model: Bridge,
    prompts: Prompts,
    layers: Sequence[int] | None = None,
    *,
    site: str = "resid_pre",
    tokens: Literal["all"] | int = "all",
) -> dict[int, Any]:
    """The recorded streams of prompts, for PCA, probes or sparse autoencoders.

    Prompts are read in batches, each in a pass that ends at the deepest layer asked for.

    Args:
        model: Any TransformerBridge with a tokenizer.
        prompts: A text, token ids, a chat, or a list of these.
        layers: Which layers; every one by default.
        site: Where in the block: "resid_pre", "resid_mid", "resid_post", "attn_out" or "mlp_out".
        tokens: "all", or one token of each prompt, BOS being 0, negative from the end.

    Returns:
        By layer, float32 on the CPU: a list of tensors [pos, d_model], one a prompt, for "all";
        a tensor [prompt, d_model] for one token.

    Raises:
        LayerError: A layer or site that the model does not have.
        PromptError: No prompt, an empty one, or one beyond the context.
        PositionError: A prompt has no such token.

    >>> read = activations(load_model("testbed"), ["Anna sang", "Rain"], layers=[1], tokens=-1)
    >>> read[1].shape[0]
    2
    """
    wanted = wanted_layers(model, layers)
    sequences = as_prompts(model, prompts)
    if not wanted:
        return {}
    names = [hook_point(layer, site) for layer in wanted]
    if tokens != "all":
        labels = [f"prompt {index}" for index in range(len(sequences))]
        rows = token_rows(model, sequences, labels, names, tokens)
        return dict(zip(wanted, rows, strict=True))
    streams = prompt_streams(model, sequences, names)
    return {layer: [rows[place] for rows in streams] for place, layer in enumerate(wanted)}


def wanted_layers(model: Bridge, layers: Sequence[int] | None) -> list[int]:
    """The layers asked for, each once; every layer for None. Raises ``LayerError``."""
    if isinstance(layers, int):
        raise LayerError(f"layers is {layers}: give a list, [{layers}]")
    wanted = list(dict.fromkeys(range(BridgeModel(model).n_layers) if layers is None else layers))
    check_layers(model, wanted)
    return wanted


def prompt_streams(
    model: Bridge,
    prompts: Sequence[Sequence[int]],
    hook_points: Sequence[str],
    *,
    take: Callable[[Tensor], Tensor] = lambda rows: rows,
    batch_size: int | None = None,
) -> list[Tensor]:
    """Rows [point, pos, d_model] of each prompt, given as token ids, padding left out.

    Prompts of like length are read together. ``take`` says what is stored of each prompt's rows.
    """
    at_once = budget(model, logits="none", points=len(hook_points)).sequences
    read: dict[int, Tensor] = {}
    for batch in batches([len(ids) for ids in prompts], at_once, batch_size):
        tokens, mask = pad_right([prompts[index] for index in batch], pad=0)
        captured = capture(model, tokens, mask, hook_points)
        streams = torch.stack([captured[name] for name in hook_points], dim=1)
        for index, rows in zip(batch, streams, strict=True):
            read[index] = take(rows[:, : len(prompts[index])])
    return [read[index] for index in range(len(prompts))]


def token_rows(
    model: Bridge,
    prompts: Sequence[Sequence[int]],
    labels: Sequence[str],
    hook_points: Sequence[str],
    token: int,
) -> Float[Tensor, "point prompt d_model"]:
    """The row of one token of each prompt at hook points.

    A ``PromptError`` or ``PositionError`` names the prompt that is too long or short by its label.
    """
    for label, ids in zip(labels, prompts, strict=True):
        check_context(model, len(ids), label)
        if not -len(ids) <= token < len(ids):
            raise PositionError(
                f"{label} has {len(ids)} tokens, token {token} is asked for: choose one it has"
            )
    rows = prompt_streams(model, prompts, hook_points, take=lambda rows: rows[:, token])
    return torch.stack(rows, dim=1)


def sides(
    model: Bridge, pairs: Sequence[ContrastPair], hook_points: Sequence[str], token: int
) -> Float[Tensor, "side point pair d_model"]:
    """The row of one token of each prompt of pairs, not padded; errors as in ``token_rows``."""
    prompts = [prompt for pair in pairs for prompt in pair.prompts(model)]
    names = ("positive", "negative")
    labels = [f"the {side} prompt of pair {i}" for i in range(len(pairs)) for side in names]
    rows = token_rows(model, prompts, labels, hook_points, token)
    return rearrange(rows, "point (pair side) d_model -> side point pair d_model", side=2)


def capture(
    model: Bridge,
    tokens: Int[Tensor, "batch pos"],
    mask: Int[Tensor, "batch pos"],
    hook_points: Sequence[str],
) -> dict[str, Float[Tensor, "batch pos d_model"]]:
    """The streams of one batch at hook points, on the CPU, from a pass that ends at the deepest."""
    own = BridgeModel(model)
    run = own.run(tokens.to(own.device), mask.to(own.device), read=hook_points, keep=None)
    return {name: rows.cpu() for name, rows in run.streams.items()}
