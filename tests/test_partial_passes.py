"""A pass that starts at a layer is the whole pass, steered there, on every architecture."""

import pytest
import torch
from conftest import ARCHITECTURES, D_MODEL, N_LAYERS
from oracle import Addition, logits

import actadd_lens as al
from actadd_lens.models import tokens as prompts
from actadd_lens.models.base import Start
from actadd_lens.models.bridge import BridgeModel
from actadd_lens.models.hook_points import hook_point
from actadd_lens.models.plain import fast_model
from actadd_lens.steering.checks import tokens_edited
from actadd_lens.steering.interventions import applied

TEXTS = ["I love you and you hate me", "She talks"]


def rows_of(seed):
    return 3 * torch.randn(2, D_MODEL, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("pad", [prompts.pad_left, prompts.pad_right])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_partial_pass_is_a_hand_written_hook(bridge, plain, architecture, pad):
    model, hf = bridge(architecture), plain(architecture)
    rows = prompts.as_prompts(model, TEXTS)
    tokens, mask = pad(rows, model.tokenizer.pad_token_id)
    passes = fast_model(model)
    for layer in range(N_LAYERS):
        vector = al.SteeringVector(rows_of(layer), hook_point(layer))
        read = BridgeModel(model).run(tokens, mask, read=[vector.hook_point], keep=None)
        stream = read.streams[vector.hook_point]
        steered = applied(stream, [vector], tokens_edited([vector], mask.bool()))
        found = passes.run(tokens, mask, start=Start(layer, steered)).logits
        for ids, row, real in zip(rows, found, mask.bool(), strict=True):
            expected = logits(hf, architecture, ids, [Addition(layer, "resid_pre", vector.rows)])
            torch.testing.assert_close(row[real], expected, atol=5e-5, rtol=1e-4)


def test_blocks_below_do_not_run(neo):
    passes = fast_model(neo)
    tokens, mask = prompts.pad_left(prompts.as_prompts(neo, TEXTS), 0)
    ran = []
    handles = [
        block.mlp.register_forward_hook(lambda *_, i=i: ran.append(i))
        for i, block in enumerate(passes.blocks)
    ]
    try:
        passes.run(tokens, mask, start=Start(2, torch.zeros(*tokens.shape, D_MODEL)))
    finally:
        for handle in handles:
            handle.remove()
    assert ran == [2]


def test_the_plain_model_is_left_as_it_was_also_by_an_error(neo):
    passes = fast_model(neo)
    tokens, mask = prompts.pad_left(prompts.as_prompts(neo, TEXTS), 0)
    before = passes.module(tokens, attention_mask=mask).logits
    with pytest.raises(RuntimeError):
        passes.run(tokens, mask, start=Start(1, torch.zeros(*tokens.shape, D_MODEL + 1)))
    assert torch.equal(passes.module(tokens, attention_mask=mask).logits, before)
    assert not any("forward" in block.__dict__ for block in passes.blocks)


def test_while_hooks_are_attached_the_bridge_runs(neo):
    with al.steer(neo, al.SteeringVector(rows_of(0), "blocks.1.hook_resid_pre")):
        assert isinstance(fast_model(neo), BridgeModel)
