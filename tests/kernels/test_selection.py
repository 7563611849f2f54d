"""Selection of the largest entries against sorting."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from paperlib.kernels.selection import largest

SHAPES = hnp.array_shapes(min_dims=1, max_dims=3, max_side=6)


def by_sorting(values, count):
    """NaN below everything and never chosen; every entry not below the count-th largest is."""
    ranked = sorted((-np.inf if np.isnan(value) else value for value in values.ravel()), reverse=True)
    return (values >= ranked[count - 1]) & ~np.isnan(values)


def check(values, data):
    count = data.draw(st.integers(1, values.size))
    mask = largest(torch.from_numpy(values), count)
    assert mask.dtype == torch.bool
    np.testing.assert_array_equal(mask.numpy(), by_sorting(values, count))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@given(data=st.data())
@settings(deadline=None)
def test_any_values(dtype, data):
    """NaN and both infinities among them."""
    width = np.dtype(dtype).itemsize * 8
    check(data.draw(hnp.arrays(dtype, SHAPES, elements=st.floats(width=width))), data)


@given(data=st.data())
@settings(deadline=None)
def test_many_ties(data):
    some = st.sampled_from([0.0, 1.0, 2.0, np.inf, np.nan])
    check(data.draw(hnp.arrays(np.float32, SHAPES, elements=some)), data)


@given(values=st.lists(st.floats(-1e6, 1e6, width=32), unique=True, min_size=1, max_size=50), data=st.data())
@settings(deadline=None)
def test_without_ties_exactly_count(values, data):
    count = data.draw(st.integers(1, len(values)))
    assert int(largest(torch.tensor(values), count).sum()) == count


def test_ties_at_the_border_are_all_in():
    assert largest(torch.tensor([3.0, 1.0, 2.0, 2.0, 2.0]), 2).tolist() == [True, False, True, True, True]


@pytest.mark.parametrize("count", [1, 4])
def test_all_zero_keeps_all(count):
    assert largest(torch.zeros(2, 2), count).all()


def test_infinities_tie_with_one_another():
    assert largest(torch.tensor([1.0, torch.inf, torch.inf]), 1).tolist() == [False, True, True]


def test_nan_is_never_chosen_not_even_for_want_of_others():
    assert largest(torch.tensor([torch.nan, 1.0, torch.nan]), 2).tolist() == [False, True, False]
    assert not largest(torch.full((3,), torch.nan), 2).any()


def test_the_values_are_left_as_they_were_and_may_be_a_view():
    values = torch.arange(12.0).view(3, 4)
    assert largest(values.T, 3).tolist() == (values.T >= 9).tolist()
    assert torch.equal(values, torch.arange(12.0).view(3, 4))
