"""Laws of steering, then every architecture against the oracle, then the ways of calling."""

import gc
from contextlib import ExitStack

import pytest
import torch
from conftest import ARCHITECTURES, D_MODEL, N_LAYERS, PARALLEL
from hypothesis import given
from hypothesis import strategies as st
from oracle import Addition, greedy, logits, start_of

import actadd_lens as al
from actadd_lens.models import hook_points, watch
from actadd_lens.models import tokens as prompts
from actadd_lens.models.bridge import BridgeModel
from actadd_lens.models.hook_points import SITES
from actadd_lens.steering.checks import tokens_edited
from actadd_lens.steering.edits import decode_edits, prompt_edits
from actadd_lens.steering.interventions import applied
from actadd_lens.steering.positions import ANCHORS

LONG, SHORT = "I love you and you hate me", "She talks"
POINT = "blocks.1.hook_resid_pre"
GATED = "blocks.1.hook_mlp_in"
"""A point that fires only once the bridge is told to compute it."""


def rows_of(seed, n_rows, scale=3.0):
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(n_rows, D_MODEL, generator=generator)


def vector_of(seed=0, n_rows=2, point=POINT, position="front"):
    return al.SteeringVector(rows_of(seed, n_rows), point, position)


def tokens_of(model, text):
    return model.to_tokens(text, prepend_bos=True)


def steered(model, steering, *args, **kwargs):
    with torch.no_grad(), al.steer(model, steering):
        return model(*args, **kwargs)


def clean(model, *args, **kwargs):
    with torch.no_grad():
        return model(*args, **kwargs)


def close(actual, expected):
    torch.testing.assert_close(actual, expected, atol=5e-5, rtol=1e-4)


def handles(model):
    """Every hook there is, by identity."""
    return {
        name: [id(handle) for handle in point.fwd_hooks]
        for name, point in model.hook_dict.items()
        if point.fwd_hooks
    }


@st.composite
def vectors(draw, max_rows=3):
    n_rows = draw(st.integers(1, max_rows))
    spreads = ["prompt", "all"] if n_rows == 1 else []
    return al.SteeringVector(
        rows_of(draw(st.integers(0, 999)), n_rows),
        f"blocks.{draw(st.integers(0, N_LAYERS - 1))}.hook_resid_pre",
        draw(st.sampled_from([*ANCHORS, 1, -n_rows, *spreads])),
    )


# Laws


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@given(vector=vectors())
def test_coefficient_zero_is_clean_to_the_bit(half, dtype, vector):
    model = half(dtype)
    tokens = tokens_of(model, LONG)
    assert torch.equal(steered(model, 0 * vector, tokens), clean(model, tokens))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@given(vector=vectors())
def test_a_vector_and_its_negative_are_clean_to_the_bit(half, dtype, vector):
    model = half(dtype)
    tokens = tokens_of(model, LONG)
    assert torch.equal(steered(model, [vector, -vector], tokens), clean(model, tokens))


@given(vector=vectors())
def test_a_vector_twice_is_its_double(neo, vector):
    tokens = tokens_of(neo, LONG)
    assert torch.equal(steered(neo, [vector, vector], tokens), steered(neo, 2 * vector, tokens))


@given(v=vectors(), seed=st.integers(0, 99), n_rows=st.integers(2, 3))
def test_two_vectors_at_one_point_are_their_sum(neo, v, seed, n_rows):
    v = v.at("front")
    w = al.SteeringVector(rows_of(seed, n_rows), v.hook_point)
    tokens = tokens_of(neo, LONG)
    assert torch.equal(steered(neo, [v, w], tokens), steered(neo, v + w, tokens))


@given(v=vectors(), w=vectors())
def test_nested_contexts_add_up(neo, v, w):
    tokens = tokens_of(neo, LONG)
    with torch.no_grad(), al.steer(neo, v), al.steer(neo, w):
        nested = neo(tokens)
    close(nested, steered(neo, [v, w], tokens))


@given(
    positive=st.sampled_from(["Love", "I love you"]),
    negative=st.sampled_from(["Hate", "me"]),
    coefficient=st.floats(-20, 20, allow_subnormal=False),
)
def test_exchanging_the_prompts_is_negating_the_coefficient(neo, positive, negative, coefficient):
    there = al.SteeringVector.from_pair(neo, (positive, negative), 1)
    back = al.SteeringVector.from_pair(neo, (negative, positive), 1)
    tokens = tokens_of(neo, LONG)
    close(steered(neo, coefficient * there, tokens), steered(neo, -coefficient * back, tokens))


@pytest.mark.parametrize("architecture", ["gpt-neo", "llama", "opt", "bloom"])
@given(
    vector=vectors(),
    texts=st.lists(
        st.sampled_from([LONG, SHORT, "I love you", "Anger and more"]), min_size=1, max_size=4
    ),
    side=st.sampled_from(["left", "right"]),
)
def test_a_batch_gives_each_prompt_what_it_gets_alone(bridge, vector, texts, side, architecture):
    model = bridge(architecture)
    rows = [model.to_tokens(text, prepend_bos=True)[0].tolist() for text in texts]
    pad = {"left": prompts.pad_left, "right": prompts.pad_right}[side]
    tokens, mask = pad(rows, model.tokenizer.pad_token_id)
    batch = steered(model, vector, tokens, attention_mask=mask)
    for row, output, real in zip(rows, batch, mask.bool(), strict=True):
        close(output[real], steered(model, vector, torch.tensor([row]))[0])


@given(vector=vectors(), dims=st.tuples(st.integers(0, 31), st.integers(0, 32)))
def test_what_gets_nothing_keeps_its_bits(vector, dims):
    """A stream of negative zeros would show a zero added to it."""
    kept = vector.with_dims(slice(*dims))
    stream = torch.full((2, 6, D_MODEL), -0.0)
    result = added(stream, kept)
    assert torch.equal(result.signbit() | (result != 0), torch.ones_like(result, dtype=torch.bool))
    assert torch.equal(stream.signbit(), torch.ones_like(stream, dtype=torch.bool))


@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_laws_of_bits_hold_everywhere(bridge, architecture, site):
    if site == "resid_mid" and architecture in PARALLEL:
        pytest.skip("no stream between attention and MLP there")
    model = bridge(architecture)
    tokens = tokens_of(model, LONG)
    v, w = (vector_of(seed, 3, hook_points.hook_point(1, site)) for seed in (0, 1))
    expected = clean(model, tokens)
    for nothing in (None, [], 0 * v, [v, -v], v - v):
        assert torch.equal(steered(model, nothing, tokens), expected)
    assert torch.equal(steered(model, [v, w], tokens), steered(model, v + w, tokens))
    assert torch.equal(steered(model, [v, v], tokens), steered(model, 2 * v, tokens))
    assert not torch.equal(steered(model, v, tokens), expected)


@pytest.mark.parametrize("architecture", ["gpt-neo", "llama", "bloom"])
@given(
    steerings=st.lists(st.none() | vectors(max_rows=2), min_size=1, max_size=4),
    side=st.sampled_from(["left", "right"]),
)
def test_rows_steered_by_different_vectors_are_what_each_is_alone(
    bridge, steerings, side, architecture
):
    model = bridge(architecture)
    texts = [(LONG, SHORT, "I love you")[i % 3] for i in range(len(steerings))]
    pad = {"left": prompts.pad_left, "right": prompts.pad_right}[side]
    rows = prompts.as_prompts(model, texts)
    tokens, mask = pad(rows, model.tokenizer.pad_token_id)
    edits = prompt_edits(model, steerings, mask).by_point
    batch = BridgeModel(model).run(tokens, mask, edits=edits).logits
    for row, vector, output, real in zip(rows, steerings, batch, mask.bool(), strict=True):
        close(output[real], steered(model, vector, torch.tensor([row]))[0])


def test_a_mixed_batch_names_the_prompt_that_is_too_short(neo):
    tokens, mask = prompts.pad_left(prompts.as_prompts(neo, [LONG, "Anger"]), 0)
    edits = prompt_edits(neo, [None, vector_of(n_rows=5)], mask).by_point
    with pytest.raises(al.PositionError, match="prompt 1 has 3 tokens"):
        BridgeModel(neo).run(tokens, mask, edits=edits)
    with pytest.raises(al.VectorError, match="1 steerings for a batch of 2 prompts"):
        prompt_edits(neo, [None], mask)


def added(stream, vector):
    """The stream of prompts without padding, steered by one vector."""
    real = torch.ones(stream.shape[:2], dtype=torch.bool)
    return applied(stream, [vector], tokens_edited([vector], real))


# Against the oracle


@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_site_steers_as_a_hand_written_hook(bridge, plain, architecture, site):
    if site == "resid_mid" and architecture in PARALLEL:
        pytest.skip("no stream between attention and MLP there")
    model, hf = bridge(architecture), plain(architecture)
    tokens = tokens_of(model, LONG)
    for layer in (0, N_LAYERS - 1):
        vector = vector_of(layer, 3, hook_points.hook_point(layer, site), position=1)
        expected = logits(
            hf, architecture, tokens[0].tolist(), [Addition(layer, site, vector.rows, 1)]
        )
        close(steered(model, vector, tokens)[0], expected)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_position_steers_as_a_hand_written_hook(bridge, plain, architecture):
    model, hf = bridge(architecture), plain(architecture)
    rows = prompts.as_prompts(model, [LONG, SHORT])
    tokens, mask = prompts.pad_left(rows, model.tokenizer.pad_token_id)
    for position in ("front", "middle", "back", 1, -2):
        vector = vector_of(5, 2, position=position)
        batch = steered(model, vector, tokens, attention_mask=mask)
        for row, output, real in zip(rows, batch, mask.bool(), strict=True):
            start = start_of(position, len(row), 2)
            expected = logits(hf, architecture, row, [Addition(1, "resid_pre", vector.rows, start)])
            close(output[real], expected)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("position", ["front", "back", "prompt", "generated", "all"])
def test_the_bridge_generates_as_the_oracle_does(bridge, plain, architecture, position):
    model, hf = bridge(architecture), plain(architecture)
    vector = vector_of(3, 1, position=position)
    texts = ["I hate you because", "I love"]
    tokens, mask = prompts.pad_left(prompts.as_prompts(model, texts), model.tokenizer.pad_token_id)
    with al.steer(model, vector):
        output = model.generate(
            tokens,
            attention_mask=mask,
            max_new_tokens=5,
            do_sample=False,
            stop_at_eos=False,
            verbose=False,
        )
    for row, new in zip(
        prompts.as_prompts(model, texts), output[:, tokens.shape[1] :], strict=True
    ):
        n = len(row)
        additions = {
            "front": [Addition(1, "resid_pre", vector.rows, 0)],
            "back": [Addition(1, "resid_pre", vector.rows, n - 1)],
            "generated": [],
        }.get(position, [Addition(1, "resid_pre", vector.rows.repeat(n, 1), 0)])
        behind = [(1, "resid_pre", vector.rows)] if position in ("generated", "all") else []
        assert new.tolist() == greedy(hf, architecture, row, 5, additions, behind)


# The ways of calling


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("architecture", ["gpt2", "llama", "qwen3"])
@pytest.mark.parametrize("how", ["call", "run_with_hooks", "run_with_cache"])
def test_padding_of_strings_is_recognised(bridge, architecture, side, how):
    model = bridge(architecture)
    if how == "run_with_cache" and side == "left":
        pytest.skip("it takes the tokenizer's side")
    bos = {"prepend_bos": architecture != "qwen3"}  # masked by the bridge where it is also the pad
    texts = [SHORT, LONG, "I love"]
    vector = vector_of(1, 2, position="back")
    with torch.no_grad(), al.steer(model, vector):
        if how == "call":
            batch = model(texts, padding_side=side, **bos)
        elif how == "run_with_hooks":
            batch = model.run_with_hooks(texts, padding_side=side, **bos)
        else:
            batch, _ = model.run_with_cache(texts, padding_side=side, **bos)
        alone = [model(text, **bos) for text in texts]
    for output, single in zip(batch, alone, strict=True):
        n = single.shape[1]
        close(output[-n:] if side == "left" else output[:n], single[0])


def test_strings_given_by_position_are_recognised_too(bridge):
    model = bridge("gpt-neox")  # where BOS is left out unless asked for
    vector = vector_of(1, 2, position="back")
    batch = steered(model, vector, [SHORT, LONG], "logits", False, True)
    alone = steered(model, vector, SHORT, "logits", False, True)
    close(batch[0, : alone.shape[1]], alone[0])


@pytest.mark.parametrize("architecture", ["gpt2", "llama", "opt", "bloom"])
def test_a_list_generates_what_its_texts_do_alone(bridge, architecture):
    model = bridge(architecture)
    texts = ["I hate you because", "I love", "She talks"]
    sampling = {
        "max_new_tokens": 4,
        "do_sample": False,
        "stop_at_eos": False,
        "verbose": False,
        "prepend_bos": True,
        "return_type": "tokens",
    }
    if not model.cfg.default_prepend_bos:
        sampling["prepend_bos"] = None
    with al.steer(model, vector_of(2, 2, position="back")):
        batch = model.generate(texts, **sampling)
        alone = [model.generate(text, **sampling) for text in texts]
    for output, single in zip(batch, alone, strict=True):
        assert output[-4:].tolist() == single[0, -4:].tolist()


def test_a_prompt_of_one_token_is_steered(model, plain):
    tokens = torch.tensor([[7]])
    vector = vector_of(0, 1)
    expected = logits(plain("gpt2"), "gpt2", [7], [Addition(1, "resid_pre", vector.rows, 0)])
    close(steered(model, vector, tokens)[0], expected)
    close(steered(model, vector, tokens, use_cache=True)[0], expected)
    hooked = model.run_with_hooks(tokens, fwd_hooks=al.fwd_hooks(model, vector))
    close(hooked[0].detach(), expected)


def test_a_decode_step_is_told_by_its_cache(model):
    tokens = tokens_of(model, LONG)
    with torch.no_grad(), al.steer(model, vector_of(0, 2)):
        _, cache = model(tokens[:, :-1], return_type="logits_and_cache", use_cache=True)
        step = model(tokens[:, -1:], past_key_values=cache)
    whole = steered(model, vector_of(0, 2), tokens)
    close(step[:, -1], whole[:, -1])


def test_hugging_face_generate_is_steered_too(model, plain):
    row = prompts.as_prompts(model, "I hate you because")[0]
    vector = vector_of(4, 2)
    with al.steer(model, vector):
        output = model.hf_generate(
            torch.tensor([row]),
            attention_mask=torch.ones(1, len(row), dtype=torch.long),  # or BOS passes for padding
            max_new_tokens=4,
            do_sample=False,
            stop_at_eos=False,
        )
    expected = greedy(plain("gpt2"), "gpt2", row, 4, [Addition(1, "resid_pre", vector.rows, 0)])
    assert output[0, len(row) :].tolist()[:4] == expected


def test_fwd_hooks_do_what_steer_does(model):
    rows = prompts.as_prompts(model, [LONG, SHORT])
    tokens, mask = prompts.pad_left(rows, model.tokenizer.pad_token_id)
    steering = [vector_of(0, 2, position="back"), vector_of(1, 3, "blocks.2.hook_resid_mid")]
    hooks = al.fwd_hooks(model, steering, mask)
    with torch.no_grad():
        hooked = model.run_with_hooks(tokens, fwd_hooks=hooks, attention_mask=mask)
    assert torch.equal(hooked, steered(model, steering, tokens, attention_mask=mask))
    assert al.fwd_hooks(model, None) == []


def test_the_cache_holds_the_steered_stream(model):
    tokens = tokens_of(model, LONG)
    vector = vector_of(0, 2)
    _, before = model.run_with_cache(tokens, names_filter=POINT)
    with al.steer(model, vector):
        _, after = model.run_with_cache(tokens, names_filter=POINT)
    difference = after["blocks.1.hook_in"][0] - before["blocks.1.hook_in"][0]
    close(difference[:2].detach(), vector.rows)
    assert not difference[2:].any()


def test_prefill_and_decode_steps_agree_with_one_pass(model):
    rows = prompts.as_prompts(model, [LONG, SHORT])
    tokens, mask = prompts.pad_left(rows, model.tokenizer.pad_token_id)
    vector = vector_of(0, 1, position="all")
    own, edits = BridgeModel(model), prompt_edits(model, [vector, vector], mask).by_point
    first = own.run(tokens, mask, edits=edits, keep=1, use_cache=True)
    new = torch.tensor([5, 9])
    longer = torch.cat([mask, torch.ones(2, 1, dtype=mask.dtype)], dim=1)
    later = decode_edits(model, [vector, vector]).of(torch.arange(2))
    after = own.run(new[:, None], longer, edits=later, cache=first.cache, keep=1)
    whole = steered(
        model, vector.at("prompt"), torch.cat([tokens, new[:, None]], dim=1), attention_mask=longer
    )
    close(first.last_logits, whole[:, -2])
    close(after.last_logits, whole[:, -1])
    assert not decode_edits(model, [vector.at("prompt"), None]).points


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_streams_are_steered_in_their_own_dtype(half, dtype):
    model = half(dtype)
    tokens = tokens_of(model, LONG)
    output = steered(model, vector_of(), tokens)
    assert output.dtype == dtype
    exact = steered(half(torch.float32), vector_of(), tokens)
    assert (output.float() - exact).abs().max() < 0.1 * exact.abs().max()


def test_gradients_reach_the_stream_below(model):
    tokens = tokens_of(model, LONG)
    with al.steer(model, vector_of()):
        model(tokens).sum().backward()
    weight = model.original_model.get_input_embeddings().weight
    assert weight.grad is not None
    model.zero_grad()


# What is left behind


def test_the_callers_own_hooks_stay(model):
    calls = []

    def own(tensor, hook):
        calls.append(hook.name)

    model.add_hook(POINT, own)
    before = handles(model)
    try:
        tokens = tokens_of(model, LONG)
        with al.steer(model, vector_of()), al.steer(model, vector_of(1)):
            model(tokens)
            model.run_with_hooks(tokens, fwd_hooks=al.fwd_hooks(model, vector_of()))
            al.extract(model, ("Love", "Hate"))
        with pytest.raises(al.PositionError), al.steer(model, vector_of(0, 20)):
            model(tokens)
        with pytest.raises(al.LayerError), al.steer(model, [vector_of(), vector_of(point=GATED)]):
            pass
        assert handles(model) == before
        assert len(calls) == 4  # every pass, down to the point where one was refused
    finally:
        model.reset_hooks()


def test_nothing_is_left_behind(model):
    before, attributes = handles(model), set(vars(model))
    wrapped = model.original_model
    torch_hooks = list(wrapped._forward_pre_hooks), list(wrapped._forward_hooks)
    tokens = tokens_of(model, LONG)
    expected = clean(model, tokens)
    with pytest.raises(KeyboardInterrupt), al.steer(model, vector_of()):
        raise KeyboardInterrupt
    with pytest.raises(al.PositionError), al.steer(model, vector_of(0, 20)):
        model([LONG, SHORT])
    assert handles(model) == before
    assert set(vars(model)) == attributes
    assert (list(wrapped._forward_pre_hooks), list(wrapped._forward_hooks)) == torch_hooks
    assert torch.equal(clean(model, tokens), expected)


def test_contexts_may_end_in_any_order(model):
    before, tokens = handles(model), tokens_of(model, [SHORT, LONG])
    first, second = ExitStack(), ExitStack()
    first.enter_context(al.steer(model, vector_of(0)))
    second.enter_context(al.steer(model, vector_of(1, position="back")))
    first.close()
    with torch.no_grad():
        left = model([SHORT, LONG])
    second.close()
    close(left, steered(model, vector_of(1, position="back"), [SHORT, LONG]))
    assert handles(model) == before
    assert tokens.shape[0] == 2


def test_a_forward_of_the_callers_own_stays(model):
    calls = []
    plain = model.forward

    def own(*args, **kwargs):
        calls.append(args)
        return plain(*args, **kwargs)

    model.forward = own
    try:
        steered(model, vector_of(), [SHORT, LONG])
        assert model.forward is own
        assert len(calls) == 1
    finally:
        del model.forward


def test_reset_hooks_inside_does_not_stop_the_steering(model):
    tokens = tokens_of(model, LONG)
    expected = steered(model, vector_of(), tokens)
    with torch.no_grad(), al.steer(model, vector_of()):
        model.reset_hooks()
        assert torch.equal(model(tokens), expected)


def test_a_steered_model_is_let_go(checkpoint):
    model = al.load_model(checkpoint("gpt2"), device="cpu")
    with al.steer(model, vector_of()):
        model(torch.tensor([[1, 2, 3]]))
    assert model not in watch._watches
    del model
    gc.collect()


# Bad input


def test_a_vector_of_another_width_or_depth_is_refused_with_both_figures(model):
    wide = al.SteeringVector(torch.ones(1, 48), POINT)
    deep = al.SteeringVector(torch.ones(1, D_MODEL), "blocks.7.hook_resid_pre")
    misspelt = al.SteeringVector(torch.ones(1, D_MODEL), "blocks.1.hook_resid_per")
    for use in (
        lambda v: al.fwd_hooks(model, v),
        lambda v: al.steer(model, v).__enter__(),
        lambda v: decode_edits(model, [v]),
    ):
        with pytest.raises(al.VectorError, match=r"width 48, .* d_model 32"):
            use(wide)
        with pytest.raises(al.LayerError, match=r"layer 7 is out of range.*3 layers"):
            use(deep)
        with pytest.raises(al.LayerError, match=r"no hook point 'blocks.1.hook_resid_per'"):
            use(misspelt)


def test_a_vector_longer_than_a_prompt_names_the_prompt(model):
    rows = prompts.as_prompts(model, [LONG, "a"])
    tokens, mask = prompts.pad_left(rows, model.tokenizer.pad_token_id)
    with pytest.raises(al.PositionError, match="vector has 5 rows, prompt 1 has 2 tokens"):
        steered(model, vector_of(0, 5), tokens, attention_mask=mask)


def test_a_mask_that_does_not_tell_tokens_apart_is_refused(model):
    tokens = tokens_of(model, LONG)
    n = tokens.shape[1]
    with pytest.raises(al.PositionError, match=r"attention mask \(1, 1, \d+, \d+\)"):
        steered(model, vector_of(), tokens, attention_mask=torch.zeros(1, 1, n, n))


def test_a_point_of_another_shape_is_refused(model):
    tokens = tokens_of(model, LONG)
    for point, error in (("blocks.1.attn.hook_q", "carries"), (GATED, "set_use_hook_mlp_in")):
        with pytest.raises((al.VectorError, al.LayerError), match=error):
            steered(model, vector_of(0, 1, point), tokens)


def test_rows_beyond_the_range_of_the_stream_are_refused(half):
    model = half(torch.float16)
    with pytest.raises(al.VectorError, match="beyond float16"):
        steered(model, 1e6 * vector_of(), tokens_of(model, LONG))
    # Either alone is within the range, their sum is not.
    stream = torch.full((1, 2, D_MODEL), 6e4, dtype=torch.float16)
    rows = al.SteeringVector(torch.full((1, D_MODEL), 1e4), POINT)
    with pytest.raises(al.VectorError, match="beyond float16"):
        added(stream, rows)


def test_a_mask_for_other_tokens_is_refused(neo):
    tokens, mask = prompts.pad_left(prompts.as_prompts(neo, [LONG, SHORT]), 0)
    hooks = al.fwd_hooks(neo, vector_of(), mask[:, 1:])
    with pytest.raises(al.PositionError, match="does not say which of"):
        neo.run_with_hooks(tokens, attention_mask=mask, fwd_hooks=hooks)
