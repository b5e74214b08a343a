"""The shell of the package: light to import, typed, one version, names that resolve."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from importlib import metadata, resources
from pathlib import Path

import pytest

import actadd_lens as al

ROOT = Path(__file__).parents[1]
HEAVY = ("torch", "transformer_lens", "transformers", "numpy", "pandas", "scipy", "matplotlib")


def loaded_by(statement: str) -> set[str]:
    """The heavy modules that a fresh interpreter has loaded after a statement."""
    code = f"import json, sys; {statement}; print(json.dumps([*sys.modules]))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return {*HEAVY} & {*json.loads(run.stdout.splitlines()[-1])}


@pytest.mark.parametrize(
    "statement",
    ["import actadd_lens", "import actadd_lens.cli", "from actadd_lens import ActAddError"],
)
def test_importing_loads_nothing_heavy(statement: str):
    assert loaded_by(statement) == set()


@pytest.mark.slow
def test_vectors_and_steering_do_not_load_the_model_stack():
    assert "transformer_lens" not in loaded_by("from actadd_lens import SteeringVector, steer")


def test_every_public_name_resolves():
    assert {"load_model", "extract", "steer", "generate", "compare", "testbed"} <= {*al.__all__}
    for name in al.__all__:
        assert getattr(al, name) is not None


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="No actadd_lens attribute nonsense"):
        _ = al.nonsense


def test_the_version_is_one():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert al.__version__ == project["version"] == metadata.version("actadd-lens")
    assert f"version: {al.__version__}\n" in (ROOT / "CITATION.cff").read_text()


def test_the_package_says_that_it_is_typed():
    assert resources.files(al).joinpath("py.typed").is_file()


def test_the_tested_set_is_pinned_exactly():
    pins = [
        line for line in (ROOT / "constraints.txt").read_text().splitlines() if line[:1] not in "#"
    ]
    assert all("==" in pin and "+" not in pin and "/" not in pin for pin in pins)
    assert "torch==2.13.0" in pins


def test_errors_form_one_family():
    family = [getattr(al, name) for name in al.__all__ if name.endswith("Error")]
    assert all(issubclass(error, al.ActAddError) for error in family)
