"""The gradient of the architecture through one unrolled step of the weights (appendix B, eqs. 15 to 17, with their signs and places repaired).

``loss(batch)`` is a scalar computed from the weights W and the architecture logits alpha as they are; with :func:`replaying` it makes the same
random draws in every pass of a step, which eq. (17) needs: a difference of two draws divided by 2 eps drowns the derivative. Everything
here subtracts numbers that agree in most digits: weights in half precision are refused, and ``loss`` must not use autocast.
"""

import math
from collections.abc import Callable
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch.nn.utils import get_total_norm

from paperlib.errors import InputError

RADIUS = 0.01  # eps ||v||, as in DARTS: for float32 next to the best choice
Loss = Callable[[Any], torch.Tensor]


class Slope(NamedTuple):
    """L_D2(W', alpha) and G_alpha = ``first`` - ``correction``, both of alpha's shape; the correction is xi times eq. (17)."""

    value: torch.Tensor
    first: torch.Tensor
    correction: torch.Tensor

    @property
    def total(self) -> torch.Tensor:
        """G_alpha, the direction to step against."""
        return self.first - self.correction


def replaying(loss: Loss, weights: list[torch.Tensor]) -> Loss:
    """``loss`` with draws that are the same in every call: Gumbel noise, dropout, whatever takes from torch's global generators.

    One number is drawn now from the CPU's, so two replays differ and a resumed search does not; calls leave all generators as they found
    them. Draws agree as far as the batches have the same shapes: take noise that must agree across shapes first. ``weights``: whose
    devices' generators are meant.
    """
    seed = int(torch.randint(2**62, ()))
    devices = sorted({weight.device.index for weight in weights if weight.is_cuda})

    def replayed(batch) -> torch.Tensor:
        with torch.random.fork_rng(devices):
            torch.manual_seed(seed)
            return loss(batch)

    return replayed


def architecture_gradient(
    loss: Loss, alpha: torch.Tensor, weights: list[torch.Tensor], search_batch, train_batch, xi: float
) -> Slope:
    """G_alpha = grad_alpha L_D2(W') - xi [grad_alpha L_D1(W + eps v) - grad_alpha L_D1(W - eps v)] / (2 eps).

    W' = W - xi grad_W L_D1(W), a plain gradient step; v = grad_W' L_D2(W'), eps = 0.01 / ||v||; ``search_batch`` is of D2, ``train_batch`` of D1.
    Four passes forward and back; ``xi`` = 0, the first-order gradient grad_alpha L_D2(W), is one. The weights end bit for bit as they
    were, whatever ``loss`` raises; beside them stand one copy and v. InputError: xi negative, weights in half precision.
    """
    if not 0 <= xi < math.inf:
        raise InputError(f"bilevel: the unrolled step xi must be a finite number from 0, got {xi:g}")
    if xi == 0:
        value, (first,) = _gradients(loss, search_batch, [alpha])
        return Slope(value, first, torch.zeros_like(first))
    with _kept(weights) as start:
        _, slopes = _gradients(loss, train_batch, weights)
        _move(weights, start, slopes, -xi)
        del slopes
        value, (first, *v) = _gradients(loss, search_batch, [alpha, *weights])
        correction = xi * _difference(loss, alpha, weights, start, v, train_batch, RADIUS)
    return Slope(value, first, correction)


def mixed_product(loss: Loss, alpha: torch.Tensor, weights: list[torch.Tensor], v, batch, radius: float = RADIUS):
    """Eq. (17): [d2 L / d alpha dW] v at W, of alpha's shape, by a central difference with eps = ``radius`` / ||v||.

    ``v``: a direction, tensors of the weights' shapes; the zero direction gives 0. The error is of order eps^2 until rounding, of order 1/eps,
    takes over. InputError: a radius that is not positive, weights in half precision.
    """
    if not 0 < radius < math.inf:
        raise InputError(f"bilevel: the radius eps ||v|| must be a finite number above 0, got {radius:g}")
    with _kept(weights) as start:
        return _difference(loss, alpha, weights, start, v, batch, radius)


def exact_mixed_product(loss: Loss, alpha: torch.Tensor, weights: list[torch.Tensor], v, batch) -> torch.Tensor:
    """[d2 L / d alpha dW] v by differentiating v . grad_W L: what eq. (17) approximates, for a ``loss`` that can be differentiated twice."""
    slopes = torch.autograd.grad(loss(batch), weights, create_graph=True, materialize_grads=True)
    along = sum((slope * each).sum() for slope, each in zip(slopes, v, strict=True))
    return torch.autograd.grad(along, alpha, materialize_grads=True)[0]


def _difference(loss, alpha, weights, start, v, batch, radius) -> torch.Tensor:
    """The central difference around ``start``; the weights are left anywhere."""
    norm = get_total_norm(v)
    eps = radius / norm.clamp(min=torch.finfo(norm.dtype).tiny)
    sides = []
    for sign in (1, -1):
        _move(weights, start, v, sign * eps)
        sides.append(_gradients(loss, batch, [alpha])[1][0])
    return (sides[0] - sides[1]) / (2 * eps)


def _gradients(loss: Loss, batch, inputs: list[torch.Tensor]) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """One pass: the loss without its graph, and its gradients in ``inputs``, zero where it does not depend on them."""
    value = loss(batch)
    return value.detach(), list(torch.autograd.grad(value, inputs, materialize_grads=True))


@torch.no_grad()
def _move(weights, start, direction, length) -> None:
    """W = start + length direction."""
    for weight, origin, each in zip(weights, start, direction, strict=True):
        torch.add(origin, each * length, out=weight)


@contextmanager
def _kept(weights):
    """Copies of the weights, which are put back at the end."""
    if half := sorted({str(weight.dtype) for weight in weights if torch.finfo(weight.dtype).bits < 32}):
        raise InputError(f"bilevel: weights in {', '.join(half)}; the finite difference needs float32 or float64")
    start = [weight.detach().clone() for weight in weights]
    try:
        yield start
    finally:
        with torch.no_grad():
            for weight, origin in zip(weights, start, strict=True):
                weight.copy_(origin)
