"""Activation steering on TransformerLens: extract, inject, generate, compare.

>>> import actadd_lens as al
>>> model = al.load_model("testbed")
>>> vector = al.SteeringVector.from_pair(model, ("Love.", "Hate."), layer=2)
>>> with al.steer(model, 6 * vector):
...     logits = model("My friend")

Names are imported from their rooms at first use, so that this import stays quick.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from actadd_lens import testbed as testbed
    from actadd_lens.comparison import Comparison as Comparison
    from actadd_lens.comparison import compare as compare
    from actadd_lens.errors import ActAddError as ActAddError
    from actadd_lens.errors import LayerError as LayerError
    from actadd_lens.errors import ModelLoadError as ModelLoadError
    from actadd_lens.errors import OutputError as OutputError
    from actadd_lens.errors import PositionError as PositionError
    from actadd_lens.errors import PromptError as PromptError
    from actadd_lens.errors import SamplingError as SamplingError
    from actadd_lens.errors import VectorError as VectorError
    from actadd_lens.errors import VectorFileError as VectorFileError
    from actadd_lens.extraction import extract as extract
    from actadd_lens.extraction import mean_difference as mean_difference
    from actadd_lens.generation import Completion as Completion
    from actadd_lens.generation import Completions as Completions
    from actadd_lens.generation import generate as generate
    from actadd_lens.models import load_model as load_model
    from actadd_lens.prompts import ContrastPair as ContrastPair
    from actadd_lens.steering import fwd_hooks as fwd_hooks
    from actadd_lens.steering import steer as steer
    from actadd_lens.vectors import SteeringVector as SteeringVector

__version__ = "0.1.0"

_ROOM_OF = {
    "load_model": "models",
    "ContrastPair": "prompts",
    "SteeringVector": "vectors",
    "extract": "extraction",
    "mean_difference": "extraction",
    "steer": "steering",
    "fwd_hooks": "steering",
    "generate": "generation",
    "Completion": "generation",
    "Completions": "generation",
    "compare": "comparison",
    "Comparison": "comparison",
    "ActAddError": "errors",
    "LayerError": "errors",
    "ModelLoadError": "errors",
    "OutputError": "errors",
    "PositionError": "errors",
    "PromptError": "errors",
    "SamplingError": "errors",
    "VectorError": "errors",
    "VectorFileError": "errors",
}

__all__ = [*_ROOM_OF, "__version__", "testbed"]


def __getattr__(name: str) -> Any:
    if name == "testbed":
        return import_module("actadd_lens.testbed")
    if name not in _ROOM_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_ROOM_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
