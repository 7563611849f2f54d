"""Choosing among configurations: by hand, and what holds whatever the rows say."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paperlib.dps import search


@st.composite
def selections(draw):
    """Configurations of 1 to 5 seeds on 2 to 12 rows, divided anyhow into two halves that are not empty."""
    configurations, seeds, rows = draw(st.integers(1, 5)), draw(st.integers(1, 5)), draw(st.integers(2, 12))
    counts = draw(st.lists(st.integers(0, seeds), min_size=configurations * rows, max_size=configurations * rows))
    size = draw(st.integers(1, rows - 1))
    first = np.isin(np.arange(rows), draw(st.permutations(range(rows)))[:size])
    return search.Selection(np.array(counts).reshape(configurations, rows) / seeds, first)


def test_by_hand():
    """Configuration 0 wins on rows 0 and 1, 1 on rows 2 and 3; over all rows 0 is ahead."""
    correct = np.array([[1, 1, 1, 0], [1, 0, 1, 1], [0, 0, 0, 0]], dtype=float)
    found = search.Selection(correct, np.array([True, True, False, False]))
    assert found.best.tolist() == [0, 1] and [each.tolist() for each in found.chosen] == [[0], [1]]
    assert found.held_out.tolist() == [1, 0, 1, 0], "rows 0, 1 by configuration 1, rows 2, 3 by configuration 0"
    assert found.same_rows.tolist() == [1, 0.5, 1, 0.5]
    assert found.optimism == 0.75 - 0.5


def test_ties_count_by_their_mean():
    correct = np.array([[1, 0, 0.5, 1], [1, 0, 0, 0.5]])
    found = search.Selection(correct, np.array([True, True, False, False]))
    assert found.chosen[0].tolist() == [0, 1], "equal on the first half"
    assert found.held_out.tolist() == [1, 0, 0.25, 0.75]


@given(selections())
@settings(deadline=None)
def test_choosing_on_the_reported_rows_never_lowers_the_score(found):
    assert found.optimism >= -1e-12
    assert found.same_rows.mean() == pytest.approx(found.correct.mean(axis=1).max())
    assert found.held_out.mean() <= found.correct.mean(axis=1).max() + 1e-12


@given(selections())
@settings(deadline=None)
def test_a_row_is_never_scored_by_a_choice_it_had_a_part_in(found):
    """Whatever the rows of one half say, they do not change which configuration scores them."""
    changed = found.correct.copy()
    changed[:, found.first] = 1 - changed[:, found.first]
    after = search.Selection(changed, found.first)
    assert after.held_out[found.first] == pytest.approx(1 - found.held_out[found.first])
    assert after.chosen[1].tolist() == found.chosen[1].tolist()


@given(selections())
@settings(deadline=None)
def test_one_configuration_leaves_nothing_to_choose(found):
    alone = search.Selection(found.correct[:1], found.first)
    assert alone.optimism == 0 and alone.held_out.tolist() == alone.same_rows.tolist() == alone.correct[0].tolist()


def test_among_coins_the_optimism_is_large_and_held_out_rows_show_chance():
    """100 configurations that guess 400 rows: the best seems 5 points or more above chance, and on held-out rows is not."""
    guesses = np.random.default_rng(0).integers(0, 2, (100, 400)).astype(float)
    found = search.Selection(guesses, search.halves(400, seed=0))
    assert found.same_rows.mean() > 0.55
    assert abs(found.held_out.mean() - 0.5) < 4 * 0.5 / 400**0.5


@given(rows=st.integers(2, 300), seed=st.integers(0, 9))
def test_halves_are_halves_and_fixed_by_the_seed(rows, seed):
    first = search.halves(rows, seed)
    assert first.shape == (rows,) and first.sum() == rows // 2
    assert first.tolist() == search.halves(rows, seed).tolist()


def test_other_seeds_divide_otherwise():
    assert search.halves(50, 0).tolist() != search.halves(50, 1).tolist()


@pytest.mark.parametrize(
    "correct, first, told",
    [
        (np.ones(3), np.array([True, False, True]), "must be"),
        (np.ones((2, 3)), np.array([True, False]), "must be"),
        (np.ones((2, 2)), np.array([True, True]), "both halves need rows"),
        (np.ones((2, 2)), np.array([False, False]), "both halves need rows"),
    ],
)
def test_what_cannot_be_divided_is_refused(correct, first, told):
    with pytest.raises(ValueError, match=told):
        search.Selection(correct, first)
