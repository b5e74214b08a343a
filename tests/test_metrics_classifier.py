"""Sentiment and toxicity by Hugging Face classifiers, against transformers' own pipeline."""

import math
import shutil

import pytest
import torch
from completions import completions
from conftest import make_tokenizer

import actadd_lens as al
from actadd_lens.metrics import Sentiment, Toxicity, judges

N_POSITIONS = 24
TEXTS = (
    " you are late",
    " I love you and you love me",
    " hate",
    " She talks about weddings constantly while he does not talk about them at all",
    " " + "very " * 100 + "long",
)
BINARY = {0: "NEGATIVE", 1: "Positive"}


def save(directory, architecture="bert", labels=BINARY, **options):
    """A random classifier in the hub's format."""
    import transformers as hf

    tokenizer = make_tokenizer(own_bos=architecture != "gpt2")
    tokenizer.model_max_length = options.pop("model_max_length", N_POSITIONS)
    config = {
        "bert": hf.BertConfig,
        "roberta": hf.RobertaConfig,
        "gpt2": hf.GPT2Config,
        "bloom": hf.BloomConfig,
    }[architecture](
        vocab_size=len(tokenizer),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=tokenizer.bos_token_id,
        id2label=labels,
        label2id={name: index for index, name in labels.items()},
        **({"max_position_embeddings": N_POSITIONS} if architecture != "bloom" else {}),
        **({"intermediate_size": 32} if "bert" in architecture else {}),
        **options,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = hf.AutoModelForSequenceClassification.from_config(config)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.3 * torch.randn_like(parameter))
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


def by_pipeline(directory, texts, label):
    """One text at a time, as transformers would score it."""
    import transformers as hf

    tokenizer = hf.AutoTokenizer.from_pretrained(directory)
    with torch.random.fork_rng():
        model = hf.AutoModelForSequenceClassification.from_pretrained(directory)
    skipped = model.config.pad_token_id + 1 if model.config.model_type == "roberta" else 0
    pipe = hf.pipeline("text-classification", model=model, tokenizer=tokenizer, device="cpu")
    scores = [
        pipe(text, top_k=None, truncation=True, max_length=N_POSITIONS - skipped) for text in texts
    ]
    return [next(s["score"] for s in found if s["label"] == label) for found in scores]


@pytest.mark.parametrize("architecture", ["bert", "roberta"])
def test_scores_are_those_of_the_pipeline(architecture, tmp_path):
    place = save(tmp_path / "model", architecture)
    expected = by_pipeline(place, TEXTS, "Positive")
    assert max(expected) - min(expected) > 0.01
    assert Sentiment(place)(completions(*TEXTS)) == pytest.approx(expected, abs=1e-5)
    assert Sentiment(place, label="negative")(completions(*TEXTS)) == pytest.approx(
        [1 - p for p in expected], abs=1e-5
    )


@pytest.mark.parametrize("n", [1, 2, 70])
def test_a_text_scores_the_same_in_any_batch(n, tmp_path, monkeypatch):
    monkeypatch.setattr(judges, "_BATCH", 8)
    metric = Toxicity(save(tmp_path / "model", labels={0: "ok", 1: "toxic"}))
    texts = [TEXTS[index % 4] for index in range(n)]
    alone = {text: metric(completions(text))[0] for text in set(texts)}
    assert metric(completions(*texts)) == pytest.approx([alone[t] for t in texts], abs=1e-5)


def test_one_model_that_cannot_pad_reads_one_text_at_a_time(tmp_path):
    place = save(tmp_path / "model", "gpt2")
    assert judges.load_classifier(str(place)).tokenizer.pad_token_id is None
    expected = by_pipeline(place, TEXTS, "Positive")
    assert Sentiment(place)(completions(*TEXTS)) == pytest.approx(expected, abs=1e-5)


def test_labels_that_do_not_exclude_each_other_are_read_one_by_one(tmp_path):
    labels = {0: "toxic", 1: "insult", 2: "threat"}
    place = save(tmp_path / "m", labels=labels, problem_type="multi_label_classification")
    sums = [0.0] * len(TEXTS)
    for label in labels.values():
        scores = Toxicity(place, label=label)(completions(*TEXTS))
        assert scores == pytest.approx(by_pipeline(place, TEXTS, label), abs=1e-5)
        sums = [a + b for a, b in zip(sums, scores, strict=True)]
    assert all(abs(total - 1) > 0.01 for total in sums)


def test_a_single_label_is_a_sigmoid(tmp_path):
    place = save(tmp_path / "model", labels={0: "toxic"})
    scores = Toxicity(place)(completions(*TEXTS))
    assert scores == pytest.approx(by_pipeline(place, TEXTS, "toxic"), abs=1e-5)


def test_the_longest_text_is_the_shorter_of_what_model_and_tokenizer_read(tmp_path):
    def limit(directory):
        found = judges.load_classifier(str(directory))
        return judges.max_tokens(found.model, found.tokenizer)

    assert limit(save(tmp_path / "a", model_max_length=int(1e30))) == N_POSITIONS
    assert limit(save(tmp_path / "b", model_max_length=7)) == 7
    padding = make_tokenizer(own_bos=True).pad_token_id
    assert limit(save(tmp_path / "c", "roberta", model_max_length=int(1e30))) == (
        N_POSITIONS - padding - 1
    )


def test_a_model_without_a_limit_truncates_nothing(tmp_path):
    place = save(tmp_path / "model", "bloom", model_max_length=int(1e30))
    found = judges.load_classifier(str(place))
    assert judges.max_tokens(found.model, found.tokenizer) is None
    one, other = Sentiment(place)(completions(" love" * 99 + " hate", " love" * 99 + " late"))
    assert one != other


def test_empty_completions_are_not_read(tmp_path):
    place = save(tmp_path / "model", labels={0: "toxic", 1: "positive"})
    blank = completions("", " \n\t")
    assert Toxicity(place)(blank) == [0, 0]
    assert all(map(math.isnan, Sentiment(place)(blank)))
    [first, _, last] = Toxicity(place)(completions(" hate", "", " hate"))
    assert 0 < first < 1
    assert last == pytest.approx(first, abs=1e-6)
    assert Toxicity(place)([]) == Sentiment(place)([]) == []


def test_the_model_is_loaded_once(tmp_path):
    place = save(tmp_path / "model")
    Sentiment(place)([])
    shutil.rmtree(place)
    assert len(Sentiment(str(place))(completions(*TEXTS))) == len(TEXTS)
    assert Sentiment(place) == Sentiment(place) != Sentiment(place, label="negative")


def test_a_label_that_the_model_does_not_have_is_refused_with_the_list(tmp_path):
    place = save(tmp_path / "model", labels={0: "LABEL_0", 1: "LABEL_1"})
    with pytest.raises(al.MetricError, match=r"no label 'positive': choose one of LABEL_0, LABEL"):
        Sentiment(place)([])
    with pytest.raises(al.MetricError, match="no label 'toxic'"):
        Toxicity(place)(completions(""))
    assert len(Sentiment(place, label="label_1")(completions("a"))) == 1


def test_a_regression_has_no_probabilities(tmp_path):
    place = save(tmp_path / "model", labels={0: "toxic"}, problem_type="regression")
    with pytest.raises(al.MetricError, match="is a regression model"):
        Toxicity(place)([])


def test_a_model_with_a_random_head_is_refused(checkpoint):
    with pytest.raises(al.ModelLoadError, match=r"no weights for score\.weight"):
        Sentiment(checkpoint("gpt2"))([])


@pytest.mark.parametrize("name", ["no-such/classifier", "no_such_classifier"])
def test_an_unknown_name_says_what_was_tried(name):
    with pytest.raises(al.ModelLoadError, match=rf"classifier from '{name}'.*HF_HUB_OFFLINE"):
        Sentiment(name)([])


def test_a_broken_directory_says_what_is_wrong(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(al.ModelLoadError, match=r"cannot load a text classifier in .*empty"):
        Sentiment(tmp_path / "empty")([])
    place = save(tmp_path / "model")
    (place / "model.safetensors").write_bytes(b"broken")
    with pytest.raises(al.ModelLoadError, match=r"cannot load a text classifier in .*model"):
        Toxicity(place)([])


def test_a_directory_is_read_without_the_network(tmp_path, monkeypatch):
    from huggingface_hub import constants

    def refuse(*_, **__):
        raise AssertionError("the network was asked")

    place = save(tmp_path / "model")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr("socket.socket.connect", refuse)
    monkeypatch.setattr("socket.getaddrinfo", refuse)
    assert Sentiment(place)([]) == []
