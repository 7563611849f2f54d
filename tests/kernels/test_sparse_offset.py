"""Products of sparse offsets against dense ones, and the Triton path against the plain one.

Tolerances: fp32 sums are taken in another order, 1e-5; what comes in and goes out in bf16 is rounded once, 2^-7.
"""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from paperlib.kernels import sparse_offset
from paperlib.kernels.sparse_offset import SparseOffsets, add_products

SIZES = [((3, 4), 5, 7), ((1,), 1, 1), ((70,), 133, 65), ((0,), 4, 6), ((2, 33), 32, 64)]
TOLERANCES = {torch.float32: {"rtol": 1e-5, "atol": 1e-5}, torch.bfloat16: {"rtol": 2**-7, "atol": 2**-5}}


def drawn(leading, inputs, outputs, shares=(0.0, 0.1, 1.0), seed=0, dtype=torch.float32):
    """x, known, the tasks' dense offsets with their zeros, their biases, and the same offsets compactly."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(*leading, inputs, generator=generator).to(dtype)
    known = torch.randn(*leading, outputs, generator=generator).to(dtype)
    biases = torch.randn(len(shares), outputs, generator=generator)
    dense = [torch.randn(outputs, inputs, generator=generator).to(dtype) for _ in shares]
    masks = [torch.rand(outputs, inputs, generator=generator) < share for share in shares]
    places = [mask.flatten().nonzero()[:, 0].int() for mask in masks]
    values = [each.flatten()[at.long()] for each, at in zip(dense, places, strict=True)]
    dense = [each * mask for each, mask in zip(dense, masks, strict=True)]
    return x, known, dense, biases, SparseOffsets.of(values, places, biases, inputs)


def moved(offsets, device):
    parts = (each.to(device) for each in (offsets.values, offsets.places, offsets.biases))
    values, places, biases = parts
    return SparseOffsets(values, places, offsets.ends, biases, offsets.inputs)


@settings(deadline=None)
@given(
    st.integers(1, 6),
    st.integers(1, 6),
    st.integers(1, 6),
    st.lists(st.floats(0, 1), min_size=1, max_size=4),
    st.integers(0, 99),
)
def test_every_task_gets_its_own_product_on_top_of_the_shared_one(tokens, inputs, outputs, shares, seed):
    x, known, dense, biases, offsets = drawn((2, tokens), inputs, outputs, shares, seed)
    found = add_products(x, known, offsets)
    assert found.shape == (len(shares), 2, tokens, outputs)
    for y, weight, bias in zip(found, dense, biases, strict=True):
        torch.testing.assert_close(y, known + functional.linear(x, weight, bias), rtol=1e-5, atol=1e-5)


def test_rows_begin_where_they_say():
    *_, offsets = drawn((1,), 5, 4)
    rows = offsets.places // 5
    for task, (begin, end) in enumerate(zip((0, *offsets.ends), offsets.ends, strict=False)):
        for row in range(4):
            assert (rows[offsets.starts[task, row] : offsets.starts[task, row + 1]] == row).all()
        assert (offsets.starts[task, 0], offsets.starts[task, -1]) == (begin, end)


@pytest.mark.parametrize(("chosen", "shared"), [([1, 2], True), ([2], True), ([0, 2], False)])
def test_tasks_are_picked_and_joined_again(chosen, shared):
    """Those that follow one another stay where they are in memory."""
    x, known, _, _, offsets = drawn((6,), 5, 4, (0.5, 0.0, 0.3))
    part, expected = offsets.part(chosen), add_products(x, known, offsets)
    assert torch.equal(add_products(x, known, part), expected[chosen])
    same = part.values.untyped_storage().data_ptr() == offsets.values.untyped_storage().data_ptr()
    assert same == shared and part.counts == [offsets.counts[i] for i in chosen]
    again = SparseOffsets.joined([part, offsets.part([0])])
    assert torch.equal(add_products(x, known, again), expected[[*chosen, 0]])


def test_an_offset_that_is_empty_adds_the_bias_alone():
    x, known, _, biases, offsets = drawn((6,), 5, 4, (0.0, 0.0))
    assert torch.equal(add_products(x, known, offsets), known + biases[:, None])


@pytest.mark.parametrize("wrong", [{"ends": (1, 2)}, {"inputs_type": torch.int64}, {"biases": torch.zeros(1, 4)}])
def test_sizes_that_do_not_fit_are_refused(wrong):
    *_, given = drawn((1,), 5, 4, (0.5, 0.5))
    places = given.places.to(wrong.pop("inputs_type", torch.int32))
    with pytest.raises(ValueError, match="offsets of 2 tasks"):
        SparseOffsets(
            **(
                {"values": given.values, "places": places, "ends": given.ends, "biases": given.biases, "inputs": 5}
                | wrong
            )
        )


@pytest.fixture
def through_triton(kernel_device, monkeypatch):
    """The public function takes the Triton path on any device."""
    monkeypatch.setattr(sparse_offset.triton_path, "taken_by", lambda tensor: True)


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_the_kernel_agrees_with_plain_pytorch(through_triton, kernel_device, monkeypatch, sizes, dtype):
    x, known, *_, offsets = drawn(*sizes, shares=(0.0, 0.02, 0.3), dtype=dtype)
    found = add_products(x.to(kernel_device), known.to(kernel_device), moved(offsets, kernel_device)).cpu()
    assert found.dtype == dtype
    monkeypatch.setattr(sparse_offset.triton_path, "taken_by", lambda tensor: False)
    torch.testing.assert_close(found, add_products(x, known, offsets), **TOLERANCES[dtype])


def test_views(through_triton, kernel_device, monkeypatch):
    x, known, *_, offsets = drawn((12,), 6, 10)
    x, known = x.to(kernel_device)[::2], known.to(kernel_device).flip(0)[:6]
    found = add_products(x, known, moved(offsets, kernel_device))
    monkeypatch.setattr(sparse_offset.triton_path, "taken_by", lambda tensor: False)
    torch.testing.assert_close(found.cpu(), add_products(x.cpu(), known.cpu(), offsets), rtol=1e-5, atol=1e-5)


def test_the_operator_is_registered_as_it_behaves(kernel_device):
    from paperlib.kernels import sparse_offset_triton

    x, known, *_, offsets = drawn((3,), 5, 4)
    o = moved(offsets, kernel_device)
    arguments = (x.to(kernel_device), known.to(kernel_device), o.values, o.places, o.starts, o.biases)
    torch.library.opcheck(sparse_offset_triton.add_products, arguments, test_utils=("test_schema", "test_faketensor"))
