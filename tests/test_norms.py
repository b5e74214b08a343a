"""Norms and angles against hand-computed cases and the plain Hugging Face stream."""

import math

import pandas as pd
import pytest
import torch
from conftest import ARCHITECTURES, D_MODEL, N_CTX, N_LAYERS
from hypothesis import given
from hypothesis import strategies as st
from oracle import start_of, stream

import actadd_lens as al
from actadd_lens.models import hook_points
from actadd_lens.models.tokens import as_prompts
from actadd_lens.vectors.geometry import cosines, dose, residual_norms

PROMPTS = ["I love you and you hate me", "She talks", "The wedding was on a sunny day in May"]


def vector_of(n_rows=2, position="front", point="blocks.1.hook_resid_pre", width=D_MODEL):
    rows = torch.randn(n_rows, width, generator=torch.Generator().manual_seed(n_rows))
    return al.SteeringVector(rows, point, position)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_residual_norms_are_those_of_the_plain_model(bridge, plain, architecture):
    model, hf = bridge(architecture), plain(architecture)
    frame = residual_norms(model, PROMPTS)
    for index, ids in enumerate(as_prompts(model, PROMPTS)):
        for layer in range(N_LAYERS):
            rows = frame.query("prompt_index == @index and layer == @layer")
            assert rows["position"].tolist() == list(range(len(ids)))
            assert rows["token"].tolist() == [model.tokenizer.decode([i]) for i in ids]
            assert set(rows["prompt"]) == {PROMPTS[index]}
            expected = stream(hf, architecture, ids, layer, "resid_pre").norm(dim=1)
            found = torch.tensor(rows["norm"].tolist())
            torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    assert len(frame) == N_LAYERS * sum(map(len, as_prompts(model, PROMPTS)))


@given(
    prompts=st.lists(st.sampled_from([*PROMPTS, "Anger"]), min_size=1, max_size=5),
    layers=st.lists(st.integers(0, N_LAYERS - 1), min_size=1, max_size=3),
    batch_size=st.none() | st.integers(1, 3),
)
def test_each_prompt_has_the_norms_that_it_has_alone(neo, prompts, layers, batch_size):
    together = residual_norms(neo, prompts, layers, batch_size=batch_size)
    alone = pd.concat([residual_norms(neo, p, layers) for p in prompts], ignore_index=True)
    shared = ["prompt", "layer", "position", "token", "norm"]
    pd.testing.assert_frame_equal(together[shared], alone[shared], rtol=1e-5)
    assert together["layer"].unique().tolist() == list(dict.fromkeys(layers))


def test_a_pass_ends_at_the_deepest_layer_asked_for(neo):
    deeper = hook_points.point_of(neo, hook_points.hook_point(2))
    seen = []
    deeper.add_hook(lambda tensor, hook: seen.append(hook.name))
    residual_norms(neo, PROMPTS, [1, 0])
    deeper.remove_hooks()
    assert not seen


@pytest.mark.parametrize("position", ["front", "middle", "back", 1, -2])
def test_the_dose_is_measured_where_the_rows_land(neo, plain, position):
    vector = vector_of(2, position)
    frame = dose(neo, vector, PROMPTS)
    for index, ids in enumerate(as_prompts(neo, PROMPTS)):
        rows = frame[frame["prompt_index"] == index]
        start = start_of(position, len(ids), 2)
        assert rows["row"].tolist() == [0, 1]
        assert rows["position"].tolist() == [start, start + 1]
        expected = stream(plain("gpt-neo"), "gpt-neo", ids, 1, "resid_pre").norm(dim=1)
        there = expected[start : start + 2]
        for column, values in {
            "residual_norm": there,
            "vector_norm": vector.norms(),
            "dose": vector.norms() / there,
        }.items():
            assert rows[column].tolist() == pytest.approx(values.tolist(), rel=1e-4)


@pytest.mark.parametrize("position", ["prompt", "all"])
def test_a_spread_row_has_a_dose_at_every_position(neo, position):
    frame = dose(neo, vector_of(1, position), PROMPTS[:2])
    lengths = [len(ids) for ids in as_prompts(neo, PROMPTS[:2])]
    assert frame["position"].tolist() == [i for n in lengths for i in range(n)]
    assert set(frame["row"]) == {0}


@given(c=st.floats(-100, 100))
def test_the_dose_grows_with_the_coefficient(neo, c):
    once, scaled = (dose(neo, v, PROMPTS[:1])["dose"] for v in (vector_of(), c * vector_of()))
    assert scaled.tolist() == pytest.approx((abs(c) * once).tolist(), rel=1e-5)


def test_several_vectors_are_measured_each_by_itself(neo):
    vectors = [vector_of(2), vector_of(1, "back", "blocks.2.hook_resid_pre")]
    frame = dose(neo, vectors, PROMPTS)
    assert frame[["vector", "layer"]].drop_duplicates().to_numpy().tolist() == [[0, 1], [1, 2]]
    for which, vector in enumerate(vectors):
        part = frame[frame["vector"] == which].drop(columns="vector").reset_index(drop=True)
        alone = dose(neo, vector, PROMPTS).drop(columns="vector")
        pd.testing.assert_frame_equal(part, alone, rtol=1e-5)


def test_a_vector_beside_the_stream_is_measured_against_the_stream(neo):
    names = ["blocks.1.hook_resid_pre", "blocks.1.hook_attn_out", "blocks.1.mlp.hook_out"]
    norms = [dose(neo, vector_of(2, point=name), PROMPTS)["residual_norm"] for name in names]
    assert norms[0].tolist() == norms[1].tolist() == norms[2].tolist()
    behind = dose(neo, vector_of(2, point="blocks.0.hook_resid_post"), PROMPTS)["residual_norm"]
    assert norms[0].tolist() == behind.tolist()


def test_cosines_by_hand():
    def of(*rows, layer=1):
        return al.SteeringVector(torch.tensor(rows), f"blocks.{layer}.hook_resid_pre")

    vectors = {
        "a": of([3.0, 4.0]),
        "b": of([3.0, 0.0], [0.0, 4.0], layer=2),  # 9 / (5 * 5)
        "zero": of([0.0, 0.0]),
    }
    frame = cosines(vectors)
    assert list(frame.index) == list(frame.columns) == list(vectors)
    assert frame.loc["a", "b"] == pytest.approx(9 / 25)
    assert frame["zero"].isna().all()
    assert frame.loc["zero"].isna().all()


def test_cosines_of_layers(neo):
    vectors = al.extract(neo, ("Love", "Hate"))
    frame = cosines(vectors)
    assert list(frame.columns) == [0, 1, 2]
    expected = torch.cosine_similarity(*(vectors[i].rows.flatten() for i in (0, 2)), dim=0)
    assert frame.loc[0, 2] == pytest.approx(float(expected), abs=1e-6)


@given(
    shapes=st.lists(st.integers(1, 4), min_size=1, max_size=4),
    factor=st.floats(0.01, 100).flatmap(lambda x: st.sampled_from([x, -x])),
)
def test_cosines_are_symmetric_and_blind_to_scale(shapes, factor):
    vectors = {f"{i}": vector_of(n, width=5) for i, n in enumerate(shapes)}
    frame = cosines(vectors)
    assert torch.allclose(torch.tensor(frame.to_numpy()), torch.tensor(frame.to_numpy().T))
    assert frame.abs().to_numpy().max() <= 1
    assert [frame.loc[x, x] for x in vectors] == pytest.approx([1] * len(vectors))
    scaled = cosines({**vectors, "0": factor * vectors["0"]})
    expected = math.copysign(1, factor) * frame.loc["0"].drop("0")
    assert scaled.loc["0"].drop("0").tolist() == pytest.approx(expected.tolist(), abs=1e-6)


def test_bad_input_is_refused(neo):
    with pytest.raises(al.LayerError, match="layer 3 is out of range"):
        residual_norms(neo, PROMPTS, [3])
    with pytest.raises(al.LayerError, match="list of layers is empty"):
        residual_norms(neo, PROMPTS, [])
    with pytest.raises(al.PromptError, match="prompt 1 is empty"):
        residual_norms(neo, ["Love", ""])
    with pytest.raises(al.PromptError, match=rf"prompt 0 has \d+ tokens.*{N_CTX}"):
        residual_norms(neo, "love " * N_CTX)
    with pytest.raises(al.SamplingError, match="batch_size"):
        residual_norms(neo, PROMPTS, batch_size=0)
    with pytest.raises(al.PositionError, match=r"5 rows.*prompt 1 has \d tokens"):
        dose(neo, vector_of(5), ["The wedding was on a sunny day", "Love"])
    with pytest.raises(al.PositionError, match="'generated' lands on no token of a prompt"):
        dose(neo, vector_of(1, "generated"), PROMPTS)
    with pytest.raises(al.VectorError, match="no vector"):
        dose(neo, None, PROMPTS)
    with pytest.raises(al.VectorError, match="width 5"):
        dose(neo, vector_of(1, width=5), PROMPTS)
    with pytest.raises(al.VectorError, match="no vectors"):
        cosines({})
    with pytest.raises(al.VectorError, match=r"'a': 4, 'b': 5"):
        cosines({"a": vector_of(width=4), "b": vector_of(width=5)})


def test_the_model_is_left_as_it_was_by_an_error(neo):
    hooks = {name for name, point in neo.hook_dict.items() if point.fwd_hooks}
    with pytest.raises(al.PositionError):
        dose(neo, vector_of(9), ["Love"])
    assert {name for name, point in neo.hook_dict.items() if point.fwd_hooks} == hooks
