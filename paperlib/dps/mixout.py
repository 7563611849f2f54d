"""Mixout (Lee, Cho and Kang 2020): weights return to their pre-trained values at random, column by column."""

from collections import Counter
from contextlib import AbstractContextManager

import torch

from paperlib.dps.mixing import Draws, Mix, MixedWeights
from paperlib.dps.scope import tracked
from paperlib.errors import InputError
from paperlib.kernels.mixing import Gate
from paperlib.training.method import Method
from paperlib.training.update import in_one_pass


class Mixout(Method):
    """Every forward pass draws xi ~ Bernoulli(1 - p) per input column of each Linear weight W and computes with u + xi (W - u) / (1 - p).

    u is W's value before training, so the expectation of the weight seen is W; evaluation sees W. ``p``: mixing probability in [0, 1).
    ``true_gradient``: the gradient of W is g xi / (1 - p), by the chain rule; the published code leaves the factor out. Keeps u alone: 4 bytes
    per weight. ``reference_dtypes``: the mask as a full fp32 matrix from forward to backward, as published (4 bytes more).
    Where one pass moves the weights, xi is a numbered draw, of which nothing is kept.
    """

    def __init__(self, p: float, true_gradient: bool, reference_dtypes: bool = False):
        if not 0 <= p < 1:
            raise InputError(f"mixout's p must lie in [0, 1), got {p:g}; at 1 nothing is trained")
        self.p, self.true_gradient, self.reference_dtypes = p, true_gradient, reference_dtypes

    def attach(self, model: torch.nn.Module, total_steps: int) -> None:
        self.weights = tracked(model)
        self.start = {name: weight.detach().clone() for name, weight in self.weights.items()}
        self._names = {weight: name for name, weight in self.weights.items()}
        numbered = in_one_pass(self.weights.values()) and not self.reference_dtypes
        self._draws = Draws(self.weights, self.p) if numbered else None
        self._step, self._turns = 0, Counter()

    def forward_weights(self, step: int) -> AbstractContextManager:
        if step != self._step:
            self._step, self._turns = step, Counter()
        return MixedWeights(self._names, self._mix)

    def _mix(self, name: str) -> Mix:
        factor = 1 / (1 - self.p)
        return Mix(self.start[name], self._gate(name), factor, factor if self.true_gradient else 1.0)

    def _gate(self, name: str) -> Gate:
        """xi, a new one each time."""
        if self._draws:
            turn = self._turns[name]
            self._turns[name] += 1
            return self._draws.of(name, self._step, turn)
        weight = self.weights[name]
        xi = torch.rand(weight.shape[1], device=weight.device) >= self.p
        return xi.to(weight.dtype).expand_as(weight).contiguous() if self.reference_dtypes else xi
