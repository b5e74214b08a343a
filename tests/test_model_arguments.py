"""What is put in a model's place: a bridge is taken, everything else is named with the remedy."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import D_MODEL, make_config, make_tokenizer

import actadd_lens as al
from actadd_lens.models.bridge import BridgeModel
from actadd_lens.models.hook_points import is_bridge
from actadd_lens.models.load import TESTBED, same_model

POINT = "blocks.1.hook_resid_pre"
VECTOR = al.SteeringVector(torch.ones(1, D_MODEL), POINT)
PAIR = ("Love", "Hate")
VALUES: dict[str, Any] = {
    "coefficient": 1.0,
    "coefficients": [1.0],
    "facts": [("I love", "you")],
    "layer": 1,
    "layers": [1],
    "messages": "I love you",
    "metrics": "kl",
    "negative": ["I hate you"],
    "pair": PAIR,
    "pairs": [PAIR, ("I love", "I hate")],
    "positive": ["I love you"],
    "prompt": "I love you",
    "prompts": ["I love you"],
    "steering": VECTOR,
    "texts": ["I love you"],
    "vector": VECTOR,
    "vectors": VECTOR,
    "what": PAIR,
}
"""For each parameter that some function requires, a value that is right."""


def takes_model(function: object) -> bool:
    return inspect.isroutine(function) and "model" in inspect.signature(function).parameters


FUNCTIONS: dict[str, Callable[..., Any]] = {
    name: getattr(al, name) for name in al.__all__ if takes_model(getattr(al, name))
} | {
    "SteeringVector.from_pair": al.SteeringVector.from_pair,
    "SteeringVector.from_prompt": al.SteeringVector.from_prompt,
    "ContrastPair.tokens": al.ContrastPair(*PAIR).tokens,
}


def called(name: str, model: object) -> None:
    parameters = inspect.signature(FUNCTIONS[name]).parameters.values()
    required = [p.name for p in parameters if p.default is p.empty and p.kind is not p.VAR_KEYWORD]
    FUNCTIONS[name](model, **{p: VALUES[p] for p in required if p != "model"})


def test_the_functions_that_take_a_model_are_found():
    assert {"generate", "compare", "steer", "extract", "sweep", "explore"} <= FUNCTIONS.keys()


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_name_in_a_models_place_is_named_with_the_line_that_loads_it(name):
    with pytest.raises(
        al.ModelTypeError, match=r"model is 'gpt2', not .*model = al\.load_model\(\"gpt2\"\)"
    ):
        called(name, "gpt2")


@pytest.mark.parametrize("name", sorted(FUNCTIONS.keys() - {"steer"}))
def test_a_bare_hugging_face_model_is_named_with_the_line_that_wraps_it(name, plain):
    with pytest.raises(
        al.ModelTypeError, match=r"GPT2LMHeadModel, .*al\.load_model\(model, tokenizer=tokenizer\)"
    ):
        called(name, plain("gpt2"))


@pytest.mark.parametrize("name", sorted(FUNCTIONS.keys() - {"explore"}))  # None is the testbed
def test_none_in_a_models_place_is_named(name):
    with pytest.raises(al.ModelTypeError, match=r"model is None, .*al\.load_model\(\"gpt2\"\)"):
        called(name, None)


def test_a_path_and_an_old_model_are_named():
    with pytest.raises(al.ModelTypeError, match=r"al\.load_model\(\"models/gpt2\"\)"):
        al.generate(Path("models/gpt2"), "I love")
    old = type("HookedTransformer", (), {"cfg": SimpleNamespace(model_name="pythia")})()
    old.hook_dict = {}
    with pytest.raises(
        al.ModelTypeError,
        match=r"HookedTransformer, .*Lens 4: model = al\.load_model\(\"pythia\"\)",
    ):
        al.generate(old, "I love")


@pytest.mark.usefixtures("untyped")
@pytest.mark.parametrize(
    ("swapped", "right"),
    [
        (lambda m: al.generate("I love", m), r"al.generate(model, prompts)"),
        (lambda m: al.compare("I love", m, VECTOR), r"al.compare(model, prompts)"),
        (lambda m: al.steer(VECTOR, m), r"al.steer(model, steering)"),
        (lambda m: al.extract(PAIR, m), r"al.extract(model, pair)"),
        (lambda m: al.sweep(PAIR, m, "I", metrics="kl"), r"al.sweep(model, what)"),
        (lambda m: al.next_token_shift("I", m, VECTOR), r"al.next_token_shift(model, prompt)"),
        (lambda m: al.token_logprobs(["I love"], m), r"al.token_logprobs(model, texts)"),
        (lambda m: al.placement(VECTOR, m, "I"), r"al.placement(model, steering)"),
        (lambda m: al.perplexity_ratio(["I"], VECTOR, m), r"(model, texts, steering)"),
        (lambda m: al.position_ablation(VECTOR, m, "I", metrics="kl"), r"(model, vector)"),
        (
            lambda m: al.SteeringVector.from_pair(PAIR, m, 1),
            r"al.SteeringVector.from_pair(model, pair)",
        ),
    ],
)
def test_swapped_arguments_are_seen(model, swapped, right):
    with pytest.raises(al.ModelTypeError) as caught:
        swapped(model)
    assert "the arguments are swapped: " in str(caught.value)
    assert str(caught.value).endswith(right)


# Loading


@pytest.fixture
def hf(checkpoint) -> Any:
    """A loaded Hugging Face model of one's own: the bridge wraps it in place."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(checkpoint("llama"))


def test_a_loaded_model_is_wrapped_and_reads_as_the_plain_one(hf, checkpoint, plain):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(checkpoint("llama"))
    hf.train()
    model = al.load_model(hf, tokenizer=tokenizer)
    assert not model.training
    assert not hf.training
    tokens = model.to_tokens("I love you", prepend_bos=True)
    with torch.no_grad():
        torch.testing.assert_close(model(tokens), plain("llama")(tokens).logits)
    assert BridgeModel(model).name == str(checkpoint("llama"))
    v = al.SteeringVector.from_pair(model, PAIR, layer=1)
    assert len(al.generate(model, "I love", 4 * v, max_new_tokens=3)[0].tokens) == 3


@pytest.mark.parametrize("own_bos", [True, False])
def test_a_tokenizer_that_was_built_in_memory_serves(own_bos):
    from transformers import AutoModelForCausalLM

    tokenizer = make_tokenizer(own_bos)
    tokenizer.add_tokens(["<extra>"])
    with torch.random.fork_rng():
        hf = AutoModelForCausalLM.from_config(make_config("llama", tokenizer))
    model = al.load_model(hf, tokenizer=tokenizer)
    text = "I love <extra> you"
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert model.to_tokens(text, prepend_bos=True)[0].tolist()[1:] == ids
    assert len(tokenizer) - 1 in ids
    assert BridgeModel(model).name == "LlamaForCausalLM"
    again = al.load_model(make_copy(hf), tokenizer=model.tokenizer)
    assert again.to_tokens(text, prepend_bos=True).equal(model.to_tokens(text, prepend_bos=True))


def make_copy(hf: Any) -> Any:
    with torch.random.fork_rng():
        return type(hf)(hf.config)


def test_a_loaded_model_needs_a_tokenizer(hf):
    with pytest.raises(
        al.ModelLoadError, match=r"LlamaForCausalLM has no tokenizer: .*tokenizer=tokenizer\)"
    ):
        al.load_model(hf)


def test_a_model_is_wrapped_once(hf, checkpoint):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(checkpoint("llama"))
    al.load_model(hf, tokenizer=tokenizer)
    with pytest.raises(al.ModelLoadError, match="part of a TransformerBridge already"):
        al.load_model(hf, tokenizer=tokenizer)


@pytest.mark.usefixtures("untyped")
@pytest.mark.parametrize("source", [3, torch.nn.Linear(1, 1), None])
def test_what_is_no_model_cannot_be_loaded(source):
    with pytest.raises(al.ModelLoadError, match=f"cannot load a {type(source).__name__}"):
        al.load_model(source)


def test_a_bridge_comes_back_as_it_is(model):
    assert al.load_model(model) is model
    with pytest.raises(al.ModelLoadError, match="loaded already, dtype cannot be applied"):
        al.load_model(model, dtype=torch.float16)


def test_the_setting_of_bos_is_the_models(checkpoint):
    default = al.load_model(checkpoint("gpt-neox")).cfg.default_prepend_bos
    for wanted in (True, False):
        model = al.load_model(checkpoint("gpt-neox"), prepend_bos=wanted)
        assert model.cfg.default_prepend_bos is wanted
    assert al.load_model(model, prepend_bos=None).cfg.default_prepend_bos is False
    assert al.load_model(model, prepend_bos=default).cfg.default_prepend_bos is default


def test_the_precision_is_that_of_the_parameters(hf, checkpoint):
    from transformer_lens.model_bridge import TransformerBridge
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(checkpoint("llama"))
    half = make_copy(hf).to(torch.float16)
    booted = TransformerBridge.boot_transformers("llama", hf_model=half, tokenizer=tokenizer)
    assert BridgeModel(booted).dtype == torch.float16
    assert al.load_model(hf.bfloat16(), tokenizer=tokenizer).cfg.dtype == torch.bfloat16
    cast = al.load_model(make_copy(hf), tokenizer=tokenizer, dtype=torch.float16)
    assert cast.cfg.dtype == BridgeModel(cast).dtype == torch.float16
    assert al.load_model(checkpoint("gpt2"), dtype=torch.float16).cfg.dtype == torch.float16


def test_a_misspelt_setting_of_ones_own_is_refused():
    with pytest.raises(TypeError, match="'prepend_boss': did you mean 'prepend_bos'"):
        al.load_model("testbed", prepend_boss=True)


def test_a_bridge_is_recognised(model, plain):
    assert is_bridge(model)
    assert not any(map(is_bridge, (plain("gpt2"), type(model), None)))


# Which model


def names(a: str, b: str) -> bool:
    return same_model({"model": a}, {"model": b})


def test_a_directory_is_the_same_model_however_it_is_spelt(tmp_path, monkeypatch):
    for name in ("here", "there"):
        (tmp_path / name / "model").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "here" / "model")
    monkeypatch.chdir(tmp_path)
    own = str(tmp_path / "here" / "model")
    for other in ("here/model", "./here/model/", "there/../here/model", "link"):
        assert names(own, other)
    assert not names(own, "there/model")  # both are here, and differ
    assert names(own, "/moved/to/model")
    assert names("testbed", str(TESTBED))
    assert not names("testbed", "gpt2")
    assert names("openai-community/gpt2", "gpt2")
    assert not names("gpt2", "gpt2-xl")


def test_models_of_one_name_and_two_depths_differ():
    assert not same_model({"model": "m", "n_layers": 2}, {"model": "m", "n_layers": 3})
    assert same_model({"model": "m"}, {"model": "m", "n_layers": 3})
    assert same_model({}, {"model": "m", "n_layers": 3})
    assert same_model({"model": ["mine"]}, {"model": "m"})
