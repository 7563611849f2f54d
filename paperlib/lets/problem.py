"""A task's problem as a sub-task of the reconstructed architecture: the loop trains the sub-task, and the frozen pass lies under it."""

from functools import cached_property

import numpy as np
import torch

from paperlib import measure
from paperlib.lets.architecture import Architecture, Task
from paperlib.lets.frozen_pass import FrozenEncoder, FrozenPass
from paperlib.lets.readout import ReadoutSizes
from paperlib.tasks.encoding import Encoded
from paperlib.training import Problem


class TaskProblem(Problem):
    """Rows, loss and scores of ``problem``, scored by a :class:`Task` of ``architecture`` on top of the problem's own backbone, which is frozen.

    ``seed`` draws the readout. Any number of these may share ``problem``, and so one frozen encoder: they differ in what :attr:`model` is.
    InputError: a backbone that is not of the BERT type; once the model is asked for, an architecture for another number of layers.
    """

    def __init__(self, problem: Problem, architecture: Architecture, sizes: ReadoutSizes | None = None, seed: int = 0):
        super().__init__(problem.task, problem.backbone, problem.train, problem.validation, problem.test)
        self.plain, self.architecture, self.sizes, self.seed = problem, architecture, sizes, seed
        self.frozen = FrozenEncoder(problem.backbone.model.to(measure.device()))

    @classmethod
    def whole(cls, problem: Problem, sizes: ReadoutSizes | None = None, seed: int = 0) -> "TaskProblem":
        """The super-network, which owns everything; trained as it is, full fine-tuning under the readout."""
        return cls(problem, Architecture.all_own(problem.backbone.model.config.num_hidden_layers), sizes, seed)

    def fresh(self, architecture: Architecture | None = None, seed: int | None = None) -> "TaskProblem":
        """The same rows and frozen encoder under a sub-task that nothing has trained; of another architecture or seed where given."""
        seed = self.seed if seed is None else seed
        return TaskProblem(self.plain, architecture or self.architecture, self.sizes, seed)

    @property
    def layers(self) -> int:
        """L."""
        return len(self.frozen.layers)

    @cached_property
    def model(self) -> Task:
        """The sub-task: everything that is trained, and nothing frozen. Drawn when first asked for, so that until then it takes no memory."""
        devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
        with torch.random.fork_rng(devices):
            torch.manual_seed(self.seed)
            drawn = Task(self.frozen, self.architecture, self.task.outputs, self.sizes)
        return drawn.to(next(self.frozen.parameters()).device)

    def batch(self, rows: Encoded, indices: np.ndarray) -> dict[str, torch.Tensor]:
        """As ``problem`` makes batches."""
        return self.plain.batch(rows, indices)

    def shared(self, batch: dict[str, torch.Tensor]) -> FrozenPass:
        """The frozen pass of a batch, for any number of calls of :meth:`logits`."""
        return self.frozen(**{name: tensor for name, tensor in batch.items() if name != "labels"})

    def logits(
        self,
        batch: dict[str, torch.Tensor],
        shared: FrozenPass | None = None,
        own: Architecture | torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Scores as of a plain problem, in fp32 at least.

        ``shared``: the batch's frozen pass where it is known; ``own``: selectors, as :meth:`Task.hidden_states` takes them.
        """
        scores = self.model(shared or self.shared(batch), own)
        return scores.to(torch.promote_types(scores.dtype, torch.float32)).view(len(batch["labels"]), -1)
