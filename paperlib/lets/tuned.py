"""Tuned sub-tasks as their records (``runs/sharing``) tell them, and what a multi-task system of them costs by the metrics of appendix A.1."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from paperlib import tasks
from paperlib.errors import InputError
from paperlib.lets import metrics, operations, workload
from paperlib.lets.architecture import Architecture
from paperlib.lets.operations import Encoder
from paperlib.lets.readout import ReadoutSizes
from paperlib.lets.workload import READOUT, Workload

TITLES = {
    "lets": "LeTS",
    "full": "fine-tuning",
    "freeze_bottom": "freeze bottom",
    "adapters": "adapters",
    "non_adaptive": "non-adaptive difference",
    "diff_pruning": "DiffPruning",
    "diff_pruning_structured": "DiffPruning, structured",
}
PARTS = ("offsets", "biases", "norms", "readout")


def title(parameters: Mapping) -> str:
    """What tables call the method of a run with these ``parameters``; what else a method depends on is in its name."""
    method, architecture = parameters["method"], parameters["architecture"]
    if method == "lets" and architecture != "searched":
        return f"LeTS, {architecture.replace('_', ' ')}"
    numbers = {"freeze_bottom": parameters["frozen_layers"], "adapters": parameters["bottleneck"]}
    return f"{TITLES[method]} {numbers[method]}" if method in numbers else TITLES[method]


@dataclass(frozen=True)
class Tuned:
    """One sub-task under one ``method`` (:func:`title`).

    ``score``: the task's main metric on the test rows; ``degenerate``: one class for all of these. ``architecture``: of the reconstructed
    space, None for methods that are no point of it. ``kept``: share of the offsets of q, k and v that is kept, by layer. ``sizes``: scalars
    stored beside the frozen backbone by part (:data:`PARTS`), and their ``bytes``. ``backbone_size``: scalars of the backbone.
    ``readout``, ``bottleneck``: of LeTS, of adapters, else None.
    """

    task: str
    seed: int
    method: str
    score: float
    degenerate: bool
    architecture: Architecture | None
    kept: Sequence[float]
    sizes: Mapping[str, int]
    backbone_size: int
    readout: ReadoutSizes | None = None
    bottleneck: int | None = None

    @classmethod
    def of(cls, given: Mapping, found: Mapping) -> "Tuned":
        """From the parameters and the results of a run of ``runs/sharing``."""
        rows = found["architecture"]
        return cls(
            task=given["task"],
            seed=given["seed"],
            method=title(given),
            score=found["test"][tasks.get(given["task"]).metrics[0]],
            degenerate=found["degenerate"],
            architecture=rows and Architecture(tuple(map(tuple, rows))),
            kept=found["kept"],
            sizes=found["sizes"],
            backbone_size=found["backbone_size"],
            readout=ReadoutSizes(given["aggregation"], given["lstm"]) if given["method"] == "lets" else None,
            bottleneck=given["bottleneck"] if given["method"] == "adapters" else None,
        )

    @property
    def parameters(self) -> float:
        """New parameters in percent of the backbone."""
        return 100 * sum(self.sizes[part] for part in PARTS) / self.backbone_size

    @property
    def shared(self) -> float:
        """Percent of the backbone that the sub-task needs beside its own parameters: after fine-tuning, which leaves no weight as it was, none."""
        return 0.0 if self.method == TITLES["full"] else 100.0

    def readout_operations(self, encoder: Encoder) -> int:
        """MAC of LeTS's readout; other methods' heads and poolers are not counted."""
        if self.readout is None:
            return 0
        outputs = tasks.get(self.task).outputs
        return sum(operations.readout(encoder.layers, encoder.hidden, self.readout, outputs).values())

    def layer_operations(self, encoder: Encoder, length: int) -> list[float]:
        """MAC of the sub-task's layers, from bottom to top, adapters included: with the readout's, ops(s_i) of eq. (10)."""
        layers = operations.task(encoder, length, self.point(encoder), self.kept)
        beside = operations.adapters(encoder, length, self.bottleneck) / encoder.layers if self.bottleneck else 0
        return [sum(layer.values()) + beside for layer in layers]

    def point(self, encoder: Encoder) -> Architecture:
        """The architecture; all own for a method that is no point of the space, as it shares no result."""
        return self.architecture or Architecture.all_own(encoder.layers)


def distinct(found: Sequence[Tuned]) -> list[Tuned]:
    """The first of those with the same method, task and seed."""
    firsts: dict[tuple, Tuned] = {}
    for each in found:
        firsts.setdefault((each.method, each.task, each.seed), each)
    return [*firsts.values()]


def systems(found: Sequence[Tuned]) -> dict[int, dict[str, Tuned]]:
    """Of one method, by seed the multi-task system of its tasks; seeds that lack a task which another one has are left out."""
    names = dict.fromkeys(each.task for each in found)
    by_seed = {seed: {each.task: each for each in found if each.seed == seed} for seed in {each.seed for each in found}}
    whole = {seed: by_seed[seed] for seed in sorted(by_seed) if by_seed[seed].keys() == names.keys()}
    return {seed: {name: system[name] for name in names} for seed, system in whole.items()}


def work(system: Mapping[str, Tuned], encoder: Encoder, length: int) -> Workload:
    """The operations of a system of sub-tasks at ``length`` tokens, each waiting for the one before. InputError: none given."""
    if not system:
        raise InputError("tuned: at least one sub-task is needed")
    shared = workload.sharing(
        encoder,
        length,
        {name: each.point(encoder) for name, each in system.items()},
        workload.in_order([*system]),
        kept={name: each.kept for name, each in system.items()},
    )
    own = {(name, READOUT): each.readout_operations(encoder) for name, each in system.items()}
    own |= {
        (name, j): macs
        for name, each in system.items()
        for j, macs in enumerate(each.layer_operations(encoder, length), start=1)
    }
    return replace(shared, operations={node: own.get(node, macs) for node, macs in shared.operations.items()})


def costs(system: Mapping[str, Tuned], encoder: Encoder, length: int) -> dict[str, float]:
    """Eqs. (10) to (13) as :func:`metrics.summary` gives them, and of the mean sub-task ``readout``, the part of its new operations that is its
    readout's (%), ``parameters`` (% of the backbone) and ``bytes``; ``total_parameters`` (%); ``speedup``: of a device that does one thing
    after another, 100 N / total operations.
    """
    bert, members = operations.total(encoder, length), [*system.values()]
    found = metrics.summary(work(system, encoder, length), bert)
    readouts = [each.readout_operations(encoder) for each in members]
    return found | {
        "readout": metrics.new_operations_per_task(readouts, bert),
        "parameters": sum(each.parameters for each in members) / len(members),
        "total_parameters": metrics.total_parameters(
            [each.parameters for each in members], max(each.shared for each in members)
        ),
        "bytes": sum(each.sizes["bytes"] for each in members) / len(members),
        "speedup": 100 * len(members) / found["total_operations"],
    }


@dataclass(frozen=True)
class Frontier:
    """By seed, on the mean score over the tasks: what freezing the bottom ``gains`` over fine-tuning, and how far LeTS lies ``above`` the straight
    line between the two, at its own total operations.

    To freeze for some tasks and fine-tune for the others leads to that line and not above it; outside of it, its nearer end counts.
    """

    tasks: Sequence[str]
    gains: Sequence[float]
    above: Sequence[float]


def frontier(
    lets: Sequence[Tuned], freezing: Sequence[Tuned], full: Sequence[Tuned], encoder: Encoder, length: int
) -> Frontier:
    """On the tasks that all three have, and the seeds that all three have of all of these; none where one task alone leaves no line to draw."""
    methods = (lets, freezing, full)
    common = [name for name in dict.fromkeys(t.task for t in lets) if all(_has(each, name) for each in methods)]
    by_method = [systems([each for each in found if each.task in common]) for found in methods]
    seeds = [seed for seed in by_method[0] if len(common) > 1 and all(seed in each for each in by_method)]
    gains, above = [], []
    for seed in seeds:
        (x, y), *ends = [_point(each[seed], encoder, length) for each in by_method]
        operations_of_ends, scores = zip(*ends, strict=True)
        gains.append(scores[0] - scores[1])
        above.append(y - float(np.interp(x, operations_of_ends, scores)))
    return Frontier(common, gains, above)


def _has(found: Sequence[Tuned], task: str) -> bool:
    return any(each.task == task for each in found)


def _point(system: Mapping[str, Tuned], encoder: Encoder, length: int) -> tuple[float, float]:
    """Total operations and mean score."""
    score = sum(each.score for each in system.values()) / len(system)
    return costs(system, encoder, length)["total_operations"], score
