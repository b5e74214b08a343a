"""Experiments by name. A decorator registers one; no list of them is written by hand.

    @experiment("norms", question="How large is ...?", design="...", criteria={"F1": "..."}, ...)
    def norms(setup: Setup) -> Measured: ...      # runs the model

    @norms.judge
    def judge(m: Measured) -> list[Verdict]: ...  # answers the criteria from what was measured

    @norms.tabulate
    def tabulate(m: Measured) -> DataFrame: ...   # the table of the report

    @norms.draw
    def draw(m: Measured) -> Figure: ...          # the figure of the report

The files in ``experiments/`` are imported when the registry is first asked. An experiment in any
other file is registered when that file is imported.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cache
from importlib import import_module
from inspect import cleandoc
from pkgutil import iter_modules
from typing import Any, TypeAlias

import pandas as pd
from matplotlib.figure import Figure

from actadd_lens.errors import ExperimentError
from actadd_lens.reproduction.criteria import Criterion, Verdict, check_answered
from actadd_lens.reproduction.outcome import Measured
from actadd_lens.reproduction.setup import Setup

Judge: TypeAlias = Callable[[Measured], list[Verdict]]
Tabulate: TypeAlias = Callable[[Measured], pd.DataFrame]
Draw: TypeAlias = Callable[[Measured], Figure]
_REGISTERED: "dict[str, Experiment]" = {}


def _lacking(part: str) -> Callable[[Measured], Any]:
    def function(_: Measured) -> None:
        raise ExperimentError(f"the experiment has no function decorated with .{part}: add one")

    return function


@dataclass(eq=False)
class Experiment:
    """A question with its criteria, and the functions that measure, judge, tabulate and draw."""

    name: str
    """As on the command line."""
    question: str
    design: str
    """What is done, for the report."""
    criteria: tuple[Criterion, ...]
    """Findings of the paper and open questions, fixed before the run."""
    paper: str
    """Set-up and numbers that the paper reports, or that it reports none."""
    differs: str
    """What is done otherwise than in the paper, apart from model and data."""
    version: int
    """Raised whenever the same settings would give other measurements."""
    measure: Callable[[Setup], Measured]
    """Runs the model."""
    table: Tabulate = field(default=_lacking("tabulate"))
    """Makes the table of the report, as text with intervals."""
    figure: Draw = field(default=_lacking("draw"))
    """Draws the figure of the report."""
    _judge: Judge = field(default=_lacking("judge"))

    @property
    def identity(self) -> dict[str, Any]:
        """What decides, apart from the settings, whether a stored outcome is of this experiment."""
        criteria = {criterion.key: criterion.text for criterion in self.criteria}
        return {"name": self.name, "version": self.version, "criteria": criteria}

    def verdicts(self, measured: Measured) -> list[Verdict]:
        """One verdict for each criterion, in order.

        Raises:
            ExperimentError: The verdicts answer other criteria, or there is no judge.
        """
        verdicts = self._judge(measured)
        check_answered(self.criteria, verdicts)
        return verdicts

    def judge(self, function: Judge) -> Judge:
        """Decorates the function that answers the criteria."""
        self._judge = function
        return function

    def tabulate(self, function: Tabulate) -> Tabulate:
        """Decorates the function that makes the table."""
        self.table = function
        return function

    def draw(self, function: Draw) -> Draw:
        """Decorates the function that draws the figure."""
        self.figure = function
        return function


def experiment(
    name: str,
    *,
    question: str,
    design: str,
    criteria: Mapping[str, str],
    paper: str = "It reports nothing on this.",
    differs: str = "The paper has no such experiment.",
    version: int = 1,
) -> Callable[[Callable[[Setup], Measured]], Experiment]:
    """Register the decorated function as what an experiment measures.

    Args:
        name: As on the command line.
        question: In one line.
        design: What is done, for the report.
        criteria: Their texts by key: F1, F2, ... for findings of the paper, Q1, Q2, ... for
            questions that it leaves open.
        paper: What the paper reports.
        differs: What is done otherwise than in the paper.
        version: Raised whenever the same settings would give other measurements.

    Raises:
        ExperimentError: The name is taken, there is no criterion, or one has another key.
    """
    if not criteria:
        raise ExperimentError(f"{name} has no criteria: fix what decides before anything is run")

    def register(measure: Callable[[Setup], Measured]) -> Experiment:
        if name in _REGISTERED and _REGISTERED[name].measure.__module__ != measure.__module__:
            raise ExperimentError(
                f"the name {name!r} is taken by {_REGISTERED[name].measure.__module__}: choose "
                "another"
            )
        found = tuple(Criterion(key, _joined(text)) for key, text in criteria.items())
        _REGISTERED[name] = Experiment(
            name, _joined(question), cleandoc(design), found, _joined(paper), _joined(differs),
            version, measure,
        )  # fmt: skip
        return _REGISTERED[name]

    return register


def names() -> tuple[str, ...]:
    """The names of all experiments: those with findings of the paper first, then alphabetical.

    >>> names()[:2], names()[-1]
    (('cross-layer-transfer', 'detoxification'), 'search-cost')
    """
    _import_built_in()

    def place(own: Experiment) -> tuple[bool, str]:
        return not any(c.key.startswith("F") for c in own.criteria), own.name

    return tuple(own.name for own in sorted(_REGISTERED.values(), key=place))


def named(name: str) -> Experiment:
    """An experiment by name.

    Raises:
        ExperimentError: There is none of this name.

    >>> named("topic-by-layer").criteria[0].key
    'F1'
    """
    check_names([name])
    return _REGISTERED[name]


def check_names(chosen: Sequence[str]) -> None:
    """Raise ``ExperimentError`` unless each is the name of an experiment, given once.

    >>> check_names(["topic-by-layers"])
    Traceback (most recent call last):
    ...
    actadd_lens.errors.ExperimentError: no experiment 'topic-by-layers': did you mean 'topic-by-...
    """
    known = names()
    for name in chosen:
        if name not in known:
            close = get_close_matches(name, known, n=1)
            hint = f"did you mean {close[0]!r}? " if close else ""
            raise ExperimentError(f"no experiment {name!r}: {hint}There are {', '.join(known)}")
        if list(chosen).count(name) > 1:
            raise ExperimentError(f"experiment {name!r} given more than once: name each once")


def _joined(text: str) -> str:
    """A text that was broken into lines, in one line."""
    return " ".join(text.split())


@cache
def _import_built_in() -> None:
    package = import_module("actadd_lens.reproduction.experiments")
    for module in iter_modules(package.__path__):
        import_module(f"{package.__name__}.{module.name}")
