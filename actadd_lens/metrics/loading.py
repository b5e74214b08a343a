"""Optional libraries, and errors of models that are none of TransformerLens's."""

from importlib import import_module
from pathlib import Path
from typing import Any

from actadd_lens.errors import MissingExtraError, ModelLoadError


def require(module: str, extra: str, what: str) -> Any:
    """Import an optional library.

    Args:
        module: Its name in Python.
        extra: The extra of this package that installs it.
        what: What it is needed for, as the subject of the error.

    Raises:
        MissingExtraError: It is not installed, with the command that does it.

    >>> require("no_such_library", "relevance", "Relevance")
    Traceback (most recent call last):
    ...
    actadd_lens.errors.MissingExtraError: Relevance needs no_such_library: pip install ...
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module:  # it is there, but broken: that is another problem
            raise
        raise MissingExtraError(
            f"{what} needs {module}: pip install 'actadd-lens[{extra}]'", name=module
        ) from error


def load_error(what: str, name: str, error: Exception) -> ModelLoadError:
    """The error of a model that could not be loaded: what was tried, and what to do.

    Args:
        what: What kind of model it should have been.
        name: The directory or hub name that was tried.
        error: Whatever went wrong.

    >>> load_error("a text classifier", "no/such", OSError("not found"))
    ModelLoadError("cannot load a text classifier from 'no/such' (OSError: not found). ...")
    """
    lines = str(error).strip().splitlines()
    reason = f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
    if Path(name).is_dir():
        return ModelLoadError(f"cannot load {what} in {name}: {reason}")
    return ModelLoadError(
        f"cannot load {what} from {name!r} ({reason}). It is no directory here, so the Hugging "
        "Face hub was asked: check the spelling, the network (HF_HUB_OFFLINE must not be set "
        "unless the model is cached) and, for gated models, HF_TOKEN; or download it and give its "
        "directory"
    )
