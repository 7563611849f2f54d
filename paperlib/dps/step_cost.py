"""Seconds and bytes of an optimizer step under each method, side by side in one process, and of choosing a subnetwork."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from tqdm import tqdm

from paperlib import measure
from paperlib.backbones import Backbone
from paperlib.dps.footprint import Setting
from paperlib.dps.methods import Choice
from paperlib.kernels.selection import largest
from paperlib.training import Loop

METHODS = ("vanilla", "mixout", "child_tuning_d", "child_tuning_f", "r3f", "r_dropout", "dps_dense", "dps_mix")
"""Every method that changes what a step does; Re-init does not."""


@dataclass(frozen=True)
class Cycle:
    """Seconds of a cycle's ``2 us`` optimizer steps: stage I, then stage II, which the selection step opens; us at least 2."""

    seconds: Sequence[float]

    @property
    def mean(self) -> float:
        """Seconds per step over the whole cycle."""
        return float(np.mean(self.seconds))

    @property
    def selection(self) -> float:
        """Seconds of the selection step."""
        return self.seconds[len(self.seconds) // 2]

    @property
    def stage_one(self) -> float:
        """Mean seconds of a step of stage I."""
        return float(np.mean(self.seconds[: len(self.seconds) // 2]))

    @property
    def stage_two(self) -> float:
        """Mean seconds of the other steps of stage II."""
        return float(np.mean(self.seconds[len(self.seconds) // 2 + 1 :]))

    def mean_at(self, stage_steps: int) -> float:
        """Seconds per step of a cycle with ``us = stage_steps``, made of this one's three kinds of steps."""
        others = stage_steps * self.stage_one + (stage_steps - 1) * self.stage_two
        return (others + self.selection) / (2 * stage_steps)


@dataclass
class Contestant:
    """One method with a model and a loop of its own; ``peak`` bytes of its first cycle, ``cycles`` timed since."""

    loop: Loop
    peak: int = 0
    cycles: list[Cycle] = field(default_factory=list)

    def step(self) -> float:
        """Train one optimizer step; its seconds."""
        start = _now()
        self.loop.step([np.arange(self.loop.settings.batch_size)])
        return _now() - start


def contestants(
    backbone: Backbone, methods: Sequence[str], setting: Setting, stage_steps: int, rounds: int
) -> dict[str, Contestant]:
    """Each method after a first whole cycle that warms it up, every allocation of its model and that cycle counted."""
    cycle, found = 2 * stage_steps, {}
    for method in tqdm(methods, unit="method", desc="warming up"):
        with measure.Allocations() as allocations:
            loop = setting.loop(backbone, Choice(method), (rounds + 1) * cycle, stage_steps)
            found[method] = Contestant(loop)
            allocations.mark("before")
            for _ in range(cycle):
                found[method].step()
            allocations.mark("cycle")
        found[method].peak = allocations.peak["cycle"]
    return found


def interleaved(contestants: dict[str, Contestant], stage_steps: int, rounds: int) -> None:
    """Time ``rounds`` whole cycles of every contestant; they take turns step by step, so that a drift of the machine's speed hits all alike."""
    for _ in tqdm(range(rounds), unit="round"):
        seconds: dict[str, list[float]] = {name: [] for name in contestants}
        for _ in range(2 * stage_steps):
            for name, contestant in contestants.items():
                seconds[name].append(contestant.step())
        for name, contestant in contestants.items():
            contestant.cycles.append(Cycle(seconds[name]))


def ratios(contestants: dict[str, Contestant], stage_steps: int) -> dict[str, dict[str, list[float]]]:
    """Method -> kind of step -> its seconds in each round, relative to the mean step of vanilla in the same round.

    Kinds: the "mean" over the cycle as measured, the mean "at us" = ``stage_steps``, and the "selection" step.
    """
    base = [cycle.mean for cycle in contestants["vanilla"].cycles]
    return {
        name: {
            kind: [seconds / whole for seconds, whole in zip(found, base, strict=True)]
            for kind, found in {
                "mean": [cycle.mean for cycle in contestant.cycles],
                "at us": [cycle.mean_at(stage_steps) for cycle in contestant.cycles],
                "selection": [cycle.selection for cycle in contestant.cycles],
            }.items()
        }
        for name, contestant in contestants.items()
    }


@dataclass(frozen=True)
class Selection:
    """Choosing a subnetwork of a whole model, one matrix after the other.

    ``values`` ranked in ``seconds``; ``matrix`` is the size of the largest one and ``extra`` the most that stood beside it, the mask included,
    in bytes.
    """

    values: int
    seconds: float
    matrix: int
    extra: int


def selection(shapes: Sequence[tuple[int, ...]], keep_fraction: float, seed: int) -> Selection:
    """Rank fp32 matrices of squared normal numbers, as GAM holds them, and keep a share of each."""
    torch.manual_seed(seed)
    with measure.Allocations() as allocations:
        values = _squares(max(shapes, key=math.prod))
        allocations.mark("values")
        largest(values, math.ceil(values.numel() * keep_fraction))
        allocations.mark("selection")
    matrix, seconds = values.nbytes, 0.0
    for shape in tqdm(shapes, unit="matrix"):
        values = _squares(shape)
        start = _now()
        largest(values, math.ceil(values.numel() * keep_fraction))
        seconds += _now() - start
    extra = allocations.peak["selection"] - allocations.held["values"]
    return Selection(sum(map(math.prod, shapes)), seconds, matrix, extra)


def _squares(shape: tuple[int, ...]) -> torch.Tensor:
    return torch.randn(shape, device=measure.device()).square_()


def _now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()
