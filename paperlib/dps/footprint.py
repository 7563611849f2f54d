"""What the fine-tuning methods really allocate: a few optimizer steps of each, every byte counted (DPS, appendix F)."""

import copy
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
import torch

from paperlib import measure
from paperlib.backbones import Backbone
from paperlib.dps import memory, methods
from paperlib.dps.methods import Choice
from paperlib.training import Loop, Settings
from paperlib.training.random_rows import RandomRows

STAGE_STEPS = 2
STEPS = 3
"""Step 1 makes the moments, on a single row; step 2 is one of stage I with everything in place, step 3 the selection step that opens stage II."""


def choices() -> list[Choice]:
    """Every column of Table 3 as we keep it, and as published where that is wider; R3F and R-Drop keep nothing."""
    wide = [method for method in memory.METHODS if memory.AS_CODED[method] != memory.LEAN[method]]
    return [Choice(method) for method in memory.METHODS] + [Choice(method, reference_dtypes=True) for method in wide]


@dataclass(frozen=True)
class Setting:
    """Batches of ``batch_size`` random rows of ``length`` tokens each; ``precision`` and ``seed`` as in a training run."""

    batch_size: int
    length: int
    precision: str
    seed: int

    def loop(self, backbone: Backbone, choice: Choice, steps: int, stage_steps: int, in_turn: bool = False) -> Loop:
        """A loop of ``steps`` optimizer steps over a copy of the backbone, in stages of ``stage_steps``; its training rows are one batch.

        ``in_turn``: torch's operators move the weights also where one pass could.
        """
        copied = replace(backbone, model=copy.deepcopy(backbone.model))
        problem = RandomRows.draw(copied, self.batch_size, self.length, self.seed)
        settings = Settings(
            epochs=0,
            steps=steps,
            batch_size=self.batch_size,
            learning_rate=2e-5,
            seed=self.seed,
            precision=self.precision,
            in_turn=in_turn,
        )
        method = methods.build(replace(choice, update_ratio=ratio_of(stage_steps, steps)))
        return Loop(problem, method, settings)


def ratio_of(stage_steps: int, steps: int) -> float:
    """An update ratio that gives stages of ``stage_steps`` in ``steps`` steps, safe from rounding."""
    return min((stage_steps + 0.5) / steps, 1.0)


@dataclass(frozen=True)
class Footprint:
    """Exact bytes of one method's training.

    ``stage_one``, ``selection``: the most alive at once in a step of stage I and in the selection step; ``before``: ahead of the first step.
    ``parameters``, ``gradients`` and ``moments`` are vanilla's own; ``state`` is what the method's state holds after a step, at its highest.
    """

    method: str
    reference_dtypes: bool
    stage_one: int
    selection: int
    before: int
    parameters: int
    gradients: int
    moments: int
    state: int


def footprint(backbone: Backbone, choice: Choice, setting: Setting) -> Footprint:
    """Train three steps of a fresh copy of the model with every allocation counted, the copy included."""
    _warm_up()
    whole, state = np.arange(setting.batch_size), []
    with measure.Allocations() as allocations:
        loop = setting.loop(backbone, choice, STEPS, STAGE_STEPS)
        allocations.mark("before")
        for name, rows in zip(("first", "stage I", "selection"), (whole[:1], whole, whole), strict=True):
            loop.step([rows])
            state.append(_bytes(loop.method.state_dict().values()))
            allocations.mark(name)
    parameters = list(loop.model.parameters())
    return Footprint(
        method=choice.method,
        reference_dtypes=choice.reference_dtypes,
        stage_one=allocations.peak["stage I"],
        selection=allocations.peak["selection"],
        before=allocations.peak["before"],
        parameters=_bytes(parameters),
        gradients=_bytes(p for p in parameters if p.requires_grad),
        moments=_bytes(m for each in loop.optimizer.state.values() for m in each.values() if m.ndim),
        state=max(state),
    )


def _bytes(tensors: Iterable[torch.Tensor]) -> int:
    """Bytes of the storages behind the tensors, each counted once."""
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}
    return sum(storages.values())


def _warm_up() -> None:
    """Workspaces of the device's libraries are allocated once per process: not within what is counted."""
    for dtype in (torch.float32, torch.bfloat16):
        weight = torch.ones(64, 64, dtype=dtype, device=measure.device(), requires_grad=True)
        (weight @ weight).sum().backward()
