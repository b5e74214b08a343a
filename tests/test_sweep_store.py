import json
import math
import os
import random
import resource
import shutil
import signal
import socket
import sqlite3
import struct
import time
from contextlib import closing, contextmanager
from dataclasses import fields

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actadd_lens.errors import OutputError, SweepError, SweepFileError
from actadd_lens.sweeps.store import APPLICATION, VERSION, Measured, Store, Text, Value

CONFIG = {"prompts": ["a", "b"], "sampling": {"seed": 0, "top_k": None}, "versions": {"x": "1"}}
ROW = Value(0, 0, None, 0, 1.0)

# A child that only reads and writes a file, and ends by os._exit or a signal, may be forked beside
# other threads.
forking = pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning")


@contextmanager
def forked(work):
    """Runs ``work`` in a child until the block is left, which kills it; a line joins the two."""
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if not pid:
        try:
            ours.close()
            work(theirs)
        finally:
            os._exit(0)
    theirs.close()
    try:
        yield ours
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        ours.close()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "s.sweep"


@pytest.fixture
def begun(path):
    """A closed store with one finished key."""
    with Store.open(path, CONFIG) as store:
        store.add("logits", [ROW, Measured(0, 0, 0.5, math.inf)])
    return path


def bits(row):
    """A row by which every NaN equals every other, and -0.0 differs from 0.0."""

    def bits_of(x):
        return struct.pack(">d", math.nan if math.isnan(x) else x)

    return tuple(bits_of(x) if isinstance(x, float) else x for x in vars(row).values())


def place(row):
    sample = getattr(row, "sample", None)
    return row.run, row.prompt, -1 if sample is None else sample, getattr(row, "metric", 0)


TABLES = {
    Value: "figure ORDER BY run, prompt, ifnull(sample, -1), metric",
    Measured: "measured ORDER BY run, prompt",
    Text: "text ORDER BY run, prompt, sample",
}


def rows_of(store, kind):
    """What a table has, in order; NULL is NaN, and no sample."""
    null = [None if field.name == "sample" else math.nan for field in fields(kind)]
    found = store._connection.execute(f"SELECT * FROM {TABLES[kind]}").fetchall()
    return [kind(*(n if x is None else x for x, n in zip(row, null, strict=True))) for row in found]


def contents(store):
    return [[bits(row) for row in rows_of(store, kind)] for kind in TABLES]


INDEX = st.integers(0, 3)
KEY = st.tuples(INDEX, INDEX)


@given(
    figures=st.dictionaries(st.tuples(INDEX, INDEX, st.none() | INDEX, INDEX), st.floats()),
    measured=st.dictionaries(KEY, st.tuples(st.floats(), st.floats())),
    texts=st.dictionaries(st.tuples(INDEX, INDEX, INDEX), st.text()),
    in_memory=st.booleans(),
    data=st.data(),
)
def test_what_is_added_comes_back_whole_and_once(path, figures, measured, texts, in_memory, data):
    path.unlink(missing_ok=True)
    values = [Value(*key, value) for key, value in figures.items()]
    known = [Measured(*key, *pair) for key, pair in measured.items()]
    written = [Text(*key, text) for key, text in texts.items()]
    rows = {
        "logits": [*(value for value in values if value.sample is None), *known],
        "texts": [*(value for value in values if value.sample is not None), *written],
    }
    todo = {(phase, place(row)[:2]) for phase, some in rows.items() for row in some}
    left = data.draw(st.permutations(sorted(todo)))
    with Store.open(None if in_memory else path, CONFIG) as store:
        while left:
            n = data.draw(st.integers(1, len(left)))
            for phase in ("logits", "texts"):
                keys = [key for p, key in left[:n] if p == phase]
                own = [row for row in rows[phase] if place(row)[:2] in keys]
                for _ in range(2):  # once more changes nothing
                    store.add(phase, own)
            left = left[n:]
        expected = [
            [bits(row) for row in sorted(some, key=place)] for some in (values, known, written)
        ]
        assert contents(store) == expected
        joined = {row[:4]: row[5:] for row in store.rows()}
        assert joined.keys() == figures.keys()
        for (run, prompt, sample, _), (dose, divergence, text) in joined.items():
            beside = [math.nan if x is None else x for x in (dose, divergence)]
            of_run = measured.get((run, prompt), (math.nan, math.nan))
            assert beside == pytest.approx(of_run, nan_ok=True)
            assert text == texts.get((run, prompt, sample))
        assert {(p, key) for p in ("logits", "texts") for key in store.done(p)} == todo
    if not in_memory:
        with Store.open(path, CONFIG) as store:
            assert contents(store) == expected


@pytest.mark.parametrize("number", [-0.0, 5e-324, 2.0**63, 0.1, math.inf, -math.inf, math.nan])
def test_every_number_survives(path, number):
    rows = Value(0, 0, None, 0, number), Measured(0, 0, number, number)
    with Store.open(path, CONFIG) as store:
        store.add("logits", rows)
        assert contents(store) == [[bits(rows[0])], [bits(rows[1])], []]


def test_a_finished_key_stays_as_it_is(begun):
    with Store.open(begun, CONFIG) as store:
        before = contents(store)
        more = [Value(0, 0, None, 0, 2.0), Value(0, 0, None, 1, 3.0)]
        store.add("logits", [*more, Value(0, 1, None, 0, 4.0)])
        assert contents(store)[0] == [*before[0], bits(Value(0, 1, None, 0, 4.0))]
        assert contents(store)[1:] == before[1:]
        assert store.done("logits") == {(0, 0), (0, 1)}
        assert store.done("texts") == set()


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ([ROW, ROW], "every row once"),
        ([Measured(0, 0, 1.0, 1.0)] * 2, "every row once"),
        ([Text(0, 0, 0, "x"), Text(0, 0, 0, "y")], "every row once"),
        ([Value(0, 0, -1, 0, 1.0)], "sample >= 0"),
    ],
)
def test_rows_that_cannot_be_are_refused_whole(path, rows, told):
    with Store.open(path, CONFIG) as store:
        with pytest.raises(SweepError, match=told):
            store.add("logits", rows)
        assert contents(store) == [[], [], []]
        assert not store.done("logits")
        store.add("logits", [ROW])


def test_numbers_of_other_kinds_are_refused(path):
    row = object.__new__(Value)  # what a caller without run-time types could make
    vars(row).update(vars(ROW), value=np.float32(1))
    with Store.open(path, CONFIG) as store:
        with pytest.raises(SweepError, match="plain numbers"):
            store.add("logits", [row])
        assert not store.done("logits")
    with pytest.raises(SweepError, match="closed"):
        store.add("logits", [ROW])


@pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError])
def test_an_interrupt_within_add_takes_all_of_it_back(begun, error):
    rows = [Value(1, 0, None, 0, 1.0), Text(1, 0, 0, "x")]

    def cut_short():
        yield from rows
        raise error

    with Store.open(begun, CONFIG) as store:
        before = contents(store)
        with pytest.raises(error):
            store.add("logits", cut_short())
        assert contents(store) == before
        assert store.done("logits") == {(0, 0)}
        store.add("logits", rows)
        assert store.done("logits") == {(0, 0), (1, 0)}


def test_one_file_is_left(path, tmp_path):
    store = Store.open(str(path), CONFIG)
    store.add("logits", [ROW, Value(1, 0, None, 0, 1.0)])
    assert len(store.rows()) == 2
    store.close()
    assert list(tmp_path.iterdir()) == [path]
    with Store.open(path, CONFIG) as again:
        assert len(again.rows()) == 2
    with pytest.raises(OutputError, match="closed"):
        store.rows()


# What it refuses


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"seed": 0}, "seed: nothing in the file, 0 now"),
        ({"sampling": {"seed": 1, "top_k": None}}, r"sampling\.seed: 0 in the file, 1 now"),
        ({"sampling": {"seed": 0}}, r"sampling\.top_k: None in the file, nothing now"),
        ({"sampling": None}, r"sampling: \{.*\} in the file, None now"),
        ({"prompts": ["a", "c"]}, r"prompts\[1\]: 'b' in the file, 'c' now"),
        ({"prompts": ["a"]}, "prompts: 2 items in the file, 1 now, the first 1 alike"),
        ({"prompts": ["a", "z" * 999]}, r"'b' in the file, 'z{1,40}\.\.\.z{1,40}' now"),
        ({str(i): i for i in range(50)}, "; and 42 more"),
    ],
)
def test_other_settings_are_refused_and_told(begun, changes, told):
    before = begun.read_bytes()
    with pytest.raises(SweepFileError, match=told) as caught:
        Store.open(begun, {**CONFIG, **changes})
    assert "call with the same arguments" in str(caught.value)
    assert len(str(caught.value)) < 700
    assert begun.read_bytes() == before


def test_long_texts_are_shown_where_they_part(path):
    long = "word " * 50
    Store.open(path, {"prompts": [long + "love" + long]}).close()
    with pytest.raises(SweepFileError, match=r"'ord love.*'ord hate"):
        Store.open(path, {"prompts": [long + "hate" + long]})


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@given(config=st.dictionaries(st.text(), JSON), versions=JSON)
def test_the_same_settings_are_accepted_in_any_order(path, config, versions):
    path.unlink(missing_ok=True)
    Store.open(path, config).close()
    turned = dict(reversed(config.items()))
    Store.open(path, {**turned, "versions": versions}).close()
    with pytest.raises(SweepFileError, match="other settings"):
        Store.open(path, {**turned, "one\nmore": 0})


def test_the_versions_it_was_begun_with_are_kept(begun):
    Store.open(begun, {**CONFIG, "versions": {"x": "2"}}).close()
    with closing(sqlite3.connect(begun)) as connection:
        ((content,),) = connection.execute("SELECT content FROM config")
    assert json.loads(content) == CONFIG


@contextmanager
def left_alone(directory):
    """Whatever is in a directory is there afterwards, byte for byte."""
    before = {file.name: file.read_bytes() for file in directory.iterdir()}
    yield
    assert {file.name: file.read_bytes() for file in directory.iterdir()} == before


def database(path, *statements):
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)


@given(content=st.binary(min_size=1, max_size=2000), header=st.booleans())
def test_noise_is_refused(path, tmp_path, content, header):
    path.write_bytes(b"SQLite format 3\0" * header + content)
    with left_alone(tmp_path), pytest.raises(SweepFileError, match="no sweep, or damaged"):
        Store.open(path, CONFIG)


@pytest.mark.parametrize(
    ("statements", "told"),
    [
        (["CREATE TABLE config (content TEXT)"], "something else"),
        (["CREATE TABLE t (a)", "PRAGMA journal_mode = WAL"], "something else"),
        (["PRAGMA application_id = 7"], "application_id 7"),
        ([f"PRAGMA application_id = {APPLICATION}"], f"format 0, .* reads format {VERSION}"),
    ],
)
def test_databases_of_something_else_are_refused(path, tmp_path, statements, told):
    database(path, *statements)
    with left_alone(tmp_path), pytest.raises(SweepFileError, match=told):
        Store.open(path, CONFIG)


def test_another_version_is_refused(begun, tmp_path):
    database(begun, "PRAGMA user_version = 9")
    told = f"format 9, and this release reads format {VERSION}"
    with left_alone(tmp_path), pytest.raises(SweepFileError, match=told):
        Store.open(begun, CONFIG)


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TRIGGER t AFTER INSERT ON done BEGIN DELETE FROM figure; END",
        "DROP TABLE measured",
        "DELETE FROM config",
        "UPDATE config SET content = 'no json'",
        "UPDATE config SET content = '[1]'",
        "UPDATE config SET content = x'ff'",
        f"UPDATE config SET content = '{'[' * 10**5}'",
    ],
)
def test_a_store_that_was_tampered_with_is_refused(begun, tmp_path, statement):
    database(begun, statement)
    with left_alone(tmp_path), pytest.raises(SweepFileError, match=r"tables|broken"):
        Store.open(begun, CONFIG)


@forking
@pytest.mark.parametrize("mode", ["WAL", "DELETE"])
def test_what_another_program_left_unfinished_is_not_touched(path, tmp_path, mode):
    def leave_unfinished(line):
        connection = sqlite3.connect(path, isolation_level=None)
        for statement in ("journal_mode = " + mode, "cache_size = 1", "cache_spill = 1"):
            connection.execute("PRAGMA " + statement)
        connection.execute("CREATE TABLE t (a)")
        connection.execute("BEGIN")
        connection.executemany("INSERT INTO t VALUES (?)", [("x" * 1000,)] * 100)
        line.send(b"!")
        line.recv(1)

    with forked(leave_unfinished) as line:
        assert line.recv(1)
    assert len(list(tmp_path.iterdir())) > 1
    with left_alone(tmp_path), pytest.raises(SweepFileError, match=r"something else|unfinished"):
        Store.open(path, CONFIG)


def test_places_that_hold_no_file_are_told(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    for place in (tmp_path, tmp_path / "none" / "s", tmp_path / "file" / "s", os.devnull):
        told = "name (a file in a directory that exists|one)"
        with left_alone(tmp_path), pytest.raises(OutputError, match=told):
            Store.open(place, CONFIG)


@pytest.mark.parametrize(
    "statements",
    [
        ["PRAGMA journal_mode = WAL"],
        ["PRAGMA user_version = 5"],
        [f"PRAGMA application_id = {APPLICATION}", f"PRAGMA user_version = {VERSION}"],
    ],
)
def test_a_file_without_tables_is_begun(path, statements):
    path.touch()
    database(path, *statements)
    with Store.open(path, CONFIG) as store:
        store.add("logits", [ROW])
    with Store.open(path, CONFIG) as store:
        assert rows_of(store, Value) == [ROW]


@forking
def test_a_log_whose_file_was_deleted_is_forgotten(path, tmp_path):
    with forked(lambda line: hold(path, line)) as line:
        assert line.recv(1)
    path.unlink()
    assert [file.name for file in tmp_path.iterdir()] == [f"{path.name}-wal"]
    with Store.open(path, CONFIG) as store:
        assert not store.done("logits")


@forking
def test_a_log_that_was_being_copied_back_is_not_lost(path, tmp_path):
    with forked(lambda line: hold(path, line)) as line:
        assert line.recv(1)
    whole = tmp_path / "whole"
    for end in ("", "-wal"):
        shutil.copy(f"{path}{end}", f"{whole}{end}")
    Store.open(whole, CONFIG).close()
    path.write_bytes(whole.read_bytes()[:4096])  # its first page only, which tells of more
    with Store.open(path, CONFIG) as store:
        assert store.done("logits") == {(7, 7)}


# Two at once, a full disk, a kill


def hold(path, line):
    """Add a row, and keep the store open until told otherwise."""
    with Store.open(path, CONFIG) as store:
        store.add("logits", [Value(7, 7, None, 0, 1.0)])
        line.send(b"!")
        line.recv(1)


@forking
def test_a_second_process_is_refused_until_the_first_is_killed(path):
    with forked(lambda line: hold(path, line)) as line:
        assert line.recv(1)
        began = time.monotonic()
        with pytest.raises(SweepFileError, match="in use by another process"):
            Store.open(path, CONFIG)
        assert time.monotonic() - began < 1
    with Store.open(path, CONFIG) as store:
        assert store.done("logits") == {(7, 7)}


@forking
def test_a_second_store_of_the_process_is_refused_and_drops_no_lock(begun):
    def look(line):
        line.recv(1)
        try:
            Store.open(begun, CONFIG)
        except SweepFileError as error:
            line.send(str(error).encode())

    with forked(look) as line, Store.open(begun, CONFIG) as store:
        with pytest.raises(SweepFileError, match="in use"):
            Store.open(begun, CONFIG)
        line.send(b"!")
        assert b"in use" in line.recv(999)
        store.add("texts", [Text(0, 0, 0, "x")])


def fill(store):
    """Add until it is refused; gives the keys that were accepted."""
    for run in range(1, 10**4):
        try:
            store.add("texts", [Text(run, 0, i, "x" * 999) for i in range(9)])
        except OutputError as error:
            assert "added before is kept" in str(error)  # noqa: PT017 - not every run raises
            assert "full" in str(error) or "I/O" in str(error)  # noqa: PT017 - likewise
            return {(i, 0) for i in range(1, run)}
    raise AssertionError("never full")


def check_filled(store, accepted):
    assert store.done("texts") == accepted
    assert [(row.run, row.sample) for row in rows_of(store, Text)] == [
        (run, i) for run, _ in sorted(accepted) for i in range(9)
    ]


@pytest.mark.parametrize("in_memory", [False, True])
def test_a_full_disk_keeps_what_was_added(path, in_memory):
    with Store.open(None if in_memory else path, CONFIG) as store:
        (pages,) = store._connection.execute("PRAGMA page_count").fetchone()
        store._connection.execute(f"PRAGMA max_page_count = {pages + 50}")
        accepted = fill(store)
        assert accepted
        check_filled(store, accepted)
        store._connection.execute("PRAGMA max_page_count = 1000000")
        store.add("texts", [Text(0, 0, 0, "x")])
        assert store.done("texts") == {*accepted, (0, 0)}
    if not in_memory:
        with Store.open(path, CONFIG) as store:
            assert store.done("texts") == {*accepted, (0, 0)}


def test_a_refused_write_keeps_what_was_added(path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with Store.open(path, CONFIG) as store:
        resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, hard))
        try:
            accepted = fill(store)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert accepted
        check_filled(store, accepted)
    with Store.open(path, CONFIG) as store:
        check_filled(store, accepted)


KEYS = [(run, prompt) for run in range(40) for prompt in range(10)]


def made(phase, keys):
    """What a measurement would add for some keys: the same each time."""
    if phase == "logits":
        values = [Value(*key, None, m, math.sin(m + key[0])) for key in keys for m in (0, 1)]
        return [*values, *(Measured(*key, key[0] / 7, key[1] / 7) for key in keys)]
    values = [Value(*key, s, 2, s / 3) for key in keys for s in (0, 1)]
    return [*values, *(Text(*key, s, f"{key} é" * 20) for key in keys for s in (0, 1))]


def measure(path, permit):
    with Store.open(path, CONFIG) as store:
        store._connection.execute("PRAGMA wal_autocheckpoint = 5")  # kills meet checkpoints too
        for phase in ("logits", "texts"):
            done = store.done(phase)
            left = [key for key in KEYS if key not in done]
            for i in range(0, len(left), 2):
                permit()
                store.add(phase, made(phase, left[i : i + 2]))


def check_whole(path):
    """Every finished key has its rows, once, and nothing else has; gives how many are finished."""
    with Store.open(path, CONFIG) as store:
        assert store._connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        done = {phase: sorted(store.done(phase)) for phase in ("logits", "texts")}
        rows = [row for phase, keys in done.items() for row in made(phase, keys)]
        for kind in TABLES:
            own = [row for row in rows if type(row) is kind]
            assert rows_of(store, kind) == sorted(own, key=place)
    return len(done["logits"]) + len(done["texts"])


@pytest.mark.slow
@forking
def test_killed_at_any_moment_it_goes_on(path, tmp_path):
    rng = random.Random(0)
    finished = [0]
    for _ in range(20):
        with forked(lambda line: measure(path, lambda: line.send(line.recv(1)))) as line:
            line.send(b"." * 15)  # as often as it may add: it is not done before the last kill
            line.recv(rng.randrange(12), socket.MSG_WAITALL)
            time.sleep(rng.uniform(0, 0.002))
        finished.append(check_whole(path))
    assert finished == sorted(finished)
    assert 0 < finished[-1] < 2 * len(KEYS)
    measure(path, lambda: None)
    assert check_whole(path) == 2 * len(KEYS)
    assert list(tmp_path.iterdir()) == [path]
