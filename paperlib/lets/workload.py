"""A multi-task workload: the operations of all sub-tasks, and which must wait for which."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from graphlib import CycleError, TopologicalSorter

from paperlib.errors import InputError
from paperlib.lets import operations
from paperlib.lets.operations import Encoder

FROZEN = "frozen"
READOUT = "readout"

Node = tuple[str, int | str]
"""(owner, layer): the owner is FROZEN, the part computed once for all, or a sub-task; layers count from 1, READOUT is last."""


@dataclass(frozen=True)
class Workload:
    """A directed acyclic graph: ``operations`` of every node, and the nodes each ``waits_for``."""

    operations: dict[Node, int]
    waits_for: dict[Node, set[Node]]

    @property
    def overhead(self) -> int:
        """Operations of the frozen part, computed once."""
        return self._of(FROZEN)

    @property
    def new_operations(self) -> dict[str, int]:
        """ops(s_i): what each sub-task adds to the frozen part."""
        tasks = dict.fromkeys(owner for owner, _ in self.operations if owner != FROZEN)
        return {task: self._of(task) for task in tasks}

    @cached_property
    def finished(self) -> dict[Node, int]:
        """Operations on the heaviest path that ends with each node: its earliest finish, everything else in parallel."""
        finish = {}
        for node in TopologicalSorter(self.waits_for).static_order():
            finish[node] = self.operations[node] + max((finish[other] for other in self.waits_for[node]), default=0)
        return finish

    def critical_path(self) -> list[Node]:
        """The heaviest path through the graph, first node first."""
        path = [max(self.finished, key=self.finished.get)]
        while self.waits_for[path[0]]:
            path.insert(0, max(self.waits_for[path[0]], key=self.finished.get))
        return path

    @property
    def critical_operations(self) -> int:
        """Operations on the critical path."""
        return max(self.finished.values())

    def _of(self, owner: str) -> int:
        return sum(macs for node, macs in self.operations.items() if node[0] == owner)


def in_order(tasks: Sequence[str]) -> dict[str, list[str]]:
    """Dependent sub-tasks: each waits for the one before it."""
    return {task: list(tasks[max(i - 1, 0) : i]) for i, task in enumerate(tasks)}


def freeze_bottom(encoder: Encoder, length: int, frozen: int, waits_for: Mapping[str, Collection[str]]) -> Workload:
    """Every sub-task owns the layers above the ``frozen`` ones, which all share; 0 frozen layers is full fine-tuning.

    ``waits_for``: sub-task -> the sub-tasks that must end before it starts. The frozen part depends on the input alone. A
    readout ends each sub-task; its head's operations are not counted. InputError: more frozen layers than layers, a
    sub-task that waits for an unknown one or, around a cycle, for itself.
    """
    if not isinstance(frozen, int) or not 0 <= frozen <= encoder.layers:
        raise InputError(f"freeze_bottom: {frozen!r} frozen layers; the encoder has {encoder.layers}")
    _require_order(waits_for)
    macs = sum(operations.layer(encoder, length).values())
    edges = _chain([(FROZEN, j) for j in range(1, frozen + 1)], after=set())
    for task, others in waits_for.items():
        own = [(task, j) for j in range(frozen + 1, encoder.layers + 1)] + [(task, READOUT)]
        start = ({(FROZEN, frozen)} if frozen else set()) | {(other, READOUT) for other in others}
        edges |= _chain(own, after=start)
    return Workload({node: 0 if node[1] == READOUT else macs for node in edges}, edges)


def _chain(nodes: list[Node], after: set[Node]) -> dict[Node, set[Node]]:
    return {node: {nodes[i - 1]} if i else set(after) for i, node in enumerate(nodes)}


def _require_order(waits_for: Mapping[str, Collection[str]]) -> None:
    if not waits_for or FROZEN in waits_for:
        raise InputError(f"freeze_bottom: give at least one sub-task, and none called {FROZEN!r}")
    if unknown := sorted({other for others in waits_for.values() for other in others} - set(waits_for)):
        raise InputError(f"freeze_bottom: sub-tasks wait for unknown ones: {', '.join(unknown)}")
    try:
        TopologicalSorter(waits_for).prepare()
    except CycleError as error:
        raise InputError(f"freeze_bottom: sub-tasks wait for each other: {' -> '.join(error.args[1])}") from None
