"""Frozen linear layers with a trained low-rank term beside them, and low-rank adapters behind them, each in one step that casts and adds in place.

Taken apart, the terms cost more passes over the hidden states, casts under autocast among them, than their arithmetic is worth.
"""

import torch
from torch.nn import functional


def low_rank_linear(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    A: torch.Tensor,
    B: torch.Tensor,
    cast: torch.Tensor | None = None,
) -> torch.Tensor:
    """``linear(x, weight, bias) + x A^T B^T``: without the term's second part, bitwise, where B is 0.

    ``x``: (..., in); ``weight``: (out, in), which gets no gradient; ``A``: (r, in), ``B``: (out, r). Computes in autocast's dtype where
    autocast is on; once differentiable. Where A is trained, x is kept for the backward pass, which a frozen layer by itself does not ask for:
    as ``cast``, x in the dtype computed in, if the caller has it, so that layers with one input keep it once; where x is the GELU of something that
    autograd keeps anyway, not at all.
    """
    cast = x.detach().to(compute_dtype(x, weight)) if cast is None else cast
    return _LowRankLinear.apply(x, weight.detach(), bias, A, B, cast, *_gelu_of(x))


def low_rank_adapter(
    x: torch.Tensor,
    l1: torch.Tensor,
    r1: torch.Tensor,
    c1: torch.Tensor,
    l2: torch.Tensor,
    r2: torch.Tensor,
    c2: torch.Tensor,
) -> torch.Tensor:
    """``x + gelu(x l1 r1 + c1) l2 r2 + c2`` with the tanh form of GELU: ``x``, bitwise, where r2 and c2 are 0.

    ``x``: (..., d), the dtype of the result too; ``l1``: (d, r), ``r1``: (r, m), ``c1``: (m,), ``l2``: (m, r), ``r2``: (r, d), ``c2``: (d,). Computes
    in autocast's dtype where autocast is on; once differentiable.
    """
    return _LowRankAdapter.apply(x, l1, r1, c1, l2, r2, c2, compute_dtype(x, l1))


class _LowRankLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, bias, A, B, cast, u, form):
        ctx.types = x.dtype, None if bias is None else bias.dtype, A.dtype, B.dtype
        weight, A, B = (each.to(cast.dtype) for each in (weight, A, B))
        y = functional.linear(cast, weight, None if bias is None else bias.to(cast.dtype))
        inner = functional.linear(_rows(cast), A)
        _rows(y).addmm_(inner, B.T)
        kept = (cast if u is None else None, u) if ctx.needs_input_grad[3] else (None, None)
        ctx.form = form
        ctx.save_for_backward(*kept, weight, A, B, inner)
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, g):
        x, u, weight, A, B, inner = ctx.saved_tensors
        of_x, of_bias, of_A, of_B = ctx.types
        rows = _rows(g)
        to_inner = rows @ B
        to_x = to_bias = to_A = to_B = None
        if ctx.needs_input_grad[0]:
            to_x = (rows @ weight).addmm_(to_inner, A).view(*g.shape[:-1], -1).to(of_x)
        if ctx.needs_input_grad[3]:
            x = x if u is None else functional.gelu(u, approximate=ctx.form).to(A.dtype)
            to_A = (to_inner.T @ _rows(x)).to(of_A)
        if ctx.needs_input_grad[2] and ctx.needs_input_grad[4]:
            to_B, to_bias = _products_and_sum(inner, rows)
            to_B, to_bias = to_B.T.to(of_B), to_bias.to(of_bias)
        elif ctx.needs_input_grad[2]:
            to_bias = rows.sum(0).to(of_bias)
        elif ctx.needs_input_grad[4]:
            to_B = (rows.T @ inner).to(of_B)
        return to_x, None, to_bias, to_A, to_B, None, None, None


class _LowRankAdapter(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, l1, r1, c1, l2, r2, c2, dtype):
        ctx.types = [each.dtype for each in (x, l1, r1, c1, l2, r2, c2)]
        rows, l1, r1, c1, l2, r2, c2 = (each.to(dtype) for each in (_rows(x), l1, r1, c1, l2, r2, c2))
        first = rows @ l1
        inner = torch.addmm(c1, first, r1)
        active = functional.gelu(inner, approximate="tanh")
        second = active @ l2
        # [second, 1] [r2; c2]: the bias in the same pass over the hidden states.
        y = torch.addmm(_rows(x), _with_ones(second), torch.cat([r2, c2[None]])) if x.dtype == dtype else None
        if y is None:
            y = _rows(x) + torch.addmm(c2, second, r2).to(x.dtype)
        ctx.save_for_backward(rows if ctx.needs_input_grad[1] else None, l1, r1, l2, r2, first, inner, active, second)
        return y.view(x.shape)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, g):
        rows, l1, r1, l2, r2, first, inner, active, second = ctx.saved_tensors
        of_x, *of_factors = ctx.types
        wide = _rows(g)
        narrow = wide.to(inner.dtype)
        to_second = narrow @ r2.T
        to_inner = torch.ops.aten.gelu_backward(to_second @ l2.T, inner, approximate="tanh")
        to_first = to_inner @ r1.T
        to_x = None
        if ctx.needs_input_grad[0]:
            to_x = torch.addmm(narrow, to_first, l1.T) if g.dtype == narrow.dtype else wide + to_first @ l1.T
            to_x = to_x.view(g.shape).to(of_x)
        to_l1 = rows.T @ to_first if ctx.needs_input_grad[1] else None
        to_r1 = first.T @ to_inner if ctx.needs_input_grad[2] else None
        to_c1 = to_inner.sum(0) if ctx.needs_input_grad[3] else None
        to_l2 = active.T @ to_second if ctx.needs_input_grad[4] else None
        to_r2, to_c2 = (
            _products_and_sum(second, narrow) if ctx.needs_input_grad[5] or ctx.needs_input_grad[6] else (None, None)
        )
        to_factors = (to_l1, to_r1, to_c1, to_l2, to_r2, to_c2)
        return (
            to_x,
            *(None if to is None else to.to(dtype) for to, dtype in zip(to_factors, of_factors, strict=True)),
            None,
        )


def compute_dtype(x: torch.Tensor, weight: torch.Tensor) -> torch.dtype:
    """What to compute in: autocast's dtype where autocast is on."""
    autocast = torch.is_autocast_enabled(x.device.type)
    return torch.get_autocast_dtype(x.device.type) if autocast else torch.result_type(x, weight)


def _gelu_of(x: torch.Tensor) -> tuple[torch.Tensor | None, str | None]:
    """u and the form of GELU if x is GELU(u), which autograd keeps u to differentiate."""
    if x.grad_fn is None or x.grad_fn.name() != "GeluBackward0":
        return None, None
    return x.grad_fn._saved_self.detach(), x.grad_fn._saved_approximate


def _products_and_sum(inner: torch.Tensor, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """``inner.T @ rows`` and ``rows.sum(0)``, the rows read once."""
    *products, total = (_with_ones(inner).T @ rows).split([inner.shape[1], 1])
    return products[0], total[0]


def _with_ones(inner: torch.Tensor) -> torch.Tensor:
    return functional.pad(inner, (0, 1), value=1.0)


def _rows(x: torch.Tensor) -> torch.Tensor:
    return x.reshape(-1, x.shape[-1])
