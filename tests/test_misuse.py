"""Calls that are nearly right: the error names what was called, and what to write instead."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import D_MODEL

import actadd_lens as al

PAIR = ("Love", "Hate")
V = al.SteeringVector(torch.ones(1, D_MODEL), "blocks.1.hook_resid_pre")


@pytest.mark.usefixtures("untyped")
@pytest.mark.parametrize(
    "wrong",
    [
        lambda: torch.ones(2) * V,
        lambda: V * torch.ones(2),
        lambda: np.ones(2) * V,
        lambda: V * "6",
        lambda: "6" * V,
        lambda: V * V,
        lambda: V / "6",
        lambda: V * None,
    ],
)
def test_a_vector_is_scaled_by_one_number(wrong):
    with pytest.raises(al.VectorError, match=r"by one number, not by .*: e\.g\. 6 \* v") as caught:
        wrong()
    assert isinstance(caught.value, TypeError)


@pytest.mark.parametrize("wrong", [lambda: V + 3, lambda: 3 + V, lambda: V - "3"])
def test_only_vectors_are_added(wrong):
    with pytest.raises(al.VectorError, match=r"cannot (add|subtract) '?3'?: give a SteeringVector"):
        wrong()


def test_vectors_are_summed():
    w = V.with_dims([0])
    assert sum([V, w, V]) == V + w + V


@pytest.mark.usefixtures("untyped")
def test_a_pair_is_one_argument(model):
    with pytest.raises(al.PromptError, match=r"al\.extract\(model, \('a', 'b'\)\)"):
        al.extract(model, "a", "b")


def test_a_missing_layer_says_which_there_are(model):
    vectors = al.extract(model, PAIR, [1, 2])
    with pytest.raises(KeyError, match="no vector of layer 0: there are 1, 2"):
        vectors[0]
    assert isinstance(vectors, dict)
    assert vectors.get(0) is None
    assert 0 not in vectors


@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        (al.compare, (PAIR, V)),
        (al.sweep, (PAIR, "I love")),
        (al.layer_sweep, (PAIR, "I love")),
        (al.coefficient_sweep, (PAIR, "I love")),
        (al.position_ablation, (V, "I love you")),
        (al.dimension_ablation, (V, "I love you")),
        (al.layer_transplant, (PAIR, "I love you")),
        (al.pair_variance, ([PAIR, ("I", "you")], "I love you")),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_misspelt_option_names_the_function_and_the_nearest(model, function, arguments):
    required = {
        al.compare: {},
        al.layer_sweep: {"coefficient": 1},
        al.coefficient_sweep: {"coefficients": [1], "layer": 1},
        al.layer_transplant: {"coefficient": 1},
        al.pair_variance: {"coefficient": 1, "layer": 1},
    }.get(function, {})
    if function is not al.compare:
        required["metrics"] = "kl"
    name = function.__name__
    for wrong, right in {"temprature": "temperature", "max_new_token": "max_new_tokens"}.items():
        with pytest.raises(
            TypeError, match=rf"^{name}\(\) got an unexpected .* '{wrong}': did you mean '{right}'"
        ):
            function(model, *arguments, **required, **{wrong: 1})
    with pytest.raises(TypeError, match=rf"^{name}\(\) .* 'zzz': there are .*temperature"):
        function(model, *arguments, **required, zzz=1)


def test_an_option_of_the_function_itself_is_a_candidate(model):
    with pytest.raises(TypeError, match=r"'coeficients': did you mean 'coefficients'"):
        al.sweep(model, PAIR, "I love", metrics="kl", coeficients=[1])


# How a vector is shown


def made(positive: str, negative: str) -> al.SteeringVector:
    pair = {"kind": "pair", "positive": positive, "negative": negative}
    return al.SteeringVector(torch.ones(2, 4), "blocks.11.hook_resid_pre", provenance=pair)


@pytest.mark.parametrize(
    ("vector", "shown"),
    [
        (16 * made(" weddings", " "), "16 x (' weddings' - ' ')"),
        (made("a", "b"), "'a' - 'b'"),
        (-made("a", "b"), "-1 x ('a' - 'b')"),
        (2 * (3 * made("a", "b")), "6 x ('a' - 'b')"),
        ((made("a", "b") + made("c", "d")) / 2, "0.5 x (('a' - 'b') + ('c' - 'd'))"),
        (made("a", "b") - 2 * made("c", "d"), "('a' - 'b') - 2 x ('c' - 'd')"),
        (2 * (3 * made("a", "b") + made("c", "d")), "2 x (3 x ('a' - 'b') + ('c' - 'd'))"),
        (2 * made("a", "b").with_rows([1]), "2 x rows [1] of ('a' - 'b')"),
        (made("a", "b").with_dims(range(99)[:4]), "dimensions [0, 1, 2, 3] of ('a' - 'b')"),
        (made("a", "b").random_like(7), "random (seed 7), as long as ('a' - 'b')"),
        (
            sum(made("a", str(i)) for i in range(9)),
            "('a' - '0') + ('a' - '1') ... (9 terms) + ('a' - '8')",
        ),
    ],
)
def test_a_vector_shows_what_it_is_made_of(vector, shown):
    assert repr(vector) == f"{shown} at blocks.11.hook_resid_pre, front, 2 rows"


def test_a_vector_shows_where_it_is_added():
    row = made("a", "b").collapse("last").to_hook_point("blocks.2.hook_resid_pre")
    text = "last row of ('a' - 'b') at blocks.2.hook_resid_pre"
    assert repr(row) == f"{text}, front, 1 row"
    assert repr(row.at("all")) == f"{text}, all, 1 row"
    assert repr(row.at(-2)) == f"{text}, position -2, 1 row"
    bare = al.SteeringVector(torch.ones(1, 4), "blocks.1.hook_resid_pre")
    assert repr(3 * bare) == "3 x vector at blocks.1.hook_resid_pre, front, 1 row"
