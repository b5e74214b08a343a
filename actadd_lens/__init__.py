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
    from actadd_lens import metrics as metrics
    from actadd_lens import plots as plots
    from actadd_lens import statistics as statistics
    from actadd_lens import testbed as testbed
    from actadd_lens.ablations import Ablation as Ablation
    from actadd_lens.ablations import dimension_ablation as dimension_ablation
    from actadd_lens.ablations import layer_transplant as layer_transplant
    from actadd_lens.ablations import pair_variance as pair_variance
    from actadd_lens.ablations import position_ablation as position_ablation
    from actadd_lens.ablations import steering_reach as steering_reach
    from actadd_lens.comparison import Comparison as Comparison
    from actadd_lens.comparison import compare as compare
    from actadd_lens.errors import ActAddError as ActAddError
    from actadd_lens.errors import DataError as DataError
    from actadd_lens.errors import ExperimentError as ExperimentError
    from actadd_lens.errors import FigureError as FigureError
    from actadd_lens.errors import LayerError as LayerError
    from actadd_lens.errors import MetricError as MetricError
    from actadd_lens.errors import MissingExtraError as MissingExtraError
    from actadd_lens.errors import ModelLoadError as ModelLoadError
    from actadd_lens.errors import OutputError as OutputError
    from actadd_lens.errors import PositionError as PositionError
    from actadd_lens.errors import PromptError as PromptError
    from actadd_lens.errors import SamplingError as SamplingError
    from actadd_lens.errors import StatisticsError as StatisticsError
    from actadd_lens.errors import SweepError as SweepError
    from actadd_lens.errors import SweepFileError as SweepFileError
    from actadd_lens.errors import TestbedError as TestbedError
    from actadd_lens.errors import TextFileError as TextFileError
    from actadd_lens.errors import VectorError as VectorError
    from actadd_lens.errors import VectorFileError as VectorFileError
    from actadd_lens.explorer import explore as explore
    from actadd_lens.extraction import extract as extract
    from actadd_lens.extraction import mean_difference as mean_difference
    from actadd_lens.extraction import mean_differences as mean_differences
    from actadd_lens.generation import Completion as Completion
    from actadd_lens.generation import Completions as Completions
    from actadd_lens.generation import generate as generate
    from actadd_lens.geometry import cosines as cosines
    from actadd_lens.geometry import dose as dose
    from actadd_lens.geometry import residual_norms as residual_norms
    from actadd_lens.landing import placement as placement
    from actadd_lens.lens import lens_logprobs as lens_logprobs
    from actadd_lens.lens import logit_lens as logit_lens
    from actadd_lens.lens import unembed_vector as unembed_vector
    from actadd_lens.likelihood import next_token_logprobs as next_token_logprobs
    from actadd_lens.likelihood import next_token_shift as next_token_shift
    from actadd_lens.likelihood import token_logprobs as token_logprobs
    from actadd_lens.models import load_model as load_model
    from actadd_lens.perplexity import perplexity_ratio as perplexity_ratio
    from actadd_lens.perplexity import prompting_ratio as prompting_ratio
    from actadd_lens.perplexity import ratio_summary as ratio_summary
    from actadd_lens.prompts import ContrastPair as ContrastPair
    from actadd_lens.recall import answer_ranks as answer_ranks
    from actadd_lens.recall import precision_at_k as precision_at_k
    from actadd_lens.scoring import score as score
    from actadd_lens.scoring import summarize as summarize
    from actadd_lens.separation import Separability as Separability
    from actadd_lens.separation import separability as separability
    from actadd_lens.separation import split_half as split_half
    from actadd_lens.steering import fwd_hooks as fwd_hooks
    from actadd_lens.steering import steer as steer
    from actadd_lens.sweeps import Best as Best
    from actadd_lens.sweeps import SweepResult as SweepResult
    from actadd_lens.sweeps import coefficient_sweep as coefficient_sweep
    from actadd_lens.sweeps import layer_sweep as layer_sweep
    from actadd_lens.sweeps import sweep as sweep
    from actadd_lens.texts import read_texts as read_texts
    from actadd_lens.vectors import SteeringVector as SteeringVector

__version__ = "0.1.0"

_ROOM_OF = {
    "load_model": "models",
    "ContrastPair": "prompts",
    "SteeringVector": "vectors",
    "extract": "extraction",
    "mean_difference": "extraction",
    "mean_differences": "extraction",
    "steer": "steering",
    "fwd_hooks": "steering",
    "placement": "landing",
    "generate": "generation",
    "Completion": "generation",
    "Completions": "generation",
    "compare": "comparison",
    "answer_ranks": "recall",
    "precision_at_k": "recall",
    "score": "scoring",
    "summarize": "scoring",
    "read_texts": "texts",
    "token_logprobs": "likelihood",
    "next_token_logprobs": "likelihood",
    "next_token_shift": "likelihood",
    "perplexity_ratio": "perplexity",
    "prompting_ratio": "perplexity",
    "ratio_summary": "perplexity",
    "residual_norms": "geometry",
    "dose": "geometry",
    "cosines": "geometry",
    "split_half": "separation",
    "separability": "separation",
    "Separability": "separation",
    "logit_lens": "lens",
    "lens_logprobs": "lens",
    "unembed_vector": "lens",
    "Comparison": "comparison",
    "sweep": "sweeps",
    "layer_sweep": "sweeps",
    "coefficient_sweep": "sweeps",
    "SweepResult": "sweeps",
    "Best": "sweeps",
    "position_ablation": "ablations",
    "dimension_ablation": "ablations",
    "layer_transplant": "ablations",
    "pair_variance": "ablations",
    "steering_reach": "ablations",
    "Ablation": "ablations",
    "explore": "explorer",
    "ActAddError": "errors",
    "DataError": "errors",
    "ExperimentError": "errors",
    "FigureError": "errors",
    "LayerError": "errors",
    "MetricError": "errors",
    "MissingExtraError": "errors",
    "ModelLoadError": "errors",
    "OutputError": "errors",
    "PositionError": "errors",
    "PromptError": "errors",
    "SamplingError": "errors",
    "StatisticsError": "errors",
    "SweepError": "errors",
    "SweepFileError": "errors",
    "TestbedError": "errors",
    "TextFileError": "errors",
    "VectorError": "errors",
    "VectorFileError": "errors",
}

_ROOMS = ("metrics", "plots", "statistics", "testbed")

__all__ = [*_ROOM_OF, *_ROOMS, "__version__"]


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return import_module(f"{__name__}.{name}")
    if name not in _ROOM_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_ROOM_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
