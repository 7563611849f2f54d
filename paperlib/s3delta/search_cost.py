"""Seconds and bytes of a search step beside training steps and forward passes of other placements, in one process (S3Delta, appendix D.1)."""

import copy
import ctypes
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from paperlib import measure
from paperlib.backbones import Backbone
from paperlib.kernels import triton_path
from paperlib.s3delta import export, launches, search, structure
from paperlib.s3delta.gates import Gates
from paperlib.s3delta.positions import Position, baseline, candidates
from paperlib.s3delta.structure import Structure
from paperlib.s3delta.supernet import Supernet
from paperlib.s3delta.tuning import DeltaTuning
from paperlib.training import Loop, Settings
from paperlib.training.launches import Launches, counted
from paperlib.training.random_rows import RandomRows

PASSES = {"second": 5, "first": 2, "one-level": 1}
"""Forward and backward passes of a search step of each order: the least it can cost, in steps of a training as deep."""

SPACE = "M"
STEPS = 1000  # planned, so that rates stay above 0 and no validation comes; far fewer are done
WARM_UP = 2  # the first step makes the moments
NARROW_BUDGET = 500.0  # per ten thousand of a narrow model, in which a module is a large share


@dataclass(frozen=True)
class Setting:
    """Batches of ``batch_size`` random rows of ``length`` tokens each.

    ``budget``: per ten thousand of the backbone. ``precision`` and ``seed``: as in a run.
    """

    budget: float
    batch_size: int
    length: int
    precision: str
    seed: int

    def searching(self, backbone: Backbone, positions: Sequence[Position], order: str) -> Callable[[], None]:
        """Search steps over a copy of the backbone with a module at each of ``positions``."""
        rows = self._rows(backbone, 2 * self.batch_size)
        torch.manual_seed(self.seed)
        supernet = Supernet(rows.model, positions)
        # A part of the space may hold less than the budget, which changes nothing of what a step costs.
        budget = min(structure.budget(rows.model, self.budget), supernet.numel / 2)
        settings = search.Settings(
            budget=budget,
            epochs=STEPS,
            batch_size=self.batch_size,
            interval=STEPS,
            seed=self.seed,
            order=order,
            precision=self.precision,
        )
        found = search.Search(replace(rows, validation=rows.train), supernet, settings)
        return partial(found.step, *found.halves)

    def training(self, backbone: Backbone, placement: str | Structure) -> Callable[[], None]:
        """Optimizer steps of delta tuning over a copy of the backbone; ``placement``: as :meth:`placed` has it, or fine_tuning."""
        settings = Settings(
            epochs=0,
            steps=STEPS,
            batch_size=self.batch_size,
            learning_rate=3e-4,
            seed=self.seed,
            warmup_ratio=0.0,
            weight_decay=0.0,
            clip_norm=2.0,
            precision=self.precision,
        )
        if isinstance(placement, str) and placement in STRUCTURES:
            placement = self.structure(backbone, placement)
        loop = Loop(self._rows(backbone, self.batch_size), DeltaTuning(placement), settings)
        return partial(loop.step, [np.arange(self.batch_size)])

    def answering(
        self, backbone: Backbone, placement: str | Structure | None, merged: bool = False
    ) -> Callable[[], None]:
        """Forward passes in evaluation mode with the modules of ``placement`` (None: none), added to the weights that can hold them if ``merged``."""
        rows = self._rows(backbone, self.batch_size)
        if placement is not None:
            supernet = Supernet(rows.model, self.placed(backbone, placement))
            if merged:
                export.merge(supernet)
        rows.model.to(measure.device()).eval()
        batch = rows.batch(rows.train, np.arange(self.batch_size))
        return partial(self._answer, rows, batch)

    def placed(self, backbone: Backbone, placement: str | Structure) -> list[Position]:
        """Positions of a structure, of one that ``STRUCTURES`` names, or of a baseline."""
        if isinstance(placement, str) and placement in STRUCTURES:
            placement = self.structure(backbone, placement)
        return (
            baseline(backbone.model, placement) if isinstance(placement, str) else placement.positions(backbone.model)
        )

    def structure(self, backbone: Backbone, name: str) -> Structure:
        """A structure within the budget that no search was needed for."""
        return STRUCTURES[name](self, backbone.name, backbone.model, structure.budget(backbone.model, self.budget))

    def _answer(self, rows: RandomRows, batch: dict[str, torch.Tensor]) -> None:
        bf16 = measure.precision(self.precision) == "bf16"
        with torch.inference_mode(), torch.autocast(measure.device().type, torch.bfloat16, enabled=bf16):
            rows.logits(batch)

    def _rows(self, backbone: Backbone, rows: int) -> RandomRows:
        copied = replace(backbone, model=copy.deepcopy(backbone.model))
        return RandomRows.draw(copied, rows, self.length, self.seed)


def launched(
    setting: Setting, backbone: Backbone, searches: dict[str, tuple[str, str]]
) -> dict[str, tuple[Launches, int]]:
    """Launches of steps of :data:`searches`, ``name: (space, order)``, and of training the lowest structure, first, as "train lowest": as counted
    here, and with the gates' kernel. Counted over a narrow model (:func:`paperlib.s3delta.launches.narrowed`).
    """
    narrow = launches.narrowed(backbone)
    small = replace(setting, budget=NARROW_BUDGET, batch_size=2, length=8)
    lowest = counted(small.training(narrow, setting.structure(backbone, "lowest")), WARM_UP)
    drawn_by_kernel = triton_path.taken_by(torch.empty(0, device=measure.device()))
    found = {"train lowest": (lowest, lowest.total)}
    for name, (space, order) in searches.items():
        positions = candidates(narrow.model, space)
        step = counted(small.searching(narrow, positions, order), WARM_UP)
        gates = Gates(torch.tensor([position.size(narrow.model) for position in positions]), 1000.0)
        found[name] = step, step.total if drawn_by_kernel else launches.with_kernel(step, gates, order)
    return found


def _random(setting: Setting, name: str, model: torch.nn.Module, budget: float) -> Structure:
    return Structure.random(name, model, SPACE, budget, setting.seed)


def _lowest(setting: Setting, name: str, model: torch.nn.Module, budget: float) -> Structure:
    """Equal probabilities, as before a search: ties go to the first modules, which training must reach through all layers."""
    return Structure.greedy(name, model, SPACE, [0.5] * len(candidates(model, SPACE)), budget)


STRUCTURES = {"random": _random, "lowest": _lowest}


def parts(model: torch.nn.Module) -> dict[str, list[Position]]:
    """The candidates of space M by type of module."""
    found: dict[str, list[Position]] = {}
    for position in candidates(model, SPACE):
        found.setdefault(position.type, []).append(position)
    return found


@dataclass
class Contestant:
    """Something that is done again and again, and what it costs.

    ``peak``: the most bytes of tensors alive at once, the model's among them. ``resident``: the bytes that stay alive, and those by which the
    process's resident set rises while it is done once; None where the system does not tell. ``seconds``: of every timed time. ``step`` is None
    once it was let go of.
    """

    step: Callable[[], None] | None
    peak: int
    resident: int | None
    seconds: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        """Median seconds."""
        return float(np.median(self.seconds))


def contestants(makers: dict[str, Callable[[], Callable[[], None]]]) -> dict[str, Contestant]:
    """Make each of them with every allocation counted, and warm it up."""
    return {name: _measured(make) for name, make in tqdm(makers.items(), unit="contestant", desc="warming up")}


def interleaved(contestants: dict[str, Contestant], rounds: int) -> None:
    """Time every contestant ``rounds`` times; they take turns, so that a drift of the machine's speed hits all alike."""
    for _ in tqdm(range(rounds), unit="round"):
        for contestant in contestants.values():
            start = measure.now()
            contestant.step()
            contestant.seconds.append(measure.now() - start)


def let_go(contestants: dict[str, Contestant]) -> None:
    """Free what they are done with, their models among it, for others to have the memory; what they cost stays."""
    for contestant in contestants.values():
        contestant.step = None


def ratios(contestants: dict[str, Contestant], base: str) -> dict[str, list[float]]:
    """Seconds of every round relative to those of ``base`` in the same round."""
    return {
        name: [mine / theirs for mine, theirs in zip(each.seconds, contestants[base].seconds, strict=True)]
        for name, each in contestants.items()
    }


def _measured(make: Callable[[], Callable[[], None]]) -> Contestant:
    with measure.Allocations() as allocations:
        step = make()
        allocations.mark("made")
        for _ in range(WARM_UP):
            step()
        allocations.mark("steps")
    growth = _resident_growth(step)
    return Contestant(step, allocations.peak["steps"], None if growth is None else allocations.held["steps"] + growth)


def _resident_growth(step: Callable[[], None]) -> int | None:
    """Bytes by which the resident set rises while ``step`` runs; None on a GPU and where the high-water mark cannot be reset."""
    if torch.cuda.is_available():
        return None
    try:
        # What earlier work has freed but not given back would be used again unseen.
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except (OSError, AttributeError, TypeError):
        return None
    before = _resident("VmRSS")
    step()
    return _resident("VmHWM") - before


def _resident(line: str) -> int:
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return 1024 * int(re.search(rf"{line}:\s+(\d+) kB", status).group(1))
