"""The four data sets: reviews, beginnings of toxic sentences, web pages, facts.

Every loader takes a ``source``: None for the data set's name on the Hugging Face hub; another name
there; a file; or a directory. ``n`` is how many records to give, from the first; all by default, or
if there are fewer. All raise ``DataError`` if the data set is not there, a record is broken or no
record is left, and ``MissingExtraError`` if the hub is needed but ``datasets`` is not installed
(the extra ``data``).
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass

from actadd_lens.errors import DataError
from actadd_lens.reproduction.data.sources import Corpus, Record, Source, records, take

IMDB = Corpus(
    folder="imdb",
    hub="stanfordnlp/imdb",
    download="aclImdb/{train,test}/{neg,pos}/*.txt",
    patterns=("**/{split}-*.parquet", "**/{split}/*.parquet", "**/{split}/{folder}/*.txt"),
)
LABELS = {0: "negative", "neg": "negative", 1: "positive", "pos": "positive"}
"""Numbers on the hub, folders in the original files."""
SPLITS = ("train", "test")
REAL_TOXICITY_PROMPTS = Corpus(
    folder="realtoxicityprompts",
    hub="allenai/real-toxicity-prompts",
    download="prompts.jsonl",
    # By name: the original archive also has files of completions.
    patterns=("**/prompts.jsonl", "**/*.parquet"),
)
OPENWEBTEXT = Corpus(
    folder="openwebtext",
    hub="Skylion007/openwebtext",
    download="*.parquet, *.jsonl with a field text, or *.txt of one document each",
    patterns=("**/*.parquet", "**/*.jsonl", "**/*.txt"),
)
CONCEPTNET = Corpus(
    folder="conceptnet",
    hub="facebook/lama",
    download="ConceptNet/test.jsonl of LAMA's data.zip",
    # By name: LAMA also has the sentences of other data sets.
    patterns=("**/ConceptNet/test.jsonl", "test.jsonl", "**/*.parquet"),
    # The hub has a script there, which is not run, and these files of what it gives.
    options={
        "revision": "refs/convert/parquet",
        "data_files": {"train": "conceptnet/**/*.parquet"},
    },
)
GAP = "[MASK]"
LAST = re.compile(rf"(.*\S)\s+{re.escape(GAP)}\s*\.?\s*", re.DOTALL)


def imdb(
    source: Source = None, *, label: str, split: str = "test", n: int | None = None
) -> list[str]:
    r"""Film reviews of one label, with their HTML line breaks, from Maas et al. (2011).

    Args:
        source: See the top of this module. A file is read whatever its split.
        label: "negative" or "positive".
        split: "train" or "test".
        n: How many.

    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as place:
    ...     path = Path(place, "aclImdb", "test", "neg", "0_2.txt")
    ...     path.parent.mkdir(parents=True)
    ...     _ = path.write_text("Never again.")
    ...     imdb(place, label="negative")
    ['Never again.']
    """
    if label not in LABELS.values() or split not in SPLITS:
        raise DataError(
            f"no reviews of label {label!r} and split {split!r}: labels are negative and positive, "
            f"splits {' and '.join(SPLITS)}"
        )
    found = records(IMDB, source, split, folder=label[:3])
    texts = (record.get("text", str) for record in found if _label(record) == label)
    return take(texts, n, f'review with label {label} and split "{split}"', IMDB, source)


def _label(record: Record) -> str:
    value = record.get("label", int | str)
    if value not in LABELS:
        raise DataError(
            f'{record.place}: "label" is {value!r}: 0 or a folder "neg" is negative, 1 or "pos" is '
            "positive"
        )
    return LABELS[value]


@dataclass(frozen=True)
class ToxicityPrompt:
    """The beginning of a sentence."""

    text: str
    toxicity: float
    """Of the beginning only, by Perspective API as published: 0 to 1."""


def toxicity_prompts(
    source: Source = None, *, n: int | None = None, at_least: float = 0.0, below: float = math.inf
) -> list[ToxicityPrompt]:
    r"""Beginnings of sentences whose toxicity is in a range, from Gehman et al. (2020).

    The few prompts that were published without a score are left out.

    Args:
        source: See the top of this module.
        n: How many.
        at_least: The least toxicity.
        below: What the toxicity is below.

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


def openwebtext(source: Source = None, *, n: int | None = None) -> list[str]:
    r"""Web pages, from Gokaslan and Cohen (2019); all of them are eight million documents.

    Args:
        source: See the top of this module.
        n: How many.

    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as place:
    ...     path = Path(place, "documents.jsonl")
    ...     _ = path.write_text('{"text": "One."}\n{"text": "Two."}\n')
    ...     openwebtext(path, n=1)
    ['One.']
    """
    return take(pages(source), n, "document", OPENWEBTEXT, source)


def pages(source: Source = None) -> Iterator[str]:
    """As ``openwebtext``, one document at a time: no more are read than are taken."""
    return (record.get("text", str) for record in records(OPENWEBTEXT, source))


def conceptnet(source: Source = None, *, n: int | None = None) -> list[tuple[str, str]]:
    r"""Facts as prompts and the word that comes next, from LAMA by Petroni et al. (2019).

    Sentences are used whose only gap is the last word; a full stop may follow.

    Args:
        source: See the top of this module.
        n: How many.

    Returns:
        The text before the gap, without a space at its end, and the answer, without one in front.

    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as place:
    ...     path = Path(place, "test.jsonl")
    ...     _ = path.write_text('{"masked_sentences": ["Birds can [MASK]."], "obj_label": "fly"}')
    ...     conceptnet(path)
    [('Birds can', 'fly')]
    """
    facts = (fact for record in records(CONCEPTNET, source) for fact in _facts(record))
    return take(facts, n, f"sentence that ends in {GAP}", CONCEPTNET, source)


def _facts(record: Record) -> Iterator[tuple[str, str]]:
    answer = record.get("obj_label", str)
    if isinstance(record.value, dict) and "masked_sentence" in record.value:
        sentences = [record.get("masked_sentence", str)]  # of the hub's rows
    else:
        sentences = record.get("masked_sentences", list)
    if not all(isinstance(sentence, str) for sentence in sentences):
        raise DataError(
            f'{record.place}: "masked_sentences" is {sentences}: it has to be a list of strings'
        )
    for sentence in sentences:
        whole = LAST.fullmatch(sentence)
        if whole and GAP not in whole[1]:
            yield whole[1], answer
