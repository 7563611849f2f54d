"""Mixout (Lee, Cho and Kang 2020): weights return to their pre-trained values at random, column by column."""

from contextlib import AbstractContextManager

import torch

from paperlib.dps.mixing import Mix, MixedWeights
from paperlib.dps.scope import tracked
from paperlib.errors import InputError
from paperlib.training.method import Method


class Mixout(Method):
    """Every forward pass draws xi ~ Bernoulli(1 - p) per input column of each Linear weight W and computes with u + xi (W - u) / (1 - p).

    u is W's value before training, so the expectation of the weight seen is W; evaluation sees W. ``p``: mixing probability in [0, 1).
    ``true_gradient``: the gradient of W is g xi / (1 - p), by the chain rule; the published code leaves the factor out. Keeps u alone: 4 bytes
    per weight. ``reference_dtypes``: the mask as a full fp32 matrix from forward to backward, as published (4 bytes more).
    """

    def __init__(self, p: float, true_gradient: bool, reference_dtypes: bool = False):
        if not 0 <= p < 1:
            raise InputError(f"mixout's p must lie in [0, 1), got {p:g}; at 1 nothing is trained")
        self.p, self.true_gradient, self.reference_dtypes = p, true_gradient, reference_dtypes

    def attach(self, model: torch.nn.Module, total_steps: int) -> None:
        self.weights = tracked(model)
        self.start = {name: weight.detach().clone() for name, weight in self.weights.items()}
        self._names = {weight: name for name, weight in self.weights.items()}

    def forward_weights(self, step: int) -> AbstractContextManager:
        return MixedWeights(self._names, self._mix)

    def _mix(self, name: str) -> Mix:
        weight, factor = self.weights[name], 1 / (1 - self.p)
        xi = torch.rand(weight.shape[1], device=weight.device) >= self.p
        if self.reference_dtypes:
            xi = xi.to(weight.dtype).expand_as(weight).contiguous()
        return Mix(self.start[name], xi, factor, factor if self.true_gradient else 1.0)
