import shutil

import pytest
import torch
from conftest import ARCHITECTURES, N_LAYERS

import actadd_lens as al
from actadd_lens.models import load as models


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_directory_is_loaded_as_the_plain_model(bridge, plain, architecture):
    model = bridge(architecture)
    assert not model.training
    assert not model.original_model.training
    assert not model.compatibility_mode
    assert model.cfg.n_layers == N_LAYERS
    tokens = model.to_tokens("I love you", prepend_bos=True)
    with torch.no_grad():
        torch.testing.assert_close(
            model(tokens), plain(architecture)(tokens).logits, atol=1e-4, rtol=1e-4
        )


def test_device_and_dtype_are_handed_on(checkpoint):
    model = al.load_model(checkpoint("gpt2"), device="cpu", dtype=torch.bfloat16)
    assert {p.dtype for p in model.original_model.parameters()} == {torch.bfloat16}
    assert model.cfg.device == "cpu"
    assert al.load_model(str(checkpoint("gpt2")), n_ctx=64).cfg.n_ctx == 64


def test_the_bundled_model_or_what_to_do_without(monkeypatch, tmp_path, checkpoint):
    monkeypatch.setattr(models, "TESTBED", tmp_path / "none")
    with pytest.raises(al.ModelLoadError, match=r"no model in .*none: config\.json is missing"):
        al.load_model()
    monkeypatch.setattr(models, "TESTBED", checkpoint("gpt-neo"))
    assert al.load_model().cfg.n_layers == N_LAYERS
    assert al.load_model().cfg.model_name == "testbed"


def test_a_directory_without_a_tokenizer_is_refused(checkpoint, tmp_path):
    for name in ("config.json", "model.safetensors"):
        shutil.copy(checkpoint("gpt2") / name, tmp_path)
    with pytest.raises(al.ModelLoadError, match=r"no tokenizer in .*save_pretrained"):
        al.load_model(tmp_path)
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(checkpoint("gpt2"))
    assert al.load_model(tmp_path, tokenizer=tokenizer).tokenizer is not None


def test_a_directory_without_weights_is_refused(checkpoint, tmp_path):
    with pytest.raises(al.ModelLoadError, match=r"config\.json is missing"):
        al.load_model(tmp_path)
    place = tmp_path / "broken"
    shutil.copytree(checkpoint("gpt2"), place)
    (place / "model.safetensors").write_bytes(b"broken")
    with pytest.raises(al.ModelLoadError, match=r"cannot load the model in .*broken"):
        al.load_model(place)


@pytest.mark.parametrize("name", ["no-such/model", "no_such_model"])
def test_an_unknown_name_says_what_was_tried(name):
    with pytest.raises(al.ModelLoadError, match=rf"cannot load '{name}'.*HF_HUB_OFFLINE"):
        al.load_model(name)


@pytest.mark.parametrize("name", ["/no/such/directory", "./here", "nowhere/"])
def test_a_missing_directory_is_no_name_for_the_hub(name):
    with pytest.raises(al.ModelLoadError, match=f"no directory {name}"):
        al.load_model(name)


def test_a_misspelt_option_is_refused():
    with pytest.raises(TypeError, match="unexpected option 'n_contex': did you mean 'n_ctx'"):
        al.load_model("gpt2", n_contex=8)
    with pytest.raises(TypeError, match="unexpected option 'zzz': there are"):
        al.load_model("gpt2", zzz=8)


def test_a_directory_is_read_without_the_network(checkpoint, monkeypatch):
    """Also where the hub is not switched off, as it is for the other tests."""
    from huggingface_hub import constants

    def refuse(*_, **__):
        raise AssertionError("the network was asked")

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr("socket.socket.connect", refuse)
    monkeypatch.setattr("socket.getaddrinfo", refuse)
    for architecture in ("gpt2", "llama", "mistral"):
        assert al.load_model(checkpoint(architecture), device="cpu").tokenizer is not None
