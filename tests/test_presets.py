import json
import shutil

import pytest
import torch
import transformers as hf
from conftest import ARCHITECTURES, make_tokenizer

import actadd_lens as al
from actadd_lens.models.presets import PRESETS, shape_of

pytestmark = pytest.mark.slow  # large configurations


def opt(d_model, n_layers, n_heads):
    return hf.OPTConfig(
        hidden_size=d_model,
        word_embed_proj_dim=d_model,
        ffn_dim=4 * d_model,
        num_hidden_layers=n_layers,
        num_attention_heads=n_heads,
        vocab_size=50272,
        max_position_embeddings=2048,
    )


def gpt2(d_model, n_layers, n_heads):
    return hf.GPT2Config(n_embd=d_model, n_layer=n_layers, n_head=n_heads)


CONFIGS = {
    "gpt2": gpt2(768, 12, 12),
    "gpt2-medium": gpt2(1024, 24, 16),
    "gpt2-large": gpt2(1280, 36, 20),
    "gpt2-xl": gpt2(1600, 48, 25),
    "facebook/opt-125m": opt(768, 12, 12),
    "facebook/opt-1.3b": opt(2048, 24, 32),
    "facebook/opt-2.7b": opt(2560, 32, 32),
    "facebook/opt-6.7b": opt(4096, 32, 32),
    "EleutherAI/gpt-j-6b": hf.GPTJConfig(
        n_embd=4096,
        n_layer=28,
        n_head=16,
        n_positions=2048,
        rotary_dim=64,
        vocab_size=50400,
        tie_word_embeddings=False,
    ),
    "meta-llama/Meta-Llama-3-8B": hf.LlamaConfig(
        hidden_size=4096,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=8,
        intermediate_size=14336,
        max_position_embeddings=8192,
        vocab_size=128256,
        tie_word_embeddings=False,
    ),
}
"""As the config.json of each model has it."""

PUBLISHED = {
    "gpt2": 124439808,
    "gpt2-medium": 354823168,
    "gpt2-large": 774030080,
    "gpt2-xl": 1557611200,
    "meta-llama/Meta-Llama-3-8B": 8030261248,
}


def held(model):
    """Bytes of the distinct storages of a bridge."""
    tensors = [*model.parameters(), *model.buffers()]
    return sum(
        {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}.values()
    )


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_has_the_parameters_of_its_configuration(name, tmp_path):
    CONFIGS[name].save_pretrained(tmp_path)
    assert shape_of(name) == shape_of(tmp_path) == shape_of(str(tmp_path)) == PRESETS[name].shape
    with torch.device("meta"):
        model = hf.AutoModelForCausalLM.from_config(CONFIGS[name])
    assert shape_of(name).n_params == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("name", PUBLISHED)
def test_known_numbers_of_parameters(name):
    assert PRESETS[name].shape.n_params == PUBLISHED[name]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_every_byte_of_a_bridge_is_counted(checkpoint, architecture, dtype):
    model = al.load_model(checkpoint(architecture), device="cpu", dtype=dtype)
    shape = shape_of(model)
    assert shape == shape_of(checkpoint(architecture))
    counted = (shape.n_params + shape.copied_params) * dtype.itemsize + shape.buffer_bytes
    # Gemma's scale of the embeddings, one number, is the only table that is cast.
    assert counted - held(model) == 2 * (architecture == "gemma2" and dtype.itemsize == 2)
    assert shape.block_params + shape.embedding_params < shape.n_params


@pytest.mark.parametrize(
    "config",
    [
        hf.FalconConfig(vocab_size=340, hidden_size=32, num_hidden_layers=2, num_attention_heads=4),
        hf.MptConfig(vocab_size=340, d_model=32, n_layers=2, n_heads=4, max_seq_len=64),
        hf.CodeGenConfig(vocab_size=340, n_embd=32, n_layer=2, n_head=4, rotary_dim=4),
        hf.GPTBigCodeConfig(vocab_size=340, n_embd=32, n_layer=2, n_head=4),
        hf.Phi3Config(
            vocab_size=340,
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=48,
            pad_token_id=0,
        ),
    ],
    ids=lambda config: config.model_type,
)
def test_copies_of_other_fused_weights_are_counted(config, tmp_path):
    with torch.random.fork_rng():
        hf.AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    make_tokenizer(own_bos=True).save_pretrained(tmp_path)
    model = al.load_model(tmp_path, device="cpu")
    shape = shape_of(tmp_path)
    assert held(model) == (shape.n_params + shape.copied_params) * 4 + shape.buffer_bytes


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_shape_is_what_the_bridge_says(bridge, architecture):
    cfg, shape = bridge(architecture).cfg, shape_of(bridge(architecture))
    assert (shape.n_layers, shape.d_model, shape.d_vocab) == (
        cfg.n_layers,
        cfg.d_model,
        cfg.d_vocab,
    )
    assert (shape.n_heads, shape.d_head) == (cfg.n_heads, cfg.d_head)
    if architecture != "opt":  # TransformerLens takes 4 d_model, whatever ffn_dim is
        assert shape.d_mlp == cfg.d_mlp
    assert shape.n_kv_heads == (cfg.n_key_value_heads or cfg.n_heads)
    assert shape.n_ctx == cfg.n_ctx


def test_the_bundled_model_has_a_shape(monkeypatch, checkpoint):
    monkeypatch.setattr("actadd_lens.models.presets.TESTBED", checkpoint("gpt-neo"))
    assert shape_of("testbed") == shape_of(checkpoint("gpt-neo"))


def test_an_unknown_shape_says_what_is_known(tmp_path, checkpoint):
    with pytest.raises(al.ModelLoadError, match=r"'gpt5' is unknown.*presets gpt2, gpt2-medium"):
        shape_of("gpt5")
    with pytest.raises(al.ModelLoadError, match=r"config\.json is missing"):
        shape_of(tmp_path)
    shutil.copy(checkpoint("gpt2") / "config.json", tmp_path)
    settings = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**settings, "model_type": "no-such"}))
    with pytest.raises(al.ModelLoadError, match=r"cannot read the shape.*no-such"):
        shape_of(tmp_path)


def test_the_papers_settings_lie_in_their_models():
    known = {name for name, preset in PRESETS.items() if preset.paper}
    assert known == {"gpt2-xl"}
    for setting in PRESETS["gpt2-xl"].paper.values():
        assert 0 < setting.layer < 48
        al.ContrastPair(setting.positive, setting.negative)


def test_half_precision_is_for_gpus():
    for preset in PRESETS.values():
        assert preset.dtype_on("cpu") == torch.float32
        assert preset.dtype_on("cuda:1") == preset.half
        assert preset.half.itemsize == 2
    assert [preset.name for preset in PRESETS.values() if preset.gated] == [
        "meta-llama/Meta-Llama-3-8B"
    ]
