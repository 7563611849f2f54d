"""Linear layers whose forward-time weight is mixed with another one: Mixout and DPS Mix.

No mixed weight outlives its layer's pass unless it is narrower than the weight itself: under autocast the backward pass keeps what plain
training keeps, the weight in the compute dtype; otherwise it mixes again.
"""

import torch
from torch.nn import functional


def mixed(weight: torch.Tensor, start: torch.Tensor, gate: torch.Tensor, factor: float) -> torch.Tensor:
    """``start + gate * factor * (weight - start)``: ``start``, bitwise, where the gate is shut.

    ``weight``, ``start``: (out, in), finite; ``gate``: bool, integer or float of 0 and 1, (in,) for whole columns or (out, in). Moves 12 bytes
    per fp32 weight, and the gate.
    """
    return torch.lerp(
        start, weight, gate.to(weight.dtype).mul_(factor) if gate.dtype != weight.dtype else gate * factor
    )


def mixed_linear(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    start: torch.Tensor,
    gate: torch.Tensor,
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
        x, used = x.to(dtype), mixed(weight, start, gate, factor).to(dtype)
        kept = used if used.element_size() < weight.element_size() else None
        ctx.save_for_backward(x, gate, *((weight, start) if kept is None else (kept,)))
        return functional.linear(x, used, None if bias is None else bias.to(dtype))

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, g):
        x, gate, *weights = ctx.saved_tensors
        of_x, of_weight, of_bias = ctx.types
        used = weights[0] if len(weights) == 1 else mixed(*weights, gate, ctx.factor).to(x.dtype)
        rows = g.reshape(-1, g.shape[-1])
        to_x = (g @ used).to(of_x) if ctx.needs_input_grad[0] else None
        to_weight = (rows.T @ x.reshape(-1, x.shape[-1])).to(of_weight).mul_(gate)
        if ctx.gradient_factor != 1:
            to_weight.mul_(ctx.gradient_factor)
        to_bias = None if of_bias is None else rows.sum(0).to(of_bias)
        return to_x, to_weight, to_bias, None, None, None, None, None
