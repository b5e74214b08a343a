"""Every public name is in the reference once, and everything in the reference exists."""

import re
from collections import Counter
from importlib import import_module
from pathlib import Path

import pytest

import actadd_lens as al

PAGES = sorted((Path(__file__).parents[1] / "docs" / "reference").glob("*.md"))
PACKAGES = ("metrics", "plots", "statistics", "testbed")
PUBLIC = [
    *(f"actadd_lens.{name}" for name in al.__all__),
    *(
        f"actadd_lens.{package}.{name}"
        for package in PACKAGES
        for name in getattr(al, package).__all__
    ),
]
DIRECTIVE = re.compile(r"^\.\. (?:auto\w+|py:\w+):: (actadd_lens[\w.]*)", re.MULTILINE)
LISTED = [path for page in PAGES for path in DIRECTIVE.findall(page.read_text(encoding="utf-8"))]


@pytest.mark.parametrize("path", PUBLIC)
def test_public_names_are_documented_once(path):
    assert Counter(LISTED)[path] == 1


@pytest.mark.parametrize("path", LISTED)
def test_what_is_documented_exists(path):
    module, _, name = path.rpartition(".")
    if path in (f"actadd_lens.{package}" for package in PACKAGES):
        import_module(path)
    else:
        assert hasattr(import_module(module), name)


def test_every_command_is_in_the_reference():
    page = next(page for page in PAGES if page.name == "cli.md").read_text(encoding="utf-8")
    assert ".. click:: actadd_lens.cli:cli" in page
    assert ":nested: full" in page


def test_every_page_is_listed():
    index = next(page for page in PAGES if page.name == "index.md").read_text(encoding="utf-8")
    contents = index.split("```{toctree}")[1].split("```")[0].split()
    others = {page.stem for page in PAGES} - {"index"}
    assert {word for word in contents if not word.startswith(":")} >= others
    assert others == {page.removesuffix(".md") for page in re.findall(r"\[\]\((\w+\.md)\)", index)}
