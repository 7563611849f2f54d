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
    return adapter(x, *joined_factors(l1, r1, c1, l2, r2, c2))


def joined_factors(
    l1: torch.Tensor, r1: torch.Tensor, c1: torch.Tensor, l2: torch.Tensor, r2: torch.Tensor, c2: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """``W1`` (d, m), ``c1`` and ``W2`` (m + 1, d) of :func:`adapter`; leading dimensions, if any, are those of several adapters.

    The products are as narrow as m, so that hidden states are multiplied with them in less time than with one factor after the other: 4 launches
    forward and 6 backward, in place of 7 and 11.
    """
    return l1 @ r1, c1, torch.cat([l2 @ r2, c2.unsqueeze(-2)], -2)


def adapter(x: torch.Tensor, W1: torch.Tensor, c1: torch.Tensor, W2: torch.Tensor) -> torch.Tensor:
    """``x + [gelu(x W1 + c1), 1] W2``: the last row of W2 is the second bias; dtypes as in :func:`low_rank_adapter`."""
    return _Adapter.apply(x, W1, c1, W2, compute_dtype(x, W1))


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


class _Adapter(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, W1, c1, W2, dtype):
        ctx.types = [each.dtype for each in (x, W1, c1, W2)]
        rows, W1, c1, W2 = (each.to(dtype) for each in (_rows(x), W1, c1, W2))
        inner = torch.addmm(c1, rows, W1)
        # The ones take the bias along in the same pass over the hidden states.
        active = _with_ones(functional.gelu(inner, approximate="tanh"))
        y = torch.addmm(_rows(x), active, W2) if x.dtype == dtype else _rows(x) + (active @ W2).to(x.dtype)
        ctx.save_for_backward(rows if ctx.needs_input_grad[1] else None, W1, W2, inner, active)
        return y.view(x.shape)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, g):
        rows, W1, W2, inner, active = ctx.saved_tensors
        of_x, of_W1, of_c1, of_W2 = ctx.types
        wide = _rows(g)
        narrow = wide.to(inner.dtype)
        to_inner = torch.ops.aten.gelu_backward(narrow @ W2[:-1].T, inner, approximate="tanh")
        to_x = to_W1 = to_c1 = to_W2 = None
        if ctx.needs_input_grad[0]:
            to_x = torch.addmm(narrow, to_inner, W1.T) if g.dtype == narrow.dtype else wide + to_inner @ W1.T
            to_x = to_x.view(g.shape).to(of_x)
        if ctx.needs_input_grad[1]:
            to_W1 = (rows.T @ to_inner).to(of_W1)
        if ctx.needs_input_grad[2]:
            to_c1 = to_inner.sum(0).to(of_c1)
        if ctx.needs_input_grad[3]:
            to_W2 = (active.T @ narrow).to(of_W2)
        return to_x, to_W1, to_c1, to_W2, None


def autocast_dtype(device: torch.device) -> torch.dtype | None:
    """Autocast's dtype, None where autocast is off."""
    return torch.get_autocast_dtype(device.type) if torch.is_autocast_enabled(device.type) else None


def compute_dtype(x: torch.Tensor, weight: torch.Tensor) -> torch.dtype:
    """What to compute in: autocast's dtype where autocast is on."""
    return autocast_dtype(x.device) or torch.result_type(x, weight)


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
