"""Caches of keys, values and recurrent states: what they hold; rows are selected and dropped."""

from collections.abc import Callable, Mapping
from copy import copy
from functools import cache
from inspect import signature
from typing import Any

from jaxtyping import Int
from torch import Tensor

NAMES = ("past_key_values", "cache_params", "state")
"""What the forward pass of a Hugging Face model calls its cache."""


def cache_in(arguments: Mapping[str, Any]) -> Any:
    """The cache among the keyword arguments of a forward pass; None if there is none."""
    return next((found for name in NAMES if (found := arguments.get(name)) is not None), None)


@cache
def name_for(forward: Callable[..., Any]) -> str | None:
    """What a forward pass calls its cache; None if it takes none that rows can be taken from."""
    taken = signature(forward).parameters
    return next((name for name in NAMES[:2] if name in taken), None)


def length(cache: Any) -> int | None:
    """Columns that a cache holds; None if it does not know, as recurrent states alone do not."""
    try:
        return int(cache.get_seq_length())
    except (AttributeError, ValueError):  # a tuple; "only contain LinearAttention layers"
        return None


def is_filled(cache: Any) -> bool:
    """Whether a cache already holds tokens."""
    if cache is None:
        return False
    held = length(cache)
    if held is not None:
        return held > 0
    layers = getattr(cache, "layers", None)
    if layers is None:
        return len(cache) > 0
    return any(any(getattr(layer, "has_previous_state", {}).values()) for layer in layers)


def empty(module: Any) -> Any:
    """A cache for a Hugging Face model that holds nothing yet."""
    from transformers import DynamicCache

    return DynamicCache(config=module.config)


def selected(cache: Any, rows: Int[Tensor, "row"]) -> Any:
    """A cache made of some rows of another, in this order; a row may be taken several times.

    The other cache stays as it is. Every kind of layer is covered: full, sliding and shared
    attention, convolutions, recurrent states and their combinations. A tensor of tokens, which
    takes the place of a cache where a model has none, is indexed.
    """
    if isinstance(cache, Tensor):
        return cache[rows]
    chosen = copy(cache)
    chosen.layers = [copy(layer) for layer in cache.layers]
    for layer in chosen.layers:
        # The states of a layer are in a dictionary that is changed in place.
        vars(layer).update({k: dict(v) for k, v in vars(layer).items() if isinstance(v, dict)})
    return keep_only(chosen, rows)


def keep_only(cache: Any, rows: Int[Tensor, "row"]) -> Any:
    """The same cache, changed in place, without all other rows; see ``selected``."""
    if isinstance(cache, Tensor):
        return cache[rows]
    cache.reorder_cache(rows.cpu())  # a layer may be on another device than the rows
    return cache
