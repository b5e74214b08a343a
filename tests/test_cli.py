"""The command line: plain in a pipe, one line of error, nothing lost, nothing slow to start."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

import actadd_lens as al
from actadd_lens import cli
from actadd_lens.cli.app import escaped

PAIR = ["--positive", "Love", "--negative", "Hate", "--layer", "1"]
QUICK = ["--max-new-tokens", "4", "--samples", "2"]


class Outcome(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def fields(self) -> list[list[str]]:
        return [line.split("\t") for line in self.out.splitlines()]


Run = Callable[..., Outcome]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def call(*arguments: object) -> Outcome:
        with pytest.raises(SystemExit) as stop:
            cli.main([str(argument) for argument in arguments])
        assert isinstance(stop.value.code, int)
        return Outcome(stop.value.code, *capsys.readouterr())

    return call


@pytest.fixture
def here(checkpoint: Callable[[str], Path]) -> list[str]:
    return ["--model", str(checkpoint("gpt2"))]


@pytest.fixture
def vector(tmp_path: Path, model) -> Path:
    path = tmp_path / "v.safetensors"
    al.SteeringVector.from_pair(model, ("Love", "Hate"), 1).save(path)
    return path


@pytest.fixture
def warm(monkeypatch: pytest.MonkeyPatch, model) -> None:
    """Commands get the model that is loaded already."""
    monkeypatch.setattr("actadd_lens.models.load.load_model", lambda name: model)


def complains(outcome: Outcome, about: str) -> bool:
    assert outcome.code == 2
    assert outcome.out == ""
    assert re.fullmatch(r"actadd-lens: error: [^\n]+\n", outcome.err), outcome.err
    assert re.search(about, outcome.err), outcome.err
    return True


# Results


@pytest.mark.usefixtures("warm")
def test_steer_prints_a_line_per_completion(run: Run, model):
    outcome = run("steer", *PAIR, *QUICK, "--coefficient", 3, "I love you", "The wedding")
    assert outcome.code == 0
    header, *lines = outcome.fields
    assert header == ["run", "prompt_index", "sample_index", "prompt", "text"]
    assert [line[:3] for line in lines] == [
        [name, prompt, sample]
        for name in ("clean", "steered")
        for prompt in "01"
        for sample in "01"
    ]
    steering = 3 * al.SteeringVector.from_pair(model, ("Love", "Hate"), 1)
    prompts = ["I love you", "The wedding"]
    expected = al.generate(model, prompts, steering, max_new_tokens=4, samples=2)
    assert [line[4] for line in lines[4:]] == [escaped(c.text) for c in expected]


@pytest.mark.usefixtures("warm")
def test_a_saved_vector_steers_like_its_pair(run: Run, vector: Path):
    by_pair = run("steer", *PAIR, *QUICK, "I love you")
    assert run("steer", "--vector", vector, *QUICK, "I love you") == by_pair


def test_extract_writes_what_show_prints(run: Run, here: list[str], tmp_path: Path, model):
    path = tmp_path / "v.safetensors"
    options = ["--coefficient", 2, "--position", "back", "-o", path]
    outcome = run("extract", *here, *PAIR, *options)
    assert (outcome.code, outcome.out) == (0, f"{path}\n")
    vector = al.SteeringVector.load(path)
    facts, rows = run("show", path).out.split("\n\n")
    shown = dict(line.split("\t") for line in facts.splitlines())
    assert shown["hook point"] == "blocks.1.hook_resid_pre"
    assert shown["position"] == "back"
    assert shown["rows"] == str(len(vector.rows))
    assert (shown["positive"], shown["negative"]) == ('"Love"', '"Hate"')
    header, *table = [line.split("\t") for line in rows.splitlines()]
    assert header == ["row", "norm", "positive token", "negative token"]
    assert [float(line[1]) for line in table] == pytest.approx(vector.norms().tolist(), rel=1e-3)
    pair = [[int(line[column]) for line in table] for column in (2, 3)]
    assert pair == al.ContrastPair("Love", "Hate").tokens(model).tolist()


@pytest.mark.parametrize("tokens", [5, [5], [[1], [2, 3]], {"a": 1}, "text", [[1, 2], "xy"]])
def test_show_survives_whatever_provenance_a_file_holds(run: Run, tmp_path: Path, tokens: object):
    path = tmp_path / "v.safetensors"
    rows = torch.ones(2, 4)
    al.SteeringVector(rows, "blocks.0.hook_resid_pre", provenance={"tokens": tokens}).save(path)
    outcome = run("show", path)
    assert outcome.code == 0
    assert "norm" in outcome.out


@pytest.mark.usefixtures("warm")
def test_shift_lists_the_tokens_that_moved(run: Run, here: list[str], model):
    outcome = run("shift", "I love", *here, *PAIR, "--coefficient", "4", "--top", "3")
    header, *tokens, total = outcome.fields
    assert header == ["token", "p_clean", "p_steered", "log_ratio", "kl_contribution"]
    assert len(tokens) == 3
    vector = 4 * al.SteeringVector.from_pair(model, ("Love", "Hate"), 1)
    frame = al.next_token_shift(model, "I love", vector)
    assert [float(line[-1]) for line in tokens] == pytest.approx(
        frame["kl_contribution"][:3].tolist(), rel=1e-3
    )
    assert total[0] == "KL(steered || clean)"
    assert float(total[-1]) == pytest.approx(frame["kl_contribution"].sum(), rel=1e-3)


@pytest.mark.usefixtures("warm")
def test_score_prints_means_and_writes_rows(run: Run, here: list[str], tmp_path: Path):
    texts, rows = tmp_path / "texts.jsonl", tmp_path / "rows.csv"
    texts.write_text(
        '{"text": "She talks about weddings", "topic": "a"}\n{"text": "I love you", "topic": "b"}\n'
    )
    outcome = run("score", texts, *here, *PAIR, "--metric", "weddings", "--by", "topic", "-o", rows)
    assert outcome.code == 0, outcome.err
    header, *lines = outcome.fields
    assert header == ["metric", "topic", "mean", "low", "high", "n", "missing"]
    assert [line[:3] for line in lines[:2]] == [["weddings", "a", "1"], ["weddings", "b", "0"]]
    assert [line[0] for line in lines[2:]] == ["perplexity_ratio"] * 2
    assert rows.read_text().splitlines()[0].startswith("text,topic,weddings,logprob_clean")


@pytest.mark.parametrize(
    ("arguments", "about"),
    [
        (["--metric", "wedding"], "unknown metric 'wedding'.*did you mean 'weddings'"),
        (["--metric", "weddings", "--by", "topic"], "1 of 1 texts have no 'topic'"),
        ([], "nothing to score by"),
        (["--positive", "Love"], "the following parameters are required: --negative --layer"),
        (["--metric", "weddings", "-o", "/nowhere/rows.csv"], "/nowhere is not a writable"),
    ],
)
def test_what_cannot_be_scored_is_one_line(run: Run, tmp_path: Path, arguments, about):
    texts = tmp_path / "texts.txt"
    texts.write_text("I love you\n")
    assert complains(run("score", texts, *arguments), about)


def test_a_broken_line_is_told_by_its_number(run: Run, tmp_path: Path):
    texts = tmp_path / "texts.jsonl"
    texts.write_text('{"text": "fine"}\n{"text"\n')
    assert complains(run("score", texts, "--metric", "weddings"), "line 2 is not JSON")


def test_models_names_the_bundled_one(run: Run):
    outcome = run("models")
    assert outcome.code == 0
    assert "testbed" in [line[0] for line in outcome.fields]


@pytest.mark.usefixtures("warm")
def test_output_to_a_pipe_is_plain(run: Run, vector: Path):
    for arguments in (["steer", *PAIR, *QUICK, "I love you"], ["show", vector], ["models"]):
        outcome = run(*arguments)
        assert outcome.err == ""
        assert not re.search(r"[\x1b│─┃━]", outcome.out)


@pytest.mark.parametrize("text", ["a\tb", "a\nb", "a\\nb", "a\r\nb", "\\"])
def test_a_text_is_one_field_and_can_be_read_back(text: str):
    field = escaped(text)
    assert not re.search(r"[\t\r\n]", field)
    assert field.encode().decode("unicode_escape") == text


@pytest.mark.parametrize("command", [[], ["steer"], ["extract"], ["show"], ["models"], ["demo"]])
def test_help(run: Run, command: list[str]):
    outcome = run(*command, "--help")
    assert outcome.code == 0
    assert "Usage:" in outcome.out


def test_without_a_command_it_helps(run: Run):
    assert run() == run("--help")


def test_version(run: Run):
    assert run("--version").out == f"actadd-lens, version {al.__version__}\n"


# Errors


@pytest.mark.parametrize(
    ("arguments", "about"),
    [
        (["stear"], "No such command 'stear'"),
        (["steer"], "Missing argument 'PROMPTS"),
        (["steer", "x"], "the following parameters are required: --positive --negative --layer"),
        (
            ["steer", *PAIR, "--vector", "v", "x"],
            "--vector is set, leave --positive, --negative, --layer out",
        ),
        (
            ["extract", "--layer", "1", "-o", "v"],
            "the following parameters are required: --positive --negative",
        ),
        (["steer", *PAIR, "--layer", "two", "x"], "'two' is not a valid integer"),
        (["steer", *PAIR, "--site", "nowhere", "x"], "'nowhere' is not one of"),
        (["show", "missing.safetensors"], "missing.safetensors"),
    ],
)
def test_misuse_is_one_line(run: Run, arguments: list[str], about: str):
    assert complains(run(*arguments), about)


@pytest.mark.usefixtures("warm")
@pytest.mark.parametrize(
    ("arguments", "about"),
    [
        ([*PAIR, "--layer", 9, "x"], "9"),
        ([*PAIR, "--layer", -1, "x"], "-1"),
        ([*PAIR, "--coefficient", "nan", "x"], "nan"),
        ([*PAIR, "--position", "sideways", "x"], "sideways"),
        ([*PAIR, "--position", "all", "x"], "all"),
        ([*PAIR, "--position", "40", "x"], "40"),
        ([*PAIR, "--pad", "two tokens", "x"], "two tokens"),
        ([*PAIR, "--temperature", -1, "x"], "temperature"),
        ([*PAIR, "--top-p", 2, "x"], "top_p"),
        ([*PAIR, "--samples", 0, "x"], "samples"),
        ([*PAIR, "--max-new-tokens", 1000, "x"], "1000"),
        ([*PAIR, ""], "empty"),
    ],
)
def test_bad_values_are_one_line(run: Run, arguments: list[object], about: str):
    assert complains(run("steer", *arguments), about)


def test_a_directory_without_a_model_is_one_line(run: Run, tmp_path: Path):
    assert complains(run("steer", "--model", tmp_path, *PAIR, "x"), "config.json is missing")


def test_a_foreign_vector_file_is_one_line(run: Run, tmp_path: Path):
    path = tmp_path / "v.safetensors"
    path.write_bytes(b"not a vector")
    assert complains(run("show", path), "v.safetensors")


def test_an_unwritable_output_is_told_before_the_model_is_loaded(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("actadd_lens.models.load.load_model", pytest.fail)
    output = tmp_path / "missing" / "v.safetensors"
    assert complains(run("extract", *PAIR, "-o", output), "not a writable directory")


def test_an_interrupt_ends_quietly(run: Run, monkeypatch: pytest.MonkeyPatch):
    def interrupt(name: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("actadd_lens.models.load.load_model", interrupt)
    outcome = run("steer", *PAIR, "x")
    assert (outcome.code, outcome.out, outcome.err.strip()) == (130, "", "")


@pytest.mark.slow
def test_a_full_disk_is_one_line_and_a_closed_pipe_none():
    command = f"{sys.executable} -m actadd_lens.cli models"
    full = subprocess.run(
        ["bash", "-c", f"{command} > /dev/full"], capture_output=True, text=True, check=False
    )
    assert full.returncode == 2
    assert re.fullmatch(r"actadd-lens: error: [^\n]+\n", full.stderr)
    closed = subprocess.run(
        ["bash", "-c", f"{command} | true"], capture_output=True, text=True, check=False
    )
    assert closed.stderr == ""
