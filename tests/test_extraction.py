import pytest
import torch
from conftest import ARCHITECTURES, D_MODEL, N_LAYERS, PARALLEL
from hypothesis import given
from hypothesis import strategies as st
from oracle import stream

import actadd_lens as al
from actadd_lens.models.hook_points import SITES

TEXT = st.text(alphabet="abc LoveHt", min_size=1, max_size=10)


@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_rows_are_those_of_the_plain_model(bridge, plain, architecture, site):
    model, hf = bridge(architecture), plain(architecture)
    pair = al.ContrastPair("I love you", "Hate")
    if site == "resid_mid" and architecture in PARALLEL:
        with pytest.raises(al.LayerError, match="in parallel"):
            al.extract(model, pair, site=site)
        return
    vectors = al.extract(model, pair, site=site)
    positive, negative = pair.tokens(model).tolist()
    assert list(vectors) == list(range(N_LAYERS))
    for layer, vector in vectors.items():
        expected = stream(hf, architecture, positive, layer, site) - stream(
            hf, architecture, negative, layer, site
        )
        assert vector.layer == layer
        assert vector.position == "front"
        assert vector.hook_point == f"blocks.{layer}.hook_{site}"
        torch.testing.assert_close(vector.rows, expected, atol=5e-5, rtol=1e-4)


@given(text=TEXT)
def test_equal_prompts_give_a_zero_vector(neo, text):
    for vector in al.extract(neo, (text, text)).values():
        assert not vector.rows.any()


@given(positive=TEXT, negative=TEXT)
def test_exchanged_prompts_give_the_negative(neo, positive, negative):
    there = al.SteeringVector.from_pair(neo, (positive, negative), 1)
    back = al.SteeringVector.from_pair(neo, (negative, positive), 1)
    torch.testing.assert_close(there.rows, -back.rows, atol=1e-5, rtol=0)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_row_of_bos_is_zero(bridge, architecture):
    model = bridge(architecture)
    for vector in al.extract(model, ("Love", "I hate you")).values():
        assert bool(vector.rows[0].any()) != model.cfg.default_prepend_bos
        assert vector.rows[1:].any()


def test_one_layer_is_the_same_as_all(model):
    alone = al.SteeringVector.from_pair(model, ("Love", "Hate"), 1)
    assert alone == al.extract(model, ("Love", "Hate"))[1]
    assert list(al.extract(model, ("Love", "Hate"), layers=[2, 0, 2])) == [2, 0]


@pytest.mark.parametrize("deepest", range(N_LAYERS))
def test_nothing_above_the_deepest_layer_runs(model, deepest):
    entered = []
    handles = [
        block.register_forward_pre_hook(lambda *_, layer=layer: entered.append(layer))
        for layer, block in enumerate(model.blocks)
    ]
    unembedded = model.unembed.register_forward_pre_hook(lambda *_: entered.append("unembed"))
    passes = model.original_model.register_forward_pre_hook(lambda *_: entered.append("pass"))
    try:
        al.extract(model, ("Love", "Hate"), layers=range(deepest + 1))
    finally:
        for handle in [*handles, unembedded, passes]:
            handle.remove()
    assert entered == ["pass", *range(deepest + 1)]


def test_extraction_leaves_the_model_as_it_was(model):
    tokens = model.to_tokens("I love you", prepend_bos=True)
    before, hooks = model(tokens), model.list_hooks()
    al.extract(model, ("Love", "Hate"))
    assert torch.equal(model(tokens), before)
    assert model.list_hooks() == hooks
    assert torch.is_grad_enabled()
    assert before.requires_grad


def test_extraction_reads_a_steered_stream_inside_steer(model):
    clean = al.extract(model, ("Love", "Hate"), [2])[2]
    with al.steer(model, al.SteeringVector(torch.ones(2, D_MODEL), "blocks.0.hook_resid_pre")):
        steered = al.extract(model, ("Love", "Hate"), [2])[2]
    assert clean != steered


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_rows_of_a_half_precision_model_are_float32(checkpoint, dtype):
    model = al.load_model(checkpoint("gpt2"), device="cpu", dtype=dtype)
    vector = al.SteeringVector.from_pair(model, ("Love", "Hate"), 1)
    exact = al.SteeringVector.from_pair(al.load_model(checkpoint("gpt2")), ("Love", "Hate"), 1)
    assert vector.rows.dtype == torch.float32
    assert (vector - exact).norms()[1] < 0.05 * exact.norms()[1]


def test_a_prompt_alone_gives_its_rows(model, plain):
    vector = al.SteeringVector.from_prompt(model, "I love you", 1)
    tokens = model.to_tokens("I love you", prepend_bos=True)[0].tolist()
    expected = stream(plain("gpt2"), "gpt2", tokens, 1, "resid_pre")
    torch.testing.assert_close(vector.rows, expected, atol=1e-4, rtol=1e-4)
    assert vector.provenance["kind"] == "prompt"


def test_provenance_says_how_to_do_it_again(model):
    vector = al.SteeringVector.from_pair(model, ("Love", "Hate"), 1)
    told = vector.provenance
    assert (told["kind"], told["positive"], told["negative"]) == ("pair", "Love", "Hate")
    assert told["tokens"] == al.ContrastPair("Love", "Hate").tokens(model).tolist()
    assert told["model"] == model.cfg.model_name
    assert {"actadd-lens", "transformer-lens", "torch"} <= told["versions"].keys()
    assert told["texts"] == [["<|endoftext|>", "Love"], ["<|endoftext|>", "Hate"]]


def test_provenance_tells_raw_weights_from_processed_ones(checkpoint):
    model = al.load_model(checkpoint("gpt2"), dtype=torch.bfloat16)
    told = al.SteeringVector.from_pair(model, ("Love", "Hate"), 1).provenance
    assert (told["dtype"], told["processed_weights"]) == ("bfloat16", False)
    folded = al.load_model(checkpoint("gpt2"))
    folded.enable_compatibility_mode(no_processing=True)
    assert not al.mean_difference(folded, [("Love", "Hate")], 1).provenance["processed_weights"]
    folded.enable_compatibility_mode()
    assert al.mean_difference(folded, [("Love", "Hate")], 1).provenance["processed_weights"]


@pytest.mark.parametrize("architecture", ["gpt2", "opt", "bloom", "gemma2"])
@pytest.mark.parametrize("token", [-1, 1])
def test_mean_difference_is_the_mean_over_pairs(bridge, plain, architecture, token):
    model, hf = bridge(architecture), plain(architecture)
    pairs = [("I love you", "I hate"), ("Calm you", "Anger and more"), ("yes", "no you")] * 7
    vector = al.mean_difference(model, pairs, layer=1, token=token)
    differences = []
    for pair in pairs[:3]:
        rows = [
            stream(
                hf,
                architecture,
                model.to_tokens(text)[0].tolist(),
                1,
                "resid_pre",
            )
            for text in pair
        ]
        differences.append(rows[0][token] - rows[1][token])
    expected = torch.stack(differences).mean(dim=0, keepdim=True)
    torch.testing.assert_close(vector.rows, expected, atol=1e-4, rtol=1e-4)
    assert vector.position == "all"


def test_mean_difference_names_what_is_wrong(model):
    with pytest.raises(al.PromptError, match="list of contrast pairs is empty"):
        al.mean_difference(model, [], 1)
    with pytest.raises(al.PositionError, match="negative prompt of pair 0 has 2 tokens, token 2"):
        al.mean_difference(model, [("I love you", "a")], 1, token=2)


@pytest.mark.parametrize("layer", [-1, N_LAYERS])
def test_a_layer_out_of_range_is_named_with_the_range(model, layer):
    for read in (
        lambda: al.extract(model, ("Love", "Hate"), [0, layer]),
        lambda: al.SteeringVector.from_pair(model, ("Love", "Hate"), layer),
        lambda: al.SteeringVector.from_prompt(model, "Love", layer),
        lambda: al.mean_difference(model, [("Love", "Hate")], layer),
    ):
        with pytest.raises(
            al.LayerError, match=rf"layer {layer} is out of range.*3 layers, 0 to 2"
        ):
            read()


def test_an_unknown_site_is_answered_with_the_list(model):
    with pytest.raises(al.LayerError, match="resid_pre, resid_mid, resid_post, attn_out, mlp_out"):
        al.extract(model, ("Love", "Hate"), site="resid")
