"""Every snippet of the README and of the documents is run, and the commands of CONTRIBUTING.

Python runs as it stands; where it names a model of the hub, `load_model` hands out a small random
model with enough layers. The blocks of a page of the documents follow on each other. Shell commands
run through the command line's own entry point. The pages of errors have a test of their own.
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
GUIDES = [README, (ROOT / "CONTRIBUTING.md").read_text()]
PAGES = [
    path
    for pattern in ("*.md", "howto/*.md", "reference/*.md")
    for path in sorted((ROOT / "docs").glob(pattern))
]
CODE = re.compile(r"^```(?:python|\{code-cell\} ipython3)\n(.*?)^```", re.DOTALL | re.MULTILINE)
OPTIONS = re.compile(r"^:[\w-]+:.*\n", re.MULTILINE)


def blocks(text: str) -> list[str]:
    return [OPTIONS.sub("", code) for code in CODE.findall(text)]


def commands(program: str) -> list[list[str]]:
    found = re.findall(r"```console\n(.*?)```", "\n".join(GUIDES), flags=re.DOTALL)
    lines = [line for block in found for line in block.splitlines()]
    words = [shlex.split(line.removeprefix("$ ")) for line in lines if line.startswith("$ ")]
    return [rest for name, *rest in words if name == program]


WITH_CODE = [page for page in PAGES if blocks(page.read_text())]


@pytest.fixture(scope="module")
def deep_model(tmp_path_factory: pytest.TempPathFactory):
    """A random GPT-2 with as many layers as the hub's models are steered at here."""
    directory = tmp_path_factory.mktemp("deep")
    tokenizer = make_tokenizer(own_bos=False)
    tokenizer.chat_template = "{% for m in messages %}{{ m.role }}: {{ m.content }}{% endfor %}"
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


@pytest.fixture
def offline(deep_model, monkeypatch: pytest.MonkeyPatch):
    """Nothing is asked of the hub."""
    from transformer_lens.model_bridge import TransformerBridge

    load_model, boot = al.load_model, TransformerBridge.boot_transformers

    def load(name: str = "testbed", **options):
        local = name == "testbed" or Path(name).is_dir()
        return load_model(name, **options) if local else deep_model

    def booted(name: str, **options):
        return boot(name, **options) if Path(name).is_dir() else deep_model

    monkeypatch.setattr(al, "load_model", load)
    monkeypatch.setattr(TransformerBridge, "boot_transformers", booted)


@pytest.mark.slow
@pytest.mark.parametrize("code", blocks(README))
def test_a_snippet_of_the_readme_stands_by_itself(code: str, offline):
    exec(compile(code, "README.md", "exec"), {})


@pytest.mark.slow
@pytest.mark.parametrize(
    "page", WITH_CODE, ids=lambda path: path.relative_to(ROOT / "docs").as_posix()
)
def test_a_page_runs_from_top_to_bottom(page: Path, offline):
    known: dict[str, object] = {"__name__": "__main__"}
    for code in blocks(page.read_text()):
        exec(compile(code, page.name, "exec"), known)


def test_no_python_stands_in_a_fence_that_is_not_run():
    fences = {
        (page.name, language)
        for page in PAGES
        for language in re.findall(r"^```(.*(?:py|code).*)$", page.read_text(), re.MULTILINE)
    }
    run = {(page.name, name) for page in PAGES for name in ("python", "{code-cell} ipython3")}
    assert fences - run == {("migration.md", "py")}  # snippets for other libraries


@pytest.mark.slow
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
    links = [link for guide in GUIDES for link in re.findall(r"\]\(([^)]+)\)", guide)]
    links = [link for link in links if "://" not in link]
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []
