"""The Triton path of :mod:`paperlib.kernels.adamw`: one launch over a list of tensors.

A table with one row per tensor (addresses and size) lies on the device; which block of which tensor a program moves stands in a second one that
depends on sizes only. Importing this needs Triton.
"""

from collections.abc import Sequence
from functools import lru_cache

import torch
import triton
import triton.language as tl

from paperlib.kernels.adamw import check, present, reference
from paperlib.kernels.triton_path import sent

# Entries per program: 8 per thread, so that an fp32 thread has two 16-byte loads of every tensor under way.
BLOCK = 2048
WARPS = 8
# Bytes of the widest load; tensors that do not begin at a multiple of it are moved entry by entry.
VECTOR = 16
TYPES = {torch.float32: tl.float32, torch.bfloat16: tl.bfloat16}


@torch.library.triton_op("paperlib::adamw", mutates_args={"weights", "exp_avgs", "exp_avg_sqs", "gams"})
def step(
    weights: Sequence[torch.Tensor],
    gradients: Sequence[torch.Tensor],
    exp_avgs: Sequence[torch.Tensor],
    exp_avg_sqs: Sequence[torch.Tensor],
    masks: Sequence[torch.Tensor],
    starts: Sequence[torch.Tensor],
    gams: Sequence[torch.Tensor],
    rates: torch.Tensor,
    clip: torch.Tensor | None,
    beta1: float,
    beta2: float,
    eps: float,
    freeze: bool,
) -> None:
    """:func:`paperlib.kernels.adamw.reference` in one pass over memory; the tensors of one column have one type.

    A compiler that traces it sees the reference, which it fuses by itself: a table of addresses would hide from it what is written.
    """
    if _launchable(weights):
        ready = Ready([weights, exp_avgs, exp_avg_sqs, masks, starts, gams])
        ready.launch(gradients, rates, clip, beta1, beta2, eps, freeze)
    else:
        columns = (weights, gradients, exp_avgs, exp_avg_sqs, masks, starts, gams)
        reference(*columns, rates, clip, beta1, beta2, eps, freeze)


def _launchable(tensors: Sequence[torch.Tensor]) -> bool:
    """Whether a kernel can reach them: no stand-ins of a compiler that traces; on a GPU, or on a CPU within Triton's interpreter."""
    device = "cpu" if triton.knobs.runtime.interpret else "cuda"
    return all(type(each) in (torch.Tensor, torch.nn.Parameter) and each.device.type == device for each in tensors)


class Ready:
    """Columns of tensors (weight, exp_avg, exp_avg_sq, mask, start, gam; empty ones for what there is not) with their addresses on the device.

    It takes a step without the dispatcher, whose look at some thousand tensors would take the host longer than the GPU moves them; traced by a
    compiler, through the operator.
    """

    def __init__(self, columns: Sequence[Sequence[torch.Tensor]]):
        self.columns = columns
        self.device = columns[0][0].device
        # The kernel knows no strides: a tensor that has its own is moved in a copy.
        moved = [
            [
                each if each.is_contiguous() else torch.empty_like(each, memory_format=torch.contiguous_format)
                for each in c
            ]
            for c in columns
        ]
        self.copies = [
            (column in (0, 1, 2, 5), tensor, copy)
            for column, (tensors, copies) in enumerate(zip(columns, moved, strict=True))
            for tensor, copy in zip(tensors, copies, strict=True)
            if tensor is not copy
        ]
        self.written = [each for column in (0, 1, 2, 5) for each in columns[column]]
        self.sizes = [each.numel() for each in columns[0]]
        addresses = [[each.data_ptr() for each in column] or [0] * len(self.sizes) for column in moved]
        # A mask is read byte by byte, wherever it begins.
        floats = zip(*addresses[:3], *addresses[4:], strict=True)
        self.aligned = [all(address % VECTOR == 0 for address in row) for row in floats]
        self.table = sent(torch.tensor([*addresses, self.sizes, self.sizes]).T.contiguous(), self.device)
        self.types = [TYPES[column[0].dtype] if column else None for column in (*columns[:3], *columns[4:])]
        self.gradients: list[int] = []

    def step(self, gradients, rates, clip, beta1, beta2, eps, freeze):
        if torch.compiler.is_compiling():
            (weights, *others), gradients, rates = present(self.columns, gradients, rates)
            step(weights, gradients, *others, rates, clip, beta1, beta2, eps, freeze)
        else:
            check(self.columns[0], gradients)
            rates = sent(torch.tensor(rates, dtype=torch.float32), self.device)
            self.launch(gradients, rates, clip, beta1, beta2, eps, freeze)
            torch.autograd.graph.increment_version(self.written)

    def launch(self, gradients, rates, clip, beta1, beta2, eps, freeze):
        """One launch, or two where some tensors begin between borders; a tensor without a gradient is left out."""
        gradients = _contiguous(gradients)
        for _, tensor, copy in self.copies:
            copy.copy_(tensor)
        for work, aligned, kind in self._parts(gradients):
            with torch.cuda.device_of(work):
                # Not through wrap_triton: no compiler comes here.
                _adamw[len(work),](
                    *(self.table, self.gradient_table, rates, work, clip, 1 - beta1, beta2, 1 - beta2, eps),
                    *(kind, *self.types),
                    MASKED=bool(self.columns[3]),
                    FREEZE=freeze,
                    ALIGNED=aligned,
                    BLOCK=BLOCK,
                    num_warps=WARPS,
                )
        for is_written, tensor, copy in self.copies:
            if is_written:
                tensor.copy_(copy)

    def squares(self, gradients):
        """As :func:`paperlib.kernels.adamw.squares`, in one launch or two; 8 bytes per block beside the gradients."""
        check(self.columns[0], gradients)
        gradients, found = _contiguous(gradients), []
        for work, aligned, kind in self._parts(gradients):
            sums = torch.empty(len(work), 2, device=self.device)
            with torch.cuda.device_of(work):
                _squares[len(work),](
                    *(self.table, self.gradient_table, work, sums, kind),
                    MASKED=bool(self.columns[3]),
                    ALIGNED=aligned,
                    BLOCK=BLOCK,
                    num_warps=WARPS,
                )
            found.append(sums.sum(0, dtype=torch.float64))
        return sum(found, torch.zeros(2, dtype=torch.float64, device=self.device))

    def _parts(self, gradients):
        """Work of each launch, whether all its tensors begin at borders, and the gradients' type; none without gradients."""
        addresses = [0 if each is None else each.data_ptr() for each in gradients]
        if addresses != self.gradients:
            self.gradients, self.gradient_table = addresses, sent(torch.tensor(addresses), self.device)
        kinds = [TYPES[each.dtype] for each in gradients if each is not None]
        wide = [aligned and address % VECTOR == 0 for aligned, address in zip(self.aligned, addresses, strict=True)]
        for aligned in {*wide}:
            rows = zip(self.sizes, gradients, wide, strict=True)
            sizes = tuple(0 if gradient is None or one is not aligned else size for size, gradient, one in rows)
            work = _work(sizes, self.device)
            if len(work):
                yield work, aligned, kinds[0]


def _contiguous(gradients):
    return [each if each is None or each.is_contiguous() else each.contiguous() for each in gradients]


@lru_cache(maxsize=16)
def _work(sizes: tuple[int, ...], device: torch.device) -> torch.Tensor:
    """Number of the tensor, and of the block within it, of every program: int32 (programs, 2)."""
    blocks = torch.tensor([-(-size // BLOCK) for size in sizes])
    tensors = torch.arange(len(sizes)).repeat_interleave(blocks)
    before = blocks.cumsum(0) - blocks
    return sent(torch.stack([tensors, torch.arange(len(tensors)) - before[tensors]], 1).int(), device)


@triton.jit
def _adamw(
    table,
    gradients,
    rates,
    work,
    clip,
    rest1,
    beta2,
    rest2,
    eps,
    GRADIENT: tl.constexpr,
    WEIGHT: tl.constexpr,
    EXP_AVG: tl.constexpr,
    EXP_AVG_SQ: tl.constexpr,
    START: tl.constexpr,
    GAM: tl.constexpr,
    MASKED: tl.constexpr,
    FREEZE: tl.constexpr,
    ALIGNED: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One block of one tensor. ``START``, ``GAM``: None where there is none; ``clip``: likewise; ``rest``: 1 - beta."""
    program = tl.program_id(0)
    tensor = tl.load(work + 2 * program)
    first = tl.load(work + 2 * program + 1).to(tl.int64) * BLOCK
    row = table + 8 * tensor
    left = tl.load(row + 6) - first
    weight = _column(row, first, WEIGHT, ALIGNED)
    gradient = _column(gradients + tensor, first, GRADIENT, ALIGNED)
    exp_avg = _column(row + 1, first, EXP_AVG, ALIGNED)
    exp_avg_sq = _column(row + 2, first, EXP_AVG_SQ, ALIGNED)
    # BLOCK is a multiple of 8: a block's bits begin with a byte.
    mask = _column(row + 3, first // 8, tl.uint8, False) if MASKED else None
    start = _column(row + 4, first, START, ALIGNED) if START is not None else None
    gam = _column(row + 5, first, GAM, ALIGNED) if GAM is not None else None
    rates += 4 * tensor
    decay = tl.load(rates + 1) if START is not None else tl.load(rates)
    rate = tl.load(rates + 2)
    root = tl.load(rates + 3)
    factor = tl.load(clip) if clip is not None else None
    scalars = (decay, rate, 1 / root, rest1, beta2, rest2, eps)
    # Loads that may end early are narrow: only a tensor's last block has them.
    if left >= BLOCK:
        _move(weight, gradient, exp_avg, exp_avg_sq, mask, start, gam, factor, scalars, left, True, FREEZE, BLOCK)
    else:
        _move(weight, gradient, exp_avg, exp_avg_sq, mask, start, gam, factor, scalars, left, False, FREEZE, BLOCK)


@triton.jit
def _squares(
    table,
    gradients,
    work,
    sums,
    GRADIENT: tl.constexpr,
    MASKED: tl.constexpr,
    ALIGNED: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Sums of squares of one block of one gradient: of all entries, and of those whose mask is on."""
    program = tl.program_id(0)
    tensor = tl.load(work + 2 * program)
    first = tl.load(work + 2 * program + 1).to(tl.int64) * BLOCK
    row = table + 8 * tensor
    left = tl.load(row + 6) - first
    gradient = _column(gradients + tensor, first, GRADIENT, ALIGNED)
    i = tl.arange(0, BLOCK)
    if left >= BLOCK:
        g = tl.load(gradient + i).to(tl.float32)
    else:
        g = tl.load(gradient + i, mask=i < left, other=0.0).to(tl.float32)
    whole = tl.sum(g * g)
    within = whole
    if MASKED:
        mask = _column(row + 3, first // 8, tl.uint8, False)
        keep = (tl.load(mask + i // 8, mask=i < left, other=0) >> (i % 8)) & 1 != 0
        within = tl.sum(tl.where(keep, g * g, 0.0))
    tl.store(sums + 2 * program, whole)
    tl.store(sums + 2 * program + 1, within)


@triton.jit
def _column(cell, first, TYPE: tl.constexpr, ALIGNED: tl.constexpr):
    """Pointer to entry ``first`` of the tensor whose address stands in ``cell``."""
    pointer = tl.load(cell).to(tl.pointer_type(TYPE)) + first
    return tl.multiple_of(pointer, 16) if ALIGNED else pointer


@triton.jit
def _move(
    weight,
    gradient,
    exp_avg,
    exp_avg_sq,
    mask,
    start,
    gam,
    factor,
    scalars,
    left,
    FULL: tl.constexpr,
    FREEZE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """The step of BLOCK entries, or of the ``left`` first of them."""
    decay, rate, inverse_root, rest1, beta2, rest2, eps = scalars
    i = tl.arange(0, BLOCK)
    inside = None if FULL else i < left
    old_w = tl.load(weight + i, mask=inside)
    old_m = tl.load(exp_avg + i, mask=inside)
    old_v = tl.load(exp_avg_sq + i, mask=inside)
    g = tl.load(gradient + i, mask=inside).to(tl.float32)
    w, m, v = old_w.to(tl.float32), old_m.to(tl.float32), old_v.to(tl.float32)
    if gam is not None:
        squares = tl.load(gam + i, mask=inside).to(tl.float32) + g * g
        tl.store(gam + i, squares.to(gam.dtype.element_ty), mask=inside)
    if factor is not None:
        g = g * factor
    if mask is not None:
        # Eight neighbours load the same byte, all but the first from the cache.
        keep = (tl.load(mask + i // 8, mask=inside) >> (i % 8)) & 1 != 0
        g = tl.where(keep, g, 0.0)
    if start is not None:
        w = w + decay * (tl.load(start + i, mask=inside).to(tl.float32) - w)
    else:
        w = w * decay
    m = m + rest1 * (g - m)
    v = beta2 * v + rest2 * g * g
    # The fast root and quotient, off by two units in the last place at most: exact ones would cost bf16 as much time as its bytes do.
    w = w - rate * m / (tl.sqrt(v) * inverse_root + eps)
    new_w, new_m, new_v = w.to(old_w.dtype), m.to(old_m.dtype), v.to(old_v.dtype)
    if FREEZE and mask is not None:
        new_w = tl.where(keep, new_w, old_w)
        new_m = tl.where(keep, new_m, old_m)
        new_v = tl.where(keep, new_v, old_v)
    tl.store(weight + i, new_w, mask=inside)
    tl.store(exp_avg + i, new_m, mask=inside)
    tl.store(exp_avg_sq + i, new_v, mask=inside)
