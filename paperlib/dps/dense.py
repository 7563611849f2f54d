"""DPS Dense: accumulate squared gradients, then train only the entries where they are largest."""

import math
from typing import Literal

import torch

from paperlib.dps.clock import StageClock
from paperlib.dps.scope import tracked
from paperlib.errors import InputError
from paperlib.kernels.selection import largest
from paperlib.training.method import Method


class DPSDense(Method):
    """DPS Dense (Zhang et al. 2022) on every tracked weight matrix.

    Stage I trains everything and accumulates GAM = sum of squared gradients; at the first step of stage II each matrix keeps the
    ``k = ceil(N * keep_fraction)`` entries with the largest GAM, ties included, and masks the other gradients until the stage ends.
    GAM sees gradients unscaled and before clipping; clipping sees them masked. The constant 1e-3 of the published code is left out, as it
    changes no order.

    ``masked_policy``: "grad_zero" masks gradients only, so AdamW's momentum and decay still move masked entries; "freeze" puts weight and
    moments of masked entries back after the step, bitwise.
    """

    def __init__(self, keep_fraction: float, update_ratio: float, masked_policy: Literal["grad_zero", "freeze"]):
        if not 0 < keep_fraction <= 1:
            raise InputError(f"keep_fraction must lie in (0, 1], got {keep_fraction:g}")
        self.keep_fraction, self.update_ratio, self.masked_policy = keep_fraction, update_ratio, masked_policy
        self.gam: dict[str, torch.Tensor] = {}
        self.mask: dict[str, torch.Tensor] = {}
        self._before: dict[str, list[torch.Tensor]] = {}

    def attach(self, model: torch.nn.Module, total_steps: int) -> None:
        self.weights = tracked(model)
        self.clock = StageClock(total_steps, self.update_ratio)

    def after_backward(self, step: int) -> None:
        stage, i = self.clock.stage(step)
        for name, weight in self.weights.items():
            if weight.grad is None:
                continue
            if stage == 1:
                self._accumulate(name, weight.grad, first=i == 1)
            else:
                self._mask(name, weight.grad)

    def after_clipping(self, step: int, optimizer: torch.optim.Optimizer) -> None:
        if self.masked_policy == "freeze" and self.clock.stage(step)[0] == 2:
            self._before = {name: [t.clone() for t in _moving(self.weights[name], optimizer)] for name in self.mask}

    def after_step(self, step: int, optimizer: torch.optim.Optimizer) -> None:
        for name, before in self._before.items():
            for now, then in zip(_moving(self.weights[name], optimizer), before, strict=True):
                now.copy_(torch.where(self.mask[name], now, then))
        self._before = {}

    def state_dict(self) -> dict[str, torch.Tensor]:
        return {f"gam.{n}": t for n, t in self.gam.items()} | {f"mask.{n}": t for n, t in self.mask.items()}

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        for name, weight in self.weights.items():
            for kind, store in (("gam", self.gam), ("mask", self.mask)):
                if f"{kind}.{name}" in state:
                    store[name] = state[f"{kind}.{name}"].to(weight.device)

    # The loop skips steps whose loss is not finite, so the first step of a stage may never be seen: a stage is known by what is in store.

    def _accumulate(self, name: str, gradient: torch.Tensor, first: bool) -> None:
        self.mask.pop(name, None)
        if first or name not in self.gam:
            self.gam[name] = gradient.square()
        else:
            self.gam[name].addcmul_(gradient, gradient)

    def _mask(self, name: str, gradient: torch.Tensor) -> None:
        if name in self.gam:
            # In double precision exactly as written: a rounding error may add one entry, as in the published code.
            kept = math.ceil(self.gam[name].numel() * self.keep_fraction)
            self.mask[name] = largest(self.gam.pop(name), kept)
        if name in self.mask:
            gradient.mul_(self.mask[name])


@torch.no_grad()
def _moving(weight: torch.Tensor, optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    moments = optimizer.state.get(weight, {})
    return [weight.data, *(moments[key] for key in ("exp_avg", "exp_avg_sq") if key in moments)]
