"""Seconds and bytes of an optimizer step under each method, side by side in one process, and of choosing a subnetwork."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import torch
from tqdm import tqdm

from paperlib import measure
from paperlib.backbones import Backbone
from paperlib.dps.footprint import Setting
from paperlib.dps.methods import Choice
from paperlib.kernels.selection import largest
from paperlib.training import Loop
from paperlib.training.update import in_one_pass

METHODS = ("vanilla", "mixout", "child_tuning_d", "child_tuning_f", "r3f", "r_dropout", "dps_dense", "dps_mix")
"""Every method that changes what a step does; Re-init does not."""
ONE_PASS = "vanilla, one pass"
"""Vanilla moved as the other methods are where one pass moves the weights."""


@dataclass(frozen=True)
class Scale:
    """What a step's cost depends on; in a target's scale ``precision`` may be "any"."""

    backbone: str
    device: str
    precision: str
    batch_size: int
    length: int

    def __str__(self) -> str:
        return (
            f"{self.backbone}, batch {self.batch_size}, length {self.length}, {self.precision} precision, {self.device}"
        )

    def covers(self, run: "Scale") -> bool:
        """Whether a run was made at this scale."""
        return run == (replace(self, precision=run.precision) if self.precision == "any" else self)


def scale(backbone: str, setting: Setting) -> Scale:
    """That of a run on this device."""
    precision = measure.precision(setting.precision)
    return Scale(backbone, measure.device().type, precision, setting.batch_size, setting.length)


@dataclass(frozen=True)
class Target:
    """At most ``bound`` times vanilla's seconds, or GiB beyond vanilla, at a scale."""

    method: str
    what: Literal["time", "GiB"]
    bound: float
    scale: Scale

    def judged(self, run: Scale, measured: Mapping[str, Mapping[str, float]]) -> tuple[float | None, str]:
        """What was measured, by ``what`` and method, with "yes" or "no"; None and "not run" at another scale or without the method."""
        found = measured[self.what].get(self.method) if self.scale.covers(run) else None
        return (None, "not run") if found is None else (found, "yes" if found <= self.bound else "no")


LARGE = Scale("bert-large-config", "cuda", "bf16", batch_size=16, length=128)
SMALL = Scale("minilm", "cpu", "any", batch_size=16, length=128)
TARGETS = (
    *(Target(method, "time", bound, SMALL) for method, bound in {"dps_dense": 1.05, "dps_mix": 1.10}.items()),
    *(
        Target(method, what, bound, LARGE)
        for method, bounds in {
            **{"dps_dense": (1.03, 1.5), "dps_mix": (1.06, 3.9)},
            **{"mixout": (1.05, 1.3), "child_tuning_d": (1.01, 0.1)},
        }.items()
        for what, bound in zip(("time", "GiB"), bounds, strict=True)
    ),
)


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
    """One method with a model and a loop of its own.

    ``peak`` bytes of its first cycle; ``cycles`` timed since; ``joules`` of a step, None where the driver does not tell.
    """

    loop: Loop
    peak: int = 0
    cycles: list[Cycle] = field(default_factory=list)
    joules: float | None = None

    def step(self) -> float:
        """Train one optimizer step; its seconds."""
        start = measure.now()
        self.loop.step([np.arange(self.loop.settings.batch_size)])
        return measure.now() - start


def contestants(
    backbone: Backbone, methods: Sequence[str], setting: Setting, stage_steps: int, rounds: int
) -> dict[str, Contestant]:
    """Each method after a first whole cycle that warms it up, every allocation of its model and that cycle counted.

    "vanilla" is torch's fused AdamW and clipping in torch's operators; where one pass moves the weights, as it does under the other methods, it is
    also there with that (``ONE_PASS``).
    """
    cycle, found = 2 * stage_steps, {}
    # Warmed up, timed, and timed again for the energy.
    steps = (2 * rounds + 1) * cycle
    for name, method in tqdm(_named(methods).items(), unit="method", desc="warming up"):
        with measure.Allocations() as allocations:
            loop = setting.loop(backbone, Choice(method), steps, stage_steps, in_turn=name == "vanilla")
            found[name] = Contestant(loop)
            allocations.mark("before")
            for _ in range(cycle):
                found[name].step()
            allocations.mark("cycle")
        found[name].peak = allocations.peak["cycle"]
    return found


def _named(methods: Sequence[str]) -> dict[str, str]:
    """Names of the contestants -> their methods."""
    beside = {ONE_PASS: "vanilla"} if one_pass_here() else {}
    return {"vanilla": "vanilla"} | beside | {method: method for method in methods}


def one_pass_here() -> bool:
    """Whether one pass moves the weights on the run's device, and masks are bits."""
    return in_one_pass([torch.empty(0, device=measure.device())])


def interleaved(contestants: dict[str, Contestant], stage_steps: int, rounds: int) -> None:
    """Time ``rounds`` whole cycles of every contestant; they take turns step by step, so that a drift of the machine's speed hits all alike."""
    for _ in tqdm(range(rounds), unit="round"):
        seconds: dict[str, list[float]] = {name: [] for name in contestants}
        for _ in range(2 * stage_steps):
            for name, contestant in contestants.items():
                seconds[name].append(contestant.step())
        for name, contestant in contestants.items():
            contestant.cycles.append(Cycle(seconds[name]))


def count_joules(contestants: dict[str, Contestant], stage_steps: int, rounds: int) -> None:
    """Train ``rounds`` cycles of each contestant without a break and note the joules of a step; where nothing tells them, no step is taken.

    One after the other and not in turns, since the driver's counter moves less often than steps are taken.
    """
    steps = 2 * stage_steps * rounds
    if measure.Energy().joules() is None:
        return
    for contestant in contestants.values():
        energy = measure.Energy()
        for _ in range(steps):
            contestant.step()
        joules = energy.joules()
        contestant.joules = None if joules is None else joules / steps


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
        start = measure.now()
        largest(values, math.ceil(values.numel() * keep_fraction))
        seconds += measure.now() - start
    extra = allocations.peak["selection"] - allocations.held["values"]
    return Selection(sum(map(math.prod, shapes)), seconds, matrix, extra)


def _squares(shape: tuple[int, ...]) -> torch.Tensor:
    return torch.randn(shape, device=measure.device()).square_()
