"""Is it the same measurement? What a model and a metric are, the same in every process."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from itertools import takewhile
from types import CodeType, FunctionType, MethodType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from actadd_lens.metrics.registry import Metric
from actadd_lens.models.base import Bridge
from actadd_lens.models.bridge import BridgeModel

_DEEP = 6
"""Objects within objects that are looked into."""


def fingerprint(model: Bridge) -> str:
    """A hash that changes with any weight of the model, and with its precision."""
    return _weights(BridgeModel(model).module)


def described(value: object, depth: int = 0) -> str:
    """An object by what it is made of: its fields, or its repr if it has one; a function by code.

    >>> described({"a": [1, (2.5, None)]})
    "{'a': [1, (2.5, None)]}"
    """
    if depth > _DEEP:
        return type(value).__qualname__
    deeper = depth + 1
    match value:
        case np.generic():  # of which float64 is also a float
            return repr(value.item())
        case None | bool() | int() | float() | complex() | str() | bytes():
            return repr(value)
        case Mapping():
            items = (f"{described(k, deeper)}: {described(v, deeper)}" for k, v in value.items())
            return f"{{{', '.join(items)}}}"
        case list() | tuple():
            ends = "[]" if isinstance(value, list) else "()"
            return f"{ends[0]}{', '.join(described(item, deeper) for item in value)}{ends[1]}"
        case set() | frozenset():
            return f"{{{', '.join(sorted(described(item, deeper) for item in value))}}}"
        case Tensor() | np.ndarray():
            array = value.detach().cpu().numpy() if isinstance(value, Tensor) else value
            return f"{array.dtype}{array.shape}{_hash(array.tobytes())}"
        case nn.Module():
            return f"{type(value).__qualname__}({_weights(value)})"
        case FunctionType():
            closure = [cell.cell_contents for cell in value.__closure__ or ()]
            held = described([value.__defaults__, value.__kwdefaults__, closure], deeper)
            return f"{value.__qualname__}({_code(value.__code__)}, {held})"
        case MethodType():
            held = described(value.__self__, deeper)
            return f"{described(value.__func__, deeper)} of {held}"
        case type():
            return f"{value.__module__}.{value.__qualname__}"
    name = type(value).__qualname__
    if is_dataclass(value):
        own = {f.name: getattr(value, f.name) for f in fields(value)}
        return f"{name}({described(own, deeper)})"
    if type(value).__repr__ is not object.__repr__ or not hasattr(value, "__dict__"):
        return re.sub(r" at 0x[0-9a-fA-F]+", "", repr(value))
    # What is private may be a cache, and no part of what the object is.
    public = {k: v for k, v in vars(value).items() if not k.startswith("_")}
    return f"{name}({described(public, deeper)})"


def metric_described(metric: Metric) -> str:
    """A metric in full, or a hash of it where that is long."""
    text = described(metric)
    return text if len(text) <= 200 else f"{text[:120]}... {_hash(text.encode())}"


def hashed(value: object) -> str:
    """A short hash of plain data."""
    return _hash(repr(value).encode())


def plain(value: Any) -> Any:
    """The same as plain JSON: numbers and arrays become Python's, tuples become lists."""
    if isinstance(value, (np.generic, np.ndarray, Tensor)):
        return value.tolist()
    if isinstance(value, Mapping):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value


def n_alike(a: Sequence[Any], b: Sequence[Any]) -> int:
    """Number of items at the start that two sequences have in common.

    >>> n_alike("sweep", "sweet")
    4
    """
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(a, b, strict=False)))


def _weights(module: nn.Module) -> str:
    """A hash of every byte; about a second for each gigabyte and a half."""
    digest, read = hashlib.sha256(), set()
    for name, tensor in module.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        place = (tensor.data_ptr(), tensor.shape, tensor.stride())
        if place not in read or not tensor.data_ptr():  # tied weights are read once
            read.add(place)
            flat = tensor.detach().cpu().contiguous().reshape(-1)
            digest.update(memoryview(flat.view(torch.uint8).numpy()) if flat.numel() else b"")
    return digest.hexdigest()[:16]


def _code(code: CodeType) -> str:
    inner = [_code(c) if isinstance(c, CodeType) else described(c) for c in code.co_consts]
    return _hash(code.co_code + repr((inner, code.co_names)).encode())


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:12]
