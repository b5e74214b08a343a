"""Timing that a noisy machine distorts little: what is compared runs in turn, not in blocks."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True)
class Times:
    """Seconds of each repetition."""

    seconds: tuple[float, ...]

    @property
    def best(self) -> float:
        """Of the repetition that was disturbed least."""
        return min(self.seconds)

    @property
    def middle(self) -> float:
        """Median."""
        return median(self.seconds)


def interleaved(runs: Mapping[str, Callable[[], object]], repetitions: int) -> dict[str, Times]:
    """Time several functions in turn, every second time in the opposite order.

    What is taken is CPU time of this process. Unlike wall time it does not contain what the
    machine did for others; with one thread on an idle machine, both are the same.
    """
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for repetition in range(repetitions):
        for name in list(runs)[:: 1 if repetition % 2 == 0 else -1]:
            start = time.process_time()
            runs[name]()
            seconds[name].append(time.process_time() - start)
    return {name: Times(tuple(values)) for name, values in seconds.items()}


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    quantity: str
    at_least: bool
    target: float
    best: float
    """From the fastest repetition of each."""
    middle: float
    """From the medians."""
    detail: str

    @property
    def met(self) -> bool:
        """Whether the target is reached, by the fastest repetitions."""
        return self.best >= self.target if self.at_least else self.best <= self.target


def speedup(quantity: str, target: float, ours: Times, other: Times, n_tokens: int) -> Row:
    """How many times as many tokens a second ``ours`` makes, at least ``target``."""
    return Row(
        quantity, True, target, other.best / ours.best, other.middle / ours.middle,
        f"{n_tokens / ours.best:.1f} against {n_tokens / other.best:.1f} tokens/s",
    )  # fmt: skip


def times_faster(quantity: str, target: float, ours: Times, other: Times, detail: str) -> Row:
    """How many times as long ``other`` takes for the same work, at least ``target``."""
    ratios = other.best / ours.best, other.middle / ours.middle
    return Row(quantity, True, target, *ratios, detail)


def seconds(times: Times) -> str:
    """The best, to be read."""
    return f"{times.best:.1f} s"
