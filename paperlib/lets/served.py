"""Weights of sub-tasks in the forms an engine uses them in: those of one sub-task, or of G sub-tasks stacked (LeTS-R).

All take and give tensors with the G sub-tasks first, (G, B, l, d). ``tensors`` are what is held; ``part`` gives some of the sub-tasks', see
:func:`picked`.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import nn
from torch.nn import functional

from paperlib.lets.offsets import Offset, applied
from paperlib.lets.own_layers import OwnLinear, OwnNorm


class Merged:
    """W^f x + b^t, W^f held: ``weights`` (G, d_out, d_in), ``biases`` (G, d_out)."""

    def __init__(self, weights: torch.Tensor, biases: torch.Tensor):
        self.tensors = [weights, biases]

    def __call__(self, frozen: nn.Linear, x: torch.Tensor) -> torch.Tensor:
        weights, biases = self.tensors
        if len(weights) == 1:
            return functional.linear(x, weights[0], biases[0])
        products = torch.baddbmm(biases[:, None], x.flatten(1, -2), weights.transpose(1, 2))
        return products.unflatten(1, x.shape[1:-1])

    @classmethod
    def joined(cls, parts: "Sequence[Merged]") -> "Merged":
        return cls(*map(torch.cat, zip(*(part.tensors for part in parts), strict=True)))

    def part(self, chosen: Sequence[int]) -> "Merged":
        return Merged(*(picked(each, chosen) for each in self.tensors))


class Patched:
    """W^f x + b^t, W^p being W^f for the moment: G ``offsets``, ``biases`` (G, d_out)."""

    def __init__(self, offsets: Sequence[Offset], biases: torch.Tensor):
        self.offsets, self.biases = offsets, biases

    def __call__(self, frozen: nn.Linear, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([self._one(frozen, *each) for each in zip(self.offsets, self.biases, x, strict=True)])

    def _one(self, frozen, offset, bias, x):
        with applied({"weight": frozen.weight}, {"weight": offset}):
            return functional.linear(x[None], frozen.weight, bias)

    @property
    def tensors(self) -> list[torch.Tensor]:
        return [self.biases, *(part for offset in self.offsets for part in (offset.values, offset.indices))]

    @classmethod
    def joined(cls, parts: "Sequence[Patched]") -> "Patched":
        return cls([part.offsets[0] for part in parts], torch.cat([part.biases for part in parts]))

    def part(self, chosen: Sequence[int]) -> "Patched":
        return Patched([self.offsets[i] for i in chosen], picked(self.biases, chosen))


class Norm:
    """Layer norms: ``weights`` and ``biases`` (G, d)."""

    def __init__(self, weights: torch.Tensor, biases: torch.Tensor, eps: float):
        self.tensors, self.eps = [weights, biases], eps

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        weights, biases = self.tensors
        if len(weights) == 1:
            return functional.layer_norm(x, weights.shape[1:], weights[0], biases[0], self.eps)
        # Two launches for G of them, at the price of one more rounding in half precision.
        normal = functional.layer_norm(x, weights.shape[1:], eps=self.eps)
        return torch.addcmul(biases[:, None, None], normal, weights[:, None, None])

    @classmethod
    def of(cls, norm: OwnNorm) -> "Norm":
        return cls(norm.weight.detach().clone()[None], norm.bias.detach().clone()[None], norm.eps)

    @classmethod
    def joined(cls, parts: "Sequence[Norm]") -> "Norm":
        return cls(*map(torch.cat, zip(*(part.tensors for part in parts), strict=True)), parts[0].eps)

    def part(self, chosen: Sequence[int]) -> "Norm":
        return Norm(*(picked(each, chosen) for each in self.tensors), self.eps)


@torch.no_grad()
def linear(own: OwnLinear, frozen: nn.Linear, weights: str) -> Merged | Patched:
    """For inputs of the sub-task's own; ``weights``: "merged" or "patched". Above a half, a dense weight is smaller than values and places."""
    delta, bias = own.offset.merged(torch.zeros_like(frozen.weight)), own.bias.detach().clone()[None]
    kept = delta != 0
    if weights == "merged" or kept.float().mean() > 0.5:
        return Merged(own.offset.merged(frozen.weight).detach().clone()[None], bias)
    return Patched([Offset.of(delta, kept)], bias)


def picked(stacked: torch.Tensor, chosen: Sequence[int]) -> torch.Tensor:
    """Some of the first dimension, rising: a view where they follow one another, else a copy."""
    first, last = chosen[0], chosen[-1]
    return stacked[first : last + 1] if last - first + 1 == len(chosen) else stacked[list(chosen)]


def tensors_in(part: object) -> Iterator[torch.Tensor]:
    """What the forms among the attributes of ``part`` hold."""
    for value in vars(part).values():
        for each in value if isinstance(value, list) else [value]:
            yield from getattr(each, "tensors", ())


def nbytes(tensor: torch.Tensor) -> int:
    """Bytes of a tensor, of a sparse one those of its values and places."""
    if tensor.layout == torch.sparse_csr:
        return sum(part.nbytes for part in (tensor.values(), tensor.crow_indices(), tensor.col_indices()))
    return tensor.nbytes
