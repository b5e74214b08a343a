"""Every private or unlisted name of a dependency that models/ relies on is still there.

An upgrade that takes one away fails here, with its name, before anything subtle goes wrong.
Checked with transformer-lens 4.3.0 and transformers 5.23.0.
"""

import inspect

import pytest
import torch
from conftest import make_tokenizer

from actadd_lens.models import hook_points

CFG = ("n_layers", "d_model", "d_vocab", "d_head", "d_mlp", "n_ctx", "n_heads", "dtype", "device",
       "model_name", "default_prepend_bos")  # fmt: skip


@pytest.mark.parametrize("name", CFG)
def test_bridge_config(model, name):
    assert hasattr(model.cfg, name)


@pytest.mark.parametrize(
    "name",
    ["original_model", "get_hook_point", "check_hooks_to_add", "hook_dict", "tokenizer",
     "to_tokens", "ln_final", "unembed"],
)  # fmt: skip
def test_bridge_attribute(model, name):
    assert getattr(model, name) is not None


def test_bridge_marks_processed_weights():
    from transformer_lens.model_bridge import transformer_bridge

    assert "_weights_processed" in inspect.getsource(transformer_bridge)


@pytest.mark.parametrize("name", ["input", "return_type", "prepend_bos", "past_key_values"])
def test_bridge_forward_takes(model, name):
    assert name in inspect.signature(type(model).forward).parameters


@pytest.mark.parametrize("name", ["prepend_bos", "truncate"])
def test_to_tokens_takes(model, name):
    assert name in inspect.signature(model.to_tokens).parameters


def test_a_pass_returns_logits_and_cache_and_keeps_the_last_logits(model):
    tokens = torch.ones(1, 3, dtype=torch.long)
    with torch.no_grad():
        logits, cache = model(
            tokens, return_type="logits_and_cache", use_cache=True, logits_to_keep=1
        )
    assert logits.shape[1] == 1
    assert cache.get_seq_length() == 3


def test_add_hook_returns_a_handle_that_is_removed_alone(model):
    point = model.get_hook_point("blocks.1.hook_resid_pre")
    handle = point.add_hook(lambda tensor, hook: None, is_permanent=True)
    assert point.fwd_hooks[-1] is handle
    handle.hook.remove()
    point.fwd_hooks.remove(handle)
    assert not point.fwd_hooks


def test_a_handle_keeps_the_callers_function(model):
    def mine(tensor, hook):
        return None

    point = model.get_hook_point("blocks.1.hook_resid_pre")
    handle = point.add_hook(mine)
    try:
        assert handle.user_hook is mine
    finally:
        point.remove_hooks()


@pytest.mark.parametrize("name", ["uses_rms_norm", "uses_weight_offset", "weight"])
def test_final_norm_says(model, name):
    assert hasattr(model.ln_final, name)


def test_unembedding_has_a_matrix(model):
    assert model.unembed.W_U.shape == (model.cfg.d_model, model.cfg.d_vocab)


def test_where_the_stream_between_attention_and_mlp_is_read(bridge):
    for architecture in ("gpt2", "llama"):
        name = bridge(architecture).get_hook_point("blocks.1.hook_resid_mid").name
        assert name.endswith((".ln2.hook_in", "mlp.hook_in"))


def test_a_point_of_another_name_is_refused(model, monkeypatch):
    import actadd_lens as al

    point = model.get_hook_point("blocks.1.hook_resid_mid")
    monkeypatch.setattr(point, "name", "blocks.1.elsewhere")
    with pytest.raises(al.LayerError, match=r"reads blocks.1.hook_resid_mid at blocks.1.elsewhere"):
        hook_points.injection_points(model, "blocks.1.hook_resid_mid")


def test_a_wrapped_parameter_has_an_inserted_name(model):
    from actadd_lens.models.plain import _INSERTED

    assert any(_INSERTED in name for name, _ in model.original_model.named_parameters())


def test_positions_from_the_mask():
    from transformer_lens.utilities.position_ids import accepts_mask_derived_position_ids

    assert callable(accepts_mask_derived_position_ids)


def test_logit_readout():
    from transformer_lens.tools.analysis import logit_readout

    assert "return_type" in inspect.signature(logit_readout).parameters


def test_models_are_built_without_drawing_weights():
    from transformers.initialization import no_init_weights

    assert callable(no_init_weights)


@pytest.mark.parametrize("name", ["_from_config", "_supports_sdpa", "_is_stateful"])
def test_pretrained_model(name):
    from transformers import PreTrainedModel

    assert hasattr(PreTrainedModel, name)


@pytest.mark.parametrize("name", ["batch_select_indices", "get_seq_length"])
def test_cache(name):
    from transformers import DynamicCache

    assert callable(getattr(DynamicCache, name))


def test_a_cache_is_made_of_layers():
    from transformers import DynamicCache

    assert list(DynamicCache().layers) == []


@pytest.mark.parametrize(
    "name", ["_forward_hooks", "_forward_pre_hooks", "_modules", "_parameters", "_buffers"]
)
def test_torch_module(name):
    assert hasattr(torch.nn.Identity(), name)


def test_a_tensor_counts_its_changes():
    tensor = torch.zeros(1)
    before = tensor._version
    tensor += 1
    assert tensor._version == before + 1


def test_a_tokenizer_built_in_memory_still_needs_to_be_saved_first():
    # Where this fails, `models.load._reloaded` can go.
    from transformer_lens.utilities import get_tokenizer_with_bos

    with pytest.raises(KeyError, match="name_or_path"):
        get_tokenizer_with_bos(make_tokenizer(own_bos=True))
