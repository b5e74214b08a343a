"""What stands in front of what: the order of the packages, and what each of them alone knows."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from itertools import chain
from pathlib import Path

import pytest

import actadd_lens as al

PACKAGE = Path(al.__file__).parent
ARCHITECTURE = PACKAGE.parent / "docs" / "architecture.md"
FILES = sorted(PACKAGE.rglob("*.py"))
TREES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in FILES}


def module_of(path: Path) -> str:
    """`actadd_lens.models.load`; a package has the name of its directory."""
    name = ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
    return name.removesuffix(".__init__")


MODULES = {module_of(path): path for path in FILES}


def absolute(path: Path, node: ast.ImportFrom) -> str:
    """The module that a `from` import names, relative ones counted from their file."""
    if not node.level:
        return node.module or ""
    names = module_of(path).split(".")
    above = names[: len(names) + (path.stem == "__init__") - node.level]
    return ".".join([*above, *filter(None, [node.module])])


STUB = {
    name.asname or name.name: absolute(PACKAGE / "__init__.py", node)
    for node in ast.parse((PACKAGE / "__init__.pyi").read_text(encoding="utf-8")).body
    if isinstance(node, ast.ImportFrom)
    for name in node.names
}
"""Where each public name comes from."""


def imports(path: Path) -> Iterator[str]:
    """Modules that a file imports anywhere: in functions and for type checkers too."""
    for node in ast.walk(TREES[path]):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            source = absolute(path, node)
            for name in node.names:
                if name.name == "__version__":
                    continue
                full = f"{source}.{name.name}"
                public = STUB.get(name.name, source) if source == "actadd_lens" else source
                yield full if full in MODULES else public


def entry(module: str) -> str:
    """The package or single file, right below `actadd_lens`, that a module belongs to."""
    return module.split(".")[1] if "." in module else ""


def own_imports(path: Path) -> set[str]:
    return {name for name in imports(path) if name.split(".")[0] == "actadd_lens"}


def entries() -> list[str]:
    """Packages as docs/architecture.md lists them, the lowest first."""
    section = ARCHITECTURE.read_text(encoding="utf-8").split("## Packages\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (`.*?) \|", section, re.MULTILINE)
    listed = chain.from_iterable(re.findall(r"`([\w./]+)`", row) for row in rows)
    return [name.removesuffix(".py").rstrip("/") for name in listed]


def test_the_document_lists_every_package_once():
    there = {entry(name) for name in MODULES} - {""}
    assert sorted(entries()) == sorted(there)


@pytest.mark.parametrize("name", entries())
def test_a_package_imports_only_those_above_it_in_the_list(name: str):
    allowed = {*entries()[: entries().index(name) + 1]}
    paths = [path for module, path in MODULES.items() if entry(module) == name]
    below = {
        f"{module_of(path)} imports {module}"
        for path in paths
        for module in own_imports(path)
        if entry(module) not in allowed
    }
    assert below == set()


@pytest.mark.parametrize("name", entries())
def test_files_of_a_package_import_each_other_without_a_cycle(name: str):
    paths = [path for module, path in MODULES.items() if entry(module) == name]
    within = {
        module_of(path): {m for m in own_imports(path) if entry(m) == name and m != module_of(path)}
        for path in paths
    }
    try:
        TopologicalSorter(within).prepare()
    except CycleError as error:
        pytest.fail(" imports ".join(reversed(error.args[1])))


def test_the_core_knows_nothing_of_the_reproductions():
    knowing = {
        entry(module)
        for module, path in MODULES.items()
        if any(entry(name) == "reproduction" for name in own_imports(path))
    }
    assert knowing <= {"reproduction", "cli"}


KNOWN_TO_MODELS = {"cfg", "original_model", "tokenizer"}
"""Attributes of TransformerLens's models: what they hold differs between versions."""

EXCEPTIONS = {"actadd_lens.metrics.judges"}
"""Files outside `models/` that import transformers: judges are classifiers, not language models."""


def test_only_models_knows_transformer_lens_and_transformers():
    using = set()
    for module, path in MODULES.items():
        attributes = {n.attr for n in ast.walk(TREES[path]) if isinstance(n, ast.Attribute)}
        outer = {name.split(".")[0] for name in imports(path)}
        if (attributes & KNOWN_TO_MODELS) | (outer & {"transformer_lens", "transformers"}):
            using.add(module)
    assert {name for name in using if entry(name) != "models"} == EXCEPTIONS


@pytest.mark.parametrize(
    ("part", "most"), [("actadd_lens", 21_700), ("actadd_lens.reproduction", 5_190)]
)
def test_the_package_stays_as_small_as_it_is(part: str, most: int):
    paths = [path for name, path in MODULES.items() if f"{name}.".startswith(f"{part}.")]
    assert sum(len(path.read_text(encoding="utf-8").splitlines()) for path in paths) <= most


def test_tab_completion_shows_public_names_alone():
    assert dir(al) == sorted(STUB)
    assert sorted(al.__all__) == sorted([*STUB, "__version__"])
    assert not [name for name in STUB if name.startswith("_")]
