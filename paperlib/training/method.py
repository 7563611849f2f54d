"""The contract between the training loop and a method: named moments of an optimizer step."""

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from paperlib.training.problem import Problem


class Method:
    """Vanilla fine-tuning: every moment passes without effect. Other methods override what they need.

    Moments, in order: ``attach`` and ``prepare`` once; then for every optimizer step t = 1..T the micro-batches' ``loss`` inside
    ``forward_weights``, ``after_backward``, [clipping], ``after_clipping``, [optimizer], ``after_step``. State is keyed by parameter
    name and returned by ``state_dict`` so that a resumed run goes on exactly.
    """

    def attach(self, model: torch.nn.Module, total_steps: int) -> None:
        """See the model (parameters by name) and T, before the optimizer exists."""

    def prepare(self, problem: "Problem") -> None:
        """Work before the first step on a fresh run: a Fisher pass, a re-initialisation. Not called on resume."""

    def loss(self, problem: "Problem", batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """Loss of one micro-batch, a scalar."""
        return problem.loss(problem.logits(batch), batch)

    def forward_weights(self, step: int) -> AbstractContextManager:
        """Weights the forward passes of step ``step`` see."""
        return nullcontext()

    def after_backward(self, step: int) -> None:
        """Gradients are accumulated and unscaled, not clipped."""

    def after_clipping(self, step: int, optimizer: torch.optim.Optimizer) -> None:
        """Last moment before weights and moments change: gradients are as the optimizer will read them."""

    def after_step(self, step: int, optimizer: torch.optim.Optimizer) -> None:
        """Weights and moments have changed."""

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Everything the method must remember, by name."""
        return {}

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        """Take back what ``state_dict`` returned."""
