"""The Triton path of :mod:`paperlib.kernels.mixing`: a pass over a weight mixes and casts it, a pass over its gradient casts and gates that.

Gates of whole columns are drawn where they are needed, from Philox (:mod:`paperlib.kernels.philox`): nothing is read or kept for them.
One launch each, in place of the cast that autocast does anyway. Importing this needs Triton.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.library import triton_op, wrap_triton

# A program of 4 warps moves 32 entries per thread; 128 columns are what its draws are for.
ROWS = 32
COLUMNS = 128
COUNTED = 1024

DRAWN, OF_COLUMNS, OF_ENTRIES, OF_BITS = (tl.constexpr(i) for i in range(4))


@triton_op("paperlib::mixed", mutates_args=())
def mixed(
    weight: Tensor,
    start: Tensor,
    gate: Tensor | None,
    seed: int,
    step: int,
    first: int,
    drop: int,
    factor: float,
    dtype: torch.dtype,
) -> Tensor:
    """``start + gate * factor * (weight - start)`` in ``dtype``, computed in fp32 and rounded once; ``start`` where the gate is shut.

    ``weight``, ``start``: (out, in), fp32, bf16 or fp16, contiguous. ``gate``: bool (in,) or (out, in), or packed bits, uint8; None for one
    drawn per column: column j is open if word first + j of (seed, step) is at least ``drop``; ``first`` is a multiple of 4. Moves 8 bytes per
    fp32 entry and what is written, 10 in all for bf16; a bool gate of entries takes 1 more, bits take 1/8, gates of columns nothing.
    """
    target = torch.empty_like(weight, dtype=dtype)
    if weight.numel():
        stream = seed, step, first
        sizes = weight.shape[0], weight.shape[1]
        wrap_triton(_mix)[_grid(*sizes)](
            weight, start, gate, target, *sizes, *stream, factor - 1, drop, _kind(gate), ROWS, COLUMNS
        )
    return target


@triton_op("paperlib::gated", mutates_args=())
def gated(
    gradient: Tensor,
    gate: Tensor | None,
    seed: int,
    step: int,
    first: int,
    drop: int,
    factor: float,
    dtype: torch.dtype,
) -> Tensor:
    """``gradient * gate * factor`` in ``dtype``, with gates as in :func:`mixed`: the same ones for the same numbers.

    ``gradient``: (out, in), fp32, bf16 or fp16, contiguous. Moves 6 bytes per entry from bf16 to fp32, as the cast alone would; bits take 1/8 more.
    """
    target = torch.empty_like(gradient, dtype=dtype)
    if gradient.numel():
        stream = seed, step, first
        sizes = gradient.shape[0], gradient.shape[1]
        wrap_triton(_gate)[_grid(*sizes)](
            gradient, gate, target, *sizes, *stream, factor, drop, _kind(gate), ROWS, COLUMNS
        )
    return target


@triton_op("paperlib::count_open", mutates_args={"counts"})
def count_open(counts: Tensor, seed: int, step: int, first: int, drop: int) -> None:
    """Add 1 to the counts, int32 or int64 (n,), contiguous, of the columns that are open. 8 bytes per int32 count, in one launch."""
    if counts.numel():
        grid = (triton.cdiv(counts.numel(), COUNTED),)
        wrap_triton(_count_open)[grid](counts, counts.numel(), seed, step, first, drop, COUNTED)


# Within Triton's interpreter a kernel would be run on stand-ins that have no memory.
@mixed.register_fake
def _(weight, start, gate, seed, step, first, drop, factor, dtype):
    return torch.empty_like(weight, dtype=dtype)


@gated.register_fake
def _(gradient, gate, seed, step, first, drop, factor, dtype):
    return torch.empty_like(gradient, dtype=dtype)


@count_open.register_fake
def _(counts, seed, step, first, drop):
    return None


def _grid(rows: int, columns: int) -> tuple[int]:
    return (triton.cdiv(rows, ROWS) * triton.cdiv(columns, COLUMNS),)


def _kind(gate: Tensor | None) -> int:
    if gate is None:
        return DRAWN.value
    if gate.dtype == torch.uint8:
        return OF_BITS.value
    return (OF_COLUMNS if gate.ndim == 1 else OF_ENTRIES).value


@triton.jit
def _tile(rows, columns, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Of this program: its entries' places in the flattened matrix, which of them exist, and its first column."""
    across = tl.cdiv(columns, COLUMNS)
    begin = tl.program_id(0) % across * COLUMNS
    row = tl.program_id(0) // across * ROWS + tl.arange(0, ROWS)
    column = begin + tl.arange(0, COLUMNS)
    # In 64 bits: a weight may have more entries than 32 count.
    at = row.to(tl.int64)[:, None] * columns + column[None, :]
    return at, (row < rows)[:, None] & (column < columns)[None, :], begin


@triton.jit
def _drawn(number, seed, step, DROP: tl.constexpr, COUNT: tl.constexpr):
    """Whether words ``number`` (int64, a multiple of 4) to number + COUNT - 1 of (seed, step) are at least DROP: see ``philox.words``."""
    counter = (number // 4).to(tl.int32) + tl.arange(0, COUNT // 4)
    zero = counter * 0
    word0, word1, word2, word3 = tl.philox(seed, counter, zero + step.to(tl.int32), zero, zero)
    # Joining sets two words side by side, so this is each counter's word 0, 1, 2, 3.
    words = tl.join(tl.join(word0, word2), tl.join(word1, word3)).reshape(COUNT)
    return words >= tl.full([1], DROP, tl.uint32)


@triton.jit
def _open(
    gate, at, inside, begin, columns, seed, step, first, DROP: tl.constexpr, KIND: tl.constexpr, COLUMNS: tl.constexpr
):
    """The gates of a tile, (1, COLUMNS) or (ROWS, COLUMNS)."""
    if KIND == DRAWN:
        return _drawn(first.to(tl.int64) + begin, seed, step, DROP, COLUMNS)[None, :]
    elif KIND == OF_COLUMNS:
        column = begin + tl.arange(0, COLUMNS)
        return tl.load(gate + column, mask=column < columns, other=0).to(tl.int1)[None, :]
    elif KIND == OF_ENTRIES:
        return tl.load(gate + at, mask=inside, other=0).to(tl.int1)
    else:
        octet = tl.load(gate + (at >> 3), mask=inside, other=0).to(tl.int32)
        return ((octet >> (at & 7).to(tl.int32)) & 1).to(tl.int1)


# A new seed, step or weight is no new kernel.
@triton.jit(do_not_specialize=["seed", "step", "first", "beyond"])
def _mix(
    weight,
    start,
    gate,
    target,
    rows,
    columns,
    seed,
    step,
    first,
    beyond,
    DROP: tl.constexpr,
    KIND: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    at, inside, begin = _tile(rows, columns, ROWS, COLUMNS)
    w = tl.load(weight + at, mask=inside, other=0.0).to(tl.float32)
    u = tl.load(start + at, mask=inside, other=0.0).to(tl.float32)
    is_open = _open(gate, at, inside, begin, columns, seed, step, first, DROP, KIND, COLUMNS)
    # u + factor (w - u), from the nearer end: w itself where the factor is 1.
    used = tl.where(is_open, w + beyond * (w - u), u)
    tl.store(target + at, used.to(target.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["seed", "step", "first", "factor"])
def _gate(
    gradient,
    gate,
    target,
    rows,
    columns,
    seed,
    step,
    first,
    factor,
    DROP: tl.constexpr,
    KIND: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    at, inside, begin = _tile(rows, columns, ROWS, COLUMNS)
    g = tl.load(gradient + at, mask=inside, other=0.0).to(tl.float32)
    is_open = _open(gate, at, inside, begin, columns, seed, step, first, DROP, KIND, COLUMNS)
    # A product, so that what is not finite stays so where the gate is shut, and is seen.
    tl.store(target + at, (g * tl.where(is_open, factor, 0.0)).to(target.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["seed", "step", "first"])
def _count_open(counts, columns, seed, step, first, DROP: tl.constexpr, COUNTED: tl.constexpr):
    begin = tl.program_id(0).to(tl.int64) * COUNTED
    column = begin + tl.arange(0, COUNTED)
    inside = column < columns
    is_open = _drawn(first.to(tl.int64) + begin, seed, step, DROP, COUNTED)
    before = tl.load(counts + column, mask=inside, other=0)
    tl.store(counts + column, before + is_open.to(before.dtype), mask=inside)
