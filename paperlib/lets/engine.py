"""Several sub-tasks on one input: one frozen pass, and of each sub-task no more than what it adds to it (LeTS-R, ``paperlib.lets.architecture``).

The answers are those of the sub-tasks run one by one. Inferred, since the paper gives no implementation:

1.  W^d x of a shared input x = H^p_{j-1} is a sparse product, added to the known W^p x; where many offsets are kept W^f x is computed anew
    (``paperlib.lets.projections``).
2.  On an input of the sub-task's own W^f is used densely, in one of two ways (:data:`WEIGHTS`). "merged": every sub-task holds its W^f.
    "patched": W^p is the one copy, its kept entries are changed in place for the product and put back bit for bit; a sub-task then is its
    kept offsets, 8 bytes each, biases, norms and readout. Patched engines must not be used by two threads at once.
3.  All sub-tasks go through layer j before any goes through the next: of the frozen pass one layer's activations are alive at a time.
    On a GPU own attention on the layer's shared input is run for all of them at once, in as many launches as one sub-task takes; a CPU has
    few launches to save, and its caches hold one sub-task's activations. Where kernels are long there is nothing to save either, and own
    inputs and feed-forwards of several sub-tasks would all be held: these run one by one. Sub-tasks that must end before others start go
    one after another over a frozen pass that is kept (:meth:`Engine.in_order`).
4.  Frozen results that no sub-task asks for are not computed.
5.  ``only_read``: positions that nothing reads are left out. The readout takes [CLS] alone, so all of H^t_j is needed only where layer j + 1
    owns its input. The appendix counts all positions; both can be measured.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from copy import copy, deepcopy

import torch
from torch import nn

from paperlib.errors import InputError
from paperlib.kernels import triton_path
from paperlib.lets import operations, served, workload
from paperlib.lets.architecture import Own, Task
from paperlib.lets.frozen_pass import FrozenEncoder, FrozenLayer, FrozenPass
from paperlib.lets.operations import Encoder
from paperlib.lets.own_layers import TaskLayer
from paperlib.lets.served import Norm
from paperlib.lets.served_attention import Attention, attention
from paperlib.lets.workload import READOUT, Node, frozen_node

WEIGHTS = ("merged", "patched")


class Engine:
    """Sub-tasks ready to answer: a snapshot of ``tasks``, by name, in evaluation mode and without gradients.

    ``frozen`` must be the encoder the tasks were made for. ``together``: own attention on the shared input of a layer is run for all sub-tasks
    at once; unless given, where the kernels are (CUDA). InputError: no tasks, unknown ``weights``, a task for another number of layers.
    """

    def __init__(
        self,
        frozen: FrozenEncoder,
        tasks: Mapping[str, Task],
        weights: str = "merged",
        only_read: bool = False,
        together: bool | None = None,
    ):
        if not tasks or workload.FROZEN in tasks:
            raise InputError(f"engine: give at least one sub-task, and none called {workload.FROZEN!r}")
        if weights not in WEIGHTS:
            raise InputError(f"engine: unknown weights {weights!r}; known: {', '.join(WEIGHTS)}")
        encoder = Encoder.of(frozen.config)
        for task in tasks.values():
            operations.require_layers(encoder, task.architecture)
        self.frozen, self.only_read = frozen, only_read
        together = triton_path.taken_by(next(frozen.parameters())) if together is None else together
        form = {"weights": weights, "only_read": only_read, "together": together}
        self.tasks = {name: _Served(task, frozen, **form) for name, task in tasks.items()}
        self.architectures = {name: task.architecture for name, task in tasks.items()}
        self._together = [_joined(layers) if together else [] for layers in self._by_layer()]

    def only(self, names: Iterable[str]) -> "Engine":
        """An engine for some of the sub-tasks, sharing their weights with this one. KeyError: an unknown one.

        Of sub-tasks that run together but do not follow one another here, what they run together with is copied.
        """
        part = copy(self)
        part.tasks = {name: self.tasks[name] for name in names}
        part.architectures = {name: self.architectures[name] for name in part.tasks}
        part._together = [
            [group.only(part.tasks) for group in groups if not part.tasks.keys().isdisjoint(group.names)]
            for groups in self._together
        ]
        return part

    def __call__(self, **inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        """Scores of every sub-task, (B, outputs); ``inputs``: as the backbone takes them, see :class:`FrozenEncoder`."""
        scores: dict[str, torch.Tensor] = {}
        for _ in self._run(scores, self._together, inputs):
            pass
        return scores

    def layer_by_layer(self, scores: dict[str, torch.Tensor], **inputs: torch.Tensor) -> Iterator[Node]:
        """The same, one node of :func:`workload.sharing` at a time, nothing together: each is yielded once it is computed. ``scores`` is filled
        at the end."""
        return self._run(scores, [[] for _ in self._together], inputs)

    @torch.no_grad()
    def _run(self, scores, together, inputs) -> Iterator[Node]:
        """Only what is on the way up is held: one layer of the frozen pass, and of every sub-task H^t_j and [CLS] of the layers below."""
        shared = self.frozen(**inputs)
        hidden = dict.fromkeys(self.tasks, shared.embedded[None])
        pooled: dict[str, list[torch.Tensor]] = {name: [] for name in self.tasks}
        below, mask = shared.embedded, shared.mask
        del shared
        layers = zip(self.frozen.layers, self._asked(), together, strict=True)
        for j, (module, asked, groups) in enumerate(layers, start=1):
            # A pass of this layer alone, which ends with it.
            (cached,) = FrozenPass([module], below, mask).layers
            yield from _computed(cached, j, asked)
            attended = {name: found for group in groups for name, found in group(cached, mask).items()}
            for name, task in self.tasks.items():
                layer, (known, first) = task.layers[j - 1], attended.pop(name, (None, None))
                hidden[name] = layer(cached, hidden[name], mask, known)
                pooled[name].append(_first(hidden[name]) if first is None or layer.own.feed_forward else first)
                if any(layer.own[1:]):
                    yield (name, j)
            below = cached.output if "feed_forward" in asked else None
        for name, task in self.tasks.items():
            scores[name] = task.readout(torch.stack(pooled[name]))
            yield (name, READOUT)

    @torch.no_grad()
    def in_order(self, **inputs: torch.Tensor) -> Iterator[tuple[str, torch.Tensor]]:
        """``(name, scores)`` of one sub-task after the other, each run only when it is asked for; all activations of the frozen pass stay."""
        shared = self.frozen(**inputs)
        for name, task in self.tasks.items():
            hidden, pooled = shared.embedded[None], []
            for layer, cached in zip(task.layers, shared.layers, strict=True):
                hidden = layer(cached, hidden, shared.mask)
                pooled.append(_first(hidden))
            yield name, task.readout(torch.stack(pooled))

    @property
    def kept(self) -> dict[str, list[float]]:
        """For every sub-task and layer the share of offsets kept in q, k and v: what :func:`operations.task` counts."""
        return {name: [layer.kept for layer in task.layers] for name, task in self.tasks.items()}

    @property
    def nbytes(self) -> dict[str, int]:
        """Bytes every sub-task adds to the frozen encoder."""
        return {name: task.nbytes for name, task in self.tasks.items()}

    def _by_layer(self) -> list[dict[str, "_Layer"]]:
        rows = zip(*(task.layers for task in self.tasks.values()), strict=True)
        return [dict(zip(self.tasks, row, strict=True)) for row in rows]

    def _asked(self) -> list[list[str]]:
        """For every frozen layer its parts that some sub-task asks for."""
        macs = operations.frozen(Encoder.of(self.frozen.config), 1, [*self.architectures.values()])
        return [[part for part, modules in workload.PARTS.items() if modules[0] in layer] for layer in macs]


class _Served:
    """A sub-task's own tensors in the forms they are used in."""

    def __init__(self, task: Task, frozen: FrozenEncoder, weights: str, only_read: bool, together: bool):
        self.readout = deepcopy(task.readout).requires_grad_(False).eval()
        above = operations.read_above(task.architecture)
        self.layers = [
            _Layer(layer, module, own, weights, read or not only_read, together)
            for layer, module, own, read in zip(
                task.layers, frozen.layers, task.architecture.layers, above, strict=True
            )
        ]

    @property
    def nbytes(self) -> int:
        own = (tensor for layer in self.layers for tensor in served.tensors_in(layer))
        return sum(map(served.nbytes, [*self.readout.parameters(), *own]))


class _Layer:
    """Layer j of a sub-task; ``whole``: H^t_j of all positions, else of [CLS] alone. What it holds and gives has the one sub-task first."""

    def __init__(self, layer: TaskLayer, module: nn.Module, own: Own, weights: str, whole: bool, together: bool):
        self.own, self.whole, self.kept = own, whole, 0.0
        if own.attention:
            self.kept, self.attention = attention(layer.attention, module.attention, own, weights, whole, together)
        if own.feed_forward:
            ours = layer.feed_forward
            self.inner = served.linear(ours.intermediate, module.intermediate.dense, weights)
            self.outer = served.linear(ours.output, module.output.dense, weights)
            self.norm = Norm.of(ours.norm)

    def __call__(
        self, cached: FrozenLayer, below: torch.Tensor, mask: torch.Tensor | None, attended: torch.Tensor | None = None
    ) -> torch.Tensor:
        """H^t_j, (1, B, l, d) or (1, B, 1, d); ``below``: H^t_{j-1}; ``attended``: M^t_j where it is known."""
        if attended is None:
            attended = self._attended(cached, below, mask)
        return self._feed_forward(cached.module, attended) if self.own.feed_forward else attended

    def _attended(self, cached: FrozenLayer, below: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        if self.own.attention:
            return self.attention(cached, below if self.own.input else None, mask)
        shared = (cached.attended if self.own.feed_forward else cached.output)[None]
        return shared if self.whole else shared[:, :, :1]

    def _feed_forward(self, module: nn.Module, x: torch.Tensor) -> torch.Tensor:
        inner = module.intermediate.intermediate_act_fn(self.inner(module.intermediate.dense, x))
        return self.norm(self.outer(module.output.dense, inner) + x)


class _Together:
    """Own attention of the sub-tasks ``names`` on the shared input of one layer, run as one."""

    def __init__(self, names: list[str], attention: Attention):
        self.names, self.attention = names, attention

    def __call__(self, cached: FrozenLayer, mask: torch.Tensor | None) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
        """M^t_j of each, (1, B, l or 1, d), and its [CLS], (B, d)."""
        attended = self.attention(cached, None, mask)
        first = attended[:, :, 0].clone()
        return dict(zip(self.names, zip(attended.split(1), first, strict=True), strict=True))

    def only(self, names: Collection[str]) -> "_Together":
        chosen = [i for i, name in enumerate(self.names) if name in names]
        return _Together([self.names[i] for i in chosen], self.attention.part(chosen))


def _joined(layers: Mapping[str, _Layer]) -> list[_Together]:
    """The sub-tasks' layers j that run as one. Each keeps its part of the common memory alone."""
    kinds: dict[object, list[str]] = {}
    for name, layer in layers.items():
        if layer.own.attention and layer.attention.kind is not None:
            kinds.setdefault(layer.attention.kind, []).append(name)
    groups = [
        _Together(names, Attention.joined([layers[name].attention for name in names])) for names in kinds.values()
    ]
    for group in groups:
        for i, name in enumerate(group.names):
            layers[name].attention = group.attention.part([i])
    return groups


def _computed(cached: FrozenLayer, j: int, asked: Iterable[str]) -> Iterator[Node]:
    """Compute the parts asked for of a frozen layer, one node after the other."""
    results = {"qkv": ("query", "key", "value"), "attention": ("attended",), "feed_forward": ("output",)}
    for part in asked:
        for result in results[part]:
            getattr(cached, result)
        yield frozen_node(j, part)


def _first(hidden: torch.Tensor) -> torch.Tensor:
    """[CLS] of one sub-task, (B, d), which does not keep the other positions alive."""
    return hidden[0, :, 0].clone()
