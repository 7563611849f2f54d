"""CHILD-TUNING: gradients of a child network only, chosen once from the task (D) or drawn at every step (F)."""

import numpy as np
import torch
from torch.nn import functional
from tqdm import tqdm

from paperlib.errors import InputError
from paperlib.kernels.packing import as_bits, as_flags
from paperlib.kernels.selection import at_least, percentile
from paperlib.training import Method, Problem
from paperlib.training.update import Extra, in_one_pass


class ChildTuningD(Method):
    """CHILD-TUNING_D (Xu et al. 2021): the share ``p`` of the layers' entries with the largest Fisher information is trained.

    Scope: parameters whose name contains "layer", biases and layer norms among them; all others are trained whole. F is the mean over an
    epoch's batches of the squared batch gradient, each tensor's clipped to norm 1 by itself; one threshold holds for all tensors together,
    the interpolated (1 - p) percentile, and the mask F >= threshold for the whole run. Gradients are masked after clipping, so that the
    norm counts the masked ones; AdamW's moments stay 0 there and only weight decay moves those weights. State: one byte per
    entry in scope, or one bit where one pass moves the weights.

    InputError: ``p`` outside (0, 1]; no parameter in scope; a loss in the Fisher pass that is not finite.
    """

    def __init__(self, p: float):
        self.p = _share(p)
        self.mask: dict[str, torch.Tensor] = {}

    def attach(self, model: torch.nn.Module, total_steps: int) -> None:
        named = model.named_parameters()
        self.scope = {name: parameter for name, parameter in named if "layer" in name and parameter.requires_grad}
        if not self.scope:
            raise InputError('child_tuning_d chooses among parameters named "...layer...", and the model has none')
        self._packed = in_one_pass(self.scope.values())

    def prepare(self, problem: Problem, batches: list[np.ndarray]) -> None:
        fisher = self._fisher(problem, batches)
        threshold = percentile(list(fisher.values()), 100 * (1 - self.p))
        if self._packed:
            self._set(dict(zip(fisher, at_least([*fisher.values()], threshold), strict=True)))
        else:
            self._set({name: fisher.pop(name) >= threshold for name in self.scope})

    def extra(self, step: int) -> Extra:
        return self._extra

    def state_dict(self) -> dict[str, torch.Tensor]:
        return {f"child.{name}": mask for name, mask in self.mask.items()}

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        masks = {name: state[f"child.{name}"].to(parameter.device) for name, parameter in self.scope.items()}
        if self._packed:
            self._set({name: as_bits(mask) for name, mask in masks.items()})
        else:
            self._set({name: as_flags(mask, self.scope[name].shape) for name, mask in masks.items()})

    def _set(self, masks: dict[str, torch.Tensor]) -> None:
        self.mask = masks
        self._extra = Extra(mask=masks, clip_sees="all")

    def _fisher(self, problem: Problem, batches: list[np.ndarray]) -> dict[str, torch.Tensor]:
        fisher = {name: torch.zeros_like(parameter) for name, parameter in self.scope.items()}
        for rows in tqdm(batches, desc="Fisher pass", unit="batch"):
            batch = problem.batch(problem.train, rows)
            loss = problem.loss(problem.logits(batch), batch)
            if not torch.isfinite(loss):
                raise InputError("child_tuning_d: the loss is not finite before training; check the backbone's weights")
            loss.backward()
            for name, parameter in self.scope.items():
                if parameter.grad is not None:
                    torch.nn.utils.clip_grad_norm_([parameter], 1.0)
                    fisher[name].addcmul_(parameter.grad, parameter.grad, value=1 / len(batches))
            problem.model.zero_grad(set_to_none=True)
        return fisher


class ChildTuningF(Method):
    """CHILD-TUNING_F (Xu et al. 2021): after clipping every entry of every gradient is kept with probability ``p``, divided by ``p``, else zeroed.

    AdamW's moments see the masked gradient. The draw is a dropout of the gradient: where the loop's fast dropout decides from 16 random
    bits, ``p`` is rounded to the nearest 1/65536. No state.

    InputError: ``p`` outside (0, 1].
    """

    def __init__(self, p: float):
        self.p = _share(p)

    def attach(self, model: torch.nn.Module, total_steps: int) -> None:
        self.parameters = list(model.parameters())

    def after_clipping(self, step: int, optimizer: torch.optim.Optimizer) -> None:
        for parameter in self.parameters:
            if parameter.grad is not None:
                functional.dropout(parameter.grad, 1 - self.p, training=True, inplace=True)


def _share(p: float) -> float:
    if not 0 < p <= 1:
        raise InputError(f"p, the share of entries trained, must lie in (0, 1], got {p:g}")
    return p
