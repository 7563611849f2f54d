"""R3F: predictions on noised word embeddings should not differ from those on clean ones."""

import math

import numpy as np
import torch
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from paperlib.dps.divergence import is_regression, symmetric_kl
from paperlib.errors import InputError
from paperlib.training import Method, Problem

NOISES = ("normal", "uniform")


class R3F(Method):
    """R3F (Aghajanyan et al. 2021): mean cross-entropy + lambda * mean over rows of KL(f || f~) + KL(f~ || f).

    f are the predictions, f~ those of a second forward pass where ``sigma`` N(0, 1) or U(-1, 1) (``noise``) is added to every coordinate
    of the word embeddings looked up, before positions, types and layer norm. Dropout is active in both passes and differs; the gradient
    flows through both, except that the noised pass does not reach the embedding table. ``strength``: lambda. Of a text-to-text
    model's rows the label tokens are summed; its decoder's input is not noised.

    InputError: values outside their range; regression, where the published criterion leaves lambda out and would be vanilla.
    """

    def __init__(self, noise: str, sigma: float, strength: float):
        if noise not in NOISES:
            raise InputError(f"unknown noise {noise!r}; known: {', '.join(NOISES)}")
        for name, value in (("sigma", sigma), ("strength", strength)):
            if not 0 <= value < math.inf:
                raise InputError(f"{name} must be a number from 0 up, got {value:g}")
        self.noise, self.sigma, self.strength = noise, sigma, strength

    def prepare(self, problem: Problem, batches: list[np.ndarray]) -> None:
        _refuse_regression(problem)

    def loss(self, problem: Problem, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        _refuse_regression(problem)
        clean = problem.logits(batch)
        with NoisedLookup(problem.model.get_input_embeddings().weight, batch["input_ids"], self._noised):
            noised = problem.logits(batch)
        divergence = symmetric_kl(clean, noised, batch["labels"]).mean()
        return problem.loss(clean, batch) + self.strength * divergence

    def _noised(self, embeddings: torch.Tensor) -> torch.Tensor:
        if self.noise == "normal":
            return embeddings + self.sigma * torch.randn_like(embeddings)
        return embeddings + torch.empty_like(embeddings).uniform_(-self.sigma, self.sigma)


class NoisedLookup(TorchFunctionMode):
    """Within this context ``change`` is applied to the rows of the word-embedding table looked up for ``ids``, cut from its gradient.

    Works on any model that looks its input up through ``torch.nn.functional.embedding``: other tables, and other ids in the same table such
    as a decoder's, pass unchanged. Leaving the context without a lookup is a RuntimeError, as noise that went nowhere would go unnoticed.
    """

    def __init__(self, table: torch.Tensor, ids: torch.Tensor, change):
        super().__init__()
        self.table, self.ids, self.change = table.data_ptr(), (ids.data_ptr(), ids.numel()), change
        self.lookups = 0

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function is not functional.embedding:
            return function(*args, **kwargs)
        return self._embedding(*args, **kwargs)

    def _embedding(self, ids, table, *args, **kwargs):
        if table.data_ptr() != self.table or (ids.data_ptr(), ids.numel()) != self.ids:
            return functional.embedding(ids, table, *args, **kwargs)
        self.lookups += 1
        return self.change(functional.embedding(ids, table.detach(), *args, **kwargs))

    def __exit__(self, kind, value, traceback):
        super().__exit__(kind, value, traceback)
        if kind is None and not self.lookups:
            raise RuntimeError("the model did not look its input up in its word-embedding table: nothing was noised")


def _refuse_regression(problem: Problem) -> None:
    if is_regression(problem):
        raise InputError(
            f"r3f has no penalty for regression ({problem.task.title}): the published criterion leaves lambda out there, "
            "which is vanilla; run vanilla, or r_dropout, which has one"
        )
