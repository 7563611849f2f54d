"""Frozen linear layers with a trained low-rank term beside them, in one step that casts and adds in place.

Taken apart, the term costs more passes over the hidden states, two casts under autocast among them, than its arithmetic is worth.
"""

import torch
from torch.nn import functional


def low_rank_linear(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, A: torch.Tensor, B: torch.Tensor
) -> torch.Tensor:
    """``linear(x, weight, bias) + x A^T B^T``: without the term's second part, bitwise, where B is 0.

    ``x``: (..., in); ``weight``: (out, in), which gets no gradient; ``A``: (r, in), ``B``: (out, r). Computes in autocast's dtype where
    autocast is on; once differentiable. Where A is trained, x is kept for the backward pass, which a frozen layer by itself does not ask for.
    """
    autocast = torch.is_autocast_enabled(x.device.type)
    dtype = torch.get_autocast_dtype(x.device.type) if autocast else torch.result_type(x, weight)
    return _LowRankLinear.apply(x, weight.detach(), bias, A, B, dtype)


class _LowRankLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, bias, A, B, dtype):
        ctx.types = x.dtype, None if bias is None else bias.dtype, A.dtype, B.dtype
        x, weight, A, B = (each.to(dtype) for each in (x, weight, A, B))
        with torch.autocast(x.device.type, enabled=False):
            y = functional.linear(x, weight, None if bias is None else bias.to(dtype))
            inner = functional.linear(_rows(x), A)
            _rows(y).addmm_(inner, B.T)
        ctx.save_for_backward(x if ctx.needs_input_grad[3] else None, weight, A, B, inner)
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, g):
        x, weight, A, B, inner = ctx.saved_tensors
        of_x, of_bias, of_A, of_B = ctx.types
        rows = _rows(g)
        to_inner = rows @ B
        to_x = to_bias = to_A = to_B = None
        if ctx.needs_input_grad[0]:
            to_x = (rows @ weight).addmm_(to_inner, A).view(*g.shape[:-1], -1).to(of_x)
        if ctx.needs_input_grad[2]:
            to_bias = rows.sum(0).to(of_bias)
        if ctx.needs_input_grad[3]:
            to_A = (to_inner.T @ _rows(x)).to(of_A)
        if ctx.needs_input_grad[4]:
            to_B = (rows.T @ inner).to(of_B)
        return to_x, None, to_bias, to_A, to_B, None


def _rows(x: torch.Tensor) -> torch.Tensor:
    return x.reshape(-1, x.shape[-1])
