"""The exceptions a caller can catch.

Every message states the values that clash and the remedy. Those that reject a value are also a
``ValueError``; those about files, models and missing libraries are not.
"""

import sys
import warnings
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from importlib import import_module
from numbers import Integral
from typing import Any


class ActAddError(Exception):
    """Base of every error raised on purpose by this package."""


class ModelLoadError(ActAddError):
    """A model could not be loaded: unknown name, incomplete directory, hub out of reach."""


class ModelTypeError(ActAddError, TypeError):
    """Something else in the place of a TransformerBridge: a name, a bare Hugging Face model, or
    another argument."""


class VectorFileError(ActAddError):
    """A file does not hold a steering vector: truncated, foreign, or hostile."""


class SweepFileError(ActAddError):
    """A file does not hold this sweep: foreign, of another version or other settings, or in use."""


class TextFileError(ActAddError):
    """A file of texts cannot be read, or one of its lines is broken."""


class DataError(ActAddError):
    """A data set is not there, or one of its records is broken."""


class OutputError(ActAddError):
    """Something could not be written: directory missing or not writable."""


class PromptError(ActAddError, ValueError):
    """A prompt cannot be used: empty, beyond the context, or padded with several tokens."""


class LayerError(ActAddError, ValueError):
    """A layer or hook point that the model does not have."""


class PositionError(ActAddError, ValueError):
    """An unknown position, or a vector that does not fit on a prompt there."""


class AlignmentWarning(UserWarning):
    """The sides of a contrast pair do not correspond token by token."""


class VectorError(ActAddError, ValueError):
    """A steering vector that cannot be built, combined, or used on this model."""


class NumericsError(ActAddError, ArithmeticError):
    """Logits that are not finite: numbers beyond the model's precision, or broken weights."""


class SamplingError(ActAddError, ValueError):
    """Sampling options out of range."""


class StatisticsError(ActAddError, ValueError):
    """Figures that have no such statistic: none, of unequal number, or not finite."""


class FigureError(ActAddError, ValueError):
    """A table that cannot be drawn as asked: columns missing, configurations twice,
    nothing to show."""


class SweepError(ActAddError, ValueError):
    """A sweep or ablation that cannot be run or read as asked: nothing to try, a configuration
    twice, no such metric."""


class ExperimentError(ActAddError, ValueError):
    """An experiment that is unknown or asked for twice, or several of which some failed."""


class TestbedError(ActAddError, ValueError):
    """Something that the testbed does not have."""

    __test__ = False  # not a test, although pytest would take the name for one


class MetricError(ActAddError, ValueError):
    """A metric that is unknown or wrongly set up."""


class MissingExtraError(ActAddError, ImportError):
    """An optional library that is not installed; the message names the extra that brings it."""


class ModelMismatchWarning(UserWarning):
    """A vector that was read from another model than the one that it steers or is added to."""


def called() -> tuple[str, list[str], Mapping[str, Any]]:
    """The outermost function of this package that is running: its name, parameters and variables.

    It is the one that the caller knows, and so the one that an error should name.
    """
    found = frame = sys._getframe(1)
    while frame.f_back is not None:
        frame = frame.f_back
        if frame.f_globals.get("__name__", "").startswith("actadd_lens."):
            found = frame
    code = found.f_code
    names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    return code.co_qualname, [n for n in names if n not in ("self", "cls")], found.f_locals


def warn_caller(text: str, category: type[Warning]) -> None:
    """Warn at the line outside of this package that led here."""
    level, last, frame = 1, 1, sys._getframe(0)
    while frame.f_back is not None:
        level, frame = level + 1, frame.f_back
        if frame.f_globals.get("__name__", "").startswith("actadd_lens."):
            last = level
    warnings.warn(text, category, stacklevel=last + 1)


def unexpected_option(
    option: str, known: Iterable[str], kind: str = "keyword argument"
) -> TypeError:
    """The error for an option that the function called by the user does not have.

    Args:
        option: The keyword.
        known: Options that it has besides its own parameters.
        kind: What the message calls it.
    """
    function, parameters, _ = called()
    names = sorted({*known, *parameters})
    close = get_close_matches(option, names, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(names)}"
    return TypeError(f"{function}() got an unexpected {kind} {option!r}: {hint}")


def require_count(
    name: str, value: Any, below: int | None = None, *, neutral: str | None = None
) -> None:
    """Raise ``SamplingError`` unless ``value`` is an integer >= 1, and < ``below`` if given.

    >>> require_count("batch_size", 8)
    """
    whole = isinstance(value, Integral) and not isinstance(value, bool)
    if not (whole and value >= 1 and (below is None or value < below)):
        bound = "" if below is None else f" and < {below}"
        remark = "" if neutral is None else f" ({neutral})"
        raise SamplingError(f"{name} is {value!r}: it must be an integer >= 1{bound}{remark}")


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
