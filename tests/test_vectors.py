import copy
import math
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import actadd_lens as al

POINT = "blocks.1.hook_resid_pre"
FINITE = st.floats(-100, 100, width=32)


@st.composite
def vectors(draw, width=4):
    n_rows = draw(st.integers(1, 4))
    rows = draw(st.lists(FINITE, min_size=n_rows * width, max_size=n_rows * width))
    return al.SteeringVector(torch.tensor(rows).reshape(n_rows, width), POINT)


def same(v, w):
    torch.testing.assert_close(v.rows, w.rows, atol=1e-4, rtol=1e-5)


# The algebra


@given(v=vectors(), w=vectors(), c=FINITE)
def test_it_is_linear(v, w, c):
    same(c * (v + w), c * v + c * w)
    same(v + w, w + v)
    assert v - w == v + -w
    assert -v == -1 * v
    assert c * v == v * c
    assert not (v - v).rows.any()
    assert 2 * v == v + v


@given(v=vectors(), w=vectors())
def test_the_shorter_is_extended_with_zero_rows(v, w):
    total = v + w
    short, long = sorted((v, w), key=lambda u: len(u.rows))
    assert len(total.rows) == len(long.rows)
    assert torch.equal(total.rows[len(short.rows) :], long.rows[len(short.rows) :])


@given(v=vectors(), data=st.data())
def test_rows_and_dimensions_split_a_vector(v, data):
    n = len(v.rows)
    kept = data.draw(st.lists(st.integers(0, n - 1), unique=True))
    rest = [row for row in range(n) if row not in kept]
    assert v.with_rows(kept) + v.with_rows(rest) == v
    assert v.with_rows([row - n for row in kept]) == v.with_rows(kept)
    cut = data.draw(st.integers(-5, 5))
    assert v.with_dims(slice(None, cut)) + v.with_dims(slice(cut, None)) == v
    assert v.with_dims(slice(None)) == v


@given(v=vectors(), seed=st.integers(0, 2**31))
def test_random_rows_have_the_same_norms(v, seed):
    v = v.with_rows(range(len(v.rows) - 1))  # so that one is zero
    random = v.random_like(seed)
    torch.testing.assert_close(random.norms(), v.norms(), atol=1e-6, rtol=1e-5)
    assert not random.rows[-1].any()
    assert random == v.random_like(seed)
    assert random.hook_point == v.hook_point


def test_other_seeds_give_other_directions():
    v = al.SteeringVector(torch.ones(2, 256), POINT)
    first, second = v.random_like(0), v.random_like(1)
    cosine = torch.cosine_similarity(first.rows, second.rows)
    assert cosine.abs().max() < 0.3


def test_collapse():
    v = al.SteeringVector(torch.tensor([[0.0, 0.0], [2.0, 4.0]]), POINT)
    assert v.collapse("mean").rows.tolist() == [[1, 2]]
    assert v.collapse("last").rows.tolist() == [[2, 4]]
    assert v.collapse("last").at("all").position == "all"


def test_norms_are_of_rows():
    v = al.SteeringVector(torch.tensor([[3.0, 4.0], [0.0, 0.0]]), POINT)
    assert v.norms().tolist() == [5, 0]


def test_where_it_goes_can_be_changed():
    v = al.SteeringVector(torch.ones(1, 4), POINT)
    moved = v.at(-3).to_hook_point("blocks.12.hook_resid_post")
    assert (moved.position, moved.layer) == (-3, 12)
    assert (v.position, v.layer) == ("front", 1)


@pytest.mark.parametrize("two", [2, 2.0, np.float32(2), np.float64(2), np.int64(2)])
def test_any_number_is_a_coefficient(two):
    v = al.SteeringVector(torch.ones(1, 4), POINT)
    assert two * v == v * two == v + v


# What it is made of


def test_rows_are_a_private_float32_copy():
    rows = torch.ones(2, 4, dtype=torch.float64, requires_grad=True)
    v = al.SteeringVector(rows, POINT)
    with torch.no_grad():
        rows.zero_()
    assert v.rows.dtype == torch.float32
    assert v.rows.all()
    assert not al.SteeringVector(rows.detach(), POINT).rows.requires_grad
    with pytest.raises(AttributeError):
        v.position = "back"


def test_steps_change_only_copies():
    v = al.SteeringVector(torch.ones(2, 4), POINT)
    before = v.rows.clone()
    for changed in (2 * v, v.with_rows([0]), v.with_dims(slice(0, 1)), v + v, v.at("back")):
        changed.rows.add_(1)
    assert torch.equal(v.rows, before)


def test_equality_is_of_rows_and_place():
    v = al.SteeringVector(torch.ones(1, 4), POINT)
    assert v == al.SteeringVector(torch.ones(1, 4), POINT, provenance={"kind": "by hand"})
    assert v != v.at("back")
    assert v != v.to_hook_point("blocks.2.hook_resid_pre")
    assert v != 2 * v
    assert v != "v"
    assert len({v, 1 * v, 2 * v}) == 2


def test_it_can_be_copied_and_shows_itself():
    v = al.SteeringVector(torch.ones(2, 4), POINT, provenance={"kind": "by hand"})
    assert copy.deepcopy(v) == v
    assert pickle.loads(pickle.dumps(v)) == v
    assert repr(v) == "by hand at blocks.1.hook_resid_pre, front, 2 rows"


def test_provenance_tells_the_steps():
    v = al.SteeringVector(torch.ones(2, 4), POINT, provenance={"kind": "by hand"})
    own = {"kind": "by hand", "rows_hash": v.identity()["rows"]}
    made = (3 * v.with_rows([1]) - v).collapse("mean").at("all")
    assert made.provenance == {
        "kind": "sum",
        "terms": [
            {"coefficient": 3.0, "of": {**own, "steps": [{"with_rows": [1]}]}},
            {"coefficient": -1.0, "of": own},
        ],
        "steps": [{"collapse": "mean"}, {"at": "all"}],
    }
    assert (v + 2 * v - v / 2).provenance == {**own, "steps": [{"scale": 2.5}]}
    other = al.SteeringVector(torch.zeros(2, 4), POINT, provenance={"kind": "by hand"})
    assert len((v - other).provenance["terms"]) == 2  # nothing else distinguishes them
    assert v.at("sink").at("front").provenance["steps"][0] == {"collapse": "last"}
    told = {"kind": "by hand", "list": [1]}
    private = al.SteeringVector(torch.ones(1, 4), POINT, provenance=told)
    told["list"].append(2)
    assert private.provenance["list"] == [1]


def test_provenance_stays_small_over_a_long_chain(tmp_path):
    v, w = (al.SteeringVector(torch.ones(2, 4), POINT, provenance={"kind": k}) for k in "vw")
    mean = v
    for _ in range(1000):
        mean = mean + 0.1 * (w - mean)
    coefficients = [term["coefficient"] for term in mean.provenance["terms"]]
    assert coefficients == pytest.approx([0.9**1000, 1 - 0.9**1000])
    doubled = v.with_rows([0]) + w
    for _ in range(50):
        doubled = (doubled + doubled.at("back").at("front")) / 2
    doubled.save(tmp_path / "v.safetensors")
    assert (tmp_path / "v.safetensors").stat().st_size < 200_000


def test_vectors_can_be_summed():
    v, w = (al.SteeringVector(torch.full((2, 4), x), POINT) for x in (1.0, 2.0))
    assert sum([v, w]) == v + w
    with pytest.raises(TypeError):
        1 + v


def test_two_caches_of_the_caller_make_a_vector(model):
    pair = al.ContrastPair("I love you", "Hate")
    positive, negative = pair.tokens(model)
    _, plus = model.run_with_cache(positive[None])
    _, minus = model.run_with_cache(negative[None], remove_batch_dim=True)
    v = al.SteeringVector.from_caches(plus, minus, POINT)
    same(v, al.SteeringVector.from_pair(model, pair, 1))
    assert v.hook_point == POINT
    _, both = model.run_with_cache(pair.tokens(model))
    with pytest.raises(al.VectorError, match=r"holds \(2, 4, 32\).*one prompt"):
        al.SteeringVector.from_caches(plus, both, POINT)
    _, short = model.run_with_cache(negative[None, :2])
    with pytest.raises(al.VectorError, match=r"\(4, 32\) and \(2, 32\).*pad the shorter"):
        al.SteeringVector.from_caches(plus, short, POINT)
    with pytest.raises(al.VectorError, match=r"no 'blocks.9.hook_resid_pre' in the cache"):
        al.SteeringVector.from_caches(plus, minus, "blocks.9.hook_resid_pre")


# Bad input


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_only_finite_numbers(bad):
    rows = torch.ones(3, 4)
    rows[1, 2] = bad
    with pytest.raises(al.VectorError, match=r"rows \[1\] of the vector are not finite"):
        al.SteeringVector(rows, POINT)
    v = al.SteeringVector(torch.ones(1, 4), POINT)
    for use in (lambda: bad * v, lambda: v * bad):
        with pytest.raises(al.VectorError, match=r"coefficient .* is not finite"):
            use()
    with pytest.raises(al.VectorError, match="not finite"):
        1e38 * (1e38 * v)


def test_only_vectors_of_one_place_are_added():
    v = al.SteeringVector(torch.ones(1, 4), POINT)
    with pytest.raises(al.VectorError, match="position 'front' and 'back'"):
        v + v.at("back")
    with pytest.raises(al.VectorError, match=r"hook_point .*blocks\.1.*blocks\.2"):
        v - v.to_hook_point("blocks.2.hook_resid_pre")
    with pytest.raises(al.VectorError, match="width 4 and 5"):
        v + al.SteeringVector(torch.ones(1, 5), POINT)


def test_impossible_vectors_are_refused():
    with pytest.raises(al.VectorError, match="at least one row"):
        al.SteeringVector(torch.ones(0, 4), POINT)
    with pytest.raises(al.VectorError, match="names no block"):
        al.SteeringVector(torch.ones(1, 4), "hook_embed")
    with pytest.raises(al.VectorError, match="plain JSON"):
        al.SteeringVector(torch.ones(1, 4), POINT, provenance={"rows": torch.ones(1)})
    v = al.SteeringVector(torch.ones(2, 4), POINT)
    with pytest.raises(al.PositionError, match=r"this vector has 2: .*collapse"):
        v.at("all")
    with pytest.raises(al.PositionError, match="unknown position 'end'"):
        v.at("end")
    with pytest.raises(al.VectorError, match=r"no rows \[2, -3\]: the vector has 2"):
        v.with_rows([0, 2, -3])


def test_numpy_integers_are_integers():
    vector = al.SteeringVector(torch.ones(2, 4), "blocks.1.hook_resid_pre")
    assert vector.at(np.int64(2)) == vector.at(2)
    assert vector.with_rows(np.arange(1)) == vector.with_rows([0])
    assert vector.random_like(np.int64(2)) == vector.random_like(2)


@given(divisor=st.floats(0.1, 100) | st.integers(-5, -1))
def test_division_is_multiplication_by_the_inverse(divisor):
    v = al.SteeringVector(torch.ones(2, 4), "blocks.1.hook_resid_pre")
    assert v / divisor == (1 / divisor) * v


def test_a_vector_is_divided_by_numbers_only():
    v = al.SteeringVector(torch.ones(2, 4), "blocks.1.hook_resid_pre")
    with pytest.raises(al.VectorError, match="cannot divide a vector by 0"):
        v / 0
    with pytest.raises(TypeError):
        v / "2"
    with pytest.raises(TypeError):
        2 / v
