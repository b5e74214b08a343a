"""The experiments by name, in the order of the report."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import import_module
from inspect import getsource

from actadd_lens.errors import ExperimentError
from actadd_lens.reproduction.criteria import question
from actadd_lens.reproduction.outcome import Outcome
from actadd_lens.reproduction.report import Description
from actadd_lens.reproduction.setup import Setup
from actadd_lens.sweeps.identity import hashed

NAMES = (
    "perplexity-by-relevance",
    "topic-by-layer",
    "topic-by-coefficient",
    "sentiment-shift",
    "detoxification",
    "knowledge",
    "token-shift",
    "prompting-comparison",
    "random-vectors",
    "partial-vectors",
    "positions",
    "layer-transplant",
    "norms",
    "inference-cost",
    "composition",
    "pair-variance",
    "search-cost",
    "failures",
)


@dataclass(frozen=True)
class Experiment:
    """What an experiment says of itself, and how it is run."""

    about: Description
    """Its docstring, ``PAPER`` and ``DIFFERS``."""
    run: Callable[[Setup], Outcome]
    """Measures, and answers the criteria."""

    @property
    def name(self) -> str:
        """As on the command line."""
        return self.about.name

    @property
    def fingerprint(self) -> str:
        """A hash of its file: criteria and code."""
        return hashed(getsource(import_module(self.run.__module__)))

    @property
    def question(self) -> str:
        """The first line of its docstring."""
        return question(self.about.docstring)


def experiment(name: str) -> Experiment:
    """An experiment by name.

    Raises:
        ExperimentError: There is none of this name, with the list of those there are.

    >>> experiment("topic-by-layer").name
    'topic-by-layer'
    """
    check_names([name])
    module = import_module(f"actadd_lens.reproduction.experiments.{name.replace('-', '_')}")
    about = Description(name, module.__doc__ or "", module.PAPER, module.DIFFERS)
    return Experiment(about, module.run)


def check_names(names: Sequence[str]) -> None:
    """Raise ``ExperimentError`` unless each is the name of an experiment, given once.

    >>> check_names(["topic-by-layers"])
    Traceback (most recent call last):
    ...
    actadd_lens.errors.ExperimentError: no experiment 'topic-by-layers': did you mean 'topic-by-...
    """
    for name in names:
        if name not in NAMES:
            close = get_close_matches(name, NAMES, n=1)
            hint = f"did you mean {close[0]!r}? " if close else ""
            raise ExperimentError(f"no experiment {name!r}: {hint}There are {', '.join(NAMES)}")
        if list(names).count(name) > 1:
            raise ExperimentError(f"experiment {name!r} given more than once: name each once")
