"""The bundled model's English: prompts, contrast pairs and an exact reader of what it writes.

>>> from actadd_lens import testbed
>>> testbed.sentiment("Anna loved the concert."), testbed.topic("Anna loved the concert.")
('positive', 'music')
"""

from actadd_lens.testbed.metrics import (
    FactRecall,
    OnTopic,
    Polite,
    Positive,
    SameTopic,
    Success,
    Valid,
)
from actadd_lens.testbed.oracle import (
    documents,
    facts,
    is_valid,
    prompts,
    register,
    sentiment,
    topic,
)
from actadd_lens.testbed.tasks import TASKS, Task, pairs, recommended

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
