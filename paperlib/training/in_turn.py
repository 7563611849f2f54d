"""A step of the optimizer as torch's operators, one after the other."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from paperlib.kernels.packing import as_flags

if TYPE_CHECKING:
    from paperlib.training.method import Method
    from paperlib.training.optimizer import Pull

Named = Mapping[str, torch.nn.Parameter]


class InTurn(torch.optim.AdamW):
    """torch's fused AdamW (0.9, 0.999, 1e-8), and what methods add in operators before it.

    ``groups``: as torch's, each with its ``lr`` and ``weight_decay``; ``named``: all parameters by name. Gradients are changed in place: squares
    of them go to GAM, then they are masked and clipped.
    """

    def __init__(self, groups: list[dict[str, Any]], named: Named, pull: "Pull | None"):
        super().__init__(groups, eps=1e-8, fused=True)
        self.named = named
        if pull is not None:
            self.register_step_pre_hook(pull)

    def norm(self) -> torch.Tensor:
        """L2 norm of all gradients together, 0-d, where they are."""
        return get_total_norm([parameter.grad for parameter in moved(self.named)])

    def update(self, method: "Method", step: int, clip_norm: float, norm: torch.Tensor | None) -> None:
        """One step with all that ``method`` adds to it; ``norm``: the gradients', None if they have changed since it was taken."""
        extra = method.extra(step)
        if extra is not None:
            add_squares(self.named, extra.gam)
        masked = {} if extra is None else self._with_gradient(extra.mask)
        if masked and extra.clip_sees == "masked":
            self._mask(masked)
            norm = None
        clip_grads_with_norm_(moved(self.named), clip_norm, self.norm() if norm is None else norm)
        if masked and extra.clip_sees == "all":
            self._mask(masked)
        method.after_clipping(step, self)
        if masked and extra.policy == "freeze":
            for name, mask in masked.items():
                self._step_within(self.named[name], mask.bool())
        self.step()

    def _with_gradient(self, masks: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Of the weights that have one, those of bits as flags."""
        weights = {name: self.named[name] for name in masks if self.named[name].grad is not None}
        return {name: as_flags(masks[name], weight.shape) for name, weight in weights.items()}

    def _mask(self, masks: Mapping[str, torch.Tensor]) -> None:
        for name, mask in masks.items():
            self.named[name].grad.mul_(mask)

    @torch.no_grad()
    def _step_within(self, weight: torch.nn.Parameter, mask: torch.Tensor) -> None:
        """The step of this weight alone, undone where the mask is off; its gradient is then spent.

        One weight at a time, so that the copies that undo it are never more than one weight's.
        """
        groups = self.param_groups
        group = next(group for group in groups if any(each is weight for each in group["params"]))
        before = [tensor.clone() for tensor in self._moving(weight)]
        self.param_groups = [{**group, "params": [weight]}]
        self.step()
        self.param_groups = groups
        # A first step has made the moments from nothing.
        after = self._moving(weight)
        before += [torch.zeros_like(tensor) for tensor in after[len(before) :]]
        for now, then in zip(after, before, strict=True):
            torch.where(mask, now, then, out=now)
        weight.grad = None

    def _moving(self, weight: torch.nn.Parameter) -> list[torch.Tensor]:
        moments = self.state.get(weight, {})
        return [weight.data, *(moments[key] for key in ("exp_avg", "exp_avg_sq") if key in moments)]


def moved(named: Named) -> list[torch.nn.Parameter]:
    """The parameters that have a gradient."""
    return [parameter for parameter in named.values() if parameter.grad is not None]


def add_squares(named: Named, gam: Mapping[str, torch.Tensor]) -> None:
    """Add the squares of the gradients to GAM, in place."""
    for name, squares in gam.items():
        gradient = named[name].grad
        if gradient is not None:
            squares.addcmul_(gradient, gradient)
