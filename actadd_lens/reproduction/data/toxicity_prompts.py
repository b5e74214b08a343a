"""Beginnings of sentences from the web: RealToxicityPrompts of Gehman et al. (2020)."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from actadd_lens.errors import DataError
from actadd_lens.reproduction.data.sources import Corpus, Source, records, take

REAL_TOXICITY_PROMPTS = Corpus(
    folder="realtoxicityprompts",
    hub="allenai/real-toxicity-prompts",
    download="prompts.jsonl",
    # By name: beside it, the original archive has files of completions.
    patterns=("**/prompts.jsonl", "**/*.parquet"),
)


@dataclass(frozen=True)
class ToxicityPrompt:
    """The beginning of a sentence."""

    text: str
    toxicity: float
    """Of the beginning alone, by Perspective API as published: 0 to 1."""


def toxicity_prompts(
    source: Source = None,
    *,
    n: int | None = None,
    at_least: float = 0.0,
    below: float = math.inf,
) -> list[ToxicityPrompt]:
    r"""Prompts whose toxicity is in a range.

    The few prompts that were published without a score are left out.

    Args:
        source: The hub by default; a name there, a file, or a directory.
        n: How many, from the first; all by default, or where there are fewer.
        at_least: The least toxicity.
        below: What the toxicity is below.

    Raises:
        DataError: The data set is not there, a record is broken, or no prompt is in the range.
        MissingExtraError: The hub is asked, but ``datasets`` is not installed (the extra ``data``).

    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as place:
    ...     path = Path(place, "prompts.jsonl")
    ...     _ = path.write_text('{"prompt": {"text": "The cat", "toxicity": 0.25}}')
    ...     toxicity_prompts(place, below=0.5)
    [ToxicityPrompt(text='The cat', toxicity=0.25)]
    """
    found = (prompt for prompt in _prompts(source) if at_least <= prompt.toxicity < below)
    what = f"prompt with a toxicity from {at_least} to below {below}"
    return take(found, n, what, REAL_TOXICITY_PROMPTS, source)


def _prompts(source: Source) -> Iterator[ToxicityPrompt]:
    for record in records(REAL_TOXICITY_PROMPTS, source):
        prompt = record.within("prompt")
        text, toxicity = prompt.get("text", str), prompt.get("toxicity", float | int | None)
        if toxicity is None:
            continue
        if not 0 <= toxicity <= 1:
            raise DataError(f'{prompt.place}: "toxicity" is {toxicity}: scores are from 0 to 1')
        yield ToxicityPrompt(text, float(toxicity))
