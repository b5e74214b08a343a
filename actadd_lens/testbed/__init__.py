"""The bundled model's English: prompts, contrast pairs and exact measurements of what it
writes.

>>> from actadd_lens import testbed
>>> testbed.sentiment("Anna loved the concert."), testbed.topic("Anna loved the concert.")
('positive', 'music')
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from actadd_lens.testbed.oracle import (
    documents,
    facts,
    is_valid,
    prompts,
    register,
    sentiment,
    topic,
)
from actadd_lens.testbed.tasks import TASKS, Success, Task, pairs, recommended

if TYPE_CHECKING:
    from actadd_lens.testbed.metrics import FactRecall as FactRecall
    from actadd_lens.testbed.metrics import OnTopic as OnTopic
    from actadd_lens.testbed.metrics import Polite as Polite
    from actadd_lens.testbed.metrics import Positive as Positive
    from actadd_lens.testbed.metrics import SameTopic as SameTopic
    from actadd_lens.testbed.metrics import Valid as Valid

_METRICS = ("FactRecall", "OnTopic", "Polite", "Positive", "SameTopic", "Valid")

__all__ = [
    "TASKS",
    "FactRecall",
    "OnTopic",
    "Polite",
    "Positive",
    "SameTopic",
    "Success",
    "Task",
    "Valid",
    "documents",
    "facts",
    "is_valid",
    "pairs",
    "prompts",
    "recommended",
    "register",
    "sentiment",
    "topic",
]


def __getattr__(name: str) -> Any:
    """Completion metrics, which need the package of generation, at first use."""
    if name not in _METRICS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.metrics"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
