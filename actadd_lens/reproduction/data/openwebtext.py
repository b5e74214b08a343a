"""Web pages: OpenWebText of Gokaslan and Cohen (2019), on which perplexity is measured."""

from collections.abc import Iterator

from actadd_lens.reproduction.data.sources import Corpus, Source, records, take

OPENWEBTEXT = Corpus(
    folder="openwebtext",
    hub="Skylion007/openwebtext",
    download="*.parquet, *.jsonl with a field text, or *.txt of one document each",
    patterns=("**/*.parquet", "**/*.jsonl", "**/*.txt"),
)


def openwebtext(source: Source = None, *, n: int | None = None) -> list[str]:
    r"""Documents, as published.

    Args:
        source: The hub by default; a name there, a file, or a directory.
        n: How many, from the first; all by default, or where there are fewer. All of them are
            eight million documents.

    Raises:
        DataError: The data set is not there, or a record is broken.
        MissingExtraError: The hub is asked, but ``datasets`` is not installed (the extra ``data``).

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
    """As ``openwebtext``, a document at a time: no more are read than are taken."""
    return (record.get("text", str) for record in records(OPENWEBTEXT, source))
