"""What the package believes of TransformerBridge."""

import pytest
import torch
from conftest import ARCHITECTURES, D_MODEL, N_CTX, N_LAYERS, PARALLEL

import actadd_lens as al
from actadd_lens.models import hook_points
from actadd_lens.models.bridge import BridgeModel


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_sizes(bridge, architecture):
    model = bridge(architecture)
    own = BridgeModel(model)
    assert (own.n_layers, own.d_model, own.n_ctx) == (N_LAYERS, D_MODEL, N_CTX)
    assert own.d_vocab == model.tokenizer.vocab_size
    assert own.device == torch.device("cpu")


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_names_mean_what_they_do_in_transformer_lens(bridge, architecture):
    from transformer_lens.model_bridge.bridge_core import build_alias_to_canonical_map

    model = bridge(architecture)
    points = model.hook_dict
    canonical = build_alias_to_canonical_map(points)
    for site in hook_points.SITES:
        if site == "resid_mid" and architecture in PARALLEL:
            continue
        name = hook_points.hook_point(1, site)
        assert hook_points.point_of(model, name) is points[canonical.get(name, name)]


@pytest.mark.parametrize("name", ["hook_embed", "blocks.x.hook_resid_pre", "blocks.1.", ""])
def test_a_point_of_no_block_is_refused(name):
    with pytest.raises(al.VectorError, match="names no block"):
        hook_points.layer_of(name)


def test_a_point_that_is_never_reached_is_told(model):
    tokens = torch.ones(1, 2, dtype=torch.long)
    points = ["blocks.0.hook_resid_pre", "blocks.1.attn.qkv.hook_in"]
    with pytest.raises(al.LayerError, match=r"never reached.*\['blocks.1.attn.qkv.hook_in'\]"):
        BridgeModel(model).run(tokens, tokens, read=points, keep=None)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_stopped_pass_leaves_no_trace(bridge, architecture):
    model = bridge(architecture)
    tokens = model.to_tokens("I love you", prepend_bos=True)
    with torch.no_grad():
        before = model(tokens)
        mask = torch.ones_like(tokens)
        BridgeModel(model).run(tokens, mask, read=["blocks.1.hook_attn_out"], keep=None)
        assert torch.equal(model(tokens), before)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_decode_steps_continue_a_prefill(bridge, architecture):
    model = bridge(architecture)
    tokens = torch.tensor([[3, 3, 5, 6], [7, 8, 9, 10]])
    mask = torch.tensor([[0, 0, 1, 1], [1, 1, 1, 1]])
    first = BridgeModel(model).run(tokens, mask, keep=1, use_cache=True)
    longer = torch.cat([mask, torch.ones(2, 1, dtype=torch.long)], dim=1)
    after = BridgeModel(model).run(torch.tensor([[4], [4]]), longer, cache=first.cache, keep=1)
    last, step = first.last_logits, after.last_logits
    with torch.no_grad():
        for row, (before, after) in enumerate(zip(last, step, strict=True)):
            ids = [*tokens[row][mask[row].bool()].tolist(), 4]
            alone = model(torch.tensor([ids]))[0]
            torch.testing.assert_close(before, alone[-2], atol=5e-5, rtol=1e-4)
            torch.testing.assert_close(after, alone[-1], atol=5e-5, rtol=1e-4)
