"""Activations: the residual stream of prompts, read in passes that end at the deepest layer.

Algorithm 1, step 2: h+ and h- are the rows of the residual stream entering a block when the model
reads each prompt, one per token.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Literal

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor

from actadd_lens.errors import LayerError, PositionError
from actadd_lens.models.base import Bridge
from actadd_lens.models.bridge import BridgeModel, check_layers, hook_point
from actadd_lens.models.memory import batches, budget
from actadd_lens.models.tokens import Prompts, check_context, pad_right, tokenize
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
    if isinstance(layers, int):
        raise LayerError(f"layers is {layers}: give a list, [{layers}]")
    every = range(BridgeModel(model).n_layers)
    wanted = list(dict.fromkeys(every if layers is None else layers))
    check_layers(model, wanted)
    sequences = tokenize(model, prompts)
    if not wanted:
        return {}
    names = [hook_point(layer, site) for layer in wanted]
    if tokens != "all":
        labels = [f"prompt {index}" for index in range(len(sequences))]
        rows = token_rows(model, sequences, labels, names, tokens)
        return dict(zip(wanted, rows, strict=True))
    read: dict[int, Tensor] = {}
    for batch in batches_of(model, sequences, len(names)):
        streams = prompt_streams(model, [sequences[index] for index in batch], names)
        read |= dict(zip(batch, streams, strict=True))
    return {
        layer: [read[index][place] for index in range(len(sequences))]
        for place, layer in enumerate(wanted)
    }


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
    for batch in batches_of(model, prompts, len(hook_points)):
        streams = prompt_streams(model, [prompts[index] for index in batch], hook_points)
        read |= {index: rows[:, token] for index, rows in zip(batch, streams, strict=True)}
    return torch.stack([read[index] for index in range(len(prompts))], dim=1)


def sides(
    model: Bridge, pairs: Sequence[ContrastPair], hook_points: Sequence[str], token: int
) -> Float[Tensor, "side point pair d_model"]:
    """The row of one token of each prompt of pairs, positive side first; errors of ``token_rows``.

    Prompts are not padded to each other's length for it.
    """
    prompts = [prompt for pair in pairs for prompt in pair.prompts(model)]
    names = ("positive", "negative")
    labels = [f"the {side} prompt of pair {i}" for i in range(len(pairs)) for side in names]
    rows = token_rows(model, prompts, labels, hook_points, token)
    return rearrange(rows, "point (pair side) d_model -> side point pair d_model", side=2)


def batches_of(
    model: Bridge,
    prompts: Sequence[Sequence[int]],
    n_points: int,
    batch_size: int | None = None,
) -> Iterator[list[int]]:
    """Indices of prompts whose streams at some points are read together."""
    at_once = budget(model, logits="none", points=n_points).sequences
    return batches([len(ids) for ids in prompts], at_once, batch_size)


def _capture(
    model: Bridge,
    tokens: Int[Tensor, "batch pos"],
    mask: Int[Tensor, "batch pos"],
    hook_points: Sequence[str],
) -> dict[str, Float[Tensor, "batch pos d_model"]]:
    own = BridgeModel(model)
    run = own.run(tokens.to(own.device), mask.to(own.device), read=hook_points, keep=None)
    return {name: rows.cpu() for name, rows in run.streams.items()}
