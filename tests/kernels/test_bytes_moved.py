"""Bytes that the kernels of selection, mixing and sparse offsets read and write, counted in Triton's interpreter at their real block sizes."""

import numpy as np
import pytest
import torch

from paperlib.kernels.packing import pack
from paperlib.kernels.sparse_offset import SparseOffsets


class Counting:
    """The interpreter's memory, with what goes through it: bytes of distinct addresses, operation by operation of every program."""

    def __init__(self, memory):
        self._memory, self.bytes = memory, 0

    def __getattr__(self, name):
        return getattr(self._memory, name)

    def load(self, addresses, mask, other, dtype):
        self._count(addresses, mask, dtype)
        return self._memory.load(addresses, mask, other, dtype)

    def store(self, addresses, values, mask):
        self._count(addresses, mask, values.dtype)
        return self._memory.store(addresses, values, mask)

    def atomic_rmw(self, kind, addresses, values, mask, order):
        self._count(addresses, mask, values.dtype)
        return self._memory.atomic_rmw(kind, addresses, values, mask, order)

    def _count(self, addresses, mask, dtype):
        self.bytes += len(np.unique(addresses[mask])) * np.dtype(dtype).itemsize


@pytest.fixture
def moved(kernel_device, monkeypatch):
    if kernel_device.type == "cuda":
        pytest.skip("counted in Triton's interpreter, which runs where there is no GPU")
    from triton.runtime import interpreter

    counting = Counting(interpreter._interpreter)
    monkeypatch.setattr(interpreter, "_interpreter", counting)
    return counting


def test_the_count_itself_counts(moved):
    """Eight entries share a byte of a packed gate."""
    from paperlib.kernels import mixing_triton

    weight = torch.randn(2, 8)
    mixing_triton.gated(weight, pack(weight > 0), 0, 0, 0, 0, 1.0, torch.float32)
    assert moved.bytes == 16 * 4 + 2 + 16 * 4


def test_selection_reads_fp32_values_four_times(moved):
    from paperlib.kernels import selection_triton

    values = [torch.randn(2**18 + 5), torch.randn(500, 500)]
    entries = sum(each.numel() for each in values)
    selection_triton.kth_largest(values, [entries // 3])
    assert 16 <= moved.bytes / entries < 16 * 1.01


def test_a_packed_mask_is_one_more_read_and_a_bit_written(moved):
    from paperlib.kernels import selection_triton

    values = [torch.randn(2**18 + 5), torch.randn(500, 500)]
    selection_triton.at_least(values, torch.zeros(1))
    assert moved.bytes / sum(each.numel() for each in values) == pytest.approx(4 + 1 / 8, rel=1e-3)


@pytest.mark.parametrize(
    ("gate", "expected"), [("drawn", 10.0), ("columns", 10.0), ("entries", 11.0), ("bits", 10 + 1 / 8)]
)
def test_mixing_an_fp32_weight_into_bf16(moved, gate, expected):
    """A gate of columns is a byte per column and program, of 32 rows."""
    from paperlib.kernels import mixing_triton

    weight, start, entries = torch.randn(128, 256), torch.randn(128, 256), torch.rand(128, 256) < 0.5
    given = {"drawn": None, "columns": entries[0].clone(), "entries": entries, "bits": pack(entries)}[gate]
    mixing_triton.mixed(weight, start, given, 1, 2, 0, 2**31, 2.0, torch.bfloat16)
    per_program = 1 / 32 if gate == "columns" else 0
    assert moved.bytes / weight.numel() == expected + per_program


@pytest.mark.parametrize(("packed", "expected"), [(False, 6.0), (True, 6 + 1 / 8)])
def test_gating_a_bf16_gradient_into_fp32_moves_what_the_cast_does(moved, packed, expected):
    from paperlib.kernels import mixing_triton

    gradient = torch.randn(64, 256).bfloat16()
    gate = pack(torch.rand(64, 256) < 0.5) if packed else None
    mixing_triton.gated(gradient, gate, 1, 2, 0, 2**31, 2.0, torch.float32)
    assert moved.bytes / gradient.numel() == expected


def test_counting_open_columns(moved):
    from paperlib.kernels import mixing_triton

    mixing_triton.count_open(torch.zeros(5000, dtype=torch.int32), 1, 2, 0, 2**31)
    assert moved.bytes == 8 * 5000


def test_products_write_once_and_read_a_run_of_x_per_kept_entry(moved):
    """Per task and output: y written, the shared product read (from memory for the first task, out of the L2 cache for the others), 4 bytes of x
    for each kept entry of its row and token; per kept entry 8 bytes, and 8 of row borders and 4 of bias per row, for each 64 tokens."""
    from paperlib.kernels import sparse_offset_triton

    tokens, inputs, outputs, kept = 128, 64, 32, (10, 60)
    # No two in one column, as two that are read at once would count once.
    rows = [torch.randint(outputs, (count,)) for count in kept]
    places = [(row * inputs + torch.randperm(inputs)[: len(row)]).sort().values.int() for row in rows]
    offsets = SparseOffsets.of([torch.randn(count) for count in kept], places, list(torch.randn(2, outputs)), inputs)
    x, known = torch.randn(tokens, inputs), torch.randn(tokens, outputs)
    sparse_offset_triton.add_products(x, known, offsets.values, offsets.places, offsets.starts, offsets.biases)
    shared = 2 * tokens * outputs * (4 + 4) + sum(kept) * tokens * 4
    assert moved.bytes == shared + (tokens // 64) * (sum(kept) * 8 + 2 * outputs * (8 + 4))
