"""The logit lens against the plain Hugging Face model, and vectors read as tokens."""

import pandas as pd
import pytest
import torch
from conftest import ARCHITECTURES, D_MODEL, N_CTX, N_LAYERS
from hypothesis import given
from hypothesis import strategies as st
from oracle import Addition, logits, start_of, stream

import actadd_lens as al
from actadd_lens.analysis import lens
from actadd_lens.analysis.lens import lens_logprobs, logit_lens, unembed_vector
from actadd_lens.models.tokens import as_prompts

PROMPT = "I love you and you hate me"
ROWS = 3 * torch.randn(2, D_MODEL, generator=torch.Generator().manual_seed(3))

FINAL_NORM = {
    "gpt2": "transformer.ln_f",
    "gpt-neo": "transformer.ln_f",
    "gpt-j": "transformer.ln_f",
    "gpt-neox": "gpt_neox.final_layer_norm",
    "opt": "model.decoder.final_layer_norm",
    "bloom": "transformer.ln_f",
}


def vector_of(layer=1, position="front", rows=ROWS):
    return al.SteeringVector(rows, f"blocks.{layer}.hook_resid_pre", position)


def norm_and_head(hf, architecture):
    return hf.get_submodule(FINAL_NORM.get(architecture, "model.norm")), hf.get_output_embeddings()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_last_lens_is_the_prediction_of_the_plain_model(bridge, plain, architecture):
    model, hf = bridge(architecture), plain(architecture)
    [ids] = as_prompts(model, PROMPT)
    for position in (None, "front", "back"):
        steering = None if position is None else vector_of(position=position)
        additions = []
        if position is not None:
            additions = [Addition(1, "resid_pre", ROWS, start_of(position, len(ids), len(ROWS)))]
        expected = logits(hf, architecture, ids, additions).log_softmax(dim=-1)
        [found] = lens_logprobs(model, PROMPT, steering, layers=[N_LAYERS])
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_other_lenses_read_the_plain_stream(bridge, plain, architecture):
    model, hf = bridge(architecture), plain(architecture)
    [ids] = as_prompts(model, PROMPT)
    norm, head = norm_and_head(hf, architecture)
    found = lens_logprobs(model, PROMPT, layers=range(N_LAYERS))
    for layer, logprobs in enumerate(found):
        with torch.no_grad():
            read = head(norm(stream(hf, architecture, ids, layer, "resid_pre")))
        if architecture == "gemma2":
            cap = hf.config.final_logit_softcapping
            read = cap * torch.tanh(read / cap)
        torch.testing.assert_close(logprobs, read.log_softmax(dim=-1), atol=1e-4, rtol=1e-4)


def test_the_frame_says_what_the_log_probs_do(neo):
    frame = logit_lens(neo, PROMPT, vector_of())
    [ids] = as_prompts(neo, PROMPT)
    assert list(frame.columns) == [
        "run", "layer", "position", "token", "top_token", "p_top", "entropy", "kl_to_final",
    ]  # fmt: skip
    assert len(frame) == 2 * (N_LAYERS + 1) * len(ids)
    decoded = [neo.tokenizer.decode([i]) for i in ids]
    for run, steering in (("clean", None), ("steered", vector_of())):
        logprobs = lens_logprobs(neo, PROMPT, steering)
        for layer, here in enumerate(logprobs):
            rows = frame[(frame["run"] == run) & (frame["layer"] == layer)]
            assert rows["token"].tolist() == decoded
            top = here.argmax(dim=1)
            assert rows["top_token"].tolist() == [neo.tokenizer.decode([i]) for i in top]
            values = {
                "p_top": here.exp().amax(dim=1),
                "entropy": torch.distributions.Categorical(logits=here).entropy(),
                "kl_to_final": torch.nn.functional.kl_div(
                    here, logprobs[-1], log_target=True, reduction="none"
                ).sum(dim=1),
            }
            for column, expected in values.items():
                assert rows[column].tolist() == pytest.approx(expected.tolist(), abs=1e-5)
    assert (frame["kl_to_final"] >= 0).all()


def test_the_runs_part_at_the_layer_of_the_vector(neo):
    clean, steered = lens_logprobs(neo, PROMPT), lens_logprobs(neo, PROMPT, vector_of(layer=2))
    assert torch.equal(clean[:2], steered[:2])
    # At the layer itself only the positions with a row differ, and then all behind them may.
    differs = (clean[2] != steered[2]).any(dim=1)
    assert differs.tolist() == [True, True] + [False] * (len(differs) - 2)
    assert (clean[3] != steered[3]).any(dim=1).all()


def test_a_vector_behind_the_last_block_is_seen(neo):
    vector = vector_of().to_hook_point(f"blocks.{N_LAYERS - 1}.hook_resid_post").at("back")
    with al.steer(neo, vector):
        expected = neo(torch.tensor(as_prompts(neo, PROMPT)))[0].log_softmax(dim=-1).detach()
    [found] = lens_logprobs(neo, PROMPT, vector, layers=[N_LAYERS])
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_a_surrounding_context_is_read_too(neo):
    with al.steer(neo, vector_of()):
        inside = logit_lens(neo, PROMPT)
    steered = logit_lens(neo, PROMPT, vector_of()).query("run == 'steered'")
    shared = ["layer", "position", "top_token", "p_top", "kl_to_final"]
    pd.testing.assert_frame_equal(inside[shared], steered[shared].reset_index(drop=True))


@given(layers=st.lists(st.integers(0, N_LAYERS), min_size=1, max_size=5))
def test_layers_are_those_asked_for_in_their_order(neo, layers):
    wanted = list(dict.fromkeys(layers))
    frame = logit_lens(neo, "Love", layers=layers)
    assert frame["layer"].unique().tolist() == wanted
    assert torch.equal(
        lens_logprobs(neo, "Love", layers=layers), lens_logprobs(neo, "Love")[wanted]
    )


def test_a_coefficient_of_zero_is_clean_to_the_bit(neo):
    frame = logit_lens(neo, PROMPT, 0 * vector_of())
    runs = [frame[frame["run"] == run].drop(columns="run") for run in ("clean", "steered")]
    pd.testing.assert_frame_equal(*(run.reset_index(drop=True) for run in runs), check_exact=True)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_faithful_enough(half, dtype):
    frame = logit_lens(half(dtype), PROMPT, vector_of(), layers=[0, N_LAYERS])
    assert frame.query("layer == @N_LAYERS")["kl_to_final"].max() < 0.01


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_vector_is_read_through_the_norm_and_the_unembedding(bridge, plain, architecture):
    norm, head = norm_and_head(plain(architecture), architecture)
    gain = norm.weight.detach() + (architecture == "gemma2")
    centred = ROWS - ROWS.mean(dim=1, keepdim=True) if architecture in FINAL_NORM else ROWS
    expected = (centred * gain) @ head.weight.detach().T
    expected -= expected.mean(dim=1, keepdim=True)
    frame = unembed_vector(bridge(architecture), vector_of(), k=10**6)
    for row in (0, 1):
        part = frame[frame["row"] == row]
        assert part["rank"].tolist() == list(range(expected.shape[1]))
        assert part["logit"].is_monotonic_decreasing
        read = part.set_index("token_id").sort_index()["logit"]
        torch.testing.assert_close(
            torch.tensor(read.to_numpy()).float(), expected[row], atol=1e-4, rtol=1e-4
        )


def test_a_reading_is_what_the_logits_change_by(neo):
    """Added behind the last block, with the final norm's scale kept as it is in the clean run."""
    scales = []
    neo.ln_final.hook_scale.add_hook(lambda scale, hook: scales.append(scale.clone()))
    placed = vector_of().to_hook_point(f"blocks.{N_LAYERS - 1}.hook_resid_post").at("back")
    tokens = torch.tensor(as_prompts(neo, PROMPT))
    with torch.no_grad():
        clean = neo(tokens)[0, -1]
        neo.ln_final.hook_scale.remove_hooks()
        keep = ("ln_final.hook_scale", lambda scale, hook: scales[0])
        hooks = [*al.fwd_hooks(neo, placed), keep]
        steered = neo.run_with_hooks(tokens, fwd_hooks=hooks)[0, -1]
    change = (steered - clean) * scales[0][0, -1]
    frame = unembed_vector(neo, vector_of(), k=10**6)
    read = frame[frame["row"] == 1].set_index("token_id").sort_index()["logit"]
    assert (change - change.mean()).tolist() == pytest.approx(read.tolist(), abs=1e-3)


@given(factor=st.floats(0.1, 10), k=st.integers(1, 5))
def test_readings_are_linear_and_turn_with_the_vector(neo, factor, k):
    plain_ = unembed_vector(neo, vector_of(), k)
    scaled, turned = (unembed_vector(neo, c * vector_of(), k) for c in (factor, -1))
    assert scaled["token_id"].tolist() == plain_["token_id"].tolist()
    assert scaled["logit"].tolist() == pytest.approx((factor * plain_["logit"]).tolist(), rel=1e-4)
    for row in (0, 1):
        one, other = (f[f["row"] == row]["logit"].to_numpy() for f in (plain_, turned))
        assert other[::-1].tolist() == pytest.approx((-one).tolist(), rel=1e-4)


def test_top_and_bottom_are_kept_and_zero_rows_left_out(neo):
    vector = vector_of(rows=torch.stack([torch.zeros(D_MODEL), ROWS[0]]))
    frame = unembed_vector(neo, vector, k=2)
    vocab = neo.cfg.d_vocab
    assert frame["row"].tolist() == [1] * 4
    assert frame["rank"].tolist() == [0, 1, vocab - 2, vocab - 1]
    assert frame["token"].tolist() == [neo.tokenizer.decode([i]) for i in frame["token_id"]]


def test_bad_input_is_refused(neo):
    with pytest.raises(al.LayerError, match=r"no layers \[4\].*0 to 2, and 3 for the finished"):
        logit_lens(neo, PROMPT, layers=[0, 4])
    with pytest.raises(al.LayerError, match="no layers given"):
        lens_logprobs(neo, PROMPT, layers=[])
    with pytest.raises(al.PromptError, match="empty"):
        logit_lens(neo, "")
    with pytest.raises(al.PromptError, match=rf"\d+ tokens.*{N_CTX}"):
        logit_lens(neo, "love " * N_CTX)
    with pytest.raises(al.PositionError, match="prompt 0 has 2 tokens"):
        logit_lens(neo, "Love", vector_of(position=1))
    with pytest.raises(al.VectorError, match="width 5"):
        logit_lens(neo, PROMPT, vector_of(rows=torch.ones(1, 5)))
    with pytest.raises(al.VectorError, match="width 5"):
        unembed_vector(neo, vector_of(rows=torch.ones(1, 5)))
    with pytest.raises(al.VectorError, match="vector is zero"):
        unembed_vector(neo, 0 * vector_of())
    with pytest.raises(al.SamplingError, match="k"):
        unembed_vector(neo, vector_of(), k=0)


def test_a_model_that_predicts_otherwise_is_refused(neo, monkeypatch):
    read = lens.bridge.lens_logprobs
    monkeypatch.setattr(lens.bridge, "lens_logprobs", lambda *args: read(*args).flip(1))
    with pytest.raises(al.LayerError, match="other predictions than the model"):
        logit_lens(neo, PROMPT)


def test_a_model_without_a_readout_is_refused(checkpoint):
    model = al.load_model(checkpoint("gpt2"), device="cpu")
    model.train()
    with torch.random.fork_rng(), pytest.raises(al.LayerError, match=r"looked into.*eval"):
        logit_lens(model, PROMPT)
    del model.ln_final
    with pytest.raises(al.LayerError, match="no ln_final"):
        unembed_vector(model, vector_of())


def test_the_model_is_left_as_it_was_by_an_error(neo):
    hooks = {name for name, point in neo.hook_dict.items() if point.fwd_hooks}
    with pytest.raises(al.PositionError):
        logit_lens(neo, "Love", vector_of(position=9))
    assert {name for name, point in neo.hook_dict.items() if point.fwd_hooks} == hooks
