"""What eqs. (15) to (17) of appendix B approximate, exactly, by autograd through steps of the weights; and the ways to get (16) wrong."""

from functools import partial
from typing import NamedTuple

import torch
from torch.nn.utils import get_total_norm

from paperlib.lets.bilevel import RADIUS, Slope, architecture_gradient, exact_mixed_product
from paperlib.lets.relaxed import Relaxed

FIRST_ORDER = "first order (ξ = 0)"


class Unrolled(NamedTuple):
    """L_D2 behind some steps, its total derivative in alpha, and v, its gradient in the weights there."""

    value: torch.Tensor
    total: torch.Tensor
    v: list[torch.Tensor]


class Descent:
    """W - rate slope."""

    def __init__(self, rate: float):
        self.rate = rate

    def __call__(self, weights, slopes) -> list[torch.Tensor]:
        return [weight - self.rate * slope for weight, slope in zip(weights, slopes, strict=True)]


class Adam:
    """Adam's steps with the search's eps, differentiable; one object for one path."""

    def __init__(self, rate: float, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-6):
        self.rate, self.betas, self.eps, self.step, self.moments = rate, betas, eps, 0, None

    def __call__(self, weights, slopes) -> list[torch.Tensor]:
        self.step += 1
        before = self.moments or [(0.0, 0.0)] * len(weights)
        one, two = self.betas
        self.moments = [
            (one * m + (1 - one) * slope, two * s + (1 - two) * slope**2)
            for (m, s), slope in zip(before, slopes, strict=True)
        ]
        return [
            weight - self.rate * m / (1 - one**self.step) / (self._root(s / (1 - two**self.step)) + self.eps)
            for weight, (m, s) in zip(weights, self.moments, strict=True)
        ]

    @staticmethod
    def _root(square: torch.Tensor) -> torch.Tensor:
        # The root has no derivative at 0, where weights stand that the loss does not depend on.
        return (square + torch.finfo(square.dtype).tiny).sqrt()


def along(model: Relaxed, search_batch, train_batches, step, horizons, masks: int | None = None) -> dict[int, Unrolled]:
    """For every k of ``horizons`` d L_D2(W_k(alpha), alpha) / d alpha, W_k behind k steps of the weights (:class:`Descent`, :class:`Adam`).

    One step of descent: the right-hand side of eq. (15). So many that nothing moves any more: its left-hand side. All passes see draw 0 of the
    noise and the dropout ``masks``. Step i is taken on the i-th of ``train_batches``; the graphs of all steps stay in memory.
    """
    ahead, found = model.weights, {}
    for k, batch in enumerate(train_batches, start=1):
        loss = model.loss(batch, ahead, masks=masks)
        ahead = step(ahead, torch.autograd.grad(loss, ahead, create_graph=True, materialize_grads=True))
        if k in horizons:
            value = model.loss(search_batch, ahead, masks=masks)
            total, *v = torch.autograd.grad(value, [model.alpha, *ahead], retain_graph=True, materialize_grads=True)
            found[k] = Unrolled(value.detach(), total, v)
    return found


def total_derivative(model: Relaxed, search_batch, train_batch, xi: float, masks: int | None = None) -> Unrolled:
    """The right-hand side of eq. (15), through one step."""
    return along(model, search_batch, [train_batch], Descent(xi), [1], masks)[1]


def slope(model: Relaxed, search_batch, train_batch, xi: float, masks: int | None = None) -> Slope:
    """Eqs. (16) and (17) as the search computes them, all draws held."""
    loss = partial(model.loss, masks=masks)
    return architecture_gradient(loss, model.alpha, model.weights, search_batch, train_batch, xi)


def eq_16(model: Relaxed, first: torch.Tensor, v: list[torch.Tensor], train_batch, xi: float) -> torch.Tensor:
    """Eq. (16) with its mixed derivative by autograd, no difference; ``first``: its first term, of :func:`slope`; ``v``: of eq. (15)."""
    return first - xi * exact_mixed_product(model.loss, model.alpha, model.weights, v, train_batch)


def differences(
    model: Relaxed, v, batch, radii, one_sided: bool = False, autocast: bool = False, stored: torch.dtype | None = None
) -> list[torch.Tensor]:
    """Eq. (17) at W for every eps = radius / ||v||, float64; ``v``: in any precision.

    ``one_sided``: [grad_alpha L(W + eps v) - grad_alpha L(W)] / eps instead. ``autocast``: passes in bf16, the weights as they are. ``stored``:
    passes as they are, the weights rounded to this.
    """
    v = [each.to(weight.dtype) for each, weight in zip(v, model.weights, strict=True)]
    norm, found = get_total_norm(v), []
    # Without a cache: it would hand out the weights as they were before they moved.
    with torch.autocast(model.weights[0].device.type, torch.bfloat16, enabled=autocast, cache_enabled=False):
        for radius in radii:
            lengths = [radius / norm, 0.0 if one_sided else -radius / norm]
            moved = ([w.to(stored or w.dtype).to(w.dtype) for w in _moved(model, v, length)] for length in lengths)
            up, down = (_alpha_slope(model, at, batch).double() for at in moved)
            found.append((up - down) / (lengths[0] - lengths[1]).double())
    return found


def apart(found: torch.Tensor, exact: torch.Tensor) -> float:
    """||found - exact|| / ||exact||."""
    return ((found - exact).norm() / exact.norm()).item()


def cosine(one: torch.Tensor, other: torch.Tensor) -> float:
    """Of the angle between two directions."""
    return ((one * other).sum() / one.norm() / other.norm()).item()


def mistakes(model: Relaxed, search_batch, train_batch, xi: float, masks: int = 0) -> dict[str, torch.Tensor]:
    """G_alpha as it comes out when something is done wrong, of alpha's shape; under dropout ``masks`` and draw 0 of the noise."""
    right = slope(model, search_batch, train_batch, xi, masks)
    v = total_derivative(model, search_batch, train_batch, xi, masks).v
    slopes = torch.autograd.grad(model.loss(train_batch, masks=masks), model.weights, materialize_grads=True)
    eps = RADIUS / get_total_norm(v)
    ahead, plus, minus = _moved(model, slopes, -xi), _moved(model, v, eps), _moved(model, v, -eps)

    def difference(up, down, batch=train_batch, noise=(0, 0), drop=(masks, masks)) -> torch.Tensor:
        sides = [_alpha_slope(model, at, batch, *draws) for at, *draws in zip((up, down), noise, drop, strict=True)]
        return (sides[0] - sides[1]) / (2 * eps)

    around_ahead = [[w + sign * eps * each for w, each in zip(ahead, v, strict=True)] for sign in (1, -1)]
    wrong = {
        "around W′, not W": difference(*around_ahead),
        "on D2, not D1": difference(plus, minus, batch=search_batch),
        "W not restored before W⁻": difference(plus, model.weights),
        "other Gumbel noise in W⁻": difference(plus, minus, noise=(0, 1)),
        "other dropout in W⁻": difference(plus, minus, drop=(masks, masks + 1)),
    }
    return {
        FIRST_ORDER: slope(model, search_batch, train_batch, 0.0, masks).total,
        "second term left out": right.first,
        "sign of the second term": right.first + right.correction,
        "factor ξ forgotten": right.first - right.correction / xi,
        **{name: right.first - xi * product for name, product in wrong.items()},
    }


def _alpha_slope(model: Relaxed, weights, batch, noise: int = 0, masks: int | None = None) -> torch.Tensor:
    return torch.autograd.grad(model.loss(batch, weights, noise, masks), model.alpha, materialize_grads=True)[0]


def _moved(model: Relaxed, direction, length) -> list[torch.Tensor]:
    return [(weight + length * each).detach() for weight, each in zip(model.weights, direction, strict=True)]
