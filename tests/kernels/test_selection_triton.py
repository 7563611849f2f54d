"""Radix selection in Triton against the plain one, which other tests hold against sorting; on small blocks, so that few values make many."""

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from paperlib.kernels import selection
from paperlib.kernels.packing import pack

DTYPES = [torch.float32, torch.float64]
EXTREMES = [0.0, -0.0, 1.0, -1.0, np.inf, -np.inf, np.nan, 1e-45, -1e-45, 3.4e38, -3.4e38, 1.0000001, 0.99999994]

slowly = settings(deadline=None, max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture
def triton_path(kernel_device, monkeypatch):
    from paperlib.kernels import selection_triton

    monkeypatch.setattr(selection_triton, "BLOCK", 16)
    monkeypatch.setattr(selection_triton, "TILE", 32)
    return selection_triton


@st.composite
def lists(draw, dtype):
    """One to four tensors, empty ones and ties, infinities, NaN and zeros of both signs among them; at least one entry."""
    width = torch.finfo(dtype).bits
    numbers = st.sampled_from(EXTREMES).map(lambda x: float(np.float32(x))) | st.floats(width=width)
    shapes = hnp.array_shapes(min_dims=1, max_dims=2, min_side=0, max_side=9)
    arrays = st.lists(hnp.arrays(f"f{width // 8}", shapes, elements=numbers), min_size=1, max_size=4)
    return [torch.from_numpy(each) for each in draw(arrays.filter(lambda them: sum(each.size for each in them)))]


def views():
    """Tensors of odd sizes and strides, 0-d and empty among them."""
    cube = torch.randn(5, 7, 6, generator=torch.Generator().manual_seed(0))
    flat = cube.flatten()
    return [cube.permute(2, 0, 1), cube[:, ::2, 1:], flat[:6, None].expand(6, 5), flat[3], flat[1:], flat[:0]]


@pytest.mark.parametrize("dtype", DTYPES)
@slowly
@given(data=st.data())
def test_kth_of_all_together(triton_path, kernel_device, dtype, data):
    values = data.draw(lists(dtype))
    size = sum(each.numel() for each in values)
    k = data.draw(st.sampled_from([1, size]) | st.integers(1, size))
    found = triton_path.kth_largest([each.to(kernel_device) for each in values], [k])
    assert found.shape == (1,) and found.dtype == dtype
    assert found.item() == selection.kth_largest(values, k).item()


@pytest.mark.parametrize("dtype", DTYPES)
@slowly
@given(data=st.data())
def test_kth_of_each(triton_path, kernel_device, dtype, data):
    values = [each for each in data.draw(lists(dtype)) if each.numel()]
    ranks = [data.draw(st.integers(1, each.numel())) for each in values]
    found = triton_path.kth_largest([each.to(kernel_device) for each in values], ranks)
    assert found.tolist() == selection.kth_largest_each(values, ranks).tolist()


def test_every_rank_of_the_extremes(triton_path, kernel_device):
    values = torch.tensor(EXTREMES)
    found = [triton_path.kth_largest([values.to(kernel_device)], [k]).item() for k in range(1, len(values) + 1)]
    assert found == [selection.kth_largest([values], k).item() for k in range(1, len(values) + 1)]


@pytest.mark.parametrize("bits", [0x7FC00000, 0xFFC00000, 0x7F800001, 0xFF800001], ids=hex)
def test_nan_of_either_sign_and_any_payload_counts_as_the_smallest(triton_path, kernel_device, bits):
    values = torch.from_numpy(np.array([bits], dtype=np.uint32).view(np.float32)).to(kernel_device)
    others = torch.tensor([-5.0, 1.0], device=kernel_device)
    assert triton_path.kth_largest([others, values], [2]) == -5
    assert triton_path.kth_largest([others, values], [3]) == -torch.inf


@pytest.mark.parametrize("k", [1, 200, 550])
def test_views_and_addresses_of_any_alignment(triton_path, kernel_device, k):
    values = [each.to(kernel_device) for each in views()]
    assert triton_path.kth_largest(values, [k]).item() == selection.kth_largest(views(), k).item()


def test_what_is_counted_without_a_copy():
    matrix = torch.randn(3, 4)
    triton = pytest.importorskip("paperlib.kernels.selection_triton", reason="Triton is not installed")
    assert triton._in_memory_order(matrix.T).data_ptr() == matrix.data_ptr()
    assert triton._in_memory_order(matrix[:, 1:]).data_ptr() != matrix.data_ptr()


@slowly
@given(data=st.data())
def test_masks_of_one_bound_and_of_one_each(triton_path, kernel_device, data):
    values = data.draw(lists(torch.float32))
    bounds = data.draw(st.lists(st.sampled_from([0.0, 1.0, -1.0, torch.inf, -torch.inf]), min_size=4, max_size=4))
    for smallest in (torch.tensor(bounds[:1]), torch.tensor(bounds[: len(values)])):
        there = [each.to(kernel_device) for each in values]
        masks = triton_path.at_least(there, smallest.to(kernel_device))
        for mask, each, bound in zip(masks, values, smallest.expand(len(values)), strict=True):
            assert torch.equal(mask.cpu(), pack(each >= bound))


def test_masks_of_views(triton_path, kernel_device):
    masks = triton_path.at_least(
        [each.to(kernel_device) for each in views()], torch.tensor([0.2], device=kernel_device)
    )
    assert [mask.tolist() for mask in masks] == [pack(each >= 0.2).tolist() for each in views()]


def test_nothing_but_empty_tensors_gives_empty_masks(triton_path, kernel_device):
    nothing = torch.zeros(0, device=kernel_device)
    (mask,) = triton_path.at_least([nothing], torch.zeros(1, device=kernel_device))
    assert mask.shape == (0,) and mask.dtype == torch.uint8


def test_operators_are_registered_as_they_behave(triton_path, kernel_device):
    """Schema, and the stand-ins' shapes and types against the real results."""
    values = [torch.randn(5, 5, device=kernel_device), torch.randn(3, device=kernel_device)]
    checks = ("test_schema", "test_faketensor")
    torch.library.opcheck(triton_path.kth_largest, (values, [3, 1]), test_utils=checks)
    torch.library.opcheck(triton_path.at_least, (values, torch.zeros(1, device=kernel_device)), test_utils=checks)


def test_launches_by_count(triton_path, kernel_device, monkeypatch):
    """For fp32, with the one that zeroes the counts, nine whatever the number of tensors, and one for all masks."""
    launched = []
    for name in ("_count", "_descend", "_mask"):
        monkeypatch.setattr(triton_path, name, Recorded(getattr(triton_path, name), name, launched))
    values = [torch.randn(40, device=kernel_device), torch.randn(3, 3, device=kernel_device)]
    triton_path.kth_largest(values, [5])
    assert launched == ["_count", "_descend"] * 4
    launched.clear()
    triton_path.at_least(values, torch.zeros(1, device=kernel_device))
    assert launched == ["_mask"]


class Recorded:
    """A kernel that notes its launches."""

    def __init__(self, kernel, name, launched):
        self.kernel, self.name, self.launched = kernel, name, launched

    def __getitem__(self, grid):
        self.launched.append(self.name)
        return self.kernel[grid]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_on_a_gpu_real_blocks_real_sizes_and_the_public_functions():
    values = [
        torch.randn(1 << 22, device="cuda"),
        torch.randn(1000, 1001, device="cuda").T,
        torch.zeros(7, device="cuda"),
    ]
    together = torch.cat([each.flatten() for each in values]).sort(descending=True).values
    for k in (1, 77, len(together) // 2, len(together)):
        smallest = selection.kth_largest(values, k)
        assert smallest == together[k - 1]
        masks = selection.at_least(values, smallest)
        assert all(torch.equal(mask, pack(each >= smallest)) for mask, each in zip(masks, values, strict=True))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_the_host_never_waits():
    values = [torch.randn(1 << 16, device="cuda"), torch.randn(99, device="cuda")]
    selection.kth_largest(values, 5)
    torch.cuda.set_sync_debug_mode("error")
    try:
        selection.at_least(values, selection.kth_largest(values, 5))
    finally:
        torch.cuda.set_sync_debug_mode("default")
