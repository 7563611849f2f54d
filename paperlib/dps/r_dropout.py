"""R-Drop: two dropout masks should not change the prediction."""

import math
from typing import Literal, get_args

import torch
from torch.nn import functional

from paperlib.dps.divergence import is_regression, symmetric_kl
from paperlib.errors import InputError
from paperlib.training import Method, Problem

Reduction = Literal["batch_sum", "batch_mean"]


class RDropout(Method):
    """R-Drop (Wu et al. 2021): CE1 + CE2 + alpha * 1/2 [KL(p1 || p2) + KL(p2 || p1)] of two passes that differ by their dropout.

    Both passes are one of the batch concatenated with itself, so that noise on weights, such as DPS Mix's, is the same in both. Cross-entropies
    are means over the batch; the divergence is summed over the rows of a micro-batch (``kl_reduction`` "batch_sum", the published code for
    BERT, where alpha weighs more the larger the batch) or averaged ("batch_mean"). Of a text-to-text model's rows the label tokens are
    summed. ``strength``: alpha. Regression as in the published code: MSE1 + MSE2 + mean (l1 - l2)^2, without alpha.

    InputError: values outside their range.
    """

    def __init__(self, strength: float, kl_reduction: Reduction):
        if not 0 <= strength < math.inf:
            raise InputError(f"strength must be a number from 0 up, got {strength:g}")
        if kl_reduction not in get_args(Reduction):
            raise InputError(f"unknown kl_reduction {kl_reduction!r}; known: {', '.join(get_args(Reduction))}")
        self.strength, self.kl_reduction = strength, kl_reduction

    def loss(self, problem: Problem, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        twice = {name: torch.cat([tensor, tensor]) for name, tensor in batch.items()}
        first, second = problem.logits(twice).chunk(2)
        fit = problem.loss(first, batch) + problem.loss(second, batch)
        if is_regression(problem):
            return fit + functional.mse_loss(first, second)
        divergence = symmetric_kl(first, second, batch["labels"]) / 2
        return fit + self.strength * (divergence.sum() if self.kl_reduction == "batch_sum" else divergence.mean())
