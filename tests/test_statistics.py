import math
from dataclasses import FrozenInstanceError, replace
from itertools import product

import numpy as np
import pandas as pd
import pytest
import scipy.stats
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from numpy.random import mtrand

from actadd_lens import statistics as stats

NAN = float("nan")
VALUES = st.one_of(
    st.floats(-100, 100).filter(lambda x: x == 0 or abs(x) > 1e-3),
    st.integers(-3, 3).map(lambda k: k / 3),  # ties up to rounding
)


@st.composite
def samples(draw, max_prompts=6):
    """Values of several samples per prompt, twice, and the prompt of each."""
    counts = draw(st.lists(st.integers(1, 3), min_size=1, max_size=max_prompts))
    prompts = [f"prompt {i}" for i, count in enumerate(counts) for _ in range(count)]
    size = {"min_size": len(prompts), "max_size": len(prompts)}
    return draw(st.lists(VALUES, **size)), draw(st.lists(VALUES, **size)), prompts


def shuffled(seed, *columns):
    order = np.random.default_rng(seed).permutation(len(columns[0]))
    return [[column[i] for i in order] for column in columns]


def bounds(interval):
    return [interval.mean, interval.low, interval.high]


def effects(rng, n_prompts, n_samples, between, within):
    """Normal samples around prompts' own normal means, all of mean zero, and their prompts."""
    own = between * rng.normal(size=(n_prompts, 1))
    values = own + within * rng.normal(size=(n_prompts, n_samples))
    return values.ravel(), np.repeat(np.arange(n_prompts), n_samples)


# Known intervals


@pytest.mark.parametrize(
    ("hits", "n", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611)],
)
def test_proportion_is_as_in_newcombe_1998_table_1(hits, n, low, high):
    found = stats.proportion([True] * hits + [False] * (n - hits))
    assert bounds(found) == pytest.approx([hits / n, low, high], abs=5e-5)


def scipys(values, **options):
    interval = scipy.stats.bootstrap((values,), np.mean, n_resamples=2000, **options)
    return [values.mean(), *interval.confidence_interval]


def test_mean_is_scipys_bootstrap():
    values = np.random.default_rng(1).exponential(size=30)
    found = stats.mean(values, confidence=0.9, seed=7)
    expected = scipys(values, confidence_level=0.9, rng=np.random.default_rng(7))
    assert bounds(found) == pytest.approx(expected, rel=1e-9)


def test_means_that_tie_on_paper_tie():
    # How many resamples equal the mean decides BCa's bias; sums of thirds miss it by rounding.
    hits_of_three = np.array([0, 1, 2, 0, 3, 0, 3, 1, 3, 0, 3, 2])
    exact = scipys(hits_of_three, rng=np.random.default_rng(0))
    assert bounds(stats.mean(hits_of_three / 3)) == pytest.approx([x / 3 for x in exact])


def test_cluster_mean_is_the_mean_of_the_prompts_means():
    found = stats.cluster_mean([1.0, 3.0, 8.0, 2.0, 4.0], ["a", "a", "b", "c", "c"])
    assert found.mean == pytest.approx((2 + 8 + 3) / 3)
    assert (found.n, found.missing) == (3, 0)
    assert bounds(found) == pytest.approx(bounds(stats.mean([2.0, 3.0, 8.0])))


def test_a_skewed_mean_has_a_skewed_interval():
    found = stats.mean(np.random.default_rng(0).exponential(size=40))
    assert found.high - found.mean > found.mean - found.low


def test_missing_samples_are_left_out_and_counted():
    values, prompts = [1.0, NAN, 3.0, NAN, NAN, 5.0], ["a", "a", "b", "c", "c", "d"]
    found = stats.cluster_mean(values, prompts)
    assert found == replace(stats.cluster_mean([1.0, 3.0, 5.0], "abd"), missing=3)
    assert found.n == 3


@pytest.mark.parametrize("values", [[0.1] * 6, [0.3, 0.1 + 0.2] * 3, [0.0] * 6])
def test_constant_values_have_an_interval_of_no_width(values):
    found = stats.cluster_mean(values, "aabbcc")
    assert found.low == found.mean == found.high == pytest.approx(values[0])
    assert stats.mean(values).low == stats.mean(values).high == stats.mean(values).mean


def test_one_prompt_tells_nothing_of_others():
    found = stats.cluster_mean([1.0, 2.0, 3.0], "aaa")
    assert (found.mean, found.n) == (2.0, 1)
    assert math.isnan(found.low)
    assert math.isnan(found.high)
    assert math.isnan(stats.mean([1.0]).low)


def test_two_prompts_have_an_interval():
    found = stats.cluster_mean([1.0, 2.0], "ab")
    assert 1 <= found.low < 1.5 < found.high <= 2


def test_values_of_any_size_have_an_interval():
    values = np.random.default_rng(0).exponential(size=20)
    for scale in (1e-150, 1e150):
        found = stats.mean(scale * values)
        assert bounds(found) == pytest.approx([scale * x for x in bounds(stats.mean(values))])


def test_results_are_frozen_and_print_in_percent():
    found = stats.cluster_mean([0.0, 1.0, 1.0, 1.0], "abcd")
    assert found.percent().startswith("75 [")
    with pytest.raises(FrozenInstanceError):
        found.mean = 0.0


# Laws of intervals


@given(drawn=samples(), seed=st.integers(0, 99))
def test_order_of_samples_and_names_of_prompts_do_not_matter(drawn, seed):
    values, _, prompts = drawn
    found = bounds(stats.cluster_mean(values, prompts))
    moved = stats.cluster_mean(*shuffled(seed, values, prompts))
    names = {prompt: (seed, hash(prompt)) for prompt in prompts}
    renamed = stats.cluster_mean(values, [names[prompt] for prompt in prompts])
    assert bounds(moved) == pytest.approx(found, abs=1e-9, nan_ok=True)
    assert bounds(renamed) == pytest.approx(found, abs=1e-9, nan_ok=True)


@given(drawn=samples(), scale=st.floats(0.01, 100), shift=st.floats(-10, 10))
def test_an_interval_scales_and_shifts_with_its_values(drawn, scale, shift):
    values, _, prompts = drawn
    found = stats.cluster_mean(values, prompts)
    moved = stats.cluster_mean([scale * x + shift for x in values], prompts)
    expected = [scale * x + shift for x in bounds(found)]
    assert bounds(moved) == pytest.approx(expected, abs=1e-6, nan_ok=True)


@given(drawn=samples())
def test_an_interval_lies_within_the_values_and_widens_with_confidence(drawn):
    values, _, prompts = drawn
    narrow, wide = (stats.cluster_mean(values, prompts, confidence=c) for c in (0.5, 0.99))
    if narrow.n > 1:
        slack = 1e-9
        assert min(values) - slack <= wide.low <= narrow.low + slack
        assert narrow.high - slack <= wide.high <= max(values) + slack


def test_a_seed_decides_and_the_global_state_is_untouched():
    values = np.random.default_rng(0).normal(size=30)
    before = mtrand._rand.get_state()[1].tolist()
    assert stats.mean(values) == stats.mean(values, seed=0) != stats.mean(values, seed=1)
    first, again, other = (stats.paired_permutation(values, 0 * values, seed=s) for s in (0, 0, 1))
    assert first == again
    assert first.p_value != other.p_value
    assert mtrand._rand.get_state()[1].tolist() == before


def test_tensors_arrays_and_columns_are_taken():
    values, prompts = [1.0, 2.0, 5.0, 3.0], [0, 0, 1, 2]
    for kind in (np.array, torch.tensor, pd.Series):
        found = stats.cluster_mean(kind(values), kind(prompts))
        assert found == stats.cluster_mean(values, prompts)
        tested = stats.paired_permutation(kind(values), kind(values[::-1]), kind(prompts))
        assert tested == stats.paired_permutation(values, values[::-1], prompts)


# Coverage by simulation


def coverage(interval_of, n_prompts, n_samples, between=1.0, within=1.0, runs=300):
    covered = 0
    for run in range(runs):
        values, prompts = effects(np.random.default_rng(run), n_prompts, n_samples, between, within)
        found = interval_of(values, prompts)
        covered += found.low <= 0 <= found.high
    return scipy.stats.binomtest(covered, runs, 0.95)


@pytest.mark.slow
def test_intervals_over_prompts_cover_and_those_over_samples_do_not():
    clustered = coverage(stats.cluster_mean, n_prompts=40, n_samples=6)
    pooled = coverage(lambda values, _: stats.mean(values), n_prompts=40, n_samples=6)
    assert clustered.pvalue > 0.01
    assert pooled.statistic < 0.8


@pytest.mark.slow
def test_independent_samples_need_no_clusters():
    assert coverage(lambda values, _: stats.mean(values), 60, 1, between=0).pvalue > 0.01


@pytest.mark.slow
def test_few_prompts_are_covered_as_the_docstring_says():
    assert coverage(stats.cluster_mean, 5, 1).statistic == pytest.approx(0.82, abs=0.05)


# Permutation test


def by_enumeration(changes, alternative):
    """Share of all sign flips with a mean at least as extreme, in exact integers."""
    null = [
        sum(s * c for s, c in zip(signs, changes, strict=True))
        for signs in product((-1, 1), repeat=len(changes))
    ]
    above = sum(x >= sum(changes) for x in null) / len(null)
    below = sum(x <= sum(changes) for x in null) / len(null)
    return {"greater": above, "less": below, "two-sided": min(1, 2 * min(above, below))}[
        alternative
    ]


def test_darwins_maize():
    # Fisher, The Design of Experiments (1935), section 21: 1,726 of 32,768 flips are as extreme.
    crossed_minus_selfed = [49, -67, 8, 16, 6, 23, 28, 41, 14, 29, 56, 24, 75, 60, -48]
    found = stats.paired_permutation(crossed_minus_selfed, [0] * 15)
    assert found.statistic == pytest.approx(314 / 15)
    assert found.p_value == pytest.approx(1726 / 32768, abs=0.006)  # 9,999 of the flips
    assert found.n == 15


@pytest.mark.parametrize("alternative", ["two-sided", "greater", "less"])
@given(changes=st.lists(st.integers(-4, 4), min_size=1, max_size=8))
@example(changes=[-3, -2, 2, 3])
def test_few_prompts_are_tested_exactly(alternative, changes):
    # In thirds: the sums tie on paper, not in floating point.
    found = stats.paired_permutation(
        [c / 3 for c in changes], [0.0] * len(changes), None, alternative
    )
    assert found.p_value == pytest.approx(by_enumeration(changes, alternative))


def test_it_is_scipys_test():
    rng = np.random.default_rng(2)
    steered, clean = rng.normal(0.4, 1, size=10), rng.normal(size=10)
    expected = scipy.stats.permutation_test(
        (steered - clean,), np.mean, permutation_type="samples", n_resamples=np.inf
    )
    found = stats.paired_permutation(steered, clean)
    assert found.p_value == pytest.approx(expected.pvalue)
    assert found.statistic == pytest.approx(expected.statistic)


def test_samples_of_a_prompt_are_flipped_together():
    found = stats.paired_permutation([1.0, 3.0, 1.0], [0.0, 0.0, 0.0], "aab", "greater")
    assert (found.statistic, found.p_value, found.n) == (1.5, 0.25, 2)
    assert found.alternative == "greater"
    assert "exchangeable" in found.null


def test_the_null_hypothesis_stands_in_the_docstring():
    docstring = " ".join(str(stats.paired_permutation.__doc__).split())
    for part in stats.EXCHANGEABLE.replace(":", ";").split("; "):
        assert part in docstring


def test_pairs_with_a_missing_value_are_left_out():
    steered, clean = [1.0, NAN, 4.0, 9.0], [0.0, 0.0, 1.0, NAN]
    found = stats.paired_permutation(steered, clean)
    assert found == replace(stats.paired_permutation([1.0, 4.0], [0.0, 1.0]), missing=2)


def test_nothing_moved():
    found = stats.paired_permutation([0.1, 0.2], [0.1, 0.2])
    assert (found.statistic, found.p_value, found.n) == (0.0, 1.0, 2)


@given(drawn=samples(max_prompts=8), seed=st.integers(0, 99))
def test_swapping_the_runs_swaps_the_sides(drawn, seed):
    steered, clean, prompts = drawn
    for alternative, other in [("two-sided", "two-sided"), ("greater", "less")]:
        found = stats.paired_permutation(steered, clean, prompts, alternative)
        swapped = stats.paired_permutation(clean, steered, prompts, other)
        moved = stats.paired_permutation(*shuffled(seed, steered, clean, prompts), alternative)
        assert 0 < found.p_value <= 1
        assert swapped.p_value == found.p_value == moved.p_value
        assert swapped.statistic == pytest.approx(-found.statistic, abs=1e-12)


@given(drawn=samples(), scale=st.floats(0.01, 100))
def test_the_unit_does_not_matter_to_a_test(drawn, scale):
    steered, clean, prompts = drawn
    found = stats.paired_permutation(steered, clean, prompts)
    larger = stats.paired_permutation(
        [scale * x for x in steered], [scale * x for x in clean], prompts
    )
    assert larger.p_value == found.p_value
    assert larger.statistic == pytest.approx(scale * found.statistic)


def test_order_does_not_matter_to_random_flips_either():
    values = np.random.default_rng(3).normal(0.3, 1, size=40)
    found = stats.paired_permutation(values, 0 * values)
    assert stats.paired_permutation(values[::-1], 0 * values) == found


def false_positives(n_prompts, n_samples, clustered, runs=300):
    """Test of the share of p-values up to 5 % under the null, at 5 %."""
    found = 0
    for run in range(runs):
        rng = np.random.default_rng(run)
        values, prompts = effects(rng, n_prompts, n_samples, between=1.0, within=1.0)
        shared = rng.exponential(size=len(values))  # any shape: both runs have it
        test = stats.paired_permutation(
            values + shared, shared, prompts if clustered else None, seed=run
        )
        found += test.p_value <= 0.05
    return scipy.stats.binomtest(found, runs, 0.05)


@pytest.mark.slow
def test_false_positives_are_as_rare_as_they_should_be():
    assert false_positives(n_prompts=8, n_samples=2, clustered=True).pvalue > 0.01
    assert false_positives(n_prompts=20, n_samples=4, clustered=True).pvalue > 0.01


@pytest.mark.slow
def test_samples_taken_for_prompts_are_false_positives():
    assert false_positives(n_prompts=20, n_samples=4, clustered=False, runs=60).statistic > 0.12


def test_an_effect_is_found():
    rng = np.random.default_rng(0)
    clean = rng.normal(size=60)
    steered = clean + rng.normal(0.6, 1, size=60)
    assert stats.paired_permutation(steered, clean).p_value < 0.001
    assert stats.paired_permutation(steered, clean, alternative="greater").p_value < 0.001
    assert stats.paired_permutation(steered, clean, alternative="less").p_value > 0.999


# Share moved the wrong way


def test_share_moved_wrong_counts_prompts():
    steered, clean = [1.0, 5.0, 0.0, 1.0, 2.0], [2.0, 1.0, 1.0, 1.0, 2.5]
    found = stats.share_moved_wrong(steered, clean, ["a", "a", "b", "c", "d"])
    assert found == stats.ClusterInterval(
        **vars(stats.proportion([False, True, False, True])), missing=0
    )
    assert stats.share_moved_wrong(steered, clean, "aabcd", wanted="down").mean == 0.25


def test_a_tie_up_to_rounding_is_not_wrong():
    for wanted in ("up", "down"):
        assert stats.share_moved_wrong([0.1 + 0.2], [0.3], wanted=wanted).mean == 0
        assert stats.share_moved_wrong([0.3], [0.1 + 0.2], wanted=wanted).mean == 0


def test_a_small_move_is_a_move():
    assert stats.share_moved_wrong([1e-20, 1.0], [2e-20, 0.0]).mean == 0.5


@given(drawn=samples())
def test_wrong_right_and_unmoved_are_all(drawn):
    steered, clean, prompts = drawn
    up = stats.share_moved_wrong(steered, clean, prompts, "up")
    down = stats.share_moved_wrong(steered, clean, prompts, "down")
    assert stats.share_moved_wrong(clean, steered, prompts, "up") == down
    assert up.mean + down.mean <= 1 + 1e-12
    assert 0 <= up.low <= up.mean <= up.high <= 1
    assert stats.share_moved_wrong(steered, steered, prompts).mean == 0


# Several comparisons

# Benjamini & Hochberg (1995), section 3.2: at 5 % theirs rejects four, Bonferroni's three.
THROMBOLYSIS = [
    *(0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344),
    *(0.0459, 0.3240, 0.4262, 0.5719, 0.6528, 0.7590, 1.0000),
]
P_VALUES = st.lists(st.floats(0, 1), min_size=1, max_size=12)
METHODS = ("holm", "bh")


@pytest.mark.parametrize(("method", "rejected"), [("holm", 3), ("bh", 4)])
def test_the_example_of_benjamini_and_hochberg(method, rejected):
    assert (stats.adjust(THROMBOLYSIS, method) <= 0.05).sum() == rejected


def test_known_corrections():
    assert stats.adjust([0.04, 0.01, 0.03, 0.02]).tolist() == [0.06, 0.04, 0.06, 0.06]
    assert stats.adjust([0.04, 0.01, 0.03, 0.02], "bh") == pytest.approx([0.04] * 4)
    assert stats.adjust([0.7, 0.6]).tolist() == [1.0, 1.0]
    assert stats.adjust([0.2]).tolist() == [0.2]


@pytest.mark.parametrize("method", METHODS)
def test_a_test_not_made_is_not_counted(method):
    found = stats.adjust([0.01, NAN, 0.02], method)
    assert found[[0, 2]].tolist() == stats.adjust([0.01, 0.02], method).tolist()
    assert math.isnan(found[1])


@pytest.mark.parametrize("method", METHODS)
@given(raw=P_VALUES, seed=st.integers(0, 99))
def test_corrections_only_raise_and_keep_the_order(method, raw, seed):
    found = stats.adjust(raw, method)
    assert (found >= np.array(raw) * (1 - 1e-12)).all()
    assert (found <= 1).all()
    assert (np.diff(found[np.argsort(raw)]) >= -1e-15).all()
    moved, expected = shuffled(seed, raw, found.tolist())
    assert stats.adjust(moved, method) == pytest.approx(expected)


@given(raw=P_VALUES)
def test_holm_lies_between_bh_and_bonferroni(raw):
    holm, bh = (stats.adjust(raw, method) for method in METHODS)
    assert (bh <= holm + 1e-12).all()
    assert (holm <= len(raw) * np.array(raw) + 1e-12).all()


def test_the_input_stays_as_it_is():
    raw = np.array([0.01, 0.02])
    stats.adjust(raw)
    assert raw.tolist() == [0.01, 0.02]


# Bad input

PAIR = ([1.0, 2.0], [0.0, 0.0])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: stats.proportion([]), "proportion of 0 outcomes"),
        (lambda: stats.mean([]), "mean of 0 values"),
        (lambda: stats.mean([1.0, NAN]), "1 of 2 values are NaN: drop them"),
        (lambda: stats.mean([1.0, math.inf]), "1 of 2 values are infinite"),
        (lambda: stats.mean(np.ones((2, 3))), r"values of shape \(2, 3\): give one number"),
        (lambda: stats.cluster_mean([], []), "none of 0 values is a number"),
        (lambda: stats.cluster_mean([NAN, NAN], "ab"), "none of 2 values is a number"),
        (lambda: stats.cluster_mean([1.0, 2.0], "abc"), "2 values and 3 clusters"),
        (lambda: stats.cluster_mean([-math.inf, 2.0], "ab"), "1 of 2 values are infinite"),
        (lambda: stats.paired_permutation([], []), "none of 0 values is a number"),
        (lambda: stats.paired_permutation([1.0], [1.0, 2.0]), "1 steered and 2 clean values"),
        (lambda: stats.paired_permutation([1.0, NAN], [NAN, 2.0]), "none of 2 values"),
        (lambda: stats.paired_permutation(*PAIR, "abc"), "2 values and 3 clusters"),
        (lambda: stats.paired_permutation([math.inf], [1.0]), "1 of 1 steered values are inf"),
        (
            lambda: stats.paired_permutation(*PAIR, alternative="larger"),
            "unknown alternative 'larger': choose one of two-sided, greater, less",
        ),
        (lambda: stats.share_moved_wrong([], []), "none of 0 values is a number"),
        (lambda: stats.share_moved_wrong([1.0], [1.0, 2.0]), "1 steered and 2 clean values"),
        (
            lambda: stats.share_moved_wrong(*PAIR, wanted="left"),
            "unknown direction 'left': choose one of up, down",
        ),
        (lambda: stats.adjust([]), "none of 0 p-values is a number"),
        (lambda: stats.adjust([NAN]), "none of 1 p-values is a number"),
        (lambda: stats.adjust([0.5, 1.5]), "p-values from 0.5 to 1.5: they are between 0 and 1"),
        (lambda: stats.adjust([-0.5, 0.5], "bh"), "p-values from -0.5 to 0.5"),
        (lambda: stats.adjust([0.5], "fdr"), "unknown method 'fdr': choose one of holm, bh"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("confidence", [0.0, 1.0, -0.5, 95.0, NAN])
@pytest.mark.parametrize(
    "call",
    [
        lambda c: stats.proportion([True, False], c),
        lambda c: stats.mean([1.0, 2.0], c),
        lambda c: stats.cluster_mean([1.0, 2.0], "ab", c),
        lambda c: stats.share_moved_wrong(*PAIR, confidence=c),
    ],
)
def test_confidence_is_between_0_and_1(call, confidence):
    with pytest.raises(ValueError, match=f"confidence {confidence} is not between 0 and 1"):
        call(confidence)


@given(st.lists(st.tuples(st.floats(-5, 5), st.floats(-5, 5)), min_size=2, max_size=12))
def test_the_mean_change_is_that_of_the_differences(pairs):
    steered, clean = map(np.array, zip(*pairs, strict=True))
    found = stats.mean_change(steered, clean)
    expected = stats.mean(steered - clean)
    assert found.mean == pytest.approx(expected.mean, abs=1e-9)
    assert (found.n, found.missing) == (len(pairs), 0)
    assert found.mean == pytest.approx(stats.paired_permutation(steered, clean).statistic, abs=1e-9)


def test_the_mean_change_counts_each_prompt_once_and_says_what_is_missing():
    found = stats.mean_change([1.0, 3.0, 9.0, np.nan], [0.0, 0.0, 0.0, 0.0], ["a", "a", "b", "c"])
    assert (found.mean, found.n, found.missing) == (5.5, 2, 1)
