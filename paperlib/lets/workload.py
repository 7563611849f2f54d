"""A multi-task workload: the operations of all sub-tasks, and which must wait for which."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from graphlib import CycleError, TopologicalSorter
from typing import TYPE_CHECKING

from paperlib.errors import InputError
from paperlib.lets import operations
from paperlib.lets.operations import Encoder, Kept

if TYPE_CHECKING:
    from paperlib.lets.architecture import Architecture

FROZEN = "frozen"
READOUT = "readout"

Node = tuple[str, int | str]
"""(owner, layer): the owner is FROZEN, the part computed once for all, or a sub-task; layers count from 1, READOUT is last.

Where sub-tasks wait for parts of a frozen layer the parts are nodes of their own: see :func:`frozen_node`."""

PARTS = {"qkv": ("qkv",), "attention": ("scores_and_context", "output"), "feed_forward": ("feed_forward",)}
"""Parts of a frozen layer, in the order in which they wait for one another, and the sub-modules counted in each."""


def frozen_node(layer: int, part: str) -> Node:
    """Q^p, K^p and V^p ("qkv"), M^p ("attention") or H^p ("feed_forward") of a layer."""
    return (FROZEN, f"{layer} {part}")


@dataclass(frozen=True)
class Workload:
    """A directed acyclic graph: ``operations`` of every node, and the nodes each ``waits_for``."""

    operations: dict[Node, float]
    waits_for: dict[Node, set[Node]]

    @property
    def overhead(self) -> float:
        """Operations of the frozen part, computed once."""
        return self._of(FROZEN)

    @property
    def new_operations(self) -> dict[str, float]:
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
    def critical_operations(self) -> float:
        """Operations on the critical path."""
        return max(self.finished.values())

    def _of(self, owner: str) -> float:
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


def sharing(
    encoder: Encoder,
    length: int,
    architectures: Mapping[str, "Architecture"],
    waits_for: Mapping[str, Collection[str]],
    kept: Kept | Mapping[str, Kept],
    readout: int = 0,
    only_read: bool = False,
) -> Workload:
    """Sub-tasks of the reconstructed space, each with its architecture, on one frozen pass.

    Inferred: a node per layer of a sub-task that owns anything there, one per readout, and up to three per frozen layer, since sub-tasks
    wait for different ones of its results; only what some sub-task asks for is there. q, k and v of a layer are one node, else a plain
    model could be faster than itself. A layer waits for the one below where it owns its input, else for frozen results alone; the readout
    waits for all layers. ``waits_for``: as in :func:`freeze_bottom`; ``kept``, ``only_read``: as in :func:`operations.task`,
    ``kept`` of all sub-tasks or of each; ``readout``: MAC of each readout. InputError: as in :func:`freeze_bottom`; an architecture or
    a kept share missing or for another number of layers.
    """
    _require_order(waits_for)
    shares = kept if isinstance(kept, Mapping) else dict.fromkeys(architectures, kept)
    if not architectures.keys() == waits_for.keys() == shares.keys():
        raise InputError(
            "sharing: give every sub-task an architecture, a kept share and what it waits for, and nothing else"
        )
    macs, edges = _frozen(operations.frozen(encoder, length, [*architectures.values()]))
    for task, architecture in architectures.items():
        layers = operations.task(encoder, length, architecture, shares[task], only_read)
        start = {(other, READOUT) for other in waits_for[task]}
        own = _waiting(task, architecture, start)
        edges |= own
        macs |= {node: sum(layers[node[1] - 1].values()) for node in own if node[1] != READOUT}
        macs[task, READOUT] = readout
    return Workload(macs, edges)


def _frozen(layers: list[dict[str, int]]) -> tuple[dict[Node, int], dict[Node, set[Node]]]:
    """Nodes of the frozen pass, one after the other, and what each waits for."""
    macs = {
        frozen_node(j, part): sum(layer[module] for module in modules)
        for j, layer in enumerate(layers, start=1)
        for part, modules in PARTS.items()
        if modules[0] in layer
    }
    return macs, _chain([*macs], after=set())


def _waiting(task: str, architecture: "Architecture", start: set[Node]) -> dict[Node, set[Node]]:
    """What a sub-task's own nodes wait for; ``start``: what must end before any of them."""
    edges: dict[Node, set[Node]] = {}
    # What H^t_j, of the layer last looked at, comes from: of the embeddings nothing need be computed.
    below: set[Node] = set()
    sources: set[Node] = set()
    for j, own in enumerate(architecture.layers, start=1):
        if own.attention:
            needed = below if own.input else {frozen_node(j, "qkv")}
        else:
            needed = {frozen_node(j, "attention" if own.feed_forward else "feed_forward")}
        if own.attention or own.feed_forward:
            edges[task, j] = needed | start
            below = {(task, j)}
        else:
            below = needed
        sources |= below
    edges[task, READOUT] = sources | start
    return edges


def _chain(nodes: list[Node], after: set[Node]) -> dict[Node, set[Node]]:
    return {node: {nodes[i - 1]} if i else set(after) for i, node in enumerate(nodes)}


def _require_order(waits_for: Mapping[str, Collection[str]]) -> None:
    if not waits_for or FROZEN in waits_for:
        raise InputError(f"workload: give at least one sub-task, and none called {FROZEN!r}")
    if unknown := sorted({other for others in waits_for.values() for other in others} - set(waits_for)):
        raise InputError(f"workload: sub-tasks wait for unknown ones: {', '.join(unknown)}")
    try:
        TopologicalSorter(waits_for).prepare()
    except CycleError as error:
        raise InputError(f"workload: sub-tasks wait for each other: {' -> '.join(error.args[1])}") from None
