"""Common sense as sentences with a gap: ConceptNet in LAMA, by Petroni et al. (2019)."""

import re
from collections.abc import Iterator

from actadd_lens.errors import DataError
from actadd_lens.reproduction.data.sources import Corpus, Record, Source, records, take

CONCEPTNET = Corpus(
    folder="conceptnet",
    hub="facebook/lama",
    download="ConceptNet/test.jsonl of LAMA's data.zip",
    # By name: beside it, LAMA has the sentences of other data sets.
    patterns=("**/ConceptNet/test.jsonl", "test.jsonl", "**/*.parquet"),
    # The hub has a script there, which is not run, and beside it these files of what it gives.
    options={
        "revision": "refs/convert/parquet",
        "data_files": {"train": "conceptnet/**/*.parquet"},
    },
)
GAP = "[MASK]"
LAST = re.compile(rf"(.*\S)\s+{re.escape(GAP)}\s*\.?\s*", re.DOTALL)


def conceptnet(source: Source = None, *, n: int | None = None) -> list[tuple[str, str]]:
    r"""Facts that a left-to-right model can be asked: prompts, and the word that comes next.

    Of the sentences, those are kept whose only gap is the last word; a full stop may follow.

    Args:
        source: The hub by default; a name there, a file, or a directory.
        n: How many, from the first; all by default, or where there are fewer.

    Returns:
        What stands before the gap, without a space at the end, and the answer, without one in
        front.

    Raises:
        DataError: The data set is not there, a record is broken, or no sentence ends in a gap.
        MissingExtraError: The hub is asked, but ``datasets`` is not installed (the extra ``data``).

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
    for sentence in _sentences(record):
        whole = LAST.fullmatch(sentence)
        if whole and GAP not in whole[1]:
            yield whole[1], answer


def _sentences(record: Record) -> list[str]:
    """One in a row of the hub's, several in a line of the original file."""
    if isinstance(record.value, dict) and "masked_sentence" in record.value:
        return [record.get("masked_sentence", str)]
    sentences: list[str] = record.get("masked_sentences", list)
    if not all(isinstance(sentence, str) for sentence in sentences):
        raise DataError(
            f'{record.place}: "masked_sentences" is {sentences}: it has to be a list of strings'
        )
    return sentences
