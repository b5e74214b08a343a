"""The demo, with a small random model and questions that it can answer by chance."""

from __future__ import annotations

from io import StringIO
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console

import actadd_lens as al
from actadd_lens.cli import demo
from actadd_lens.testbed import Task

pytestmark = pytest.mark.slow


PROMPTS = ["I love you and you", "The wedding was on", "She talks about weddings"]
N = len(PROMPTS)


@pytest.fixture(scope="module")
def asked() -> list[demo.Question]:
    pairs = {"first": al.ContrastPair("Love", "Hate"), "second": al.ContrastPair(" May", " day")}
    tasks = [
        Task(name, pair, "neutral", lambda text: "e" in text, "completions with an e")
        for name, pair in pairs.items()
    ]
    return [demo.Question(task, PROMPTS, layer, 4.0) for layer, task in enumerate(tasks, start=1)]


@pytest.fixture(scope="module")
def ran(model, asked, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, list[Path]]:
    printed, out = StringIO(), tmp_path_factory.mktemp("demo") / "out"
    console = Console(file=printed, width=200)
    paths = demo.run_demo(model, asked, out, console=console, progress=False)
    return printed.getvalue(), paths


@pytest.fixture(scope="module")
def rows(ran) -> pd.DataFrame:
    (path,) = [path for path in ran[1] if path.name == "rows.csv"]
    return pd.read_csv(path, keep_default_na=False)


def test_it_writes_what_it_says(ran):
    names = {path.name for path in ran[1]}
    figures = {"layer_profile.png", "coefficient_curve.png"}
    assert names == {"rows.csv", *figures, "first.safetensors", "second.safetensors"}
    assert all(path.stat().st_size > 0 for path in ran[1])
    assert {path.name for path in ran[1][0].parent.iterdir()} == names


def test_it_prints_completions_and_rates_with_their_n(ran):
    printed, _ = ran
    for prompt in PROMPTS:
        assert f"prompt   {prompt}" in printed
    for name in ("clean", "steered", "random", "negated"):
        (first, second) = [line for line in printed.splitlines() if line.startswith(f"  {name}")]
        assert f"n={N}" in first
        assert f"n={N}" in second
    assert "\x1b" not in printed


def test_every_cell_has_a_row_per_prompt_and_its_controls(rows: pd.DataFrame, model):
    keys = ["vector", "layer", "coefficient", "run"]
    assert (rows.groupby(keys).size() == N).all()
    n_layers, others = model.cfg.n_layers, len(demo.COEFFICIENTS) - 1  # 4.0 is among them
    assert len(rows) == 2 * N * (1 + 3 * (n_layers + others))


def test_a_row_can_be_made_again_from_the_vector_beside_it(ran, rows: pd.DataFrame, model, asked):
    (path,) = [path for path in ran[1] if path.name == "first.safetensors"]
    vector = al.SteeringVector.load(path)
    again = al.generate(model, PROMPTS, vector, max_new_tokens=demo.NEW_TOKENS, seed=demo.SEED)
    here = (rows["vector"] == "first") & (rows["layer"] == "1") & (rows["coefficient"] == "4.0")
    assert [c.text for c in again] == list(rows[here & (rows["run"] == "steered")]["text"])


def test_a_directory_that_cannot_be_written_is_told_first(model, asked, tmp_path: Path):
    (tmp_path / "file").write_text("in the way")
    quiet = Console(file=StringIO())
    with pytest.raises(al.OutputError, match="choose another directory"):
        demo.run_demo(model, asked, tmp_path / "file", console=quiet, progress=False)
