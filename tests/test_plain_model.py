"""The plain model continues text as the bridge does, shares its tensors, and is never stale."""

import gc
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ARCHITECTURES

import actadd_lens as al
from actadd_lens.models import plain
from actadd_lens.models.base import Bridge, Model
from actadd_lens.models.bridge import BridgeModel
from actadd_lens.models.plain import shared_model

PROMPTS = ["I love you", "The wedding was on a sunny day", "I"]


@pytest.fixture
def own(checkpoint: Callable[[str], Path]) -> Bridge:
    """A GPT-NeoX of this test alone; its bridge computes with copies of the fused weights."""
    return al.load_model(checkpoint("gpt-neox"), device="cpu")


def texts(model: Bridge, **options: Any) -> list[str]:
    completions = al.generate(model, PROMPTS, temperature=0, max_new_tokens=8, **options)
    return [completion.text for completion in completions]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_architecture_has_a_plain_model_that_holds_no_tensor_of_its_own(
    bridge: Callable[[str], Bridge], architecture: str
) -> None:
    model = bridge(architecture)
    found = shared_model(model)
    assert found is not None
    shared = {id(t) for _, t in plain._tensors(model.original_model)}
    assert all(id(t) in shared for _, t in plain._tensors(found.module))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_decode_step_is_the_bridges(bridge: Callable[[str], Bridge], architecture: str) -> None:
    """Beyond the windows of local attention, in a padded batch."""
    model = bridge(architecture)
    found = shared_model(model)
    assert found is not None
    tokens = torch.arange(60).reshape(3, 20) + 3
    mask = torch.ones_like(tokens)
    mask[0, :7] = 0
    mask[1, :1] = 0

    def logits(runner: Model) -> torch.Tensor:
        first = BridgeModel(model).run(tokens[:, :12], mask[:, :12], keep=1, use_cache=True)
        cache, steps = first.cache, []
        for n in range(12, 20):
            after = runner.run(tokens[:, n : n + 1], mask[:, : n + 1], cache=cache, keep=1)
            cache = after.cache
            steps.append(after.last_logits)
        return torch.stack(steps)

    bridged = logits(BridgeModel(model))
    torch.testing.assert_close(logits(found), bridged, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_whole_pass_reads_and_edits_what_the_bridge_does(
    bridge: Callable[[str], Bridge], architecture: str
) -> None:
    model = bridge(architecture)
    found = shared_model(model)
    assert found is not None
    tokens = torch.arange(24).reshape(2, 12) + 3
    mask = torch.ones_like(tokens)
    mask[0, :5] = 0
    names = ["blocks.1.hook_resid_pre", "blocks.1.hook_resid_post"]
    edits = {names[0]: lambda stream: stream * 1.5, names[1]: lambda stream: stream + 0.25}
    ours, theirs = (
        runner.run(tokens, mask, edits=edits, read=names) for runner in (found, BridgeModel(model))
    )
    for name in names:
        real = mask.bool()
        torch.testing.assert_close(
            ours.streams[name][real], theirs.streams[name][real], rtol=1e-4, atol=1e-4
        )
    kept = [run.logits[mask.bool()].log_softmax(dim=-1) for run in (ours, theirs)]
    torch.testing.assert_close(*kept, rtol=1e-4, atol=1e-4)


def test_what_it_cannot_run_is_refused(own: Bridge) -> None:
    found = shared_model(own)
    assert found is not None
    tokens = torch.ones(1, 2, dtype=torch.long)
    with pytest.raises(al.LayerError, match="not the stream that enters a block"):
        found.run(tokens, None, edits={"blocks.1.hook_mlp_out": lambda stream: stream})
    assert not any(block._forward_pre_hooks for block in found.blocks)


def test_building_it_draws_no_random_number(own: Bridge) -> None:
    before = torch.random.get_rng_state()
    assert shared_model(own) is not None
    assert torch.equal(before, torch.random.get_rng_state())


def test_it_is_kept_while_nothing_changes(own: Bridge) -> None:
    assert shared_model(own).module is shared_model(own).module


def test_it_keeps_no_model_alive(own: Bridge) -> None:
    """Nor itself, once the model is gone."""
    model = al.load_model(own.cfg.model_name, device="cpu")
    kept = weakref.ref(model), weakref.ref(shared_model(model).module)
    del model
    gc.collect()
    assert [reference() for reference in kept] == [None, None]


@pytest.mark.parametrize("hooked", ["hook point", "module", "steered"])
def test_while_hooks_are_attached_the_bridge_decodes(model: Bridge, hooked: str) -> None:
    assert shared_model(model) is not None
    if hooked == "hook point":
        point = model.blocks[0].hook_resid_pre
        point.add_hook(lambda tensor, hook: tensor * 1.5)
        assert shared_model(model) is None
        point.remove_hooks()
    elif hooked == "module":
        handle = model.blocks[1].register_forward_hook(lambda *_: None)
        assert shared_model(model) is None
        handle.remove()
    else:
        vector = al.SteeringVector.from_pair(model, ("Love", "Hate"), 1)
        with al.steer(model, vector):
            assert shared_model(model) is None
    assert shared_model(model) is not None


def test_hooks_of_the_caller_fire_at_every_token(model: Bridge) -> None:
    seen: list[int] = []
    handle = model.blocks[0].hook_resid_pre.add_hook(
        lambda tensor, hook: seen.append(tensor.shape[1])
    )
    try:
        al.generate(model, "I love you", max_new_tokens=5, stop_at_eos=False)
    finally:
        model.blocks[0].hook_resid_pre.remove_hooks()
    assert handle is not None
    assert seen[1:] == [1, 1, 1, 1]


@pytest.mark.parametrize("part", ["shared", "fused", "split"])
@pytest.mark.parametrize("through_data", [False, True])
def test_a_weight_changed_in_place_is_never_missed(
    own: Bridge, monkeypatch: pytest.MonkeyPatch, part: str, through_data: bool
) -> None:
    """Of a fused weight the bridge uses copies: then the two must be found to differ."""
    texts(own)
    weight = {
        "shared": own.blocks[1].mlp.out.weight,
        "fused": own.original_model.gpt_neox.layers[1].attention.query_key_value.weight,
        "split": own.blocks[1].attn.q.weight,
    }[part]
    if through_data:
        weight.data.mul_(-2)
    else:
        with torch.no_grad():
            weight.mul_(-2)
    by_plain_model = texts(own)
    monkeypatch.setattr("actadd_lens.models.plain.shared_model", lambda _: None)
    assert texts(own) == by_plain_model


def test_a_parameter_that_was_replaced_is_never_missed(
    own: Bridge, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts(own)
    linear = own.original_model.gpt_neox.layers[2].mlp.dense_4h_to_h.original_component
    linear.weight = torch.nn.Parameter(-linear.weight.detach())
    by_plain_model = texts(own)
    monkeypatch.setattr("actadd_lens.models.plain.shared_model", lambda _: None)
    assert texts(own) == by_plain_model


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_model_cast_afterwards_gets_a_new_plain_model(own: Bridge, dtype: torch.dtype) -> None:
    before = shared_model(own)
    own.to(dtype, print_details=False)
    after = shared_model(own)
    assert after is not None
    assert after.module is not before.module
    assert {p.dtype for p in after.module.parameters()} == {dtype}
    assert len(al.generate(own, PROMPTS, samples=2, max_new_tokens=5)) == 6


def test_where_none_can_be_built_the_bridge_decodes_and_says_why_once(
    own: Bridge, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    expected = texts(own)

    def fail(_: Any) -> Any:
        raise RuntimeError("quantised")

    monkeypatch.setattr(plain, "_rebuilt", fail)
    monkeypatch.setattr(plain, "_known", weakref.WeakKeyDictionary())
    assert shared_model(own) is None
    assert texts(own) == expected
    reasons = [record.getMessage() for record in caplog.records if "fast path" in record.msg]
    assert len(reasons) == 1
    assert "RuntimeError: quantised" in reasons[0]
