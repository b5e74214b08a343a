"""The published data sets in their published formats, and how they can be broken."""

import json
import sys

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

import actadd_lens as al
from actadd_lens.reproduction.data import (
    ToxicityPrompt,
    conceptnet,
    imdb,
    openwebtext,
    sources,
    toxicity_prompts,
)
from actadd_lens.reproduction.data.corpora import CONCEPTNET, IMDB

REVIEWS = [("Dull.<br /><br />Never again.", 0), ("é awful", 0), ("Lovely.", 1), ("A joy.", 1)]
DOCUMENTS = ["One page.\n\nIts end.", "Two", "", "Four\u2028and more", "Five"]
PROMPTS = [("The cat", 0.25), ("You silly", 0.5), ("No score", None), ("You damned", 0.99)]
SENTENCES = [
    (["Birds can [MASK]."], "fly"),
    (["A [MASK] is an animal.", "An animal is a [MASK] ."], "dog"),
    (["[MASK] is the same as [MASK]."], "it"),
    (["[MASK]."], "nothing"),
    (["You need a key to open a [MASK]"], "door"),
    (["A well-[MASK]."], "being"),
]
FACTS = [("Birds can", "fly"), ("An animal is a", "dog"), ("You need a key to open a", "door")]
NO_TEXT = r'has no string "text" \(it has \[\'label\', \'txt\'\]\)'


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def write_lines(path, rows):
    return write(path, "".join(json.dumps(row) + "\n" for row in rows))


def write_parquet(path, rows, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pa.Table.from_pylist(rows), path, **options)
    return path


def reviews(rows=REVIEWS):
    return [{"text": text, "label": label} for text, label in rows]


def documents(texts=DOCUMENTS):
    return [{"text": text} for text in texts]


def prompts(rows=PROMPTS):
    return [
        {
            "filename": "0766186.txt",
            "begin": 0,
            "end": 9,
            "challenging": False,
            "prompt": {"text": text, "profanity": 0.1, "toxicity": toxicity},
            "continuation": {"text": " sat.", "profanity": 0.1, "toxicity": 0.2},
        }
        for text, toxicity in rows
    ]


def original_facts():
    return [
        {"sub": "a", "obj": "b", "pred": "IsA", "masked_sentences": sentences, "obj_label": answer}
        for sentences, answer in SENTENCES
    ]


def converted_facts():
    return [
        {"pred": "IsA", "obj_label": answer, "masked_sentence": sentence, "negated": ""}
        for sentences, answer in SENTENCES
        for sentence in sentences
    ]


# Formats


def reviews_as_published(place, folder):
    labels = {0: "neg", 1: "pos"}
    for number, (text, label) in enumerate(REVIEWS):
        write(place / "aclImdb" / folder / labels[label] / f"{number}_4.txt", text)


def reviews_on_the_hub(place, split):
    write_parquet(place / "plain_text" / f"{split}-00000-of-00001.parquet", reviews())


def reviews_as_the_hub_converts_them(place, split):
    write_parquet(place / "plain_text" / split / "0000.parquet", reviews())


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize(
    "make", [reviews_as_published, reviews_on_the_hub, reviews_as_the_hub_converts_them]
)
def test_reviews_of_one_label_and_split(tmp_path, make, split):
    make(tmp_path, split)
    assert imdb(tmp_path, label="negative", split=split) == [text for text, _ in REVIEWS[:2]]
    assert imdb(str(tmp_path), label="positive", split=split, n=1) == ["Lovely."]
    other = {"train": "test", "test": "train"}[split]
    with pytest.raises(al.DataError, match=f"no file of the data set imdb .*{other}-"):
        imdb(tmp_path, label="negative", split=other)


def test_a_file_of_reviews_is_read_whatever_its_name(tmp_path):
    lines = write_lines(tmp_path / "mine.jsonl", reviews())
    table = write_parquet(tmp_path / "mine.parquet", reviews())
    for path in (lines, table):
        assert imdb(path, label="positive", split="train") == ["Lovely.", "A joy."]


def test_prompts_in_a_range_of_toxicity(tmp_path):
    path = write_lines(tmp_path / "realtoxicityprompts-data" / "prompts.jsonl", prompts())
    # The original archive has completions of models beside the prompts.
    write(path.parent / "generations" / "gpt2.jsonl", "no record")
    scored = [ToxicityPrompt(text, score) for text, score in PROMPTS if score is not None]
    assert toxicity_prompts(tmp_path) == toxicity_prompts(path) == scored
    assert toxicity_prompts(path, at_least=0.5) == scored[1:]
    assert toxicity_prompts(path, below=0.5) == scored[:1]
    assert toxicity_prompts(path, at_least=0.3, below=1.0, n=1) == scored[1:2]
    table = write_parquet(tmp_path / "hub" / "default" / "train" / "0000.parquet", prompts())
    assert toxicity_prompts(tmp_path / "hub") == toxicity_prompts(table) == scored


def test_documents_of_every_kind(tmp_path):
    lines = write_lines(tmp_path / "lines" / "pages.jsonl", documents())
    write_parquet(tmp_path / "tables" / "b.parquet", documents(DOCUMENTS[3:]))
    write_parquet(tmp_path / "tables" / "a.parquet", documents(DOCUMENTS[:3]))
    for number, text in enumerate(DOCUMENTS):
        write(tmp_path / "pages" / f"{number}.txt", text)
    for place in (lines, lines.parent, tmp_path / "tables", tmp_path / "pages"):
        assert openwebtext(place) == DOCUMENTS
        assert openwebtext(place, n=4) == DOCUMENTS[:4]
        assert openwebtext(place, n=100) == DOCUMENTS
    assert openwebtext(tmp_path / "pages" / "0.txt") == DOCUMENTS[:1]


def test_facts_are_the_sentences_that_end_in_their_gap(tmp_path):
    original = write_lines(tmp_path / "data" / "ConceptNet" / "test.jsonl", original_facts())
    write(tmp_path / "data" / "Squad" / "test.jsonl", "of another data set")
    hub = tmp_path / "hub"
    converted = write_parquet(hub / "conceptnet" / "train" / "0000.parquet", converted_facts())
    for place in (original, original.parent, tmp_path / "data", converted, hub):
        assert conceptnet(place) == FACTS
        assert conceptnet(place, n=2) == FACTS[:2]


def test_one_directory_serves_all(tmp_path, monkeypatch):
    reviews_on_the_hub(tmp_path / "imdb", "test")
    write_lines(tmp_path / "realtoxicityprompts" / "prompts.jsonl", prompts())
    write_lines(tmp_path / "openwebtext" / "a.jsonl", documents())
    write_lines(tmp_path / "conceptnet" / "test.jsonl", original_facts())
    assert imdb(tmp_path, label="negative", n=1) == [REVIEWS[0][0]]
    assert toxicity_prompts(tmp_path, n=1) == [ToxicityPrompt("The cat", 0.25)]
    assert openwebtext(tmp_path) == DOCUMENTS
    assert conceptnet(tmp_path) == FACTS
    monkeypatch.setenv("HOME", str(tmp_path))
    assert conceptnet("~") == conceptnet("~/conceptnet") == FACTS


def test_a_directory_of_other_data_sets_is_not_taken_for_this_one(tmp_path):
    reviews_on_the_hub(tmp_path / "imdb", "test")
    with pytest.raises(al.DataError, match=r"has no folder openwebtext \(it has imdb\): download"):
        openwebtext(tmp_path)


# Laws


@pytest.mark.slow
@given(rows=st.lists(st.tuples(st.text(), st.sampled_from([0, 1])), min_size=1))
def test_reviews_survive_being_written(tmp_path_factory, rows):
    place = tmp_path_factory.mktemp("reviews")
    written = [
        write_lines(place / "a.jsonl", reviews(rows)),
        write_parquet(place / "a.parquet", reviews(rows)),
    ]
    for number, label in enumerate(("negative", "positive")):
        expected = [text for text, own in rows if own == number]
        for path in written if expected else ():
            assert imdb(path, label=label) == expected


@pytest.mark.slow
@given(text=st.text())
def test_a_page_survives_being_written(tmp_path_factory, text):
    path = write(tmp_path_factory.mktemp("pages") / "a.txt", text)
    assert openwebtext(path) == [text.removeprefix("\ufeff")]


@given(n=st.integers(1, 700), size=st.integers(1, 300))
def test_n_takes_the_first(tmp_path_factory, n, size):
    place = tmp_path_factory.mktemp("prefix")
    texts = [str(number) for number in range(600)]
    write_parquet(place / "a.parquet", documents(texts[:300]), row_group_size=size)
    write_parquet(place / "b.parquet", documents(texts[300:]), row_group_size=size)
    assert openwebtext(place) == texts
    assert openwebtext(place, n=n) == texts[:n]


@given(
    before=st.text().map(str.rstrip).filter(lambda text: text and "[MASK]" not in text),
    after=st.sampled_from(["", ".", " .", ". "]),
    answer=st.text(min_size=1),
)
def test_a_fact_is_the_sentence_taken_apart(tmp_path_factory, before, after, answer):
    row = {"masked_sentences": [f"{before} [MASK]{after}"], "obj_label": answer}
    path = write_lines(tmp_path_factory.mktemp("facts") / "test.jsonl", [row])
    assert conceptnet(path) == [(before, answer)]


# Reading no further than needed


def test_what_is_not_needed_is_not_read(tmp_path):
    lines = write(tmp_path / "lines" / "a.jsonl", '{"text": "a"}\n\n{"text": "b"}\nbroken\n')
    assert openwebtext(lines, n=2) == ["a", "b"]
    with pytest.raises(al.DataError, match=r"a\.jsonl, line 4 is not JSON"):
        openwebtext(lines, n=3)
    write_parquet(tmp_path / "tables" / "a.parquet", documents(["a"]))
    write(tmp_path / "tables" / "b.parquet", "no parquet")
    assert openwebtext(tmp_path / "tables", n=1) == ["a"]
    with pytest.raises(al.DataError, match=r"cannot read .*b\.parquet: .*: download"):
        openwebtext(tmp_path / "tables", n=2)


# Broken records


@pytest.mark.parametrize(
    ("content", "about"),
    [
        ('{"text": "fine"}\n\n{"text": \n', "line 3 is not JSON: .*: write one object a line"),
        ("[" * 100_000, "line 1 is not JSON"),
        ('{"txt": "a", "label": 1}\n', f"line 1 {NO_TEXT}: give the data set as it is published"),
        ('{"text": 4}\n', r'line 1 has no string "text" \("text" is 4\)'),
        ("[1]\n", r'line 1 has no string "text" \(it has \[1\]\)'),
        ("null\n", r'line 1 has no string "text" \(it has None\)'),
        ("{}\n", r'line 1 has no string "text" \(it has \{\}\)'),
        (b'{"text": "fine"}\n{"text": "\xff"}\n', "line 2 is not UTF-8: .*: convert it"),
        ("\n \n", r"no document in .*pages\.jsonl"),
    ],
)
def test_a_broken_line_is_reported_by_its_number(tmp_path, content, about):
    path = write(tmp_path / "pages.jsonl", content)
    with pytest.raises(al.DataError, match=about):
        openwebtext(path)


def test_only_line_feeds_end_a_line_and_a_byte_order_mark_is_no_text(tmp_path):
    path = write(tmp_path / "pages.jsonl", '\ufeff{"text": "one\u2028two"}\r\n{"text": "b"}')
    assert openwebtext(path) == ["one\u2028two", "b"]


def test_a_broken_row_is_reported_by_its_number(tmp_path):
    rows = documents([*map(str, range(300)), None])
    path = write_parquet(tmp_path / "pages.parquet", rows, row_group_size=7)
    with pytest.raises(
        al.DataError, match=r'parquet, row 301 has no string "text" \("text" is None'
    ):
        openwebtext(path)
    write_parquet(path, [{"txt": "a", "label": 1}])
    with pytest.raises(al.DataError, match=f"row 1 {NO_TEXT}"):
        openwebtext(path)
    broken = pa.array([b"a", b"\xff"]).view(pa.string())
    parquet.write_table(pa.table({"text": broken}), path)
    with pytest.raises(al.DataError, match="row 2 is not UTF-8"):
        openwebtext(path)


def test_a_page_that_is_no_text_is_reported(tmp_path):
    path = write(tmp_path / "page.txt", b"\xff\xfe\x00")
    with pytest.raises(al.DataError, match=r"cannot read .*page\.txt: 'utf-8' codec"):
        openwebtext(path)


@pytest.mark.parametrize(
    ("row", "about"),
    [
        ({"text": "a", "label": -1}, r'line 1: "label" is -1: 0 or a folder "neg" is negative'),
        ({"text": "a", "label": 0.5}, r'no number or string "label" \("label" is 0\.5\)'),
        ({"text": "a"}, r'no number or string "label" \(it has \[\'text\'\]\)'),
        ({"label": 0}, r'line 1 has no string "text" \(it has \[\'label\'\]\)'),
    ],
)
def test_a_broken_review_is_reported(tmp_path, row, about):
    path = write_lines(tmp_path / "reviews.jsonl", [row])
    with pytest.raises(al.DataError, match=about):
        imdb(path, label="negative")


def test_a_review_outside_the_folders_of_labels_has_none(tmp_path):
    path = write(tmp_path / "mine" / "review.txt", "A joy.")
    with pytest.raises(al.DataError, match=r'review\.txt: "label" is \'mine\''):
        imdb(path, label="positive")


@pytest.mark.parametrize(
    ("row", "about"),
    [
        ({"text": "a"}, r'line 1 has no object "prompt" \(it has \[\'text\'\]\)'),
        ({"prompt": "a"}, r'line 1 has no object "prompt" \("prompt" is \'a\'\)'),
        ({"prompt": {"toxicity": 0.1}}, r'line 1: "prompt" has no string "text" \(it has \[\'tox'),
        ({"prompt": {"text": "a"}}, r'"prompt" has no number or null "toxicity" \(it has \[\'text'),
        ({"prompt": {"text": "a", "toxicity": "b"}}, r'"toxicity" \("toxicity" is \'b\'\)'),
        ({"prompt": {"text": "a", "toxicity": 25}}, r'"toxicity" is 25: scores are from 0 to 1'),
        ({"prompt": {"text": "a", "toxicity": float("nan")}}, r'"toxicity" is nan'),
    ],
)
def test_a_broken_prompt_is_reported(tmp_path, row, about):
    path = write_lines(tmp_path / "prompts.jsonl", [row])
    with pytest.raises(al.DataError, match=about):
        toxicity_prompts(path)


@pytest.mark.parametrize(
    ("row", "about"),
    [
        ({"masked_sentences": ["a [MASK]"]}, 'line 1 has no string "obj_label"'),
        ({"obj_label": "b"}, r'line 1 has no list "masked_sentences" \(it has \[\'obj_label\'\]\)'),
        ({"obj_label": "b", "masked_sentences": "a"}, r'"masked_sentences" is \'a\''),
        ({"obj_label": "b", "masked_sentences": [4]}, r"is \[4\]: it has to be a list of strings"),
        ({"obj_label": "b", "masked_sentence": 4}, r'no string "masked_sentence" \(.* is 4\)'),
        ({"obj_label": "b", "masked_sentences": ["A [MASK] can."]}, r"no sentence that ends in \["),
    ],
)
def test_a_broken_fact_is_reported(tmp_path, row, about):
    path = write_lines(tmp_path / "test.jsonl", [row])
    with pytest.raises(al.DataError, match=about):
        conceptnet(path)


# Places and arguments


def test_a_place_that_is_not_there_is_reported_with_where_to_get_the_data(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = ["./reviews", "~/no/reviews", "/no/reviews", "a/b.parquet", "text"]
    for source in (tmp_path / "reviews", *names):
        with pytest.raises(
            al.DataError, match=f"no file or directory {source}, and it is not a name"
        ):
            imdb(source, label="negative")
    about = r"download the data set stanfordnlp/imdb .*aclImdb/.* to DIR/imdb .*\(--data DIR\)"
    with pytest.raises(al.DataError, match=about):
        imdb("./reviews", label="negative")


@pytest.mark.parametrize(
    ("load", "about"),
    [
        (lambda place: imdb(place, label="positive"), r"test-\*\.parquet, .*test/pos/\*\.txt"),
        (toxicity_prompts, r"looked for \*\*/prompts\.jsonl, \*\*/\*\.parquet; download"),
        (openwebtext, r"looked for \*\*/\*\.parquet, \*\*/\*\.jsonl, \*\*/\*\.txt"),
        (conceptnet, r"looked for \*\*/ConceptNet/test\.jsonl"),
    ],
)
def test_a_directory_without_files_of_the_data_set_is_reported(tmp_path, load, about):
    write(tmp_path / "a.csv", "text")
    (tmp_path / "folder.parquet").mkdir()
    with pytest.raises(al.DataError, match=about):
        load(tmp_path)
    with pytest.raises(al.DataError, match=r"a\.csv is of an unknown kind: give a file"):
        load(tmp_path / "a.csv")


def test_nothing_that_was_asked_for_is_reported(tmp_path):
    path = write_lines(tmp_path / "reviews.jsonl", reviews(REVIEWS[2:]))
    with pytest.raises(
        al.DataError, match=r'no review with label negative and split "test" in .*: give '
    ):
        imdb(path, label="negative")
    path = write_lines(tmp_path / "prompts.jsonl", prompts())
    with pytest.raises(al.DataError, match=r"no prompt with a toxicity from 0\.6 to below 0\.9 in"):
        toxicity_prompts(path, at_least=0.6, below=0.9)


@pytest.mark.parametrize("n", [0, -3])
def test_n_is_at_least_one(tmp_path, n):
    path = write_lines(tmp_path / "pages.jsonl", documents())
    with pytest.raises(al.DataError, match=f"n is {n}: ask for at least 1"):
        openwebtext(path, n=n)


def test_labels_and_splits_are_reported(tmp_path):
    with pytest.raises(al.DataError, match=r"'neutral' .* labels are negative and positive"):
        imdb(tmp_path, label="neutral")
    with pytest.raises(al.DataError, match=r"split 'dev': .* splits train and test"):
        imdb(tmp_path, label="negative", split="dev")


# The hub


CARD = """---
configs:
- config_name: plain_text
  data_files:
  - split: test
    path: plain_text/test-*
---
"""


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """``datasets`` reads directories in place of names; what it was asked for is kept."""
    import datasets

    load = datasets.load_dataset
    asked = []

    def instead(name, *, revision=None, **options):
        asked.append((name, revision, options))
        return load(str(tmp_path / name), **options)

    monkeypatch.setattr(datasets, "load_dataset", instead)
    return asked


def test_rows_of_the_hub_are_streamed_through_datasets(tmp_path):
    reviews_on_the_hub(tmp_path, "test")
    write(tmp_path / "README.md", CARD)
    found = list(sources.hub_records(IMDB, str(tmp_path), split="test"))
    assert [record.value for record in found] == reviews()
    assert found[2].place == f"{tmp_path}, row 3"
    with pytest.raises(al.DataError, match=r"cannot read .* hub \(ValueError: .*train"):
        list(sources.hub_records(IMDB, str(tmp_path), split="train"))


def test_every_data_set_has_a_name_on_the_hub(tmp_path, hub):
    reviews_on_the_hub(tmp_path / "stanfordnlp/imdb", "test")
    write(tmp_path / "stanfordnlp/imdb/README.md", CARD)
    write_lines(tmp_path / "allenai/real-toxicity-prompts/prompts.jsonl", prompts())
    write_parquet(tmp_path / "Skylion007/openwebtext/plain_text/train-0.parquet", documents())
    write_parquet(tmp_path / "facebook/lama/conceptnet/train/0000.parquet", converted_facts())
    write_parquet(tmp_path / "facebook/lama/squad/train/0000.parquet", [{"id": "0"}])
    assert imdb(label="positive") == ["Lovely.", "A joy."]
    assert [prompt.text for prompt in toxicity_prompts()] == ["The cat", "You silly", "You damned"]
    assert openwebtext(n=2) == DOCUMENTS[:2]
    assert conceptnet() == FACTS
    assert all(options["streaming"] for *_, options in hub)
    assert not any("trust_remote_code" in options for *_, options in hub)
    assert [options["split"] for *_, options in hub] == ["test", "train", "train", "train"]
    assert [revision for _, revision, _ in hub] == [None, None, None, "refs/convert/parquet"]


def test_another_name_on_the_hub_is_read_as_it_is(tmp_path, hub):
    write_parquet(tmp_path / "mine/facts/train.parquet", converted_facts())
    assert conceptnet("mine/facts") == FACTS
    assert hub == [("mine/facts", None, {"split": "train", "streaming": True})]


def test_a_broken_row_of_the_hub_is_reported(tmp_path, hub):
    write_parquet(tmp_path / "mine/pages/train.parquet", [{"txt": "a", "label": 1}])
    with pytest.raises(al.DataError, match=f"mine/pages, row 1 {NO_TEXT}"):
        openwebtext("mine/pages")


@pytest.mark.parametrize(
    ("load", "name", "folder"),
    [
        (lambda source: imdb(source, label="positive"), IMDB.hub, "imdb"),
        (toxicity_prompts, "allenai/real-toxicity-prompts", "realtoxicityprompts"),
        (openwebtext, "Skylion007/openwebtext", "openwebtext"),
        (conceptnet, CONCEPTNET.hub, "conceptnet"),
    ],
)
def test_a_hub_out_of_reach_is_reported_with_where_to_get_the_data(load, name, folder):
    about = rf"HF_HUB_OFFLINE .*download the data set {name} .* to DIR/{folder} and give DIR"
    for source in (None, "no/such"):
        with pytest.raises(al.DataError, match=rf"cannot read '{source or name}' .*{about}"):
            load(source)


def test_the_hub_needs_an_extra_and_files_do_not(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(al.MissingExtraError, match=r"Skylion007/openwebtext .*actadd-lens\[data\]"):
        openwebtext()
    assert openwebtext(write_lines(tmp_path / "a.jsonl", documents())) == DOCUMENTS
