"""Vectors on disk: safetensors with metadata, written atomically, read with suspicion.

Nothing in a file is ever executed: safetensors holds numbers, the metadata is JSON.
"""

import json
import tempfile
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any
from uuid import uuid4

import torch
from jaxtyping import Float
from torch import Tensor

from actadd_lens.errors import OutputError, VectorFileError

FORMAT = "actadd_lens.steering_vector"
VERSION = "1"


def write_atomically(path: str | PathLike[str], content: bytes) -> None:
    """Write a file so that it is never seen half-written: a temporary one takes its place.

    Raises:
        OutputError: The directory is missing or not writable.
    """
    target = Path(path)
    if not target.name:
        raise OutputError(f"cannot write {str(path)!r}: name a file, this is a directory")
    temporary = target.with_name(f".{target.name}.{uuid4().hex}.tmp")
    try:
        try:
            temporary.write_bytes(content)
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(
            f"cannot write {target}: {error.strerror}: name a file in a directory that exists "
            "and is writable"
        ) from error


def prepare_directory(path: Path) -> Path:
    """Make a directory where it is missing, and see that it can be written to.

    Raises:
        OutputError: It can't be made or written to.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise OutputError(
            f"cannot write to {path}: {error.strerror}; choose another directory (--out)"
        ) from error
    return path


def save_rows(
    path: str | PathLike[str], rows: Float[Tensor, "pos d_model"], metadata: Mapping[str, Any]
) -> None:
    """Write rows and their metadata, any JSON value under each name.

    Raises:
        OutputError: The file cannot be written there.
    """
    from safetensors.torch import save

    header = {name: json.dumps(value) for name, value in metadata.items()}
    header |= {"format": FORMAT, "version": VERSION}
    write_atomically(path, save({"rows": rows.contiguous()}, metadata=header))


def load_rows(path: str | PathLike[str]) -> tuple[Float[Tensor, "pos d_model"], dict[str, Any]]:
    """Read what ``save_rows`` wrote.

    Raises:
        VectorFileError: No such file, or it holds something else.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            names = list(file.keys())
            found = header.pop("format", None), header.pop("version", None)
            if found != (FORMAT, VERSION) or names != ["rows"]:
                raise VectorFileError(
                    f"{path} is not a steering vector: it says format {found[0]!r}, version "
                    f"{found[1]!r}, tensors {names[:3]}; expected {FORMAT!r}, {VERSION!r}, ['rows']"
                )
            rows = file.get_tensor("rows").clone()  # the file may change under a mapped tensor
    except (SafetensorError, OSError) as error:
        raise VectorFileError(
            f"cannot read {path}: {error}: give a file that SteeringVector.save wrote"
        ) from error
    if rows.dtype != torch.float32 or rows.ndim != 2:
        raise VectorFileError(
            f"{path} holds {rows.dtype} rows of shape {tuple(rows.shape)}: "
            "a steering vector is float32, [pos, d_model]"
        )
    try:
        return rows, {name: json.loads(value) for name, value in header.items()}
    except (ValueError, RecursionError) as error:
        raise VectorFileError(f"the metadata of {path} is broken: {error}") from error
