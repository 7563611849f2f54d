"""The contract between the training loop and a method: named moments of an optimizer step."""

from contextlib import AbstractContextManager, ExitStack, nullcontext
from typing import TYPE_CHECKING

import numpy as np
import torch

from paperlib.errors import InputError
from paperlib.training.update import Extra

if TYPE_CHECKING:
    from paperlib.training.problem import Problem


class Method:
    """Vanilla fine-tuning: every moment passes without effect. Other methods override what they need.

    Moments, in order: ``attach`` and ``prepare`` once; then for every optimizer step t = 1..T the micro-batches' ``loss`` inside
    ``forward_weights``, ``after_backward``, ``extra``, [clipping], ``after_clipping``, [optimizer], ``after_step``. What a step adds to AdamW is
    declared in ``extra`` and done by the optimizer, in the pass that moves the weights where it has one; hooks are for the rest. State is keyed by
    parameter name and returned by ``state_dict`` so that a resumed run goes on exactly; random draws come from torch's global generator, which
    the loop seeds before ``attach`` and keeps in its checkpoints. Within ``prepare`` and ``after_clipping`` dropout on a CPU is the fast one.
    """

    def attach(self, model: torch.nn.Module, total_steps: int) -> None:
        """See the model (parameters by name) and T, before the optimizer exists; called on resume too, with the same weights and draws."""

    def prepare(self, problem: "Problem", batches: list[np.ndarray]) -> None:
        """Work before the first step of a fresh run, such as a Fisher pass; not called on resume.

        ``batches``: row numbers of one shuffled epoch, in an order of its own.
        """

    def loss(self, problem: "Problem", batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """Loss of one micro-batch, a scalar."""
        return problem.loss(problem.logits(batch), batch)

    def forward_weights(self, step: int) -> AbstractContextManager:
        """Weights the forward passes of step ``step`` see."""
        return nullcontext()

    def after_backward(self, step: int) -> bool:
        """Gradients are accumulated, unscaled and finite, not clipped; whether the method has changed them."""
        return False

    def extra(self, step: int) -> Extra | None:
        """What this step does beside AdamW; the same object for as long as its tensors are the same. Asked once, where the step is not skipped."""
        return None

    def after_clipping(self, step: int, optimizer: torch.optim.Optimizer) -> None:
        """Last moment before weights and moments change: gradients are clipped; where one pass does it, the mask of ``extra`` comes after."""

    @property
    def needs_clipped(self) -> bool:
        """Whether ``after_clipping`` does anything; where it does not, gradients may be clipped as they are read."""
        return getattr(self.after_clipping, "__func__", None) is not Method.after_clipping

    def after_step(self, step: int, optimizer: torch.optim.Optimizer) -> None:
        """Weights and moments have changed."""

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Everything the method must remember, by name."""
        return {}

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        """Take back what ``state_dict`` returned."""


class Together(Method):
    """Several methods as one: each moment passes through all of them in order; the loss is the first one's that has its own.

    State names must not collide; every method prefixes its own. InputError in the first step if two of them add to what the optimizer does.
    """

    def __init__(self, *methods: Method):
        self.methods = methods
        self._objective = next((each for each in methods if type(each).loss is not Method.loss), methods[0])

    def attach(self, model: torch.nn.Module, total_steps: int) -> None:
        for each in self.methods:
            each.attach(model, total_steps)

    def prepare(self, problem: "Problem", batches: list[np.ndarray]) -> None:
        for each in self.methods:
            each.prepare(problem, batches)

    def loss(self, problem: "Problem", batch: dict[str, torch.Tensor]) -> torch.Tensor:
        return self._objective.loss(problem, batch)

    def forward_weights(self, step: int) -> AbstractContextManager:
        contexts = ExitStack()
        for each in self.methods:
            contexts.enter_context(each.forward_weights(step))
        return contexts

    def after_backward(self, step: int) -> bool:
        return any([each.after_backward(step) for each in self.methods])

    def extra(self, step: int) -> Extra | None:
        found = [extra for each in self.methods if (extra := each.extra(step)) is not None]
        if len(found) > 1:
            names = ", ".join(type(each).__name__ for each in self.methods)
            raise InputError(f"of {names} more than one masks gradients or sums their squares; keep one of them")
        return found[0] if found else None

    @property
    def needs_clipped(self) -> bool:
        return any(each.needs_clipped for each in self.methods)

    def after_clipping(self, step: int, optimizer: torch.optim.Optimizer) -> None:
        for each in self.methods:
            each.after_clipping(step, optimizer)

    def after_step(self, step: int, optimizer: torch.optim.Optimizer) -> None:
        for each in self.methods:
            each.after_step(step, optimizer)

    def state_dict(self) -> dict[str, torch.Tensor]:
        return {name: tensor for each in self.methods for name, tensor in each.state_dict().items()}

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        for each in self.methods:
            each.load_state_dict(state)
