"""Metrics: numbers read off completions, and off next-token distributions.

A completion metric is called with completions and gives one float for each. It reads the
completion alone, but for ``Relevance`` and ``Fluency``, which set it against its prompt.

>>> from actadd_lens import metrics
>>> completion = al.Completion("She talks about", " her wedding, a lovely day.", (), (), 0, 0)
>>> metrics.weddings([completion])
[1.0]
>>> metrics.WordCount(["wedding", "lovely day"])([completion])
[2.0]
>>> metrics.lookup("sentiment")([completion])
[0.5859]

Names are imported from their files at first use, and so are the libraries behind them.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from actadd_lens.metrics.diversity import DistinctN as DistinctN
    from actadd_lens.metrics.diversity import Repetition as Repetition
    from actadd_lens.metrics.fluency import Fluency as Fluency
    from actadd_lens.metrics.logits import KL as KL
    from actadd_lens.metrics.logits import Disruption as Disruption
    from actadd_lens.metrics.logits import Effectiveness as Effectiveness
    from actadd_lens.metrics.logits import Entropy as Entropy
    from actadd_lens.metrics.logits import LogitDifference as LogitDifference
    from actadd_lens.metrics.logits import LogitMetric as LogitMetric
    from actadd_lens.metrics.logits import RelativeKL as RelativeKL
    from actadd_lens.metrics.logits import ReverseKL as ReverseKL
    from actadd_lens.metrics.logits import TokenLogProb as TokenLogProb
    from actadd_lens.metrics.logits import TokenRank as TokenRank
    from actadd_lens.metrics.logits import TotalVariation as TotalVariation
    from actadd_lens.metrics.logits import entropy as entropy
    from actadd_lens.metrics.logits import kl as kl
    from actadd_lens.metrics.logits import relative_kl as relative_kl
    from actadd_lens.metrics.logits import reverse_kl as reverse_kl
    from actadd_lens.metrics.logits import total_variation as total_variation
    from actadd_lens.metrics.perspective import Perspective as Perspective
    from actadd_lens.metrics.registry import CompletionMetric as CompletionMetric
    from actadd_lens.metrics.registry import Metric as Metric
    from actadd_lens.metrics.registry import lookup as lookup
    from actadd_lens.metrics.relevance import Relevance as Relevance
    from actadd_lens.metrics.sentiment import Sentiment as Sentiment
    from actadd_lens.metrics.toxicity import Toxicity as Toxicity
    from actadd_lens.metrics.words import WEDDING_WORDS as WEDDING_WORDS
    from actadd_lens.metrics.words import ContainsAny as ContainsAny
    from actadd_lens.metrics.words import WordCount as WordCount
    from actadd_lens.metrics.words import weddings as weddings

_FILE_OF = {
    "CompletionMetric": "registry",
    "Metric": "registry",
    "lookup": "registry",
    # of completions
    "ContainsAny": "words",
    "DistinctN": "diversity",
    "Fluency": "fluency",
    "Perspective": "perspective",
    "Relevance": "relevance",
    "Repetition": "diversity",
    "Sentiment": "sentiment",
    "Toxicity": "toxicity",
    "WEDDING_WORDS": "words",
    "WordCount": "words",
    "weddings": "words",
    # of next-token distributions
    "LogitMetric": "logits",
    "TotalVariation": "logits",
    "ReverseKL": "logits",
    "RelativeKL": "logits",
    "Entropy": "logits",
    "KL": "logits",
    "Disruption": "logits",
    "Effectiveness": "logits",
    "LogitDifference": "logits",
    "TokenLogProb": "logits",
    "TokenRank": "logits",
    "entropy": "logits",
    "kl": "logits",
    "relative_kl": "logits",
    "reverse_kl": "logits",
    "total_variation": "logits",
}

__all__ = [*_FILE_OF]


def __getattr__(name: str) -> Any:
    if name not in _FILE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_FILE_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
