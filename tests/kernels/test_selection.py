"""Selection of the largest entries against sorting."""

import weakref

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch.utils._python_dispatch import TorchDispatchMode

from paperlib.kernels import selection
from paperlib.kernels.packing import unpack
from paperlib.kernels.selection import at_least, kth_largest, kth_largest_each, largest, percentile

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


# --- the k-th largest of several tensors


def kth_by_sorting(arrays, k):
    values = np.concatenate([array.ravel() for array in arrays])
    return np.sort(np.where(np.isnan(values), -np.inf, values))[-k]


MAY_BE_EMPTY = hnp.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=5)


@pytest.fixture
def small_pieces(monkeypatch):
    """Pieces of three values, so that few values make many."""
    monkeypatch.setattr(selection, "PIECE", 3)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@given(data=st.data())
@settings(deadline=None)
def test_kth_of_several_tensors(dtype, data):
    """Any floats, subnormals among them; empty tensors in the list; every k, both ends included."""
    elements = st.floats(width=np.dtype(dtype).itemsize * 8) | st.sampled_from([0.0, -0.0, 1.0, -1.0])
    some = st.lists(hnp.arrays(dtype, MAY_BE_EMPTY, elements=elements), min_size=1, max_size=4)
    arrays = data.draw(some.filter(lambda each: sum(array.size for array in each)))
    size = sum(array.size for array in arrays)
    k = data.draw(st.sampled_from([1, size]) | st.integers(1, size))
    found = kth_largest([torch.from_numpy(array) for array in arrays], k)
    assert found.shape == () and found.numpy().dtype == dtype
    assert found.item() == kth_by_sorting(arrays, k)


EXTREMES = [
    *(0.0, -0.0, 1.0, -1.0, np.inf, -np.inf),
    *(np.finfo(np.float32).max, np.finfo(np.float32).min, np.finfo(np.float32).tiny),
    *(1e-45, -1e-45, 2e-45, np.nextafter(np.float32(1), np.float32(2)), np.nextafter(np.float32(1), np.float32(0))),
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_rank_of_the_extremes_of_the_format(dtype):
    values = torch.tensor(EXTREMES, dtype=dtype)
    found = [kth_largest([values], k).item() for k in range(1, len(values) + 1)]
    assert found == values.sort(descending=True).values.tolist()


@pytest.mark.parametrize("bits", [0x7FC00000, 0xFFC00000, 0x7F800001, 0xFF800001], ids=hex)
def test_nan_of_either_sign_and_any_payload_counts_as_the_smallest(bits):
    values = torch.from_numpy(np.array([bits], dtype=np.uint32).view(np.float32))
    assert values.isnan().all()
    assert kth_largest([torch.tensor([-5.0, 1.0]), values], 2) == -5
    assert kth_largest([torch.tensor([-5.0, 1.0]), values], 3) == -torch.inf


def views(values):
    """The same 24 numbers, or some of them, laid out otherwise."""
    cube = values.view(2, 3, 4)
    return {
        "transposed": cube.permute(2, 0, 1),
        "sliced": cube[:, ::2, 1:],
        "expanded": values[:6, None].expand(6, 5),
        "a number": values[3],
    }


@pytest.mark.parametrize("name", views(torch.zeros(24)))
def test_views_in_pieces(small_pieces, name):
    values = views(torch.randn(24, generator=torch.Generator().manual_seed(0)))[name]
    ranked = values.flatten().sort(descending=True).values
    assert [kth_largest([values], k).item() for k in range(1, len(ranked) + 1)] == ranked.tolist()


@pytest.mark.parametrize("k", [-1, 0, 6])
def test_ranks_outside_the_list_are_refused(k):
    with pytest.raises(ValueError, match=r"k must lie in 1\.\.5"):
        kth_largest([torch.zeros(2), torch.zeros(3)], k)


def test_nothing_to_choose_from_is_refused():
    with pytest.raises(ValueError, match=r"k must lie in 1\.\.0"):
        kth_largest([], 1)


@pytest.mark.parametrize("second", [torch.float64, torch.bfloat16, torch.int32])
def test_other_types_are_refused(second):
    with pytest.raises(ValueError, match="must be all float32 or all float64"):
        kth_largest([torch.zeros(2), torch.zeros(3, dtype=second)], 1)


class Live(TorchDispatchMode):
    """``peak``: bytes of all tensors made and still alive, counted after every operation; views count once."""

    def __init__(self, *given):
        super().__init__()
        self.given = {each.untyped_storage().data_ptr() for each in given}
        self.made, self.peak = [], 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        self.made += [
            weakref.ref(each)
            for each in (out if isinstance(out, (list, tuple)) else [out])
            if isinstance(each, torch.Tensor)
        ]
        storages = [each.untyped_storage() for ref in self.made if (each := ref()) is not None]
        alive = {each.data_ptr(): each.nbytes() for each in storages if each.data_ptr() not in self.given}
        self.made = [ref for ref in self.made if ref() is not None]
        self.peak = max(self.peak, sum(alive.values()))
        return out


@pytest.mark.parametrize("layout", ["contiguous", "transposed"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_extra_memory_does_not_grow_with_the_values(monkeypatch, dtype, layout):
    monkeypatch.setattr(selection, "PIECE", 2**14)

    def peak(pieces):
        # The same piece over and over: what a pass keeps of each is the same too.
        values = torch.randn(2**7, 2**7, dtype=dtype, generator=torch.Generator().manual_seed(0)).repeat(pieces, 1)
        values = values if layout == "contiguous" else values.T
        with Live(values) as live:
            kth_largest([values], values.numel() // 3)
        return live.peak

    histogram = 8 * 2**16
    assert peak(64) == peak(8) <= 6 * 2**14 * dtype.itemsize + 5 * histogram


def test_the_memory_count_itself_counts():
    values = torch.zeros(1000)
    with Live(values) as live:
        doubled = values * 2
        doubled.view(10, 100)
        assert live.peak == 4000
        del doubled
        values + 1
    assert live.peak == 4000


# --- of each of several tensors, and masks of all


@given(data=st.data())
@settings(deadline=None)
def test_kth_of_each_and_what_is_not_smaller(data):
    arrays = data.draw(st.lists(hnp.arrays(np.float32, SHAPES, elements=st.floats(width=32)), min_size=1, max_size=4))
    values = [torch.from_numpy(array) for array in arrays]
    ranks = [data.draw(st.integers(1, array.size)) for array in arrays]
    smallest = kth_largest_each(values, ranks)
    assert smallest.tolist() == [kth_by_sorting([array], k) for array, k in zip(arrays, ranks, strict=True)]
    for mask, array, k in zip(at_least(values, smallest), arrays, ranks, strict=True):
        np.testing.assert_array_equal(unpack(mask, array.shape).numpy(), by_sorting(array, k))


def test_one_bound_for_all_and_nothing_to_mask():
    masks = at_least([torch.tensor([[1.0, 2.0, torch.nan]]), torch.zeros(0)], torch.tensor(2.0))
    assert [mask.tolist() for mask in masks] == [[0b010], []]
    assert at_least([], torch.tensor(0.0)) == []


def test_ranks_and_types_of_each_are_checked():
    with pytest.raises(ValueError, match=r"k must lie in 1\.\.2"):
        kth_largest_each([torch.zeros(4), torch.zeros(2)], [3, 3])
    with pytest.raises(ValueError, match="must be all float32 or all float64"):
        at_least([torch.zeros(4, dtype=torch.bfloat16)], torch.tensor(0.0))
    with pytest.raises(ValueError, match="must be all float32 or all float64"):
        kth_largest_each([torch.zeros(4), torch.zeros(2).double()], [1, 1])


# --- percentiles


@given(
    arrays=st.lists(hnp.arrays(np.float64, MAY_BE_EMPTY, elements=st.floats(-1e6, 1e6)), min_size=1, max_size=4).filter(
        lambda each: sum(array.size for array in each)
    ),
    q=st.floats(0, 100) | st.sampled_from([0.0, 50.0, 70.0, 90.0, 100.0]),
)
@settings(deadline=None)
def test_percentiles_are_numpys(arrays, q):
    expected = np.percentile(np.concatenate([array.ravel() for array in arrays]), q)
    found = percentile([torch.from_numpy(array) for array in arrays], q).item()
    assert found == pytest.approx(expected, rel=1e-12, abs=1e-9)


@pytest.mark.parametrize("q", [-1, 101])
def test_impossible_percentiles_are_refused(q):
    with pytest.raises(ValueError, match="k must lie in"):
        percentile([torch.arange(10.0)], q)
