import json
import stat
import struct

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save, save_file

import actadd_lens as al
from actadd_lens.vectors import files

POINT = "blocks.1.hook_resid_pre"
FINITE = st.floats(width=32, allow_nan=False, allow_infinity=False)


@pytest.fixture
def vector():
    return al.SteeringVector(torch.randn(3, 8, generator=torch.Generator()), POINT, -4, {"a": [1]})


@pytest.fixture
def saved(vector, tmp_path):
    path = tmp_path / "v.safetensors"
    vector.save(path)
    return path


@given(
    rows=st.lists(
        st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=4, max_size=4
    ),
    position=st.one_of(st.integers(-9, 9), st.sampled_from(["front", "all", "generated"])),
    provenance=st.dictionaries(st.text(max_size=4), st.text(max_size=4), max_size=3),
)
def test_save_then_load_is_exact(tmp_path, rows, position, provenance):
    vector = al.SteeringVector(torch.tensor([rows]), POINT, position, provenance)
    vector.save(tmp_path / "v.safetensors")
    loaded = al.SteeringVector.load(tmp_path / "v.safetensors")
    assert loaded == vector
    assert torch.equal(loaded.rows.signbit(), vector.rows.signbit())
    assert loaded.provenance == vector.provenance


def test_the_metadata_says_it_all(model, tmp_path):
    vector = al.SteeringVector.from_pair(model, ("Love", "Hate"), 1).at("back")
    vector.save(tmp_path / "v.safetensors")
    loaded = al.SteeringVector.load(tmp_path / "v.safetensors")
    assert (loaded.hook_point, loaded.position) == (POINT, "back")
    told = loaded.provenance
    assert told == vector.provenance
    assert {"positive", "negative", "tokens", "model", "versions", "steps"} <= told.keys()


def test_a_saved_file_replaces_the_old_one_whole(saved, vector, tmp_path, monkeypatch):
    old = saved.read_bytes()
    monkeypatch.setattr(
        type(saved), "replace", lambda *_: (_ for _ in ()).throw(OSError(28, "full"))
    )
    with pytest.raises(al.OutputError, match="full"):
        (2 * vector).save(saved)
    monkeypatch.undo()
    assert saved.read_bytes() == old
    assert [path.name for path in tmp_path.iterdir()] == ["v.safetensors"]
    (2 * vector).save(saved)
    assert al.SteeringVector.load(saved) == 2 * vector


def test_the_callers_umask_holds(saved, tmp_path):
    (tmp_path / "other").write_bytes(b"")
    assert stat.S_IMODE(saved.stat().st_mode) == stat.S_IMODE((tmp_path / "other").stat().st_mode)


def test_a_loaded_vector_does_not_hang_on_the_file(saved, vector):
    loaded = al.SteeringVector.load(saved)
    saved.write_bytes(b"")
    assert loaded == vector


def test_where_it_cannot_be_written_is_told(vector, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    for path in (tmp_path / "none" / "v", tmp_path / "file" / "v", tmp_path):
        with pytest.raises(al.OutputError, match="cannot write"):
            vector.save(path)


@given(data=st.data())
def test_a_truncated_file_is_refused(tmp_path, data):
    path = tmp_path / "v.safetensors"
    al.SteeringVector(torch.ones(3, 8), POINT).save(path)
    content = path.read_bytes()
    path.write_bytes(content[: data.draw(st.integers(0, len(content) - 1))])
    with pytest.raises(al.VectorFileError):
        al.SteeringVector.load(path)


@given(content=st.binary(max_size=200))
def test_noise_is_refused(tmp_path, content):
    path = tmp_path / "v.safetensors"
    path.write_bytes(content)
    with pytest.raises(al.VectorFileError):
        al.SteeringVector.load(path)


def test_missing_files_and_directories_are_refused(tmp_path):
    for path in (tmp_path / "none.safetensors", tmp_path):
        with pytest.raises(al.VectorFileError, match="cannot read"):
            al.SteeringVector.load(path)


def test_foreign_files_are_refused(tmp_path):
    path = tmp_path / "v.safetensors"
    save_file({"weight": torch.ones(2, 2)}, path)
    with pytest.raises(al.VectorFileError, match=r"not a steering vector.*\['weight'\]"):
        al.SteeringVector.load(path)
    torch.save({"rows": torch.ones(2, 2)}, path)
    with pytest.raises(al.VectorFileError, match="cannot read"):
        al.SteeringVector.load(path)


GOOD = {
    "format": files.FORMAT,
    "version": files.VERSION,
    "hook_point": json.dumps(POINT),
    "position": '"front"',
    "provenance": "{}",
}
ROWS = torch.ones(2, 4)


@pytest.mark.parametrize(
    ("rows", "changes"),
    [
        (ROWS, {"version": "2"}),
        (ROWS, {"format": "other"}),
        (ROWS, {"hook_point": "not json"}),
        (ROWS, {"hook_point": "3"}),
        (ROWS, {"hook_point": '"../../etc/passwd"'}),
        (ROWS, {"hook_point": None}),
        (ROWS, {"hook_point": json.dumps(f"blocks.{'9' * 5000}.hook_resid_pre")}),
        (ROWS, {"hook_point": '"blocks.1.hook_resid_pre; rm"'}),
        (ROWS, {"position": '"all"'}),
        (ROWS, {"position": '["front"]'}),
        (ROWS, {"position": "null"}),
        (ROWS, {"provenance": "[" * 100_000}),
        (ROWS, {"provenance": '"text"'}),
        (ROWS * torch.nan, {}),
        (ROWS.double(), {}),
        (ROWS.long(), {}),
        (torch.ones(4), {}),
        (torch.ones(0, 4), {}),
    ],
)
def test_every_field_is_checked(tmp_path, rows, changes):
    path = tmp_path / "v.safetensors"
    header = {name: value for name, value in {**GOOD, **changes}.items() if value is not None}
    path.write_bytes(save({"rows": rows}, metadata=header))
    with pytest.raises(al.VectorFileError):
        al.SteeringVector.load(path)


def test_a_header_that_lies_about_sizes_is_refused(tmp_path):
    header = json.dumps(
        {"rows": {"dtype": "F32", "shape": [2**40, 4], "data_offsets": [0, 2**44]}}
    ).encode()
    path = tmp_path / "v.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header)
    with pytest.raises(al.VectorFileError):
        al.SteeringVector.load(path)
    path.write_bytes(struct.pack("<Q", 2**62) + b"{}")
    with pytest.raises(al.VectorFileError):
        al.SteeringVector.load(path)
