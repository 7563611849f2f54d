"""Statistics for few seeds, against scipy, against brute force, and by simulation."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as oracle

from paperlib import stats

VALUES = st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=12)
LEVELS = st.sampled_from([0.5, 0.9, 0.95, 0.99])


# --- t interval


@given(values=VALUES, level=LEVELS)
@settings(deadline=None)
def test_the_t_interval_is_scipys(values, level):
    found = stats.t_interval(values, level)
    assert found.mean == pytest.approx(np.mean(values)) and found.n == len(values)
    spread = oracle.sem(values)
    if spread == 0:
        assert found.low == found.mean == found.high
    else:
        expected = oracle.t.interval(level, len(values) - 1, loc=np.mean(values), scale=spread)
        assert (found.low, found.high) == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_three_seeds_by_hand():
    """Mean 2, standard error 1 / sqrt(3), t of 2 degrees at 97.5 % = 4.303."""
    found = stats.t_interval([1, 2, 3])
    assert (found.low, found.high) == pytest.approx((2 - 4.3026527 / 3**0.5, 2 + 4.3026527 / 3**0.5))


@pytest.mark.parametrize("n", [2, 3, 5])
def test_it_covers_the_mean_as_often_as_it_says(n):
    """4,000 samples of n normal values at 90 %: within four standard errors."""
    samples = np.random.default_rng(n).normal(1.5, 2.0, (4000, n))
    covered = sum(
        low <= 1.5 <= high for low, high in ((i.low, i.high) for i in (stats.t_interval(s, 0.9) for s in samples))
    )
    assert abs(covered / 4000 - 0.9) < 4 * math.sqrt(0.9 * 0.1 / 4000)


def test_one_value_has_no_spread_and_no_value_no_mean():
    assert stats.t_interval([0.7]) == stats.Interval(0.7, -math.inf, math.inf, 1)
    with pytest.raises(ValueError, match="at least one value"):
        stats.t_interval([])


def test_columns_of_a_table():
    assert stats.Interval(0.5, 0.4, 0.6, 3).columns(100) == {"mean": 50, "low": 40, "high": 60, "n": 3}
    assert stats.t_interval([0.7]).columns() == {"mean": 0.7, "low": None, "high": None, "n": 1}


# --- paired permutation


def by_brute_force(differences):
    """Share of all sign flips whose mean is at least as far from zero."""
    flips = [abs(np.dot(signs, differences)) for signs in itertools.product((1, -1), repeat=len(differences))]
    return np.mean(np.array(flips) >= abs(sum(differences)) - 1e-9)


@given(differences=st.lists(st.integers(-6, 6), min_size=2, max_size=8))
@settings(deadline=None, max_examples=50)
def test_over_all_sign_flips_the_p_value_is_exact(differences):
    base = np.arange(len(differences)) * 3.0
    assert stats.paired_permutation(base + differences, base) == pytest.approx(by_brute_force(differences))


def test_five_seeds_that_agree_are_two_of_thirty_two_flips():
    assert stats.paired_permutation([5, 6, 7, 8, 9], [1, 2, 3, 3, 4]) == pytest.approx(2 / 32)


@given(a=VALUES)
@settings(deadline=None, max_examples=20)
def test_no_difference_is_no_evidence(a):
    assert stats.paired_permutation(a, a) == 1


def test_it_is_two_sided():
    a, b = [3.0, 4, 6, 2], [1.0, 5, 2, 0]
    assert stats.paired_permutation(a, b) == stats.paired_permutation(b, a)


def test_many_seeds_are_sampled_reproducibly():
    rng = np.random.default_rng(0)
    a, b = rng.normal(0.4, 1, 14), rng.normal(0, 1, 14)
    found = stats.paired_permutation(a, b)
    assert found == stats.paired_permutation(a, b)
    assert found == pytest.approx(by_brute_force(a - b), abs=0.01)


# --- bootstrap over rows


def test_equal_rows_have_an_interval_of_no_width():
    assert stats.bootstrap_difference([1, 0, 1], [0, -1, 0]) == stats.Interval(1, 1, 1, 3)


def test_the_difference_is_of_a_minus_b_and_reproducible():
    rng = np.random.default_rng(1)
    a, b = rng.integers(0, 2, 200), rng.integers(0, 2, 200)
    found, mirrored = stats.bootstrap_difference(a, b, draws=999), stats.bootstrap_difference(b, a, draws=999)
    assert found == stats.bootstrap_difference(a, b, draws=999)
    assert found.mean == pytest.approx(np.mean(a) - np.mean(b)) == -mirrored.mean
    assert found.low < found.mean < found.high and found.n == 200


def test_its_width_is_the_normal_one_for_many_rows():
    difference = np.random.default_rng(2).normal(0.1, 1.0, 1000)
    found = stats.bootstrap_difference(difference, np.zeros(1000), draws=2000)
    assert (found.high - found.low) / 2 == pytest.approx(1.96 * difference.std() / 1000**0.5, rel=0.08)


def test_rows_are_resampled_in_pairs():
    """What two methods share does not widen the interval."""
    rng = np.random.default_rng(3)
    shared, own = rng.normal(0, 100, 300), rng.normal(0, 1, 300)
    found = stats.bootstrap_difference(shared + own, shared, draws=500)
    assert found.high - found.low < 0.5


def test_a_proportion_has_wilson_s_interval_in_closed_form():
    k, n, z = 7, 10, 1.959963984540054
    found = stats.proportion([True] * k + [False] * (n - k))
    centre = (k / n + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(k / n * (1 - k / n) / n + z**2 / (4 * n**2))
    assert found.mean == 0.7 and found.n == n
    assert (found.low, found.high) == pytest.approx((centre - half, centre + half), abs=1e-12)
    mean, (below, above) = found.percent()
    assert (mean - below, mean + above) == pytest.approx((100 * found.low, 100 * found.high))


# --- expected maximum


@given(values=st.lists(st.integers(-9, 9), min_size=1, max_size=6))
@settings(deadline=None, max_examples=50)
def test_the_expected_maximum_is_the_mean_over_all_subsets(values):
    found = stats.expected_maximum([[value] for value in values], draws=10)
    for n, interval in enumerate(found, start=1):
        assert interval.mean == pytest.approx(np.mean([max(some) for some in itertools.combinations(values, n)]))


def test_it_goes_from_the_mean_to_the_best_and_counts_seeds_by_their_mean():
    found = stats.expected_maximum([[1, 3], [4], [5, 5, 8]])
    assert [interval.mean for interval in found] == pytest.approx([(2 + 4 + 6) / 3, (4 + 6 + 6) / 3, 6])
    assert {interval.n for interval in found} == {3}


@given(values=st.lists(st.floats(0, 1), min_size=2, max_size=8))
@settings(deadline=None, max_examples=30)
def test_its_intervals_hold_it_and_stay_among_the_scores_seen(values):
    for interval in stats.expected_maximum([[value] for value in values], draws=400):
        assert min(values) - 1e-9 <= interval.low <= interval.high <= max(values) + 1e-9
        assert interval.low <= interval.mean + 1e-9


def test_configurations_and_seeds_both_widen_the_interval():
    rng = np.random.default_rng(0)
    alike = [rng.normal(0.5, 0.1, 3).tolist() for _ in range(6)]
    seeds_alone = stats.expected_maximum([[0.5, 0.6, 0.4]] * 6)[0]
    nothing = stats.expected_maximum([[0.5]] * 6)[0]
    both = stats.expected_maximum(alike)[0]
    assert (nothing.low, nothing.high) == pytest.approx((0.5, 0.5))
    assert seeds_alone.high - seeds_alone.low > 0 and both.high - both.low > 0


def test_drawing_one_configuration_is_the_mean_with_the_bootstrap_s_width():
    """Twelve single-seed configurations: the interval at n = 1 is that of a mean, within a tenth of its normal width."""
    values = np.random.default_rng(3).normal(0.7, 0.05, 12)
    found = stats.expected_maximum([[value] for value in values], draws=20_000)[0]
    assert found.high - found.low == pytest.approx(2 * 1.96 * values.std() / 12**0.5, rel=0.1)


def test_its_bootstrap_is_reproducible():
    scores = [[0.5, 0.6], [0.7, 0.65], [0.55, 0.6]]
    assert stats.expected_maximum(scores) == stats.expected_maximum(scores)


def test_a_single_score_has_no_spread_and_no_score_no_maximum():
    assert stats.expected_maximum([[0.7]]) == [stats.Interval(0.7, -math.inf, math.inf, 1)]
    for nothing in ([], [[0.5], []]):
        with pytest.raises(ValueError, match="at least one configuration, and a score of each"):
            stats.expected_maximum(nothing)


# --- sign test


@given(gained=st.integers(0, 30), lost=st.integers(0, 30))
@settings(deadline=None)
def test_the_sign_test_counts_splits_at_least_as_uneven(gained, lost):
    n = gained + lost
    uneven = [k for k in range(n + 1) if abs(k - n / 2) >= abs(gained - n / 2)]
    assert stats.sign_test(gained, lost) == pytest.approx(sum(math.comb(n, k) for k in uneven) / 2**n)


def test_a_single_pair_says_nothing():
    assert stats.paired_permutation([1.0], [0.0]) == 1
