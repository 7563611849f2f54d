"""Easy, hard and tied rows over restarts."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from paperlib.dps.case_study import Cases, cases, move

TABLES = hnp.arrays(np.int64, hnp.array_shapes(min_dims=2, max_dims=2, max_side=11), elements=st.integers(0, 1))


def test_ten_restarts_as_in_the_paper():
    """Easy: right in 6..10 of 10; hard: right in 0..4; right in 5 is neither."""
    found = cases([[int(run < right) for right in range(11)] for run in range(10)])
    assert found.counts.tolist() == list(range(11)) and found.restarts == 10
    assert np.flatnonzero(found.easy).tolist() == [6, 7, 8, 9, 10]
    assert np.flatnonzero(found.hard).tolist() == [0, 1, 2, 3, 4]
    assert np.flatnonzero(found.tied).tolist() == [5]


@given(table=TABLES)
def test_every_row_is_of_one_kind(table):
    found = cases(table.tolist())
    assert (found.easy.astype(int) + found.hard + found.tied == 1).all()
    if found.restarts % 2:
        assert not found.tied.any()


@given(table=TABLES)
def test_right_and_wrong_exchanged_exchange_easy_and_hard(table):
    found, mirrored = cases(table.tolist()), cases((1 - table).tolist())
    np.testing.assert_array_equal(found.easy, mirrored.hard)
    np.testing.assert_array_equal(found.tied, mirrored.tied)


@given(table=TABLES)
def test_the_order_of_restarts_does_not_matter(table):
    np.testing.assert_array_equal(cases(table.tolist()).counts, cases(table[::-1].tolist()).counts)


@pytest.mark.parametrize("correct", [[], [[1, 0], [1]]])
def test_restarts_over_different_rows_are_refused(correct):
    with pytest.raises(ValueError):
        cases(correct)


@given(table=TABLES)
def test_a_method_compared_with_itself_moves_no_row(table):
    found = cases(table.tolist())
    assert vars(move(found, found)) == {
        "easy": int(found.easy.sum()),
        "lost": 0,
        "hard": int(found.hard.sum()),
        "solved": 0,
    }


def test_rows_lost_and_solved():
    """Rows easy -> tied, easy -> easy, hard -> easy, hard -> tied, tied -> easy."""
    before, after = Cases(np.array([2, 2, 0, 0, 1]), 2), Cases(np.array([1, 2, 2, 1, 2]), 2)
    assert vars(move(before, after)) == {"easy": 2, "lost": 1, "hard": 2, "solved": 1}


def test_moves_need_the_same_rows():
    with pytest.raises(ValueError, match="the same rows"):
        move(cases([[1, 0]]), cases([[1]]))
