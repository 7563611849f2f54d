"""Several sub-tasks on one input: one frozen pass, and of each sub-task no more than what it adds to it (LeTS-R, ``paperlib.lets.architecture``).

The answers are those of the sub-tasks run one by one. Inferred, since the paper gives no implementation:

1.  W^d x of a shared input x = H^p_{j-1} is a sparse product, added to the known W^p x in one operation. Where no offset is kept only the
    difference of biases is added, and where more than :data:`DENSEST` of them are W^f x is computed anew: dense is faster then.
2.  On an input of the sub-task's own W^f is used densely, in one of two ways (:data:`WEIGHTS`). "merged": every sub-task holds its W^f.
    "patched": W^p is the one copy, its kept entries are changed in place for the product and put back bit for bit; a sub-task then is its
    kept offsets, 8 bytes each, biases, norms and readout. Patched engines must not be used by two threads at once.
3.  All sub-tasks go through layer j before any goes through the next: of the frozen pass one layer's activations are alive at a time.
    Sub-tasks that must end before others start go one after another over a frozen pass that is kept (:meth:`Engine.in_order`).
4.  Frozen results that no sub-task asks for are not computed.
5.  ``only_read``: positions that nothing reads are left out. The readout takes [CLS] alone, so all of H^t_j is needed only where layer j + 1
    owns its input. The appendix counts all positions; both can be measured.
"""

import warnings
from collections.abc import Iterable, Iterator, Mapping
from copy import copy, deepcopy
from functools import partial

import torch
from torch import nn
from torch.nn import functional

from paperlib.errors import InputError
from paperlib.lets import operations, workload
from paperlib.lets.architecture import Own, Task
from paperlib.lets.frozen_pass import FrozenEncoder, FrozenLayer, FrozenPass, multi_head
from paperlib.lets.offsets import Offset, applied
from paperlib.lets.operations import Encoder
from paperlib.lets.own_layers import OwnLinear, OwnNorm, TaskLayer
from paperlib.lets.workload import READOUT, Node, frozen_node

WEIGHTS = ("merged", "patched")
DENSEST = 0.02
"""Kept share up to which a sparse product is used: measured on one CPU core, 384 to 1024 wide, it is faster up to there and not at 0.05."""


class Engine:
    """Sub-tasks ready to answer: a snapshot of ``tasks``, by name, in evaluation mode and without gradients.

    ``frozen`` must be the encoder the tasks were made for. InputError: no tasks, unknown ``weights``, a task for another number of layers.
    """

    def __init__(
        self, frozen: FrozenEncoder, tasks: Mapping[str, Task], weights: str = "merged", only_read: bool = False
    ):
        if not tasks or workload.FROZEN in tasks:
            raise InputError(f"engine: give at least one sub-task, and none called {workload.FROZEN!r}")
        if weights not in WEIGHTS:
            raise InputError(f"engine: unknown weights {weights!r}; known: {', '.join(WEIGHTS)}")
        encoder = Encoder.of(frozen.config)
        for task in tasks.values():
            operations.require_layers(encoder, task.architecture)
        self.frozen, self.only_read = frozen, only_read
        self.tasks = {name: _Served(task, frozen, weights, only_read) for name, task in tasks.items()}
        self.architectures = {name: task.architecture for name, task in tasks.items()}

    def only(self, names: Iterable[str]) -> "Engine":
        """An engine for some of the sub-tasks, sharing their weights with this one. KeyError: an unknown one."""
        part = copy(self)
        part.tasks = {name: self.tasks[name] for name in names}
        part.architectures = {name: self.architectures[name] for name in part.tasks}
        return part

    def __call__(self, **inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        """Scores of every sub-task, (B, outputs); ``inputs``: as the backbone takes them, see :class:`FrozenEncoder`."""
        scores: dict[str, torch.Tensor] = {}
        for _ in self.layer_by_layer(scores, **inputs):
            pass
        return scores

    @torch.no_grad()
    def layer_by_layer(self, scores: dict[str, torch.Tensor], **inputs: torch.Tensor) -> Iterator[Node]:
        """The same, one node of :func:`workload.sharing` at a time: each is yielded once it is computed. ``scores`` is filled at the end.

        Only what is on the way up is held: one layer of the frozen pass, and of every sub-task H^t_j and [CLS] of the layers below.
        """
        shared = self.frozen(**inputs)
        hidden = dict.fromkeys(self.tasks, shared.embedded)
        pooled: dict[str, list[torch.Tensor]] = {name: [] for name in self.tasks}
        below, mask = shared.embedded, shared.mask
        del shared
        for j, (module, asked) in enumerate(zip(self.frozen.layers, self._asked(), strict=True), start=1):
            # A pass of this layer alone, which ends with it.
            (cached,) = FrozenPass([module], below, mask).layers
            yield from _computed(cached, j, asked)
            for name, task in self.tasks.items():
                hidden[name] = task.layers[j - 1](cached, hidden[name], mask)
                pooled[name].append(hidden[name][:, 0].clone())
                if any(task.layers[j - 1].own[1:]):
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
            hidden, pooled = shared.embedded, []
            for layer, cached in zip(task.layers, shared.layers, strict=True):
                hidden = layer(cached, hidden, shared.mask)
                pooled.append(hidden[:, 0].clone())
            yield name, task.readout(torch.stack(pooled))

    @property
    def kept(self) -> dict[str, list[float]]:
        """For every sub-task and layer the share of offsets kept in q, k and v: what :func:`operations.task` counts."""
        return {name: [layer.kept for layer in task.layers] for name, task in self.tasks.items()}

    @property
    def nbytes(self) -> dict[str, int]:
        """Bytes every sub-task adds to the frozen encoder."""
        return {name: task.nbytes for name, task in self.tasks.items()}

    def _asked(self) -> list[list[str]]:
        """For every frozen layer its parts that some sub-task asks for."""
        macs = operations.frozen(Encoder.of(self.frozen.config), 1, [*self.architectures.values()])
        return [[part for part, modules in workload.PARTS.items() if modules[0] in layer] for layer in macs]


class _Served:
    """A sub-task's own tensors in the forms they are used in."""

    def __init__(self, task: Task, frozen: FrozenEncoder, weights: str, only_read: bool):
        self.readout = deepcopy(task.readout).requires_grad_(False).eval()
        above = operations.read_above(task.architecture)
        self.layers = [
            _Layer(layer, module, own, weights, whole=read or not only_read)
            for layer, module, own, read in zip(
                task.layers, frozen.layers, task.architecture.layers, above, strict=True
            )
        ]

    @property
    def nbytes(self) -> int:
        tensors = [*self.readout.parameters(), *(each for layer in self.layers for each in layer.tensors())]
        return sum(map(_nbytes, tensors))


class _Layer:
    """Layer j of a sub-task; ``whole``: H^t_j of all positions, else of [CLS] alone."""

    def __init__(self, layer: TaskLayer, module: nn.Module, own: Own, weights: str, whole: bool):
        self.own, self.whole, self.kept = own, whole, 0.0
        dense = partial(_own_input, weights=weights)
        if own.attention:
            ours, theirs = layer.attention, module.attention
            product = dense if own.input else _shared_input
            pairs = [(getattr(ours, name), getattr(theirs.self, name)) for name in ("query", "key", "value")]
            self.qkv = [product(*pair) for pair in pairs]
            self.kept = sum(each.share for each in self.qkv) / 3
            self.output, self.attention_norm = dense(ours.output, theirs.output.dense), _Norm(ours.norm)
        if own.feed_forward:
            ours = layer.feed_forward
            self.inner = dense(ours.intermediate, module.intermediate.dense)
            self.outer, self.norm = dense(ours.output, module.output.dense), _Norm(ours.norm)

    def __call__(self, cached: FrozenLayer, below: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        """H^t_j, (B, l, d) or (B, 1, d); ``below``: H^t_{j-1}."""
        if self.own.attention:
            middle = self._attention(cached, below, mask)
        else:
            middle = self._read(cached.attended if self.own.feed_forward else cached.output)
        return self._feed_forward(cached.module, middle) if self.own.feed_forward else middle

    def tensors(self) -> Iterator[torch.Tensor]:
        for part in vars(self).values():
            for each in part if isinstance(part, list) else [part]:
                yield from getattr(each, "tensors", ())

    def _attention(self, cached: FrozenLayer, below: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        attention = cached.module.attention
        x = below if self.own.input else cached.input
        reading = self._read(x)
        q, k, v = self.qkv
        if self.own.input:
            query = q(attention.self.query, reading)
            key, value = k(attention.self.key, x), v(attention.self.value, x)
        else:
            query = q(attention.self.query, reading, self._read(cached.query))
            key, value = k(attention.self.key, x, cached.key), v(attention.self.value, x, cached.value)
        if mask is not None and not self.whole:
            mask = mask[..., :1, :]
        context = multi_head(attention.self, query, key, value, mask, host=attention.self)
        return self.attention_norm(self.output(attention.output.dense, context) + reading)

    def _feed_forward(self, module: nn.Module, x: torch.Tensor) -> torch.Tensor:
        inner = module.intermediate.intermediate_act_fn(self.inner(module.intermediate.dense, x))
        return self.norm(self.outer(module.output.dense, inner) + x)

    def _read(self, x: torch.Tensor) -> torch.Tensor:
        return x if self.whole else x[:, :1]


class _Norm:
    def __init__(self, norm: OwnNorm):
        self.tensors, self.eps = [norm.weight.detach().clone(), norm.bias.detach().clone()], norm.eps

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        weight, bias = self.tensors
        return functional.layer_norm(x, weight.shape, weight, bias, self.eps)


class _Merged:
    """W^f x + b^t, W^f held."""

    share = 1.0

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor):
        self.tensors = [weight, bias]

    def __call__(self, frozen: nn.Linear, x: torch.Tensor, known: torch.Tensor | None = None) -> torch.Tensor:
        return functional.linear(x, *self.tensors)


class _Patched:
    """W^f x + b^t, W^p being W^f for the moment."""

    share = 1.0

    def __init__(self, offset: Offset, bias: torch.Tensor):
        self.offset, self.bias, self.tensors = offset, bias, [offset.values, offset.indices, bias]

    def __call__(self, frozen: nn.Linear, x: torch.Tensor) -> torch.Tensor:
        with applied({"weight": frozen.weight}, {"weight": self.offset}):
            return functional.linear(x, frozen.weight, self.bias)


class _Added:
    """W^d x + (b^t - b^p) on top of a known W^p x + b^p; None for a W^d without entries."""

    def __init__(self, delta: torch.Tensor | None, bias: torch.Tensor, share: float):
        self.share, self.bias = share, bias
        self.delta = None if delta is None else _rows(delta)
        self.tensors = [bias] if delta is None else [bias, self.delta]

    def __call__(self, frozen: nn.Linear, x: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
        if self.delta is None:
            return known + self.bias
        with torch.autocast(x.device.type, enabled=False):
            start = known.flatten(0, 1) + self.bias.to(self.delta.dtype)
            return start.addmm_(x.flatten(0, 1).to(start.dtype), self.delta.t()).to(known.dtype).view_as(known)


@torch.no_grad()
def _own_input(own: OwnLinear, frozen: nn.Linear, weights: str) -> _Merged | _Patched:
    """For inputs of the sub-task's own. Above a half, a dense weight is smaller than values and places."""
    delta, bias = own.offset.merged(torch.zeros_like(frozen.weight)), own.bias.detach().clone()
    kept = delta != 0
    if weights == "merged" or kept.float().mean() > 0.5:
        return _Merged(own.offset.merged(frozen.weight).detach().clone(), bias)
    return _Patched(Offset.of(delta, kept), bias)


@torch.no_grad()
def _shared_input(own: OwnLinear, frozen: nn.Linear) -> _Merged | _Added:
    """For the frozen input, whose W^p x + b^p is known."""
    delta = own.offset.merged(torch.zeros_like(frozen.weight)).detach()
    share = delta.count_nonzero().item() / delta.numel()
    if share > DENSEST:
        return _Merged(own.offset.merged(frozen.weight).detach().clone(), own.bias.detach().clone())
    return _Added(delta if share else None, own.bias.detach() - frozen.bias, share)


def _rows(dense: torch.Tensor) -> torch.Tensor:
    """Compressed rows with places of 32 bits; in single precision where it is less, since torch has no sparse product of halves on every device."""
    dense = dense.to(torch.promote_types(dense.dtype, torch.float32))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
        wide = dense.to_sparse_csr()
        places = (wide.crow_indices().int(), wide.col_indices().int())
        return torch.sparse_csr_tensor(*places, wide.values(), dense.shape, check_invariants=False)


def _computed(cached: FrozenLayer, j: int, asked: Iterable[str]) -> Iterator[Node]:
    """Compute the parts asked for of a frozen layer, one node after the other."""
    results = {"qkv": ("query", "key", "value"), "attention": ("attended",), "feed_forward": ("output",)}
    for part in asked:
        for result in results[part]:
            getattr(cached, result)
        yield frozen_node(j, part)


def _nbytes(tensor: torch.Tensor) -> int:
    """Bytes of a tensor, of a sparse one those of its values and places."""
    if tensor.layout == torch.sparse_csr:
        return sum(part.nbytes for part in (tensor.values(), tensor.crow_indices(), tensor.col_indices()))
    return tensor.nbytes
