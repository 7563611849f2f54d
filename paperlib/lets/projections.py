"""Q, K and V of sub-tasks on the input of their layer, in the form that is fastest there (LeTS-R, equation A1).

On an input of its own a sub-task needs W^f x, one dense product. On the shared input x = H^p_{j-1} it needs W^d x + b^t - b^p, added onto the
known W^p x + b^p: a sparse product. All forms give (query, key, value), each (G, B, l, d), the query of the positions read alone.
"""

import warnings
from collections.abc import Sequence

import torch
from torch import nn

from paperlib.kernels.sparse_offset import SparseOffsets, add_products
from paperlib.lets import served
from paperlib.lets.frozen_pass import FrozenLayer
from paperlib.lets.offsets import Offset
from paperlib.lets.own_layers import OwnAttention

NAMES = ("query", "key", "value")
DENSEST = 0.02
"""Kept share up to which a sparse product is used: measured on one CPU core, 384 to 1024 wide, it is faster up to there and not at 0.05."""


class Dense:
    """W^f x of any input, one sub-task's."""

    def __init__(self, own: OwnAttention, frozen: nn.Module, weights: str):
        self.products = [served.linear(getattr(own, name), getattr(frozen, name), weights) for name in NAMES]

    def __call__(self, cached: FrozenLayer, x: torch.Tensor, reading: torch.Tensor) -> list[torch.Tensor]:
        frozen = cached.module.attention.self
        inputs = zip(self.products, NAMES, (reading, x, x), strict=True)
        return [product(getattr(frozen, name), each) for product, name, each in inputs]

    @property
    def tensors(self) -> list[torch.Tensor]:
        return [tensor for product in self.products for tensor in product.tensors]


class SparseRows:
    """W^d of one sub-task in compressed rows, which a CPU multiplies by; a W^d without entries costs nothing.

    One product for each of q, k and v, and no more than one sub-task's at a time: stacked, the results leave the caches, which was measured to
    cost more than the calls that it saves.
    """

    def __init__(self, deltas: Sequence[torch.Tensor], biases: Sequence[torch.Tensor]):
        self.biases = list(biases)
        self.rows = [_rows(delta) if delta.count_nonzero() else None for delta in deltas]

    def __call__(self, cached: FrozenLayer, x: torch.Tensor, reading: torch.Tensor) -> list[torch.Tensor]:
        found = []
        for name, rows, bias, each in zip(NAMES, self.rows, self.biases, (reading, x, x), strict=True):
            known = getattr(cached, name)[:, : each.shape[2]]
            found.append((known + bias if rows is None else _added(rows, bias, each[0], known))[None])
        return found

    @property
    def tensors(self) -> list[torch.Tensor]:
        return [*self.biases, *(rows for rows in self.rows if rows is not None)]


class SparseTogether:
    """W^d of G sub-tasks for :func:`add_products`: ``blocks`` of the weights that read the same positions, one below the other in one.

    Two launches and one that lays the known results side by side, for a block of all sub-tasks.
    """

    def __init__(self, blocks: Sequence[SparseOffsets]):
        self.blocks = list(blocks)

    @classmethod
    def of(cls, deltas: Sequence[torch.Tensor], biases: Sequence[torch.Tensor], whole: bool) -> "SparseTogether":
        """Of one sub-task; ``whole``: queries of all positions are asked for, as keys and values are."""
        parts = [(0, 3)] if whole else [(0, 1), (1, 3)]
        return cls([_block(torch.cat(deltas[start:end]), torch.cat(biases[start:end])) for start, end in parts])

    def __call__(self, cached: FrozenLayer, x: torch.Tensor, reading: torch.Tensor) -> list[torch.Tensor]:
        known = [getattr(cached, name) for name in NAMES]
        if len(self.blocks) == 1:
            return list(add_products(x[0], torch.cat(known, -1), self.blocks[0]).chunk(3, -1))
        query, rest = self.blocks
        few = add_products(reading[0], known[0][:, : reading.shape[2]], query)
        return [few, *add_products(x[0], torch.cat(known[1:], -1), rest).chunk(2, -1)]

    @property
    def tensors(self) -> list[torch.Tensor]:
        return [each for block in self.blocks for each in (block.values, block.places, block.starts, block.biases)]

    @classmethod
    def joined(cls, parts: "Sequence[SparseTogether]") -> "SparseTogether":
        return cls([SparseOffsets.joined(blocks) for blocks in zip(*(part.blocks for part in parts), strict=True)])

    def part(self, chosen: Sequence[int]) -> "SparseTogether":
        return SparseTogether([block.part(chosen) for block in self.blocks])


Projections = Dense | SparseRows | SparseTogether


@torch.no_grad()
def on_shared_input(own: OwnAttention, frozen: nn.Module, whole: bool, together: bool) -> tuple[float, Projections]:
    """The share of W^f of q, k and v that is multiplied by, and the form for it: dense, and whole, above :data:`DENSEST`."""
    pairs = [(getattr(own, name), getattr(frozen, name)) for name in NAMES]
    deltas = [ours.offset.merged(torch.zeros_like(theirs.weight)).detach() for ours, theirs in pairs]
    biases = [ours.bias.detach() - theirs.bias for ours, theirs in pairs]
    share = sum(delta.count_nonzero().item() for delta in deltas) / sum(delta.numel() for delta in deltas)
    if share > DENSEST:
        return 1.0, Dense(own, frozen, "merged")
    return share, SparseTogether.of(deltas, biases, whole) if together else SparseRows(deltas, biases)


def _added(rows: torch.Tensor, bias: torch.Tensor, x: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
    """known + W^d x + bias, rounded once to the type of ``known``."""
    with torch.autocast(x.device.type, enabled=False):
        start = known.flatten(0, 1) + bias.to(rows.dtype)
        return start.addmm_(x.flatten(0, 1).to(start.dtype), rows.t()).to(known.dtype).view_as(known)


def _block(delta: torch.Tensor, bias: torch.Tensor) -> SparseOffsets:
    offset = Offset.of(delta, delta != 0)
    return SparseOffsets.of([offset.values.to(_wide(delta))], [offset.indices], [bias], delta.shape[1])


def _rows(dense: torch.Tensor) -> torch.Tensor:
    """Compressed rows with places of 32 bits; in single precision where it is less, since torch has no sparse product of halves on every device."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
        rows = dense.to(_wide(dense)).to_sparse_csr()
        places = (rows.crow_indices().int(), rows.col_indices().int())
        return torch.sparse_csr_tensor(*places, rows.values(), dense.shape, check_invariants=False)


def _wide(x: torch.Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)
