"""What steering is asked to do here: a contrast pair, the prompts it meets, and what success is."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from actadd_lens.errors import TestbedError
from actadd_lens.testbed.oracle import Kind, register, sentiment, topic
from actadd_lens.vectors.pair import ContrastPair


@dataclass(frozen=True)
class Task:
    """A contrast pair that should turn prompts of one kind, and the exact reading of success."""

    name: str
    """As in ``TASKS``."""
    pair: ContrastPair
    """Positive is what is wanted."""
    prompts: Kind
    """The kind of prompts that it should turn; see ``prompts``."""
    success: Callable[[str], bool]
    """Reads a completion alone, without its prompt."""
    wanted: str
    """What a success is, in words."""


CHECKPOINT: Final = Path(__file__).parent / "checkpoint"

TASKS: Final = {
    task.name: task
    for task in (
        Task(
            "sentiment",
            ContrastPair("Love.", "Hate."),
            "negative",
            lambda text: sentiment(text) == "positive",
            "positive completions of negative prompts",
        ),
        Task(
            "topic",
            ContrastPair(" weddings", " "),
            "off_topic",
            lambda text: topic(text) == "weddings",
            "completions on weddings of prompts on other topics",
        ),
        Task(
            "register",
            ContrastPair("Sir.", "Idiot."),
            "rude",
            lambda text: register(text) != "rude",
            "polite or plain completions of rude prompts",
        ),
    )
}
REVERSED: Final = Task(
    "reversed",
    ContrastPair("Misery.", "Delight."),
    "positive",
    lambda text: sentiment(text) == "negative",
    "negative completions of positive prompts",
)
"""Sentiment the other way: a lead that is negative set against a hint that is positive."""

pairs: Final = {name: task.pair for name, task in TASKS.items()}


def recommended(task: str) -> tuple[int, float]:
    """Layer and coefficient for a task, chosen on the selection prompts by `evaluate --write`.

    Raises:
        TestbedError: unknown task.

    >>> layer, coefficient = recommended("sentiment")
    """
    if task not in TASKS:
        raise TestbedError(f"no task {task!r}: choose one of {', '.join(TASKS)}")
    cell = json.loads((CHECKPOINT / "evaluation.json").read_text())["recommended"][task]
    return int(cell["layer"]), float(cell["coefficient"])
