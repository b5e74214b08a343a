"""The field's words: names and documents do without the ones they replaced."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import actadd_lens as al

ROOT = Path(__file__).parents[1]
DOCUMENTS = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *(ROOT / "docs").rglob("*.md"),
]

IN_PROSE = {
    r"rooms?": "package, module",
    r"twins?": "shared-weight Hugging Face model",
    r"(?:hands?|handed|handing) on": "partial forward pass",
    r"(?:lands?|landed|landing)": "is applied at, injection position",
    r"readings": "measurements",
    r"(?<!notebook )cells?": "configuration (of a sweep), condition",
    r"arms?": "condition",
    r"unsteered": "clean",
    r"dos(?:es?|ed)": "relative norm",
    r"materials?": "data set, task",
    r"(?:sound|soundness|wanted reading)": "coherent, target metric",
    r"told": "reported, distinguished, said by",
    r"kept(?: in)?": "saved (in)",
    r"sought": "objective",
    r"transplant\w*": "cross-layer transfer",
    r"steering reach": "effect by generated token",
    r"knobs?": "widget",
    r"so-manieth": "every n-th",
    r"abreast": "per row",
    r"kin": "family",
    r"(?<!there )(?:is|are) no (?!longer\b|more\b|less\b)\w+": "is not",
    r"(?:is|are) none of": "is not one of",
    r"behind": "after",
    r"beside": "next to",
    r"further on": "later",
    r"stands?|stood": "is",
    r"whence": "from where",
    r"parted(?: by)?": "separated by",
}
IN_NAMES = {
    r"room|twin|landing|unsteered|knob|transplant|soundness": "as in prose",
    r"asked?|told|kept|said|sought|shown|several": "workload, reported, saved, describe, table",
    r"(?:as )?cells?": "configurations",
    r"dose": "relative norm",
    r"steering reach": "effect by generated token",
    r"answer ranks": "fact ranks",
    r"readings?|material": "measurement, data set",
    r"abreast|kin|trial": "per row, family, result",
}
STAY = {"dose", "steering_reach", "answer_ranks", "layer_transplant"}
"""Public names of before, which go on working."""

PACKAGES = (al, al.metrics, al.plots, al.statistics, al.testbed)
FENCE = re.compile(r"^```(.*?)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"``.*?``|`[^`\n]*`|\]\([^)]*\)|^ *(?:>>>|\.\.\.) .*$", re.MULTILINE)


def prose(text: str) -> str:
    """A text without its code; the messages it shows are prose."""
    text = FENCE.sub(lambda found: found[2] if found[1] == "text" else "", text)
    return CODE.sub("", text)


def replaced(text: str, words: dict[str, str]) -> list[str]:
    """What occurs in a text of the words that were replaced, with what to say."""
    return [
        f"{found[0]!r}: say {instead!r}"
        for pattern, instead in words.items()
        for found in re.finditer(rf"\b(?:{pattern})\b", text, re.IGNORECASE)
    ]


def public() -> Iterator[tuple[str, object]]:
    """Public names, and those of their own methods and attributes."""
    for package in PACKAGES:
        for name in package.__all__:
            value = getattr(package, name)
            yield name, value
            if inspect.isclass(value):
                own = (key for key in vars(value) if not key.startswith("_"))
                yield from ((f"{name}.{key}", getattr(value, key)) for key in own)


def names(name: str, value: object) -> Iterator[str]:
    """A public name and its parameters, as words."""
    yield name.split(".")[-1]
    if inspect.isroutine(value) or (inspect.isclass(value) and not issubclass(value, Exception)):
        yield from inspect.signature(value).parameters


def as_words(name: str) -> str:
    return re.sub("(?<=[a-z])(?=[A-Z])", " ", name).replace("_", " ").lower()


def test_public_names_are_the_fields():
    found = {
        f"{of}: {hit}"
        for of, value in public()
        for name in names(of, value)
        if name not in STAY
        for hit in replaced(as_words(name), IN_NAMES)
    }
    assert sorted(found) == []


def test_docstrings_of_public_names_use_the_fields_words():
    found = {
        f"{name}: {hit}"
        for name, value in public()
        for hit in replaced(prose(inspect.getdoc(value) or ""), IN_PROSE)
    }
    assert sorted(found) == []


@pytest.mark.parametrize("page", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_documents_use_the_fields_words(page: Path):
    assert replaced(prose(page.read_text(encoding="utf-8")), IN_PROSE) == []


def test_replaced_words_are_found_in_prose_alone():
    text = "A `cell` stands here.\n\n```python\ntwin = 1\n```\n\n```text\nno room\n```\n"
    hits = [hit.split(":")[0] for hit in replaced(prose(text), IN_PROSE)]
    assert hits == ["'room'", "'stands'"]
    assert replaced("there is no cache; it is no longer read", IN_PROSE) == []
    assert replaced(as_words("as_cells"), IN_NAMES)
