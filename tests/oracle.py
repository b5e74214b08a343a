"""Activation addition written out by hand, to compare every path of the package with.

A plain Hugging Face model, torch hooks, one prompt at a time, never padded, no key-value cache,
every token recomputed at every step. Nothing of the package's steering is used here.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor

BLOCKS = {
    "gpt2": "transformer.h",
    "gpt-neo": "transformer.h",
    "gpt-j": "transformer.h",
    "gpt-neox": "gpt_neox.layers",
    "opt": "model.decoder.layers",
    "bloom": "transformer.h",
    "mamba": "backbone.layers",
    "mamba2": "backbone.layers",
    "openai-gpt": "transformer.h",
}
"""All others have model.layers."""

# The module of a block whose output is what the attention, or the MLP, adds to the stream.
ATTENTION = {
    "gpt-neox": "attention",
    "bloom": "self_attention.dense",  # the module above it adds the stream itself
    "gemma2": "post_attention_layernorm",
    "gpt2": "attn",
    "gpt-neo": "attn",
    "gpt-j": "attn",
}
MLP = {
    "opt": "fc2",
    "bloom": "mlp.dense_4h_to_h",
    "gemma2": "post_feedforward_layernorm",
}


class Addition(NamedTuple):
    """Rows to add, and the token of the prompt that the first of them goes to."""

    layer: int
    site: str
    rows: Tensor
    start: int = 0


def start_of(position: int | str, n_tokens: int, n_rows: int) -> int:
    """Where row 0 lands on a prompt, straight from the definition of each position."""
    if isinstance(position, int):
        return position if position >= 0 else n_tokens + position
    return {
        "front": 0,
        "middle": n_tokens // 2 - n_rows // 2,
        "back": n_tokens - n_rows,
    }[position]


def module_of(hf: Any, architecture: str, layer: int, site: str) -> Any:
    """The Hugging Face module at whose input (resid_pre) or output (else) a site is."""
    block = hf.get_submodule(f"{BLOCKS.get(architecture, 'model.layers')}.{layer}")
    if site in ("resid_pre", "resid_post"):
        return block
    if site == "mlp_out":
        return block.get_submodule(MLP.get(architecture, "mlp"))
    return block.get_submodule(ATTENTION.get(architecture, "self_attn"))


@contextmanager
def edited(hf: Any, architecture: str, layer: int, site: str, edit: Any) -> Iterator[None]:
    """Replace the activation at a site by ``edit(activation)``.

    What the attention adds and the stream behind it differ by the stream before, which stays the
    same: so an addition to "resid_mid" is one to "attn_out".
    """
    module = module_of(hf, architecture, layer, site)
    if site == "resid_pre":

        def before(_: Any, args: Any, kwargs: Any) -> Any:
            if args:
                return (edit(args[0]), *args[1:]), kwargs
            return args, {**kwargs, "hidden_states": edit(kwargs["hidden_states"])}

        handle = module.register_forward_pre_hook(before, with_kwargs=True)
    else:

        def after(_: Any, __: Any, output: Any) -> Any:
            return (edit(output[0]), *output[1:]) if isinstance(output, tuple) else edit(output)

        handle = module.register_forward_hook(after)
    try:
        yield
    finally:
        handle.remove()


def stream(hf: Any, architecture: str, tokens: Sequence[int], layer: int, site: str) -> Tensor:
    """Activation of one prompt at a site, [pos, d_model]."""
    if site == "resid_mid":
        return stream(hf, architecture, tokens, layer, "resid_pre") + stream(
            hf, architecture, tokens, layer, "attn_out"
        )
    seen: list[Tensor] = []

    def read(activation: Tensor) -> Tensor:
        seen.append(activation.clone())
        return activation

    with torch.no_grad(), edited(hf, architecture, layer, site, read):
        hf(torch.tensor([list(tokens)]), use_cache=False)
    return seen[0].reshape(len(tokens), -1)


def logits(
    hf: Any, architecture: str, tokens: Sequence[int], additions: Sequence[Addition] = ()
) -> Tensor:
    """Logits of one prompt with rows added to its stream, [pos, vocab]."""
    from contextlib import ExitStack

    with torch.no_grad(), ExitStack() as stack:
        for layer, site, rows, start in additions:
            whole = torch.zeros(len(tokens), rows.shape[1], dtype=hf.dtype)
            whole[start : start + len(rows)] = rows.to(hf.dtype)

            def add(activation: Tensor, whole: Tensor = whole) -> Tensor:
                return activation + whole.reshape(activation.shape)

            stack.enter_context(edited(hf, architecture, layer, site, add))
        return hf(torch.tensor([list(tokens)]), use_cache=False).logits[0]


def greedy(
    hf: Any,
    architecture: str,
    tokens: Sequence[int],
    n_new: int,
    additions: Sequence[Addition] = (),
    every_generated: Sequence[tuple[int, str, Tensor]] = (),
) -> list[int]:
    """The likeliest continuation of one prompt, token by token.

    ``additions`` stay on the tokens of the prompt that they were given for; ``every_generated`` are
    rows (layer, site, row) added to each token behind the prompt.
    """
    ids = list(tokens)
    for _ in range(n_new):
        n_generated = len(ids) - len(tokens)
        behind = [
            Addition(layer, site, row.repeat(n_generated, 1), len(tokens))
            for layer, site, row in every_generated
        ]
        ids.append(int(logits(hf, architecture, ids, [*additions, *behind])[-1].argmax()))
    return ids[len(tokens) :]
