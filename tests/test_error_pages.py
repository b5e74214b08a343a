"""Every page of docs/errors is run: what is wrong raises the message shown, what is right runs."""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Iterator
from doctest import ELLIPSIS, OutputChecker
from pathlib import Path
from typing import Any

import pytest
import torch

from actadd_lens import errors

PAGES = Path(__file__).parents[1] / "docs" / "errors"
CLASSES = [
    value
    for value in vars(errors).values()
    if isinstance(value, type) and issubclass(value, errors.ActAddError)
]
CAUGHT = [error for error in CLASSES if error is not errors.ActAddError]

PART = re.compile(
    r"""^\#+\ (?P<heading>[^\n]+)$
    | ^```python\n (?P<code>.*?) ^```$ (?:\n```text\n (?P<message>.*?) ^```$)?
    | ^```text\n (?P<text>.*?) ^```$""",
    re.MULTILINE | re.DOTALL | re.VERBOSE,
)


def page_of(error: type[Exception]) -> str:
    return re.sub("(?<!^)(?=[A-Z])", "_", error.__name__).lower()


def parts(page: str) -> Iterator[tuple[str, dict[str, str | None]]]:
    """Each fenced block, code with the message directly after it, and the heading it is under."""
    heading = ""
    for found in PART.finditer((PAGES / f"{page}.md").read_text()):
        if found["heading"]:
            heading = found["heading"]
        else:
            yield heading, found.groupdict()


def run(code: str, namespace: dict[str, Any]) -> None:
    exec(compile(code, "page", "exec"), namespace)


def message_of(code: str, error: type[Exception], namespace: dict[str, Any]) -> str:
    """What the last statement raises; none before it may raise."""
    *first, last = map(ast.unparse, ast.parse(code).body)
    run("\n".join(first), namespace)
    with pytest.raises(error) as caught:
        run(last, namespace)
    assert caught.type is error
    return f"{error.__name__}: {caught.value}"


def shows(text: str | None, message: str) -> bool:
    return text is not None and OutputChecker().check_output(text, f"{message}\n", ELLIPSIS)


@pytest.fixture(autouse=True)
def as_for_a_reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with torch.random.fork_rng(devices=[]):  # pages load models of transformers, which draws
        yield


@pytest.mark.slow
@pytest.mark.parametrize("error", CAUGHT, ids=page_of)
def test_page(error: type[Exception]):
    (symptom, seen), *examples = parts(page_of(error))
    assert symptom == "Symptom"
    messages: list[str] = []
    namespace: dict[str, Any] = {}
    for heading, part in examples:
        assert part["code"], f"a message that no code raises: {part['text']}"
        if heading == "Wrong":
            messages.append(message_of(part["code"], error, namespace))
            assert shows(part["message"], messages[-1]), f"{part['code']}{messages[-1]}"
        else:
            assert (heading, part["message"]) == ("Right", None)
            run(part["code"], namespace)
    assert {heading for heading, _ in examples} == {"Wrong", "Right"}
    assert any(shows(seen["text"], f"actadd_lens.errors.{message}") for message in messages)


@pytest.mark.slow
def test_page_of_the_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error", errors.AlignmentWarning)
        test_page(errors.AlignmentWarning)


def test_index():
    for _, part in parts("index"):
        run(part["code"] or "", {})
    index = (PAGES / "index.md").read_text()
    pages = [page_of(error) for error in CAUGHT]
    assert re.findall(r"^\w+_error$", index, re.MULTILINE) == pages  # the table of contents
    rows = re.findall(r"^\| \[`(\w+)`\]\((\w+)\.md\)", index, re.MULTILINE)
    assert rows == [(error.__name__, page_of(error)) for error in CAUGHT]
    assert {path.stem for path in PAGES.glob("*.md")} == {"index", "alignment_warning", *pages}
