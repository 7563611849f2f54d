"""What DPS Dense and DPS Mix share: the stages, the choice of a subnetwork, and what happens to the weights outside it."""

import math
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import torch

from paperlib.dps.clock import StageClock
from paperlib.dps.scope import tracked
from paperlib.errors import InputError
from paperlib.kernels.selection import kth_largest, largest
from paperlib.training.method import Method


class Subnetwork(Method):
    """Stage I accumulates GAM, the sum of squared gradients; stage II trains the entries with the largest scores and masks the others.

    A subnetwork is chosen before the first forward pass of stage II: of each tracked matrix (``selection`` "matrix", ties kept) or of all
    together ("global") the share ``keep_fraction``. GAM sees gradients unscaled and before clipping; clipping sees them masked. The constant
    1e-3 of the published code is left out, as it changes no order.

    ``masked_policy``: "grad_zero" masks gradients only, so AdamW's momentum and decay still move masked entries; "freeze" leaves their weight
    and moments as they are, bitwise. ``reference_dtypes``: int64 masks, twice at the selection step, and GAM kept through stage II, as the
    published code holds them: other memory, the same numbers. InputError: a ``keep_fraction`` outside (0, 1].
    """

    def __init__(
        self,
        keep_fraction: float,
        update_ratio: float,
        masked_policy: Literal["grad_zero", "freeze"],
        selection: Literal["matrix", "global"] = "matrix",
        reference_dtypes: bool = False,
    ):
        if not 0 < keep_fraction <= 1:
            raise InputError(f"the kept share must lie in (0, 1], got {keep_fraction:g}")
        self.keep_fraction, self.update_ratio, self.masked_policy = keep_fraction, update_ratio, masked_policy
        self.selection, self.reference_dtypes = selection, reference_dtypes
        self.gam: dict[str, torch.Tensor] = {}
        self.mask: dict[str, torch.Tensor] = {}
        self._on_graph: dict[str, torch.Tensor] = {}

    def attach(self, model: torch.nn.Module, total_steps: int) -> None:
        self.weights = tracked(model)
        self.clock = StageClock(total_steps, self.update_ratio)

    # The loop skips steps whose loss or gradient is not finite, so the first step of a stage may never be seen: a stage is known by what is in
    # store.

    def forward_weights(self, step: int) -> AbstractContextManager:
        if self.clock.stage(step)[0] == 2 and self.gam and not self.mask:
            self._choose()
        return nullcontext()

    def after_backward(self, step: int) -> bool:
        stage, i = self.clock.stage(step)
        if stage == 1:
            if i == 1 or self.mask:
                self._begin_cycle()
            self._accumulate()
            return False
        for name, mask in self.mask.items():
            if self.weights[name].grad is not None:
                self.weights[name].grad.mul_(mask)
        self._on_graph = {}
        return True

    def after_clipping(self, step: int, optimizer: torch.optim.Optimizer) -> None:
        if self.masked_policy == "freeze":
            for name, mask in self.mask.items():
                if self.weights[name].grad is not None:
                    _step_within(self.weights[name], mask.bool(), optimizer)

    def state_dict(self) -> dict[str, torch.Tensor]:
        return {f"{kind}.{name}": t for kind, store in self._stores().items() for name, t in store.items()}

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        for kind, store in self._stores().items():
            for name, weight in self.weights.items():
                if f"{kind}.{name}" in state:
                    store[name] = state[f"{kind}.{name}"].to(weight.device)

    def _stores(self) -> dict[str, dict[str, torch.Tensor]]:
        """What must be remembered, by kind and weight."""
        return {"gam": self.gam, "mask": self.mask}

    def _begin_cycle(self) -> None:
        self.gam.clear()
        self.mask.clear()

    def _accumulate(self) -> None:
        for name, weight in self.weights.items():
            if weight.grad is None:
                continue
            if name in self.gam:
                self.gam[name].addcmul_(weight.grad, weight.grad)
            else:
                self.gam[name] = weight.grad.square()

    def _score(self, name: str) -> torch.Tensor:
        """What entries of this weight are ranked by; may be GAM itself, changed in place."""
        return self.gam[name]

    def _choose(self) -> None:
        """Set ``mask`` from the scores, one weight after the other, giving up GAM as it goes."""
        masks = self._per_matrix() if self.selection == "matrix" else self._of_all()
        for name, mask in masks:
            self.mask[name] = mask.long() if self.reference_dtypes else mask
            if self.reference_dtypes:
                self._on_graph[name] = self.mask[name].clone()
            else:
                del self.gam[name]

    def _per_matrix(self) -> Iterable[tuple[str, torch.Tensor]]:
        for name in list(self.gam):
            score = self._score(name)
            # In double precision exactly as written: a rounding error may add one entry, as in the published code.
            yield name, largest(score, math.ceil(score.numel() * self.keep_fraction))

    def _of_all(self) -> Iterable[tuple[str, torch.Tensor]]:
        scores = {name: self._score(name) for name in self.gam}
        count = math.ceil(sum(score.numel() for score in scores.values()) * self.keep_fraction)
        smallest_kept = kth_largest(list(scores.values()), count)
        for name, score in scores.items():
            yield name, score >= smallest_kept


@torch.no_grad()
def _step_within(weight: torch.nn.Parameter, mask: torch.Tensor, optimizer: torch.optim.Optimizer) -> None:
    """The optimizer's step for this weight alone, undone where the mask is off; its gradient is then spent.

    One weight at a time, so that the copies that undo it are never more than one weight's.
    """
    groups = optimizer.param_groups
    group = next(group for group in groups if any(each is weight for each in group["params"]))
    before = [tensor.clone() for tensor in _moving(weight, optimizer)]
    optimizer.param_groups = [{**group, "params": [weight]}]
    optimizer.step()
    optimizer.param_groups = groups
    # A first step has made the moments from nothing.
    moved = _moving(weight, optimizer)
    before += [torch.zeros_like(tensor) for tensor in moved[len(before) :]]
    for now, then in zip(moved, before, strict=True):
        torch.where(mask, now, then, out=now)
    weight.grad = None


def _moving(weight: torch.nn.Parameter, optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    moments = optimizer.state.get(weight, {})
    return [weight.data, *(moments[key] for key in ("exp_avg", "exp_avg_sq") if key in moments)]
