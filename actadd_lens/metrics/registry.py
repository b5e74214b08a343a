"""What a metric is, and the built-in ones by name."""

from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from inspect import signature
from typing import Any, Final, Protocol, runtime_checkable

from actadd_lens import metrics
from actadd_lens.errors import MetricError
from actadd_lens.generation.completions import Completion


@runtime_checkable
class Metric(Protocol):
    """Anything that is called on what a model did, and has a name to report it under."""

    @property
    def name(self) -> str:
        """What its column or row is called; two metrics of one evaluation need different ones."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The values."""


@runtime_checkable
class CompletionMetric(Protocol):
    """A metric of generated text: completions in, one float for each out.

    One whose values are zeros and ones may say so by an attribute ``share = True``: its intervals
    are those of a share then.
    """

    @property
    def name(self) -> str:
        """What its column or row is called."""

    def __call__(self, completions: Sequence[Completion]) -> Sequence[float]:
        """One value a completion, NaN where it is undefined; no completions give no values."""


_BUILT_IN: Final[Mapping[str, Callable[[], Metric]]] = {
    # of completions
    "distinct_1": lambda: metrics.DistinctN(1),
    "distinct_2": lambda: metrics.DistinctN(2),
    "distinct_3": lambda: metrics.DistinctN(3),
    "perspective": lambda: metrics.Perspective(),
    "relevance": lambda: metrics.Relevance(),
    "repetition": lambda: metrics.Repetition(),
    "sentiment": lambda: metrics.Sentiment(),
    "weddings": lambda: metrics.weddings,
    # of next-token distributions
    "entropy": lambda: metrics.entropy,
    "kl": lambda: metrics.kl,
    "relative_kl": lambda: metrics.relative_kl,
    "reverse_kl": lambda: metrics.reverse_kl,
    "total_variation": lambda: metrics.total_variation,
}


def reads_logits(metric: Metric) -> bool:
    """Whether a metric reads next-token distributions of two runs rather than completions.

    Its call tells: it needs two arguments, log-probs of the clean and of the steered run.

    >>> reads_logits(metrics.kl), reads_logits(metrics.weddings)
    (True, False)
    """
    try:
        asked = signature(metric).parameters.values()
    except (TypeError, ValueError):
        return False
    needed = [
        p
        for p in asked
        if p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
    ]
    return len(needed) == 2


def lookup(metric: object) -> Metric:
    """A metric by name, or the metric itself.

    Args:
        metric: The name of a built-in one, in its exact spelling, or any metric.

    Raises:
        MetricError: An unknown name, with the list of those there are; an object that is no
            metric; "perspective" without a key.

    >>> lookup("distinct_2")
    DistinctN(n=2)
    >>> lookup("sentimnt")
    Traceback (most recent call last):
    ...
    actadd_lens.errors.MetricError: unknown metric 'sentimnt': did you mean 'sentiment'? ...
    """
    if isinstance(metric, str):
        return _built_in(metric)
    if isinstance(metric, type):
        raise MetricError(
            f"{metric.__name__} is a class, not a metric: make one, {metric.__name__}(...)"
        )
    # The type of the name is asked for apart: a protocol only asks whether there is one.
    if not isinstance(metric, Metric) or not isinstance(metric.name, str):
        name = getattr(metric, "name", None)
        raise MetricError(
            f"{metric!r} is no metric: it is {'' if callable(metric) else 'not '}callable and its "
            f"name is {name!r}; give a callable whose .name is a string, or one of {_names()}"
        )
    return metric


def _built_in(name: str) -> Metric:
    if name in _BUILT_IN:
        return _BUILT_IN[name]()
    close = get_close_matches(name, _BUILT_IN, n=1) or get_close_matches(
        name.lower(), _BUILT_IN, n=1
    )
    hint = f"did you mean {close[0]!r}? " if close else ""
    raise MetricError(
        f"unknown metric {name!r}: {hint}The built-in ones are {_names()}; others are made by "
        "hand, e.g. metrics.WordCount(['love'])"
    )


def _names() -> str:
    return ", ".join(sorted(_BUILT_IN))
