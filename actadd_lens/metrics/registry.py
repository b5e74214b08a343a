"""What a metric is, and the metrics that are found by name.

Built-in metrics and those of other packages are registered by one decorator, ``register``. The
files of this package are imported when a name is first looked up.
"""

from collections.abc import Callable, Sequence
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Any, Final, Literal, Protocol, TypeAlias, TypeVar, get_args, runtime_checkable

from actadd_lens.errors import MetricError
from actadd_lens.generation.completions import Completion

Kind: TypeAlias = Literal["completions", "logits"]
"""What a metric is called with: completions, or log-probabilities of the clean and steered run."""

Registered = TypeVar("Registered", bound=Callable[..., Any])


@runtime_checkable
class Metric(Protocol):
    """Anything that is called on what a model did, with a name and a kind.

    A metric may also have these attributes:

    - ``share = True``: its values are zeros and ones, and its intervals are those of a share.
    - ``version``, an integer or a string: part of what a store compares. Raise it when the values
      change for a reason that the settings of the metric do not show.
    - ``bind(model)``: gives the metric with its settings read for a model, such as token ids.
    - ``over``, of logit metrics: "last", the prediction after the prompt's last token, or "text",
      every prediction after the vector.
    """

    @property
    def name(self) -> str:
        """What its column or row is called; two metrics of one evaluation need different ones."""

    @property
    def kind(self) -> Kind:
        """Of "completions" it gets a sequence; of "logits" clean and steered log-probabilities."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The values."""


@runtime_checkable
class CompletionMetric(Metric, Protocol):
    """A metric of generated text, of kind "completions": one float for each completion."""

    def __call__(self, completions: Sequence[Completion]) -> Sequence[float]:
        """One value per completion, NaN where it is undefined; no completions give no values."""


class OwnName(str):
    """A name that a metric makes of its settings; ``dataclasses.replace`` has it made anew."""

    __slots__ = ()

    @classmethod
    def unless(cls, given: str, own: str) -> str:
        """The name that was given, or else the metric's own."""
        return cls(own) if not given or isinstance(given, cls) else given


_registered: Final[dict[str, Any]] = {}
"""A metric for each name, or a class that makes it without arguments."""


def register(
    name: str,
    *,
    kind: Kind | None = None,
    share: bool = False,
    version: int | str | None = None,
    replace: bool = False,
) -> Callable[[Registered], Registered]:
    """Have a metric found by name, wherever metrics are taken.

    It decorates a function, which is called with what ``kind`` says; or a class, of which
    ``lookup`` makes one without arguments; or it is called on a metric that is already made. What
    is decorated comes back with ``name``, ``kind``, ``share`` and ``version`` as attributes. An
    attribute that it has already stays as it is.

    Args:
        name: What ``lookup`` finds it by.
        kind: "completions" or "logits". A class or a metric may state it itself.
        share: Whether the values are zeros and ones.
        version: See ``Metric``.
        replace: Take the place of a metric of that name, as when a notebook cell runs again.

    Raises:
        MetricError: The name is taken, or no kind is stated.

    >>> @register("questions", kind="completions")
    ... def questions(completions):
    ...     return [float(c.text.count("?")) for c in completions]
    >>> lookup("questions")([al.Completion("She said:", " Why? Who?", (), (), 0, 0)])
    [2.0]
    """

    def enter(made: Registered) -> Registered:
        if not str(made.__module__).startswith(f"{__package__}."):
            _load_built_in()
        if name in _registered and not replace:
            raise MetricError(
                f"a metric {name!r} is registered already, {_registered[name]!r}: choose another "
                "name, or say replace=True"
            )
        stated = {"name": name, "kind": kind, "share": share or None, "version": version}
        for attribute, value in stated.items():
            if value is not None and not hasattr(made, attribute):
                setattr(made, attribute, value)
        _check_kind(made)
        _registered[name] = made
        return made

    return enter


def lookup(metric: object) -> Metric:
    """A metric by name, or the metric itself.

    Args:
        metric: The name of a registered one, in its exact spelling, or any metric.

    Raises:
        MetricError: An unknown name, with the list of the registered ones; an object that is not a
            metric, or does not state its kind.

    >>> lookup("distinct_2")
    DistinctN(n=2, name='distinct_2')
    >>> lookup("sentimnt")
    Traceback (most recent call last):
    ...
    actadd_lens.errors.MetricError: unknown metric 'sentimnt': did you mean 'sentiment'? ...
    """
    found: Any = metric
    if isinstance(metric, str):
        _load_built_in()
        if metric not in _registered:
            close = [
                m for name in (metric, metric.lower()) for m in get_close_matches(name, _registered)
            ]
            hint = f"did you mean {close[0]!r}? " if close else ""
            raise MetricError(
                f"unknown metric {metric!r}: {hint}The registered ones are {_names()}; others are "
                "made by hand, e.g. metrics.WordCount(['love'])"
            )
        found = _registered[metric]
        found = found() if isinstance(found, type) else found
    if isinstance(found, type):
        raise MetricError(
            f"{found.__name__} is a class, not a metric: make one, {found.__name__}(...)"
        )
    name = getattr(found, "name", None)
    if not callable(found) or not isinstance(name, str):
        raise MetricError(
            f"{found!r} is not a metric: it is {'' if callable(found) else 'not '}callable and "
            f"its name is {name!r}; give a callable whose .name is a string, or one of {_names()}"
        )
    _check_kind(found)
    made: Metric = found
    return made


def _check_kind(metric: Any) -> None:
    kind = getattr(metric, "kind", None)
    if kind in get_args(Kind):
        return
    own = metric if hasattr(metric, "__qualname__") else type(metric)
    line = f"{own.__name__}.kind = "
    raise MetricError(
        f"{own.__name__} states {'no kind' if kind is None else f'the kind {kind!r}'}: write "
        f'{line}"completions" if it is called with completions, or {line}"logits" if it is called '
        "with the log-probabilities of the clean and of the steered run"
    )


def _load_built_in() -> None:
    for file in iter_modules([str(Path(__file__).parent)]):
        import_module(f"{__package__}.{file.name}")


def _names() -> str:
    _load_built_in()
    return ", ".join(sorted(_registered))
