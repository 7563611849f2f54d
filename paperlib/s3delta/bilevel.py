"""One step of the bi-level search: the structure on one batch, the module weights on another (appendix B.1, after DARTS).

``loss(z, batch)`` is a scalar: the loss of ``batch`` with the gates ``z`` and the weights as they are. One optimizer holds the weights w in its
first group and alpha in its second; a group moves only where its gradients are set.

A step never asks the device for a value: what was found, and whether an update is left out, is decided and kept there.
"""

from collections.abc import Callable
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from paperlib.errors import InputError
from paperlib.s3delta.gates import Gates

RADIUS = 0.01  # of the finite difference: how far the weights are moved, as the authors' code and DARTS have it
ORDERS = ("second", "first", "one-level")
Loss = Callable[[torch.Tensor, Any], torch.Tensor]


class Bilevel:
    """Search steps with the gradient of alpha that ``order`` names; passes are forward and backward passes per step.

    "second", 5 passes: alpha's loss is that of w', one virtual optimizer step further, and the derivative of w' in alpha counts as that of a plain
    gradient step (exact if the optimizer is SGD; the authors' code, and this, take it for AdamW too). "first", 2 passes: alpha's loss is
    that of w (DARTS with xi = 0). "one-level", 1 pass: alpha and w move together, by the gradient of one loss on w's batch; alpha's batch is
    not looked at. In the other two, alpha moves first, and w on gates drawn anew from the new alpha.

    Gradients of alpha and of w are clipped to ``clip_norm`` each; where one is not finite that update is skipped, on the device: ``optimizer``
    must be a fused one, which takes ``found_inf`` as :class:`torch.amp.GradScaler` sets it. InputError: an unknown ``order``, an optimizer that
    is not fused.
    """

    def __init__(
        self,
        loss: Loss,
        weights: list[torch.nn.Parameter],
        alpha: torch.nn.Parameter,
        gates: Gates,
        optimizer: torch.optim.Optimizer,
        order: str = "second",
        clip_norm: float = 2.0,
    ):
        if order not in ORDERS:
            raise InputError(f"unknown search order {order!r}; known: {', '.join(ORDERS)}")
        if not optimizer.defaults.get("fused"):
            raise InputError(
                "the search skips an update on the device, for which its optimizer must be fused; give fused=True"
            )
        self.loss, self.weights, self.alpha, self.gates = loss, weights, alpha, gates
        self.optimizer, self.order, self.clip_norm = optimizer, order, clip_norm

    def step(self, delta_batch, alpha_batch) -> dict[str, torch.Tensor]:
        """One search step: ``{"delta": w's training loss, "alpha": alpha's loss, "skipped": updates left out}``, float64 scalars on the device.

        ``delta_batch`` is of D_delta, ``alpha_batch`` of D_alpha.
        """
        if self.order == "one-level":
            return self._together(delta_batch)
        z = self.gates.draw(self.alpha)
        if self.order == "first":
            with _frozen(self.weights):
                alpha_loss, slope = first_order(self.loss, z, alpha_batch)
        else:
            alpha_loss, slope = second_order(self.loss, z, self.weights, self.optimizer, delta_batch, alpha_batch)
        (alpha_slope,) = torch.autograd.grad(z, self.alpha, slope.to(z.dtype))
        skipped = self._update([self.alpha], [alpha_slope], alpha_loss)
        # A structure of its own for the weights: new draws, and zeta of the new alpha.
        z = self.gates.draw(self.alpha).detach()
        delta_loss, slopes = gradients(self.loss, z, delta_batch, self.weights)
        skipped = skipped + self._update(self.weights, slopes, delta_loss)
        return _found(delta_loss, alpha_loss, skipped)

    def _together(self, batch) -> dict[str, torch.Tensor]:
        loss, (slope, *slopes) = gradients(self.loss, self.gates.draw(self.alpha), batch, [self.alpha, *self.weights])
        skipped = self._update([self.alpha], [slope], loss) + self._update(self.weights, slopes, loss)
        return _found(loss, loss, skipped)

    def _update(self, parameters, slopes, loss) -> torch.Tensor:
        """Clip and move ``parameters`` if all is finite; 1.0 where they were not moved, else 0.0: float32, as the optimizers' kernels read it."""
        norm = get_total_norm(slopes)
        skipped = (~torch.isfinite(loss.double() + norm.double())).float()
        with _gradients_set(parameters, slopes), _skipped_where(self.optimizer, skipped):
            clip_grads_with_norm_(parameters, self.clip_norm, norm)
            self.optimizer.step()
        return skipped


def _found(delta_loss, alpha_loss, skipped) -> dict[str, torch.Tensor]:
    return {"delta": delta_loss.double(), "alpha": alpha_loss.double(), "skipped": skipped.double()}


def gradients(loss: Loss, z, batch, inputs: list[torch.Tensor]) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """The loss without its graph, and its gradients in ``inputs``, zero where it does not depend on them: one pass."""
    value = loss(z, batch)
    return value.detach(), list(torch.autograd.grad(value, inputs, materialize_grads=True))


def first_order(loss: Loss, z: torch.Tensor, batch) -> tuple[torch.Tensor, torch.Tensor]:
    """The loss at the weights as they are, and its gradient in z: one pass."""
    z = z.detach().requires_grad_()
    value, (slope,) = gradients(loss, z, batch, [z])
    return value, slope


def second_order(
    loss: Loss,
    z: torch.Tensor,
    weights: list[torch.nn.Parameter],
    optimizer: torch.optim.Optimizer,
    delta_batch,
    alpha_batch,
) -> tuple[torch.Tensor, torch.Tensor]:
    """L(w', z; D_alpha) and dL/dz, where w' is one step of ``optimizer`` from w along the gradient of L(w, z; D_delta): four passes.

    dL/dz = g1 - xi (grad_z L(w + eps v; D_delta) - grad_z L(w - eps v; D_delta)) / (2 eps), with g1 and v the gradients in z and w' of
    L(w', z; D_alpha), eps = 0.01 / (||v|| + 1e-6) and xi the optimizer's rate of w. The gates are the same in all passes, dropout is not.
    Weights and moments are left as they were, bit for bit; beside them one copy of each exists meanwhile, and v.
    """
    z = z.detach().requires_grad_()
    _, slopes = gradients(loss, z.detach(), delta_batch, weights)
    with _kept(weights) as start:
        with _moments_kept(weights, optimizer), _gradients_set(weights, slopes):
            optimizer.step()
        del slopes
        value, (slope, *v) = gradients(loss, z, alpha_batch, [z, *weights])
        eps = RADIUS / (get_total_norm(v) + 1e-6)
        torch._foreach_mul_(v, eps)
        ahead, behind = (_slope_at(sign, start, v, loss, z, weights, delta_batch) for sign in (1, -1))
    rate = optimizer.param_groups[0]["lr"]
    return value, slope - rate * (ahead - behind) / (2 * eps)


def _slope_at(sign: int, start, v, loss, z, weights, batch) -> torch.Tensor:
    """Gradient in z where the weights are ``start + sign * v``."""
    _copy(weights, start)
    with torch.no_grad():
        torch._foreach_add_(weights, v, alpha=sign)
    with _frozen(weights):
        return gradients(loss, z, batch, [z])[1][0]


@contextmanager
def _frozen(weights):
    """No gradients of the weights are prepared for: nothing is computed, and nothing kept, for their sake."""
    for weight in weights:
        weight.requires_grad_(False)
    try:
        yield
    finally:
        for weight in weights:
            weight.requires_grad_(True)


@contextmanager
def _kept(tensors):
    """Copies of the tensors, which get their values back at the end: those of weights, or of moments."""
    copies = [torch.empty_like(each) for each in tensors]
    _copy(copies, tensors)
    try:
        yield copies
    finally:
        _copy(tensors, copies)


@torch.no_grad()
def _copy(targets, sources):
    if targets:  # an optimizer that has not stepped has no moments
        torch._foreach_copy_(targets, sources)


@contextmanager
def _moments_kept(weights, optimizer: torch.optim.Optimizer):
    """The optimizer forgets at the end what it learned of the weights meanwhile."""
    fresh = [weight for weight in weights if weight not in optimizer.state]
    with _kept([value for weight in weights for value in optimizer.state.get(weight, {}).values()]):
        try:
            yield
        finally:
            for weight in fresh:
                optimizer.state.pop(weight, None)


@contextmanager
def _skipped_where(optimizer: torch.optim.Optimizer, skipped: torch.Tensor):
    """Steps of a fused ``optimizer`` change nothing where ``skipped`` is 1."""
    optimizer.found_inf = skipped
    try:
        yield
    finally:
        del optimizer.found_inf


@contextmanager
def _gradients_set(parameters, slopes):
    """``slopes`` as the gradients the optimizer sees, and none afterwards."""
    for parameter, slope in zip(parameters, slopes, strict=True):
        parameter.grad = slope
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.grad = None
