"""The recipe repeats to the bit, and the bundled checkpoint is one that it wrote."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import actadd_lens as al
from actadd_lens.testbed.tasks import CHECKPOINT
from tools.testbed_training import Recipe, rows, schedule, train, train_tokenizer

TINY = Recipe(steps=3, batch=2, length=16, context=32, width=32, vocabulary=300, tokenizer_rows=50)


@pytest.fixture(autouse=True)
def own_random_state():
    """Training seeds the global random state, as a command may."""
    with torch.random.fork_rng():
        yield


def weights(directory: Path) -> dict[str, torch.Tensor]:
    return load_file(directory / "model.safetensors")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("tiny")
    with torch.random.fork_rng():
        train(TINY, place)
    return place


def test_a_seed_repeats_to_the_bit_and_another_differs(trained, tmp_path):
    for seed in (0, 1):
        train(replace(TINY, seed=seed), tmp_path / str(seed))
    first, again, other = weights(trained), weights(tmp_path / "0"), weights(tmp_path / "1")
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


def test_progress_is_printed(trained, tmp_path, capsys):
    train(TINY, tmp_path, log_every=2)
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("step")]
    assert [line.split()[1] for line in lines] == ["2/3", "3/3"]


def test_what_it_writes_is_loaded(trained):
    model = al.load_model(trained)
    assert model.cfg.n_layers == TINY.layers
    assert al.generate(model, ["Anna loved"], max_new_tokens=2)[0].tokens


def test_rows_begin_with_bos_and_fill_the_context():
    tokenizer = train_tokenizer(TINY)
    source = rows(tokenizer, TINY.corpus, seed=0)
    for _ in range(20):
        row = next(source)
        assert row[0] == tokenizer.bos_token_id
        assert len(row) == TINY.context + 1


def test_the_rate_warms_up_and_ends_low():
    recipe = Recipe()
    rates = [schedule(step, recipe) for step in range(recipe.steps)]
    assert rates[0] == pytest.approx(1 / recipe.warmup, rel=1e-3)
    assert max(rates) == pytest.approx(1.0, abs=0.02)
    assert rates[-1] == pytest.approx(0.02, abs=1e-3)


def test_the_bundled_checkpoint_is_of_this_recipe_and_small():
    written = json.loads((CHECKPOINT / "recipe.json").read_text())
    assert written == json.loads(json.dumps(asdict(Recipe(seed=written["seed"]))))
    assert sum(path.stat().st_size for path in CHECKPOINT.iterdir()) < 5e6
    assert {tensor.dtype for tensor in weights(CHECKPOINT).values()} == {torch.float16}
