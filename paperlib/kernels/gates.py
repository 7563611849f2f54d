"""The budget shift of structural logits, and gates drawn under it: S3Delta's shifted sigmoid and binary concrete distribution.

K modules; module i has ``sizes[i]`` scalars and the logit alpha_i. Everything is computed in float64, on the device of alpha, which is never asked
for a value. On a GPU with Triton a draw is one launch and its gradient another (:mod:`paperlib.kernels.gates_triton`), in place of some 250 and 35.
"""

import torch

# Cutting the bracket in 16 twenty times leaves a 2**-80th of it: less than rounding for any logits below 1e7 tau.
SECTIONS, PASSES = 16, 20
FORMS = ("local", "global", "implicit")


def budget_shift(alpha: torch.Tensor, sizes: torch.Tensor, budget: float, tau: float) -> torch.Tensor:
    """zeta, the root of sum_i n_i sigmoid((alpha_i - zeta) / tau) = B, by bracketed section; a float64 scalar without gradient.

    ``alpha``, ``sizes``: (K,), one device. With c = tau logit(B / N) the root lies in [min alpha - c, max alpha - c]. Where the sum
    is B, to rounding, over an interval (logits far apart), zeta is its right end. 0 < B < N is the caller's to ensure.
    """
    x = alpha.detach().double() / tau
    n = sizes.double()
    # c / tau in a form that does not round B / N to 1.
    low, width = x.amin() - torch.log(budget / (n.sum() - budget)), x.amax() - x.amin()
    cuts = torch.arange(1, SECTIONS, dtype=x.dtype, device=x.device) / SECTIONS
    for _ in range(PASSES):
        spent = torch.sigmoid(x - (low + width * cuts)[:, None]) @ n
        low = low + width * ((spent >= budget).sum() / SECTIONS)
        width = width / SECTIONS
    return low * tau


def drawn(
    alpha: torch.Tensor, sizes: torch.Tensor, u: torch.Tensor, numbers: torch.Tensor, gradient: str, hard: bool
) -> torch.Tensor:
    """Gates z, float64 (K,), in two Triton launches: what ``paperlib.s3delta.gates.Gates.sample`` composes of PyTorch's operators.

    ``alpha``, ``u``: (K,); ``sizes``: int64 (K,); ``numbers``: float64 (3,), B, tau and beta, on the device, for a kernel takes Python's floats as
    float32; ``gradient``: of :data:`FORMS`. Differentiable in alpha, once.
    """
    return _Drawn.apply(alpha.double(), sizes, u.double(), numbers, FORMS.index(gradient), hard)


class _Drawn(torch.autograd.Function):
    @staticmethod
    def forward(ctx, alpha, sizes, u, numbers, form, hard):
        from paperlib.kernels import gates_triton

        z, logits, log_odds = gates_triton.draw(alpha.contiguous(), sizes, u.contiguous(), numbers, hard)
        ctx.form, ctx.hard = form, hard
        ctx.save_for_backward(z, logits, log_odds, sizes, numbers)
        return z

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, g):
        from paperlib.kernels import gates_triton

        slope = gates_triton.slope(g.contiguous(), *ctx.saved_tensors, ctx.form, ctx.hard)
        return slope, None, None, None, None, None
