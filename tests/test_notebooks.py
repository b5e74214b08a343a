"""Notebooks run, and show what is committed with them; their prose holds no figures by hand."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import jupytext
import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parents[1] / "notebooks"
SCRIPTS = sorted(ROOT.glob("*.py"))
NUMBER = re.compile(r"-?\d+\.?\d*(?:e[-+]?\d+)?")
INTERVAL = re.compile(r"-?[\d.]+ ?%? ?\[-?[\d.]+, -?[\d.]+\]")


@pytest.fixture(autouse=True)
def _no_progress_bars(monkeypatch: pytest.MonkeyPatch) -> None:
    """As `make notebooks` does: how long a cell takes is not part of its output."""
    monkeypatch.setenv("TQDM_DISABLE", "1")


@pytest.fixture(params=SCRIPTS, ids=lambda path: path.stem)
def script(request: pytest.FixtureRequest) -> Path:
    return request.param


@pytest.fixture
def committed(script: Path) -> nbformat.NotebookNode:
    return nbformat.read(script.with_suffix(".ipynb"), as_version=4)


def code(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def texts(notebook: nbformat.NotebookNode) -> list[str]:
    """What the cells print and return, as text, and what is shown of it as HTML."""
    outputs = [output for cell in code(notebook) for output in cell.outputs]
    shown = [re.sub(r"<[^>]+>", " ", o.get("data", {}).get("text/html", "")) for o in outputs]
    return [
        *(output.get("text") or output["data"].get("text/plain", "") for output in outputs),
        *shown,
    ]


def alike(one: str, other: str) -> bool:
    """Whether two outputs are the same but for rounding, which differs between processors."""
    numbers = zip(NUMBER.findall(one), NUMBER.findall(other), strict=False)
    return NUMBER.sub("#", one).split() == NUMBER.sub("#", other).split() and all(
        close(a, b) for a, b in numbers
    )


def close(one: str, other: str) -> bool:
    """Counts are the same, other numbers nearly."""
    if re.fullmatch(r"-?\d+", one + other.removeprefix("-")):
        return one == other
    return math.isclose(float(one), float(other), rel_tol=0.02, abs_tol=1e-4)


def test_outputs_are_told_apart():
    assert alike("KL 0.0412, n=100", "KL 0.0413, n=100")
    assert not alike("n=100 of 100", "n=96 of 100")
    assert not alike("KL 0.0004", "KL 0.0190")
    assert not alike("-0.5", "0.5")
    assert not alike("a lovely song", "a lousy song")


def test_there_are_no_others():
    assert [path.stem for path in sorted(ROOT.glob("*.ipynb"))] == [s.stem for s in SCRIPTS]
    assert len(SCRIPTS) == 6


def test_script_and_notebook_are_a_pair(script: Path, committed: nbformat.NotebookNode):
    written = jupytext.read(script)
    assert [(c.cell_type, c.source) for c in committed.cells] == [
        (c.cell_type, c.source) for c in written.cells
    ], "the notebook is not that of its script: make notebooks"


def test_one_line_names_the_model(committed: nbformat.NotebookNode):
    named = [cell for cell in code(committed) if 'load_model("testbed")' in cell.source]
    assert named == code(committed)[:1]


# The kernel's sockets are closed by the kernel, later than the client looks.
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_it_gives_what_is_committed(
    committed: nbformat.NotebookNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    before: list[Any] = texts(committed)
    assert [cell.execution_count for cell in code(committed)] == list(
        range(1, len(code(committed)) + 1)
    )
    resources = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(committed, resources=resources, timeout=120).execute()
    assert [o for c in code(committed) for o in c.outputs if o.get("name") == "stderr"] == []
    for old, new in zip(before, texts(committed), strict=True):
        assert alike(old, new), f"{old}\nis now\n{new}\nif that is meant: make notebooks"


def test_prose_leaves_intervals_to_the_outputs(committed: nbformat.NotebookNode):
    prose = " ".join(cell.source for cell in committed.cells if cell.cell_type == "markdown")
    assert INTERVAL.findall("97 % [91, 99]")
    assert not INTERVAL.findall(prose)
