"""Relaxed architectures whose loss is a function of weights that may be handed in: what derivatives through steps of the weights need.

A :class:`Toy` of two selectors, and a :class:`SuperNetwork` as the search trains it. Every draw has a number: the same numbers, the same loss.
"""

import numpy as np
import torch
from torch import nn
from torch.func import functional_call
from torch.nn import functional

from paperlib.lets import gumbel
from paperlib.lets.objective import OWN, SHARE, Cost, Objective
from paperlib.lets.problem import TaskProblem
from paperlib.lets.search import Search, Settings
from paperlib.training import Problem


class Relaxed:
    """L(W, alpha): ``alpha`` (..., 2), the list ``weights``, ``loss``, and a ``batch`` by its key, in the weights' precision.

    ``temperature``: of eq. (14); ``cost``: E_ops; ``objective``: of E_ops and of the task's loss, which a subclass computes (``_task_loss``), or
    None for that loss alone.
    """

    alpha: torch.Tensor
    weights: list[torch.Tensor]
    temperature: float
    cost: Cost
    objective: Objective | None

    def loss(self, batch, weights: list[torch.Tensor] | None = None, noise: int = 0, masks: int | None = None):
        """A scalar, at ``weights`` in place of the model's own where given.

        ``noise``: number of the Gumbel draw; ``masks``: of the dropout masks, None for no dropout. Torch's generators stay as they are.
        """
        p = gumbel.probabilities(self.alpha, self._gumbel(noise), self.temperature)
        with torch.random.fork_rng([weight.device.index for weight in self.weights[:1] if weight.is_cuda]):
            torch.manual_seed(masks or 0)
            task_loss = self._task_loss(batch, self.weights if weights is None else weights, p, masks is not None)
        return self.objective(task_loss, self.cost.expected(p)) if self.objective else task_loss

    def take(self, other: "Relaxed") -> None:
        """The weights and logits of ``other``, in this one's precision."""
        with torch.no_grad():
            for ours, theirs in zip([self.alpha, *self.weights], [other.alpha, *other.weights], strict=True):
                ours.copy_(theirs)

    def learn(self, batches, rate: float) -> list[float]:
        """Adam's steps of the weights at ``rate`` on ``batches``, with new noise in each; the losses."""
        optimizer, losses = torch.optim.Adam(self.weights, lr=rate), []
        for step, batch in enumerate(batches):
            loss = self.loss(batch, noise=step)
            loss.backward(inputs=self.weights)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            losses.append(loss.item())
        return losses

    def _gumbel(self, number: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(number)
        return gumbel.gumbel(torch.rand(self.alpha.shape, dtype=torch.float64, generator=generator)).to(self.alpha)

    def _task_loss(self, batch, weights, p, dropping: bool) -> torch.Tensor:
        raise NotImplementedError


class Toy(Relaxed):
    """Two selectors, the first between a frozen and an own map, the second between skipping and a layer; one weight is unused.

    ``form``: of the objective, "CE" for none. Its size makes first and second term of eq. (16) comparable at ``XI``.
    """

    XI = 0.3
    temperature = 1.5
    cost = Cost({((0, OWN),): 8e9, ((0, OWN), (1, OWN)): 20e9, ((0, SHARE), (1, OWN)): 3e9}, 2)

    def __init__(self, form: str = "CE", dtype: torch.dtype = torch.float64):
        generator = torch.Generator().manual_seed(0)

        def normal(*shape):
            return torch.randn(*shape, dtype=torch.float64, generator=generator).to(dtype)

        self.objective, self.frozen = None if form == "CE" else Objective(form), normal(6, 5)
        self.weights = [normal(*shape).requires_grad_() for shape in ((6, 5), (5, 5), (5, 3))]
        self.weights.append(torch.ones(2, dtype=dtype, requires_grad=True))
        self.alpha = normal(2, 2).requires_grad_()

    def batch(self, seed: int, rows: int = 8) -> tuple[torch.Tensor, torch.Tensor]:
        """Random inputs and labels."""
        generator = torch.Generator().manual_seed(seed)
        x = torch.randn(rows, 6, dtype=torch.float64, generator=generator).to(self.weights[0].dtype)
        return x, torch.randint(0, 3, (rows,), generator=generator)

    def _task_loss(self, batch, weights, p, dropping):
        own, layer, head, _ = weights
        x, labels = batch
        first, second = p.to(x.dtype)
        h = torch.tanh(first[SHARE] * (x @ self.frozen) + first[OWN] * (x @ own))
        h = functional.dropout(second[SHARE] * h + second[OWN] * torch.tanh(h @ layer), 0.1, dropping)
        return functional.cross_entropy(h @ head, labels)


class SuperNetwork(Relaxed):
    """The super-network of a search: its task, logits, temperature, expected operations and objective (``operations`` False: the task's loss alone).

    Dropout is torch's own, which can be differentiated twice. Both have the same weights and logits.
    """

    @classmethod
    def of(cls, problem: Problem, dtype: torch.dtype, operations: bool = True) -> "SuperNetwork":
        """On ``problem``, whose backbone becomes one of ``dtype``, with the search's defaults."""
        problem.backbone.model.to(dtype)
        return cls(Search(TaskProblem.whole(problem), Settings(epochs=1)), operations)

    def __init__(self, search: Search, operations: bool = True):
        self.problem, self.parts, self.network = search.problem, search.parts, _Callable(search.problem)
        self.alpha, self.weights, self.temperature = search.alpha, search.weights, search.temperature
        self.cost, self.objective = search.cost, search.objective if operations else None
        self._names = [name for name, _ in self.network.named_parameters()]

    def batch(self, numbers: np.ndarray) -> tuple[dict[str, torch.Tensor], object]:
        """Training rows by number, with their frozen pass."""
        batch = self.problem.batch(self.problem.train, numbers)
        return batch, self.problem.shared(batch)

    def _task_loss(self, batch, weights, p, dropping):
        self.network.train(dropping)
        own = p[..., OWN].to(weights[0].dtype)
        # cuDNN's LSTM cannot be differentiated twice.
        with torch.backends.cudnn.flags(enabled=False):
            logits = functional_call(self.network, dict(zip(self._names, weights, strict=True)), (*batch, own))
        return self.problem.loss(logits, batch[0])


class _Callable(nn.Module):
    """The scores of a sub-task's problem as a module."""

    def __init__(self, problem):
        super().__init__()
        self.task, self._logits = problem.model, problem.logits

    def forward(self, batch, shared, own):
        return self._logits(batch, shared, own)
