"""The Triton path of :mod:`paperlib.kernels.gates`: one program finds the budget shift and draws all gates, one finds the gradient.

A search has hundreds to thousands of gates and waits for them: what counts is launches, not that one multiprocessor works alone. Chunks of the
logits are read again in every pass, from its own cache. Importing this needs Triton.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.library import triton_op, wrap_triton

from paperlib.kernels.gates import PASSES, SECTIONS

CHUNK = 256
LOCAL, GLOBAL, IMPLICIT = (tl.constexpr(i) for i in range(3))  # in the order of gates.FORMS
EPSILON = tl.constexpr(torch.finfo(torch.float64).eps)


@triton_op("paperlib::draw_gates", mutates_args=())
def draw(alpha: Tensor, sizes: Tensor, u: Tensor, numbers: Tensor, hard: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Gates z, logit z~ of what they are before rounding, and logit p: three of float64 (K,), in one launch.

    ``alpha``, ``u``: float64 (K,), K at least 1; ``sizes``: int64 (K,); ``numbers``: float64 (3,), B, tau and beta; all contiguous. Where every
    gate would be 0, the one of the largest p is 1. Reads 16 bytes per gate in each of 20 passes, 24 in the last, and writes 24.
    """
    z, logits, log_odds = (torch.empty_like(alpha) for _ in range(3))
    wrap_triton(_draw)[(1,)](
        alpha, sizes, u, numbers, z, logits, log_odds, alpha.numel(), hard, PASSES, SECTIONS, CHUNK
    )
    return z, logits, log_odds


@triton_op("paperlib::slope_of_gates", mutates_args=())
def slope(
    g: Tensor, z: Tensor, logits: Tensor, log_odds: Tensor, sizes: Tensor, numbers: Tensor, form: int, hard: bool
) -> Tensor:
    """Gradient in alpha, float64 (K,), where ``g`` is that in z; the other tensors as :func:`draw` takes and gives them. One launch.

    With h = dL/d logit p and s = p (1 - p): h / tau (form 0, local); (h - s sum_j h_j / (1 - p_j) / sum p) / tau (1, global);
    (h - n s sum_j h_j / sum_j n_j s_j) / tau (2, implicit).
    """
    found = torch.empty_like(g)
    wrap_triton(_slope)[(1,)](g, z, logits, log_odds, sizes, numbers, found, g.numel(), hard, form, CHUNK)
    return found


# Within Triton's interpreter a kernel would be run on stand-ins that have no memory.
@draw.register_fake
def _(alpha, sizes, u, numbers, hard):
    return tuple(torch.empty_like(alpha) for _ in range(3))


@slope.register_fake
def _(g, z, logits, log_odds, sizes, numbers, form, hard):
    return torch.empty_like(g)


@triton.jit
def _sigmoid(x):
    return 1.0 / (1.0 + tl.exp(-x))


@triton.jit
def _shift(alpha, sizes, count, budget, tau, PASSES: tl.constexpr, SECTIONS: tl.constexpr, CHUNK: tl.constexpr):
    """zeta / tau: see ``gates.budget_shift``. One of the cuts is the bracket's right end, where less than B is spent."""
    lane = tl.arange(0, CHUNK)
    least = tl.full([CHUNK], float("inf"), tl.float64)
    most = tl.full([CHUNK], float("-inf"), tl.float64)
    total = tl.zeros([CHUNK], tl.float64)
    for begin in range(0, count, CHUNK):
        inside = begin + lane < count
        x = tl.load(alpha + begin + lane, mask=inside, other=0.0) / tau
        least = tl.minimum(least, tl.where(inside, x, float("inf")))
        most = tl.maximum(most, tl.where(inside, x, float("-inf")))
        total += tl.load(sizes + begin + lane, mask=inside, other=0).to(tl.float64)
    low = tl.min(least, 0) - tl.log(budget / (tl.sum(total, 0) - budget))
    width = tl.max(most, 0) - tl.min(least, 0)
    number = tl.arange(0, SECTIONS) + 1
    cuts = number.to(tl.float64) / SECTIONS
    for _ in range(PASSES):
        spent = tl.zeros([SECTIONS], tl.float64)
        at = low + width * cuts
        for begin in range(0, count, CHUNK):
            inside = begin + lane < count
            x = tl.load(alpha + begin + lane, mask=inside, other=0.0) / tau
            n = tl.load(sizes + begin + lane, mask=inside, other=0).to(tl.float64)
            spent += tl.sum(_sigmoid(x[None, :] - at[:, None]) * n[None, :], 1)
        low += width * (tl.sum(((spent >= budget) & (number < SECTIONS)).to(tl.float64), 0) / SECTIONS)
        width = width / SECTIONS
    return low


@triton.jit
def _draw(
    alpha,
    sizes,
    u,
    numbers,
    z,
    logits,
    log_odds,
    count,
    HARD: tl.constexpr,
    PASSES: tl.constexpr,
    SECTIONS: tl.constexpr,
    CHUNK: tl.constexpr,
):
    budget, tau, beta = tl.load(numbers), tl.load(numbers + 1), tl.load(numbers + 2)
    shift = _shift(alpha, sizes, count, budget, tau, PASSES, SECTIONS, CHUNK)
    lane = tl.arange(0, CHUNK)
    best = tl.full([CHUNK], float("-inf"), tl.float64)
    where = tl.zeros([CHUNK], tl.int32)
    open_ = tl.zeros([CHUNK], tl.int32)
    for begin in range(0, count, CHUNK):
        at = begin + lane
        inside = at < count
        odds = tl.load(alpha + at, mask=inside, other=0.0) / tau - shift
        drawn = tl.minimum(tl.maximum(tl.load(u + at, mask=inside, other=0.5), EPSILON), 1.0 - EPSILON)
        logit = (tl.log(drawn / (1.0 - drawn)) + odds) / beta
        value = _sigmoid(logit)
        gate = tl.where(value >= 0.5, 1.0, 0.0).to(tl.float64) if HARD else value
        tl.store(log_odds + at, odds, mask=inside)
        tl.store(logits + at, logit, mask=inside)
        tl.store(z + at, gate, mask=inside)
        open_ += (inside & (gate != 0)).to(tl.int32)
        better = inside & (odds > best)
        best, where = tl.where(better, odds, best), tl.where(better, at, where)
    # Of equal ones the first, as argmax has it on a CPU.
    first = tl.min(tl.where(best == tl.max(best, 0), where, count), 0)
    tl.debug_barrier()  # its gate was stored by another thread
    tl.store(z + first, 1.0, mask=tl.sum(open_, 0) == 0)


@triton.jit
def _of_log_odds(g, z, logits, beta, at, inside, HARD: tl.constexpr):
    """dL/d logit p: of a hard gate only where it is on."""
    logit = tl.load(logits + at, mask=inside, other=0.0)
    # Not 1 - sigmoid(logit), which is 0 where the sigmoid rounds to 1: the global form divides by 1 - p.
    h = tl.load(g + at, mask=inside, other=0.0) * (_sigmoid(logit) * _sigmoid(-logit)) / beta
    return h * tl.load(z + at, mask=inside, other=0.0) if HARD else h


@triton.jit
def _slope(
    g, z, logits, log_odds, sizes, numbers, found, count, HARD: tl.constexpr, FORM: tl.constexpr, CHUNK: tl.constexpr
):
    tau, beta = tl.load(numbers + 1), tl.load(numbers + 2)
    lane = tl.arange(0, CHUNK)
    above = tl.zeros([CHUNK], tl.float64)
    below = tl.zeros([CHUNK], tl.float64)
    if FORM != LOCAL:
        for begin in range(0, count, CHUNK):
            at = begin + lane
            inside = at < count
            h = _of_log_odds(g, z, logits, beta, at, inside, HARD)
            odds = tl.load(log_odds + at, mask=inside, other=0.0)
            p, q = _sigmoid(odds), _sigmoid(-odds)
            n = tl.load(sizes + at, mask=inside, other=0).to(tl.float64)
            above += h / tl.maximum(q, 2.2250738585072014e-308) if FORM == GLOBAL else h
            below += tl.where(inside, p, 0.0) if FORM == GLOBAL else n * p * q
    shared = tl.sum(above, 0) / tl.maximum(tl.sum(below, 0), 2.2250738585072014e-308)
    for begin in range(0, count, CHUNK):
        at = begin + lane
        inside = at < count
        h = _of_log_odds(g, z, logits, beta, at, inside, HARD)
        if FORM != LOCAL:
            odds = tl.load(log_odds + at, mask=inside, other=0.0)
            weight = _sigmoid(odds) * _sigmoid(-odds)
            if FORM == IMPLICIT:
                weight *= tl.load(sizes + at, mask=inside, other=0).to(tl.float64)
            h -= weight * shared
        tl.store(found + at, h / tau, mask=inside)
