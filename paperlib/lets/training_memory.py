"""What a training step of LeTS holds in memory beside full fine-tuning and what LeTS is compared with: every byte counted (appendix A.2).

Bytes do not depend on what is trained to what end, so rows are random tokens and kept places any of their number.
"""

import copy
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import numpy as np
import torch

from paperlib import measure
from paperlib.backbones import Backbone
from paperlib.lets.adapters import Adapters
from paperlib.lets.architecture import Architecture, Own
from paperlib.lets.comparisons import FixedMask, pretrained
from paperlib.lets.diff_pruning import DiffPruning
from paperlib.lets.masked_tuning import MaskedTuning, WarmUp, owned
from paperlib.lets.offsets import Offset
from paperlib.lets.problem import TaskProblem
from paperlib.lets.search import Search
from paperlib.lets.search import Settings as SearchSettings
from paperlib.training import Loop, Method, Settings
from paperlib.training.random_rows import RandomRows

FULL = "full fine-tuning"
STEPS = 1000  # planned, so that no schedule ends; two are done
RATE = 2e-5
FLOAT, BYTE = 4, 1


class Training(NamedTuple):
    """A ``step`` on the training rows of given numbers, and the tensors that have gradients and AdamW's two moments in it."""

    step: Callable[[np.ndarray], None]
    trained: list[torch.Tensor]


@dataclass(frozen=True)
class Setting:
    """Copies of ``backbone`` on ``batch_size`` random rows of ``length`` tokens each.

    ``k``: kept share of the offsets that a sub-task owns, and of all weights under a fixed mask. ``precision``: of all but the search, which is in
    float32 always.
    """

    backbone: Backbone
    batch_size: int
    length: int
    k: float = 0.005
    precision: str = "fp32"
    seed: int = 0

    def makers(self) -> dict[str, Callable[[], Training]]:
        """Full fine-tuning first, then LeTS from its search to three sub-tasks, then the others; nothing is made yet."""
        layers = self.backbone.model.config.num_hidden_layers
        half = layers // 2
        return {
            FULL: partial(self.plain, Method),
            "LeTS: search": self.search,
            "LeTS: warm-up of Delta-pruning, dense": self.warm_up,
            "LeTS: masked, all own": partial(self.masked, Architecture.all_own(layers)),
            f"LeTS: masked, bottom {half} of {layers} shared": partial(
                self.masked, Architecture.freeze_bottom(layers, half)
            ),
            "LeTS: masked, attention on the shared input": partial(
                self.masked, Architecture((Own(False, True, False),) * layers)
            ),
            "DiffPruning: finding the mask": partial(self.plain, DiffPruning),
            "DiffPruning: fixed mask": self.fixed_mask,
            "adapters": partial(self.plain, Adapters),
        }

    def plain(self, method: Callable[[], Method]) -> Training:
        """The whole model under a method of the loop."""
        return self._looped(self._rows(), method())

    def fixed_mask(self) -> Training:
        """The second phase of DiffPruning, and of the non-adaptive difference."""
        rows = self._rows()
        return self._looped(rows, FixedMask(self._kept(pretrained(rows.model))))

    def masked(self, architecture: Architecture) -> Training:
        """Masked fine-tuning of a sub-task: kept offsets, biases, norms and readout."""
        problem = TaskProblem(self._rows(), architecture, seed=self.seed)
        weights = {name: own.offset.weight for name, own in owned(problem.model).items()}
        return self._looped(problem, MaskedTuning(self._kept(weights), RATE))

    def warm_up(self) -> Training:
        """Dense offsets of all maps, before Delta-pruning; its batches are always of all rows."""
        problem = TaskProblem.whole(self._rows(), seed=self.seed)
        walk = WarmUp(STEPS, self.batch_size, RATE, seed=self.seed, precision=self.precision).walk(problem)
        return Training(lambda rows: next(walk), [*problem.model.parameters()])

    def search(self) -> Training:
        """A step of the logits, of the second order, and one of the weights of the super-network."""
        problem = TaskProblem.whole(self._rows(), seed=self.seed)
        found = Search(problem, SearchSettings(STEPS, self.batch_size, self.seed, length=self.length))
        return Training(lambda rows: found.step(rows, rows), [*found.weights, found.alpha])

    def _looped(self, problem, method: Method) -> Training:
        settings = Settings(
            epochs=0,
            steps=STEPS,
            batch_size=self.batch_size,
            learning_rate=RATE,
            seed=self.seed,
            weight_decay=0.0,
            precision=self.precision,
        )
        loop = Loop(problem, method, settings)
        apart = [*method.alphas.values()] if isinstance(method, DiffPruning) else []
        trained = [parameter for parameter in loop.model.parameters() if parameter.requires_grad]
        return Training(lambda rows: loop.step([rows]), trained + apart)

    def _rows(self) -> RandomRows:
        # Sub-tasks freeze the backbone they stand on in place, and this one may carry some elsewhere.
        copied = replace(self.backbone, model=copy.deepcopy(self.backbone.model).requires_grad_())
        return RandomRows.draw(copied, self.batch_size, self.length, self.seed)

    def _kept(self, weights: dict[str, torch.Tensor]) -> dict[str, Offset]:
        return {name: spread(weight, self.k) for name, weight in weights.items()}


def spread(weight: torch.Tensor, k: float) -> Offset:
    """An offset of zeros at the share ``k``, one at least, of the places of ``weight``, evenly spread."""
    kept = max(round(k * weight.numel()), 1)
    places = torch.arange(kept, device=weight.device) * weight.numel() // kept
    return Offset(weight.new_zeros(kept), places.int(), weight.shape)


@dataclass(frozen=True)
class Footprint:
    """Exact bytes of a training step.

    ``peak``: the most alive at once. ``kept``: alive between steps, the weights whether trained or not, AdamW's moments and whatever the method
    keeps. ``trained``: of the trained tensors, and so of their gradients.
    """

    peak: int
    kept: int
    trained: int

    @property
    def moments(self) -> int:
        """Two of every trained tensor's size."""
        return 2 * self.trained

    @property
    def untrained(self) -> int:
        """What is kept and has no gradient: frozen weights, places, masks."""
        return self.kept - self.moments - self.trained

    @property
    def passing(self) -> int:
        """What the peak holds that does not outlive the step: activations, gradients as far as there are any by then, copies."""
        return self.peak - self.kept


def footprints(setting: Setting) -> dict[str, Footprint]:
    """Of every training :meth:`Setting.makers` names: its second step, the first having made the moments on a single row.

    On a CPU dropout draws its masks outside torch's allocator: they are not counted there.
    """
    makers = setting.makers()
    # Workspaces of the device's libraries are allocated once per process: not within what is counted.
    makers[FULL]().step(np.arange(1))
    return {name: _footprint(make, setting.batch_size) for name, make in makers.items()}


def _footprint(make: Callable[[], Training], rows: int) -> Footprint:
    with measure.Allocations() as allocations:
        training = make()
        allocations.mark("made")
        training.step(np.arange(1))
        allocations.mark("first step")
        training.step(np.arange(rows))
        allocations.mark("step")
    return Footprint(allocations.peak["step"], allocations.held["step"], _bytes(training.trained))


def _bytes(tensors: Iterable[torch.Tensor]) -> int:
    return sum(tensor.nbytes for tensor in tensors)


def bytes_per_weight(k: float) -> dict[str, dict[str, float]]:
    """Model states in float32 with Adam, in bytes per weight that could be trained, by part: derived, printed nowhere.

    ``frozen``: W^p; ``trained`` values, their ``gradients`` and two ``moments``; ``mask``: a byte each, or of
    the kept share ``k`` the places, int32, and the values they started at.
    """
    dense = {"frozen": FLOAT, **_adam(1)}
    return {
        FULL: _parts(_adam(1)),
        "dense offsets (warm-up and search here)": _parts(dense),
        "dense offsets and a byte mask (naive)": _parts(dense, mask=BYTE),
        "kept offsets alone (masked tuning here)": _parts({"frozen": FLOAT, **_adam(k)}, mask=2 * FLOAT * k),
        "DiffPruning: w and alpha": _parts({"frozen": FLOAT, **_adam(2)}),
        "DiffPruning: fixed mask (here)": _parts(dense, mask=2 * FLOAT * k),
    }


def _adam(share: float) -> dict[str, float]:
    return {"trained": FLOAT * share, "gradients": FLOAT * share, "moments": 2 * FLOAT * share}


def _parts(states: dict[str, float], mask: float = 0.0) -> dict[str, float]:
    return dict.fromkeys(("frozen", "trained", "gradients", "moments"), 0.0) | states | {"mask": mask}
