"""Linear layers whose forward-time weight is mixed with another one: Mixout and DPS Mix.

No mixed weight outlives its layer's pass unless it is narrower than the weight itself: under autocast the backward pass keeps what plain
training keeps, the weight in the compute dtype; otherwise it mixes again. Nor need a gate outlive it: one that is a :class:`Draw` is drawn again.

On a GPU with Triton, mixing and casting a weight is one pass over it, and so is gating and casting its gradient
(:mod:`paperlib.kernels.mixing_triton`).
"""

from dataclasses import dataclass

import torch
from torch.nn import functional

from paperlib.kernels import triton_path
from paperlib.kernels.packing import unpack
from paperlib.kernels.philox import words

LEVELS = 2**32
FUSED = (torch.float32, torch.bfloat16, torch.float16)


@dataclass(frozen=True, slots=True)
class Draw:
    """Gates of a weight's columns as numbers to draw them from: column j is open if Philox word ``first + j`` of (seed, step) is not below p.

    ``seed``: 0..2^63 - 1; ``step``: 0..2^32 - 1; ``first``: a multiple of 4, so that a counter's four words stay together, below 2^34; ``p``:
    probability that a column is shut, in [0, 1), to the nearest 2^-32. ValueError: other numbers.

    For GPUs: on a CPU torch's own generator draws 7 to 45 times as fast, 20,736 or 384 columns at a time.
    """

    seed: int
    step: int
    first: int
    p: float

    def __post_init__(self):
        right = 0 <= self.seed < 2**63 and 0 <= self.step < 2**32 and 0 <= self.first < 2**34
        if not right or self.first % 4 or not 0 <= self.p < 1:
            raise ValueError(f"no such draw: {self}")

    @property
    def numbers(self) -> tuple[int, int, int, int]:
        """Seed, step, first word, and the smallest word of an open column."""
        return self.seed, self.step, self.first, min(round(self.p * LEVELS), LEVELS - 1)

    def gate(self, columns: int, device: torch.device | str = "cpu") -> torch.Tensor:
        """The gates themselves, bool (columns,)."""
        *stream, smallest = self.numbers
        return words(*stream, columns, device) >= smallest


Gate = torch.Tensor | Draw


@torch.no_grad()
def mixed(
    weight: torch.Tensor, start: torch.Tensor, gate: Gate, factor: float, dtype: torch.dtype | None = None
) -> torch.Tensor:
    """``start + gate * factor * (weight - start)`` in ``dtype``, the weight's own if None: ``start``, bitwise or rounded, where the gate is shut.

    ``weight``, ``start``: (out, in), finite; ``gate``: bool, int64 or float of 0 and 1, (in,) for whole columns or (out, in), or packed bits
    (uint8, :mod:`paperlib.kernels.packing`) of (out, in), or a draw. Not differentiable. Moves 8 bytes per fp32 weight, the gate, and what is
    written.
    """
    dtype = weight.dtype if dtype is None else dtype
    if _fused(weight, gate):
        from paperlib.kernels import mixing_triton

        pair = weight.contiguous(), start.contiguous()
        return mixing_triton.mixed(*pair, *_given(gate), factor, dtype)
    gate = _stored(gate, weight)
    gate = gate.to(weight.dtype).mul_(factor) if gate.dtype != weight.dtype else gate * factor
    return torch.lerp(start, weight, gate).to(dtype)


@torch.no_grad()
def gated(gradient: torch.Tensor, gate: Gate, factor: float, dtype: torch.dtype) -> torch.Tensor:
    """``gradient * gate * factor`` in ``dtype``; the gradient (out, in) itself is used up. Gates as for :func:`mixed`.

    Moves what the cast to ``dtype`` alone would, 6 bytes per entry from bf16 to fp32, and the gate.
    """
    if _fused(gradient, gate):
        from paperlib.kernels import mixing_triton

        return mixing_triton.gated(gradient.contiguous(), *_given(gate), factor, dtype)
    gradient = gradient.to(dtype).mul_(_stored(gate, gradient))
    return gradient if factor == 1 else gradient.mul_(factor)


def count_open(counts: torch.Tensor, draw: Draw) -> None:
    """Add 1 to the counts, int32 or int64 (columns,), of the columns that ``draw`` opens. 8 bytes per int32 count.

    Weights that share a seed and a step and whose words follow one another are counted in one call, the first word being that of the first.
    """
    if triton_path.taken_by(counts) and counts.is_contiguous():
        from paperlib.kernels import mixing_triton

        mixing_triton.count_open(counts, *draw.numbers)
    else:
        counts += draw.gate(len(counts), counts.device)


def mixed_linear(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    start: torch.Tensor,
    gate: Gate,
    factor: float,
    gradient_factor: float,
) -> torch.Tensor:
    """``linear(x, mixed(weight, start, gate, factor), bias)`` with the gradient of ``weight`` taken as g * gate * gradient_factor.

    ``x``: (..., in); g: the gradient of the mixed weight. ``gradient_factor`` equal to ``factor`` is the true gradient. Computes in autocast's
    dtype where autocast is on; once differentiable.
    """
    autocast = torch.is_autocast_enabled(x.device.type)
    dtype = torch.get_autocast_dtype(x.device.type) if autocast else torch.result_type(x, weight)
    return _MixedLinear.apply(x, weight, bias, start, gate, factor, gradient_factor, dtype)


class _MixedLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, bias, start, gate, factor, gradient_factor, dtype):
        ctx.types = x.dtype, weight.dtype, None if bias is None else bias.dtype
        ctx.factor, ctx.gradient_factor = factor, gradient_factor
        x, used = x.to(dtype), mixed(weight, start, gate, factor, dtype)
        kept = used if used.element_size() < weight.element_size() else None
        ctx.draw, stored = (gate, None) if isinstance(gate, Draw) else (None, gate)
        ctx.save_for_backward(x, stored, *((weight, start) if kept is None else (kept,)))
        return functional.linear(x, used, None if bias is None else bias.to(dtype))

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, g):
        x, stored, *weights = ctx.saved_tensors
        gate = ctx.draw if stored is None else stored
        of_x, of_weight, of_bias = ctx.types
        used = weights[0] if len(weights) == 1 else mixed(*weights, gate, ctx.factor, x.dtype)
        rows = g.reshape(-1, g.shape[-1])
        to_x = (g @ used).to(of_x) if ctx.needs_input_grad[0] else None
        to_weight = gated(rows.T @ x.reshape(-1, x.shape[-1]), gate, ctx.gradient_factor, of_weight)
        to_bias = None if of_bias is None else rows.sum(0).to(of_bias)
        return to_x, to_weight, to_bias, None, None, None, None, None


def _fused(matrix: torch.Tensor, gate: Gate) -> bool:
    """Whether Triton's kernels do it: they know draws, bool gates and packed bits."""
    known = isinstance(gate, Draw) or gate.dtype in (torch.bool, torch.uint8)
    return known and matrix.dtype in FUSED and triton_path.taken_by(matrix)


def _given(gate: Gate) -> tuple:
    """Gate and numbers to draw one from, as the kernels take them."""
    return (None, *gate.numbers) if isinstance(gate, Draw) else (gate.contiguous(), 0, 0, 0, 0)


def _stored(gate: Gate, matrix: torch.Tensor) -> torch.Tensor:
    """The gate as a tensor that a matrix can be multiplied with."""
    if isinstance(gate, Draw):
        return gate.gate(matrix.shape[1], matrix.device)
    return unpack(gate, matrix.shape) if gate.dtype == torch.uint8 else gate
