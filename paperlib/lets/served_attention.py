"""Own attention of one layer as an engine runs it: of one sub-task, or of all that read the layer's shared input at once (LeTS-R)."""

from collections.abc import Iterator, Sequence

import torch
from torch import nn

from paperlib.lets import projections, served
from paperlib.lets.architecture import Own
from paperlib.lets.frozen_pass import FrozenLayer, multi_head
from paperlib.lets.own_layers import OwnAttention
from paperlib.lets.projections import Projections, SparseTogether
from paperlib.lets.served import Merged, Norm, Patched


class Attention:
    """Attn(X_j; W^f, b^t) with residual sum and layer norm, of G sub-tasks; ``whole``: of all positions, else of [CLS] alone."""

    def __init__(self, products: Projections, output: Merged | Patched, norm: Norm, whole: bool):
        self.products, self.output, self.norm, self.whole = products, output, norm, whole

    def __call__(self, cached: FrozenLayer, x: torch.Tensor | None, mask: torch.Tensor | None) -> torch.Tensor:
        """M^t_j, (G, B, l, d) or (G, B, 1, d); ``x``: the sub-task's own X_j, (1, B, l, d), or None for the shared one."""
        attention = cached.module.attention
        x = cached.input[None] if x is None else x
        reading = x if self.whole else x[:, :, :1]
        query, key, value = (each.flatten(0, 1) for each in self.products(cached, x, reading))
        if mask is not None:
            mask = mask.expand(x.shape[1], -1, -1, -1).repeat(len(query) // x.shape[1], 1, 1, 1)[
                ..., : query.shape[1], :
            ]
        context = multi_head(attention.self, query, key, value, mask, host=attention.self).unflatten(
            0, (-1, x.shape[1])
        )
        return self.norm(self.output(attention.output.dense, context) + reading)

    @property
    def tensors(self) -> Iterator[torch.Tensor]:
        return served.tensors_in(self)

    @property
    def kind(self) -> tuple[bool, type] | None:
        """What is alike in all that run as one; None for what runs alone."""
        return (self.whole, type(self.output)) if isinstance(self.products, SparseTogether) else None

    @classmethod
    def joined(cls, parts: "Sequence[Attention]") -> "Attention":
        """Of G sub-tasks, in memory of its own."""
        kinds = ([getattr(part, name) for part in parts] for name in ("products", "output", "norm"))
        return cls(*(type(each[0]).joined(each) for each in kinds), parts[0].whole)

    def part(self, chosen: Sequence[int]) -> "Attention":
        """Of some of the sub-tasks; in the same memory where they follow one another."""
        return Attention(*(each.part(chosen) for each in (self.products, self.output, self.norm)), self.whole)


def attention(
    ours: OwnAttention, theirs: nn.Module, own: Own, weights: str, whole: bool, together: bool
) -> tuple[float, Attention]:
    """One sub-task's, and the share of W^f of q, k and v that is multiplied by; ``together``: in a form that joins others."""
    if own.input:
        share, products = 1.0, projections.Dense(ours, theirs.self, weights)
    else:
        share, products = projections.on_shared_input(ours, theirs.self, whole, together)
    output = served.linear(ours.output, theirs.output.dense, weights)
    return share, Attention(products, output, Norm.of(ours.norm), whole)
