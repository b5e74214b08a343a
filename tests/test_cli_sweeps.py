"""`actadd-lens sweep` and `ablate`: the figures are those of the library, and all are written."""

import re
from pathlib import Path

import pandas as pd
import pytest

import actadd_lens as al
from actadd_lens.cli.sweeping import numbers

TEXTS = ["I love you and you", "The wedding was on", "She talks about weddings"]
HELD_OUT = ["A sunny day in May", "You love me"]
PAIR = ["--positive", "Love", "--negative", "Hate", "--metric", "kl"]


@pytest.fixture
def run(capsys):
    from actadd_lens import cli

    def call(*arguments):
        with pytest.raises(SystemExit) as stop:
            cli.main([str(argument) for argument in arguments])
        return stop.value.code, *capsys.readouterr()

    return call


@pytest.fixture
def warm(monkeypatch, model):
    monkeypatch.setattr("actadd_lens.models.load.load_model", lambda name: model)


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / "prompts.txt", tmp_path / "held_out.txt"]
    for path, texts in zip(paths, (TEXTS, HELD_OUT), strict=True):
        path.write_text("\n".join(texts))
    return paths


@pytest.mark.slow
@pytest.mark.usefixtures("warm")
def test_sweep_writes_the_table_and_figures_and_prints_the_best_cell(run, files, tmp_path, model):
    out = tmp_path / "new" / "out"
    options = ["--layers", "0-1", "--coefficients", "1,2.5", "--positions", "front,-2"]
    code, printed, _ = run(
        "sweep", *PAIR, "--prompts", files[0], *options, "--test-prompts", files[1],
        "--subject-to", "dose < 100", "--out", out,
    )  # fmt: skip
    assert code == 0
    names = ["sweep.parquet", "sweep_summary.csv", "kl.png", "kl.pdf"]
    lines = printed.splitlines()
    assert lines[:4] == [str(out / name) for name in names]
    assert sorted(path.name for path in out.iterdir()) == sorted(names)
    expected = al.sweep(
        model, ("Love", "Hate"), TEXTS, layers=[0, 1], coefficients=[1, 2.5],
        positions=["front", -2], metrics=["kl"], progress=False,
        controls=["random", "random:1", "random:2", "negated"],
    )  # fmt: skip
    written = al.SweepResult.load(out / "sweep.parquet")
    pd.testing.assert_frame_equal(written.frame, expected.frame, atol=1e-6)
    best = expected.best("kl", subject_to=["dose < 100"], test_prompts=HELD_OUT)
    assert "\n".join(lines[4:7]) == str(best)
    assert lines[7:9] == ["", "on held-out prompts"]
    header, *table = [line.split("\t") for line in lines[9:]]
    assert header[:3] == ["run", "metric", "mean"]
    assert [line[0] for line in table] == [
        "clean", "steered", "random", "random:1", "random:2", "negated",
    ]  # fmt: skip


@pytest.mark.slow
@pytest.mark.usefixtures("warm")
@pytest.mark.parametrize("kind", ["positions", "dimensions", "layers", "reach"])
def test_ablate_writes_a_table_and_a_figure_and_prints_the_cells(run, files, tmp_path, kind):
    out = tmp_path / "out"
    pair = PAIR[:4] if kind == "reach" else PAIR
    layer = [] if kind == "layers" else ["--layer", 1]
    code, printed, _ = run(
        "ablate", kind, *pair, "--prompts", files[0], *layer, "--coefficient", 2,
        "--max-new-tokens", 2, "--out", out,
    )  # fmt: skip
    assert code == 0
    lines = printed.splitlines()
    assert {Path(line).suffix for line in lines[:4]} == {".parquet", ".csv", ".png", ".pdf"}
    assert len([*out.iterdir()]) == 4
    table = al.Ablation.load(lines[0])
    header, *cells = [line.split("\t") for line in lines[4:]]
    assert header[-7:] == ["metric", "mean", "low", "high", "n", "dose", "kl"]
    summary = table.summary()
    assert len(cells) == len(summary[summary["metric"] == table.metrics[0]])


@pytest.mark.slow
def test_a_task_of_the_bundled_model_needs_no_files(run, tmp_path):
    out = tmp_path / "out"
    code, printed, _ = run(
        "sweep", "--task", "sentiment", "--layers", "3", "--coefficients", "1,6", "--n", 12,
        "--control", "random", "--max-new-tokens", 12, "--out", out,
    )  # fmt: skip
    assert code == 0
    assert "best of 2 configurations by success_sentiment" in printed
    assert "on held-out prompts" in printed
    assert (out / "pareto.png").exists()
    result = al.SweepResult.load(out / "sweep.parquet")
    assert result.metrics == ["success_sentiment", "valid"]
    assert result.frame["prompt_index"].nunique() == 12


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["sweep"], "the following parameters are required: --positive --negative --prompts"),
        (["sweep", "--positive", "a", "--negative", "b", "--prompts", "x"], "--metric is required"),
        (
            ["sweep", "--task", "sentiment", "--prompts", "x"],
            "when --task is set, leave --prompts out",
        ),
        (["sweep", "--task", "sentiment", "--layers", "1,x"], "cannot read 'x' in '1,x'"),
        (["sweep", *PAIR, "--prompts", "missing.txt"], "cannot read missing.txt"),
        (["ablate", "positions", *PAIR, "--prompts", "x"], "--layer is required"),
        (["ablate", "rows", *PAIR[:4], "--prompts", "x"], "'rows' is not one of"),
        (["ablate", "positions", *PAIR[:4], "--prompts", "x"], "--metric is required"),
        (["ablate", "rows", "--task", "topic"], "'rows' is not one of"),
        (
            ["ablate", "layers", "--task", "topic", "--layer", "1"],
            "leave --layer out",
        ),
        (
            ["ablate", "reach", "--task", "topic", "--store", "x"],
            "leave --store out",
        ),
        (["sweep", "--task", "topic", "--subject-to", "valid"], "cannot read the limit 'valid'"),
    ],
)
def test_bad_input_is_one_line_before_the_model_is_loaded(
    run, tmp_path, monkeypatch, arguments, message
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        "actadd_lens.models.load.load_model", lambda name: pytest.fail("it was loaded")
    )
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert re.fullmatch(r"actadd-lens: error: [^\n]+\n", err), err
    assert message in err


def test_a_directory_that_cannot_be_made_is_told_first(run, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "actadd_lens.models.load.load_model", lambda name: pytest.fail("it was loaded")
    )
    (tmp_path / "file").write_text("in the way")
    code, _, err = run("sweep", "--task", "topic", "--out", tmp_path / "file" / "out")
    assert code == 2
    assert "choose another directory (--out)" in err


@pytest.mark.usefixtures("warm")
def test_an_interrupted_sweep_writes_what_it_has(run, files, tmp_path, monkeypatch):
    from actadd_lens.sweeps import measurement

    kl, calls = measurement.kl, []

    def interrupted(*args):
        calls.append(1)
        if len(calls) > 2:
            raise KeyboardInterrupt
        return kl(*args)

    monkeypatch.setattr(measurement, "kl", interrupted)
    out = tmp_path / "out"
    code, printed, told = run(
        "sweep", *PAIR, "--prompts", files[0], "--layers", "0,1", "--out", out
    )
    assert code == 130
    assert "best of" not in printed
    assert "interrupted: what was done is in" in told
    assert "with --store it can be resumed" in told
    assert not al.SweepResult.load(out / "interrupted_sweep.parquet").complete


def test_numbers_may_be_ranges():
    assert numbers("0,2-4", int) == [0, 2, 3, 4]
    assert numbers("-1, 2.5", float) == [-1.0, 2.5]


@pytest.mark.usefixtures("warm")
def test_what_no_cell_keeps_to_is_told_after_the_table_is_written(run, files, tmp_path):
    out = tmp_path / "out"
    code, _, err = run(
        "sweep", *PAIR, "--prompts", files[0], "--layers", "0", "--subject-to", "kl < -1",
        "--out", out,
    )  # fmt: skip
    assert code == 2
    assert "relax a limit" in err
    assert al.SweepResult.load(out / "sweep.parquet").complete
