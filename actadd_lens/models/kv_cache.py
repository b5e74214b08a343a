"""Caches of keys and values as Hugging Face makes them: rows are selected, repeated, dropped."""

from copy import copy
from typing import Any

from jaxtyping import Int
from torch import Tensor


def is_filled(cache: Any) -> bool:
    """Whether a cache already holds tokens."""
    if cache is None:
        return False
    if hasattr(cache, "get_seq_length"):
        return int(cache.get_seq_length()) > 0
    return len(cache) > 0


def selected(cache: Any, rows: Int[Tensor, "row"]) -> Any:
    """A cache made of some rows of another, in this order; a row may be taken several times.

    The other cache stays as it is.
    """
    chosen = copy(cache)
    chosen.layers = [copy(layer) for layer in cache.layers]
    chosen.batch_select_indices(rows)
    return chosen


def keep_only(cache: Any, rows: Int[Tensor, "row"]) -> None:
    """Drop all other rows of a cache, in place."""
    cache.batch_select_indices(rows)
