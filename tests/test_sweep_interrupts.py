"""Killed, interrupted or stopped by an error, a sweep keeps what it made and goes on from there."""

import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
import warnings
from contextlib import closing
from pathlib import Path

import pandas as pd
import pytest
import torch

import actadd_lens as al
from actadd_lens.sweeps import measurement
from actadd_lens.sweeps.identity import fingerprint

pytestmark = pytest.mark.slow  # many sweeps, or the examples of every docstring

TEXTS = ["I hate you because", "She talks", "The wedding was on a sunny day in May", "Love"]
OPTIONS = {
    "layers": [0, 1, 2], "coefficients": [1.0, 2.0], "metrics": ["kl", "weddings"],
    "samples": 2, "max_new_tokens": 6, "controls": ["random", "prompted"], "progress": False,
    "batch_tokens": 20, "batch_size": 8,
}  # fmt: skip


def run(model, store: Path | None = None, **more):
    return al.sweep(model, ("Love", "Hate"), TEXTS, store=store, **{**OPTIONS, **more})


def assert_same(found: al.SweepResult, expected: al.SweepResult) -> None:
    assert found.complete
    pd.testing.assert_frame_equal(found.frame, expected.frame, atol=1e-5, rtol=1e-4)


def keys(store: Path) -> dict[str, int]:
    """How many keys of each phase are done, read from the file itself."""
    with closing(sqlite3.connect(store)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        if not connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            return {}
        return dict(connection.execute("SELECT phase, count(*) FROM done GROUP BY phase"))


@pytest.mark.slow
def test_killed_at_any_moment_it_loses_only_what_was_in_flight(neo, tmp_path: Path):
    """Twenty kills in a row, each of a process that goes on where the last one was killed."""
    start = time.perf_counter()
    expected = run(neo)
    whole = time.perf_counter() - start
    store = tmp_path / "run.sqlite"
    draws = random.Random(0)
    done: dict[str, int] = {}
    n_killed = 0
    for _ in range(20):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # the parent's threads are idle
            child = os.fork()
        if not child:
            code = 1
            try:
                run(neo, store)
                code = 0
            finally:
                os._exit(code)
        time.sleep(draws.uniform(0, whole / 6))
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        n_killed += os.WIFSIGNALED(status)
        before, done = done, keys(store) if store.exists() and store.stat().st_size else {}
        assert all(done.get(phase, 0) >= n for phase, n in before.items())
    assert n_killed >= 5
    assert_same(run(neo, store), expected)
    assert_same(run(neo, store), expected)


def test_what_is_done_is_not_done_again(neo, tmp_path: Path, monkeypatch):
    store = tmp_path / "run.sqlite"
    expected = run(neo, store)
    monkeypatch.setattr(measurement, "fast_model", lambda *_: pytest.fail("it read again"))
    monkeypatch.setattr(measurement, "completions", lambda *_: pytest.fail("it generated again"))
    assert_same(run(neo, store), expected)


class Interrupting:
    """A metric of the text that stops the work when it is called for the n-th time."""

    name, kind = "interrupting", "completions"

    def __init__(self, error: type[BaseException], call: int) -> None:
        self.error, self.left = error, call

    def __repr__(self) -> str:
        return "Interrupting()"

    def __call__(self, completions):
        self.left -= 1
        if not self.left:
            raise self.error("stop")
        return [0.0] * len(completions)


def test_ctrl_c_stops_with_what_is_done(neo, tmp_path: Path):
    store = tmp_path / "run.sqlite"
    hooks = [len(point.fwd_hooks) for point in neo.hook_dict.values()]
    stopped = run(neo, store, metrics=["kl", Interrupting(KeyboardInterrupt, 4)])
    assert not stopped.complete
    written = stopped.frame["text"].notna()
    assert 0 < written.sum() < len(TEXTS) * 2 * (1 + 6 * 2)
    assert (stopped.frame["metric"] == "kl").sum() == len(TEXTS) * (1 + 6 * 3)
    assert hooks == [len(point.fwd_hooks) for point in neo.hook_dict.values()]
    assert torch.is_grad_enabled()
    whole = run(neo, store, metrics=["kl", Interrupting(KeyboardInterrupt, 1000)])
    assert whole.complete
    merged = whole.frame.merge(
        stopped.frame, on=[*stopped.keys, "prompt_index", "metric", "sample"]
    )
    assert (merged["value_x"] == merged["value_y"]).all()
    assert (merged["text_x"].fillna("") == merged["text_y"].fillna("")).all()


def test_an_error_of_a_metric_keeps_what_was_made_before(neo, tmp_path: Path):
    store = tmp_path / "run.sqlite"
    with pytest.raises(RuntimeError, match="stop"):
        run(neo, store, metrics=["kl", Interrupting(RuntimeError, 4)])
    assert keys(store)["texts"] > 0
    assert run(neo, store, metrics=["kl", Interrupting(RuntimeError, 1000)]).complete


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layers": [0, 1]}, "layers"),
        ({"coefficients": [1.0, 3.0]}, r"coefficients\[1\]: 2.0 in the file, 3.0 now"),
        ({"seed": 1}, "seed: 0 in the file, 1 now"),
        ({"metrics": ["kl", "repetition"]}, r"metrics\[1\].*'weddings' in the file"),
        ({"metrics": ["weddings", "kl"]}, r"metrics\[0\]"),
        ({"temperature": 0.5}, "sampling.temperature: 1.0 in the file, 0.5 now"),
        ({"controls": ["random"]}, "controls"),
    ],
)
def test_another_sweep_on_the_same_file_is_refused(neo, tmp_path: Path, change, message):
    store = tmp_path / "run.sqlite"
    run(neo, store)
    before = store.read_bytes()
    with pytest.raises(al.SweepFileError, match=message):
        run(neo, store, **change)
    assert store.read_bytes() == before


def test_another_model_on_the_same_file_is_refused(neo, model, tmp_path: Path):
    store = tmp_path / "run.sqlite"
    run(neo, store)
    with pytest.raises(al.SweepFileError, match=r"model\."):
        run(model, store)


def test_weights_that_were_changed_are_noticed(checkpoint):
    own = al.load_model(checkpoint("gpt-neo"), device="cpu")
    before = fingerprint(own)
    weight = own.original_model.lm_head.weight
    original = weight.detach().clone()
    with torch.no_grad():
        weight[3, 4] += 1e-3
        assert fingerprint(own) != before
        weight[3, 4] -= 1e-3
        changed = weight.clone()
        changed[[5, 6]] = changed[[6, 5]]
        weight.copy_(changed)
        assert fingerprint(own) != before
        weight.copy_(original)
        # Words of eight bytes in another order, and two signs in one row: sums would not see them.
        weight.copy_(original.reshape(len(weight), -1, 2).flip(1).reshape(weight.shape))
        assert fingerprint(own) != before
        weight.copy_(original)
        weight[3, [1, 3]] *= -1
        assert fingerprint(own) != before
    again = al.load_model(checkpoint("gpt-neo"), device="cpu")
    assert fingerprint(again) == before
    half = al.load_model(checkpoint("gpt-neo"), device="cpu", dtype=torch.bfloat16)
    assert fingerprint(half) != before


def test_a_metric_is_the_same_in_every_process():
    """The order of a set, among the constants of a function's code, changes with the process."""
    code = (
        "from actadd_lens.sweeps.identity import described\n"
        "def happy(texts): return [w in {'love', 'joy', 'glad', 'sun'} for w in texts]\n"
        "print(described(happy))"
    )
    environments = [{**os.environ, "PYTHONHASHSEED": seed} for seed in ("1", "2", "3")]
    printed = {
        subprocess.run(
            [sys.executable, "-c", code], env=e, stdout=subprocess.PIPE, text=True, check=True
        ).stdout
        for e in environments
    }
    assert len(printed) == 1


class Above:
    """A metric whose state is not in its repr."""

    name, kind = "above", "logits"

    def __init__(self, bound: float, rule=None) -> None:
        self.bound, self.rule = bound, rule

    def __call__(self, clean, steered):
        return (steered.exp().amax(-1) > self.bound).float()


@pytest.mark.parametrize("other", [Above(0.999), Above(0.0, lambda x: x + 2)])
def test_a_metric_of_other_state_is_another_metric(neo, tmp_path: Path, other):
    options = {"samples": 0, "store": tmp_path / "run.sqlite"}
    first = run(neo, metrics=Above(0.0, lambda x: x + 1), **options)
    again = run(neo, metrics=Above(0.0, lambda x: x + 1), **options)
    pd.testing.assert_frame_equal(first.frame, again.frame)
    with pytest.raises(al.SweepFileError, match="metrics"):
        run(neo, metrics=other, **options)


def test_hooks_that_come_and_go_are_another_model(neo, tmp_path: Path, caplog):
    store = tmp_path / "run.sqlite"
    run(neo, store)
    vector = al.extract(neo, ("Love", "Hate"))[1]
    with al.steer(neo, vector), pytest.raises(al.SweepFileError, match=r"model\.hooks"):
        run(neo, store)
    assert any("hooks are attached" in record.message for record in caplog.records)


def test_the_versions_that_a_store_was_begun_with_are_kept(
    neo, tmp_path: Path, monkeypatch, caplog
):
    store = tmp_path / "run.sqlite"
    begun = run(neo, store)
    real = measurement.source
    monkeypatch.setattr(
        measurement, "source", lambda m: {"versions": {**real(m)["versions"], "torch": "1.0"}}
    )
    assert run(neo, store).provenance["versions"] == begun.provenance["versions"]
    assert any("begun with torch" in record.message for record in caplog.records)


def test_a_model_in_train_mode_is_measured_without_dropout(checkpoint):
    own = al.load_model(checkpoint("gpt2"), device="cpu")
    expected = run(own)
    modules = [*own.modules(), *own.original_model.modules()]
    for module in modules:
        module.training = True
    found = run(own)
    assert all(module.training for module in modules)
    pd.testing.assert_frame_equal(found.frame, expected.frame)


@pytest.mark.slow
def test_two_processes_on_one_store_are_one_too_many(neo, tmp_path: Path):
    store = tmp_path / "run.sqlite"
    code = (
        "import sys, time\n"
        "from actadd_lens.sweeps.store import Store\n"
        "with Store.open(sys.argv[1], {}):\n"
        "    print('open', flush=True)\n"
        "    time.sleep(60)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(store)], stdout=subprocess.PIPE, text=True
    ) as other:
        try:
            assert other.stdout is not None
            assert other.stdout.readline() == "open\n"
            with pytest.raises(al.SweepFileError, match="in use by another process"):
                run(neo, store)
        finally:
            other.kill()


@pytest.mark.slow
def test_a_full_disk_keeps_the_rows_up_to_now(neo, tmp_path: Path, monkeypatch):
    store = tmp_path / "run.sqlite"
    add, calls = measurement.Store.add, []

    def full(self, *args, **kwargs):
        calls.append(1)
        if len(calls) == 5:
            [pages] = self._connection.execute("PRAGMA page_count").fetchone()
            self._connection.execute(f"PRAGMA max_page_count = {pages}")
        return add(self, *args, **kwargs)

    monkeypatch.setattr(measurement.Store, "add", full)
    many = {"layers": [1], "coefficients": [1.0], "samples": 60}
    with pytest.raises(al.OutputError, match="kept"):
        run(neo, store, **many)
    monkeypatch.undo()
    assert keys(store)["logits"] > 0
    assert_same(run(neo, store, **many), run(neo, **many))
