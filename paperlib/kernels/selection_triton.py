"""Radix selection on the GPU: :mod:`paperlib.kernels.selection` in Triton.

The images of the floats are counted digit by digit of 8 bits from the top: a pass over the values counts, a program per selection then takes
the digit, so the host never waits for a result. All tensors are read in one launch per pass, through a table of their addresses.
Launches: 1 + 2 * bytes per value, 9 for fp32; the masks take one more.

These are opaque operators, not ``triton_op``: what a compiler sees through it would have to trace, and a traced tensor has no address.
"""

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from paperlib.kernels.packing import packed_size
from paperlib.kernels.triton_path import sent

# Values that a program of 4 warps reads at a time, 32 per thread, and values that it reads in all: its 256 counts are added up in memory once
# per 128 K values, 512 KB of reading.
BLOCK = 4096
TILE = 32 * BLOCK

DIGITS: tl.constexpr = tl.constexpr(256)
DIGIT_BITS = 8
# A selection's state: how often each digit was met, the image's digits found so far, how many values lie above all that begin like it.
FOUND: tl.constexpr = tl.constexpr(256)
ABOVE: tl.constexpr = tl.constexpr(257)
STATE: tl.constexpr = tl.constexpr(258)

TYPES = {torch.float32: tl.float32, torch.float64: tl.float64}


@torch.library.custom_op("paperlib::kth_largest", mutates_args=())
def kth_largest(values: list[Tensor], ranks: list[int]) -> Tensor:
    """The ``ranks[0]``-th largest of all entries together, (1,), or with a rank for each of several tensors of each the one of that rank, (T,).

    ``values``: all fp32 or all fp64, on one device, any shapes and strides; a tensor that has gaps between its entries is copied for the time.
    Reads every value once per byte of it: 16 bytes per fp32 value in 4 passes. Scratch: 2 KB per selection and 32 bytes per tensor.
    """
    flat = [_in_memory_order(each) for each in values]
    dtype, device = values[0].dtype, values[0].device
    table, tiles = _table(flat, device)
    wanted = sent(torch.tensor(ranks, dtype=torch.int64), device)
    state = torch.zeros(len(ranks), STATE.value, dtype=torch.int64, device=device)
    chosen = torch.empty(len(ranks), dtype=dtype, device=device)
    for shift in range(torch.finfo(dtype).bits - DIGIT_BITS, -1, -DIGIT_BITS):
        _count[(tiles,)](
            table, state, len(flat), triton.next_power_of_2(len(flat)), len(ranks) > 1, *_form(flat, dtype), shift
        )
        _descend[(len(ranks),)](state, wanted, chosen, TYPES[dtype], shift)
    return chosen


@kth_largest.register_fake
def _(values, ranks):
    return values[0].new_empty(len(ranks))


@torch.library.custom_op("paperlib::at_least", mutates_args=())
def at_least(values: list[Tensor], smallest: Tensor) -> list[Tensor]:
    """Of each tensor the packed mask (:mod:`paperlib.kernels.packing`) of the entries >= ``smallest``, (1,) for all or (T,), one of each.

    ``values``: as in :func:`kth_largest`; one that is not contiguous is copied for the time. Moves 4 1/8 bytes per fp32 value, in one launch.
    """
    flat = [each.contiguous() for each in values]
    masks = [each.new_empty(packed_size(each.numel()), dtype=torch.uint8) for each in flat]
    table, tiles = _table(flat, values[0].device, masks)
    if tiles:
        form = _form(flat, values[0].dtype)
        _mask[(tiles,)](
            table, smallest.contiguous(), len(flat), triton.next_power_of_2(len(flat)), smallest.numel() > 1, *form
        )
    return masks


@at_least.register_fake
def _(values, smallest):
    return [each.new_empty(packed_size(each.numel()), dtype=torch.uint8) for each in values]


def _in_memory_order(values: Tensor) -> Tensor:
    """The entries in the order in which they lie: a transposed matrix needs no copy to be counted."""
    order = sorted(range(values.ndim), key=values.stride, reverse=True)
    return values.permute(order).contiguous()


def _table(flat: Sequence[Tensor], device: torch.device, masks: Sequence[Tensor] = ()) -> tuple[Tensor, int]:
    """Rows of addresses, numbers of entries, first tiles, and the addresses of the masks; int64 (3 or 4, T); and the number of tiles."""
    tiles = torch.tensor([0] + [triton.cdiv(each.numel(), TILE) for each in flat]).cumsum(0).tolist()
    addresses = [each.data_ptr() for each in flat]
    rows = [addresses, [each.numel() for each in flat], tiles[:-1], [each.data_ptr() for each in masks]]
    return sent(torch.tensor(rows[: 4 if masks else 3], dtype=torch.int64), device), tiles[-1]


def _form(flat: Sequence[Tensor], dtype: torch.dtype) -> tuple:
    """Type, alignment (values may then be read 16 bytes at a time), values read at a time and per program."""
    return TYPES[dtype], all(each.data_ptr() % 16 == 0 for each in flat), BLOCK, TILE


@triton.jit
def _place(table, TENSORS, SLOTS: tl.constexpr, TYPE: tl.constexpr, ALIGNED: tl.constexpr, TILE: tl.constexpr):
    """Of this program's tile: the tensor's number and first entry, where the tile starts and stops in it."""
    tile = tl.program_id(0)
    slots = tl.arange(0, SLOTS)
    firsts = tl.load(table + 2 * TENSORS + slots, mask=slots < TENSORS, other=tl.num_programs(0))
    # The last that begins no later: empty tensors begin where the next one does.
    tensor = tl.sum((firsts <= tile).to(tl.int32)) - 1
    source = tl.load(table + tensor).to(tl.pointer_type(TYPE))
    if ALIGNED:
        source = tl.multiple_of(source, [16])
    # In 64 bits: a tensor may have more entries than 32 count.
    start = (tile - tl.load(table + 2 * TENSORS + tensor)) * TILE
    stop = tl.minimum(start + TILE, tl.load(table + TENSORS + tensor))
    return tensor, source, start, stop


@triton.jit
def _images(values, TYPE: tl.constexpr):
    """Integers of the values' width whose bits, read as unsigned, are in the order of the floats; NaN as -inf."""
    values = tl.where(values == values, values, float("-inf"))
    if TYPE == tl.float32:
        bits = values.to(tl.int32, bitcast=True)
        return (bits ^ ((bits >> 31) | -2147483648)).to(tl.uint32, bitcast=True)
    else:
        bits = values.to(tl.int64, bitcast=True)
        return (bits ^ ((bits >> 63) | -9223372036854775808)).to(tl.uint64, bitcast=True)


@triton.jit
def _histogram(values, inside, found, TYPE: tl.constexpr, SHIFT: tl.constexpr):
    """How often each digit stands SHIFT bits up in the images inside that begin like ``found``."""
    images = _images(values, TYPE)
    digits = ((images >> SHIFT) & 255).to(tl.int32)
    if SHIFT + 8 < TYPE.primitive_bitwidth:
        inside = inside & ((images ^ found) >> (SHIFT + 8) == 0)
    return tl.histogram(digits, DIGITS, mask=inside)


@triton.jit
def _count(
    table,
    state,
    TENSORS,
    SLOTS: tl.constexpr,
    EACH: tl.constexpr,
    TYPE: tl.constexpr,
    ALIGNED: tl.constexpr,
    BLOCK: tl.constexpr,
    TILE: tl.constexpr,
    SHIFT: tl.constexpr,
):
    """Add a tile's digits to the counts of its selection."""
    tensor, source, start, stop = _place(table, TENSORS, SLOTS, TYPE, ALIGNED, TILE)
    state += tensor * STATE if EACH else 0
    found = tl.load(state + FOUND).to(tl.uint32 if TYPE == tl.float32 else tl.uint64)
    counts = tl.zeros([DIGITS], tl.int32)
    block = tl.arange(0, BLOCK)
    everything = tl.full([BLOCK], 1, tl.int1)
    # Whole blocks without a bound: a bound that is not a multiple of 4 would make every read a read of one value.
    whole = start + (stop - start) // BLOCK * BLOCK
    for at in range(start, whole, BLOCK):
        counts += _histogram(tl.load(source + at + block), everything, found, TYPE, SHIFT)
    if whole < stop:
        inside = whole + block < stop
        rest = tl.load(source + whole + block, mask=inside, other=0.0)
        counts += _histogram(rest, inside, found, TYPE, SHIFT)
    # Most digits are met by no value.
    tl.atomic_add(state + tl.arange(0, DIGITS), counts.to(tl.int64), mask=counts > 0, sem="relaxed")


@triton.jit
def _descend(state, ranks, chosen, TYPE: tl.constexpr, SHIFT: tl.constexpr):
    """Take the digit of one selection, and after the last one its value; the counts are then ready for the next pass."""
    selection = tl.program_id(0)
    state += selection * STATE
    digits = tl.arange(0, DIGITS)
    counts = tl.load(state + digits)
    above, found = tl.load(state + ABOVE), tl.load(state + FOUND)
    # How many values lie at or above each digit: the highest digit at which they suffice is the one sought.
    suffice = above + tl.cumsum(counts, reverse=True) >= tl.load(ranks + selection)
    digit = tl.sum(suffice.to(tl.int32)) - 1
    found |= digit.to(tl.int64) << SHIFT
    tl.store(state + digits, tl.zeros([DIGITS], tl.int64))
    tl.store(state + FOUND, found)
    tl.store(state + ABOVE, above + tl.sum(tl.where(digits > digit, counts, 0)))
    if SHIFT == 0:
        tl.store(chosen + selection, _value(found, TYPE))


@triton.jit
def _value(image, TYPE: tl.constexpr):
    """The float of an image: the sign's bit is set in those of floats that are not negative."""
    if TYPE == tl.float32:
        bits = image.to(tl.int32)
        return tl.where(bits < 0, bits ^ -2147483648, ~bits).to(tl.float32, bitcast=True)
    else:
        return tl.where(image < 0, image ^ -9223372036854775808, ~image).to(tl.float64, bitcast=True)


@triton.jit
def _mask(
    table,
    smallest,
    TENSORS,
    SLOTS: tl.constexpr,
    EACH: tl.constexpr,
    TYPE: tl.constexpr,
    ALIGNED: tl.constexpr,
    BLOCK: tl.constexpr,
    TILE: tl.constexpr,
):
    """Write the bits of a tile's values that are not smaller."""
    tensor, source, start, stop = _place(table, TENSORS, SLOTS, TYPE, ALIGNED, TILE)
    target = tl.load(table + 3 * TENSORS + tensor).to(tl.pointer_type(tl.uint8)) + start // 8
    smallest = tl.load(smallest + (tensor if EACH else 0))
    bits = tl.arange(0, 8)[None, :]
    octets = tl.arange(0, BLOCK // 8)
    block = octets[:, None] * 8 + bits
    whole = start + (stop - start) // BLOCK * BLOCK
    for at in range(start, whole, BLOCK):
        kept = tl.load(source + at + block) >= smallest
        tl.store(target + (at - start) // 8 + octets, tl.sum(kept.to(tl.int32) << bits, axis=1).to(tl.uint8))
    if whole < stop:
        inside = whole + block < stop
        kept = inside & (tl.load(source + whole + block, mask=inside, other=0.0) >= smallest)
        octet = (whole - start) // 8 + octets
        written = octet * 8 < stop - start
        tl.store(target + octet, tl.sum(kept.to(tl.int32) << bits, axis=1).to(tl.uint8), mask=written)
