"""The paper's data sets in their formats, a few short records each."""

import json
from pathlib import Path

import pyarrow as pa
from pyarrow import parquet

WORDS = [
    "love",
    "hate",
    "wedding",
    "late",
    "sunny",
    "day",
    "talks",
    "about",
    "them",
    "all",
    "the",
    "time",
    "while",
    "you",
    "are",
    "not",
    "there",
]


def sentences(n: int, length: int = 24, seed: int = 0) -> list[str]:
    """Sentences that differ, of words that the tests' tokenizers know."""
    return [
        " ".join(WORDS[(seed + i * (j + 1) + j) % len(WORDS)] for j in range(length)) + f" {i}."
        for i in range(n)
    ]


def write_data(root: Path) -> Path:
    """A directory with a folder for each data set, as ``--data`` takes it."""
    imdb = root / "imdb" / "plain_text"
    imdb.mkdir(parents=True)
    for seed, split in enumerate(("train", "test")):
        rows = [{"text": t, "label": i % 2} for i, t in enumerate(sentences(12, seed=seed))]
        parquet.write_table(pa.Table.from_pylist(rows), imdb / f"{split}-00000-of-00001.parquet")
    toxic = root / "realtoxicityprompts"
    toxic.mkdir()
    _lines(
        toxic / "prompts.jsonl",
        [
            {"prompt": {"text": text, "toxicity": i / 20}, "continuation": {"text": " so"}}
            for i, text in enumerate(sentences(16, seed=5))
        ],
    )
    pages = root / "openwebtext"
    pages.mkdir()
    parquet.write_table(
        pa.Table.from_pylist([{"text": text} for text in sentences(20, length=18, seed=7)]),
        pages / "train-00000-of-00001.parquet",
    )
    facts = root / "conceptnet"
    facts.mkdir()
    _lines(
        facts / "test.jsonl",
        [
            {"masked_sentences": [f"{text[:-1]} the [MASK]."], "obj_label": "you"}
            for text in sentences(6, length=4, seed=9)
        ],
    )
    return root


def _lines(path: Path, rows: list[dict]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
