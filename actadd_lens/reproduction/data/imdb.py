"""Film reviews: the Large Movie Review Dataset of Maas et al. (2011), from Stanford."""

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


def imdb(
    source: Source = None, *, label: str, split: str = "test", n: int | None = None
) -> list[str]:
    r"""Reviews of one label, as published, with their HTML line breaks.

    Args:
        source: The hub by default; a name there, a file, or a directory. A file is read whatever
            its split.
        label: "negative" or "positive".
        split: "train" or "test".
        n: How many, from the first; all by default, or where there are fewer.

    Raises:
        DataError: The data set is not there, a record is broken, there is no such review, or an
            argument has another value.
        MissingExtraError: The hub is asked, but ``datasets`` is not installed (the extra ``data``).

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
