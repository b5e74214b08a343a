"""Texts from files: plain or JSON lines, and where a line is broken."""

import pytest

import actadd_lens as al


def test_plain_lines_are_texts(tmp_path):
    path = tmp_path / "texts.txt"
    path.write_text('One text.\n\n{"text": "not read as JSON"}\n', encoding="utf-8")
    assert al.read_texts(path) == [{"text": "One text."}, {"text": '{"text": "not read as JSON"}'}]


def test_json_lines_keep_their_fields(tmp_path):
    path = tmp_path / "texts.jsonl"
    path.write_text('{"text": "é", "prompt": "p", "label": 3}\n\n{"text": ""}\n', encoding="utf-8")
    assert al.read_texts(path) == [{"text": "é", "prompt": "p", "label": 3}, {"text": ""}]


def test_only_line_feeds_end_a_line_and_a_byte_order_mark_is_no_text(tmp_path):
    path = tmp_path / "texts.jsonl"
    path.write_bytes('\ufeff{"text": "one\u2028two"}\r\n{"text": "b"}'.encode())
    assert [record["text"] for record in al.read_texts(path)] == ["one\u2028two", "b"]


@pytest.mark.parametrize(
    ("content", "about"),
    [
        ('{"text": "fine"}\n\n{"text": \n', "line 3 is not JSON"),
        ('{"txt": "a"}\n', r"line 1 has no string \"text\" \(it has \['txt'\]\)"),
        ("[1]\n", r"line 1 has no string \"text\" \(it is \[1\]\)"),
        ('{"text": "a", "prompt": 4}\n', 'line 1: "prompt" is 4'),
        ("[" * 100_000 + "\n", "line 1 is not JSON"),
        ("\n \n", "holds no text"),
    ],
)
def test_a_broken_line_is_told_by_its_number(tmp_path, content, about):
    path = tmp_path / "texts.jsonl"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(al.TextFileError, match=about):
        al.read_texts(path)


def test_a_file_that_cannot_be_read_is_told(tmp_path):
    with pytest.raises(al.TextFileError, match=r"cannot read .*missing\.txt"):
        al.read_texts(tmp_path / "missing.txt")
    path = tmp_path / "binary.txt"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(al.TextFileError, match="give a UTF-8 text file"):
        al.read_texts(path)
