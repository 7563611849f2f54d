"""Masks as bits against numpy's."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis.extra import numpy as hnp

from paperlib.kernels.packing import as_bits, as_flags, pack, packed_size, unpack

SHAPES = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=9)


@given(hnp.arrays(bool, SHAPES))
@settings(deadline=None)
def test_packed_as_numpy_packs_and_back(mask):
    bits = pack(torch.from_numpy(mask))
    assert bits.dtype == torch.uint8 and len(bits) == packed_size(mask.size)
    np.testing.assert_array_equal(bits.numpy(), np.packbits(mask, bitorder="little"))
    np.testing.assert_array_equal(unpack(bits, mask.shape).numpy(), mask)


def test_a_transposed_mask_is_packed_as_it_is_indexed():
    mask = torch.rand(5, 7, generator=torch.Generator().manual_seed(0)) > 0.5
    assert torch.equal(pack(mask.T), pack(mask.T.contiguous()))


@pytest.mark.parametrize("entries, bytes", [(0, 0), (1, 1), (8, 1), (9, 2)])
def test_an_eighth_of_a_byte_per_entry(entries, bytes):
    assert packed_size(entries) == bytes


@pytest.mark.parametrize("kind", [torch.bool, torch.int64])
def test_bits_and_flags_are_made_of_either_and_left_where_they_are(kind):
    flags = (torch.rand(5, 7, generator=torch.Generator().manual_seed(0)) > 0.5).to(kind)
    bits = as_bits(flags)
    assert torch.equal(bits, pack(flags.bool())) and as_bits(bits) is bits
    assert torch.equal(as_flags(bits, flags.shape), flags.bool()) and as_flags(flags, flags.shape) is flags
