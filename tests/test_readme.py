"""Every snippet of the README and of the documents is run.

Python runs as it stands; where it names a model of the hub, `load_model` hands out a small random
model with enough layers. Shell commands run through the command line's own entry point.
"""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest
import torch
from conftest import make_config, make_tokenizer
from transformers import AutoModelForCausalLM

import actadd_lens as al
from actadd_lens import cli

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
DOCUMENTS = [README, *(path.read_text() for path in sorted((ROOT / "docs").glob("*.md")))]


def snippets(language: str, documents: list[str]) -> list[str]:
    found = (re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL) for text in documents)
    return [snippet for several in found for snippet in several]


def commands(program: str) -> list[list[str]]:
    lines = [line for block in snippets("console", [README]) for line in block.splitlines()]
    words = [shlex.split(line.removeprefix("$ ")) for line in lines if line.startswith("$ ")]
    return [rest for name, *rest in words if name == program]


@pytest.fixture(scope="module")
def deep_model(tmp_path_factory: pytest.TempPathFactory):
    """A random GPT-2 with as many layers as the hub's models are steered at here."""
    directory = tmp_path_factory.mktemp("deep")
    tokenizer = make_tokenizer(own_bos=False)
    config = make_config("gpt2", tokenizer)
    config.n_layer = 8
    with torch.random.fork_rng():
        torch.manual_seed(0)
        AutoModelForCausalLM.from_config(config).save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return al.load_model(directory)


@pytest.fixture(autouse=True)
def in_an_empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("code", snippets("python", DOCUMENTS))
def test_python(code: str, deep_model, monkeypatch: pytest.MonkeyPatch):
    load_model = al.load_model

    def offline(name: str = "testbed", **options):
        return load_model() if name == "testbed" else deep_model

    monkeypatch.setattr(al, "load_model", offline)
    exec(compile(code, "README.md", "exec"), {})


def test_console(capsys: pytest.CaptureFixture[str]):
    for arguments in commands("actadd-lens"):
        with pytest.raises(SystemExit) as stop:
            cli.main(arguments)
        assert stop.value.code == 0
        assert capsys.readouterr().out


@pytest.mark.parametrize("target", [target for (target,) in commands("make")])
def test_make_targets_exist(target: str):
    subprocess.run(["make", "-n", target], cwd=ROOT, check=True, capture_output=True)


def test_everything_linked_exists():
    links = [link for link in re.findall(r"\]\(([^)]+)\)", README) if "://" not in link]
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []
