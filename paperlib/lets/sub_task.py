"""A sub-task of LeTS from its architecture to the one look at its test rows, and what any trained sub-task keeps beside the frozen backbone."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from paperlib.lets.architecture import Architecture
from paperlib.lets.masked_tuning import MaskedTuning, WarmUp, delta_pruned, owned
from paperlib.lets.offsets import Offset
from paperlib.lets.problem import TaskProblem
from paperlib.lets.readout import ReadoutSizes
from paperlib.training import Loop, Outcome, Problem, Settings

MAPS = ("query", "key", "value")


@dataclass(frozen=True)
class Trained:
    """``outcome`` of ``problem``, and what the sub-task is made of.

    ``architecture``: as a point of the reconstructed space; None where it is none. ``kept``: for every layer the share of offsets kept in q, k
    and v, 1 where they are dense. ``sizes``: scalars by part (:meth:`Task.sizes`), and the ``bytes`` of all of them with the places of the
    kept ones. ``mask_seconds``: spent on finding the mask, 0 where there is none.
    """

    problem: Problem
    outcome: Outcome
    architecture: Architecture | None
    kept: list[float]
    sizes: dict[str, int]
    mask_seconds: float = 0.0


@dataclass(frozen=True)
class SubTask:
    """Delta-pruning and masked fine-tuning of one ``architecture``.

    ``k``: kept share of its offsets; 1 trains them all, without a mask. ``bias_learning_rate``, ``start``: as in
    :class:`MaskedTuning`; ``warm_up``, ``per_matrix``: as in :func:`delta_pruned`; ``sizes``: of the readout.
    """

    architecture: Architecture
    k: float
    warm_up: WarmUp
    bias_learning_rate: float
    sizes: ReadoutSizes
    start: str = "zero"
    per_matrix: bool = False

    def train(self, problem: Problem, settings: Settings, folder: Path | None = None) -> Trained:
        """A sub-task on ``problem``, whose backbone is left as it is. ``folder``: for the mask, once it is found, and checkpoints."""
        problem = TaskProblem(problem, self.architecture, self.sizes, settings.seed)
        started = time.perf_counter()
        offsets = None
        if self.k < 1:
            offsets = delta_pruned(problem, self.k, self.warm_up, self.per_matrix, folder)
        seconds = time.perf_counter() - started
        method = MaskedTuning(offsets, self.bias_learning_rate, self.start)
        outcome = Loop(problem, method, settings, folder).run()
        sizes = stored(problem.model.sizes(), method.found())
        return Trained(problem, outcome, self.architecture, _kept(problem.model, method.found()), sizes, seconds)


def stored(scalars: Mapping[str, int], offsets: Mapping[str, Offset]) -> dict[str, int]:
    """``scalars`` by part, with their ``bytes``: 4 for each, and what the places of kept ``offsets`` take."""
    places = sum(offset.indices.nbytes for offset in offsets.values())
    return {**scalars, "bytes": 4 * sum(scalars.values()) + places}


def _kept(network: nn.Module, offsets: Mapping[str, Offset]) -> list[float]:
    maps = owned(network)
    shares = []
    for j in range(len(network.layers)):
        names = [name for each in MAPS if (name := f"layers.{j}.attention.{each}") in maps]
        parts = [len(offsets[name].values) / offsets[name].shape.numel() if name in offsets else 1.0 for name in names]
        shares.append(sum(parts) / len(parts) if parts else 0.0)
    return shares
