"""All delta parameters of a model as one gated forward pass uses them, in a few launches per shape however many modules there are."""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import nn

from paperlib.kernels.low_rank import autocast_dtype, joined_factors
from paperlib.s3delta.deltas import Delta, LoRA

Used = tuple[torch.Tensor, ...]
"""A delta's parameters as its host takes them: LoRA's A and B, a fused adapter's W1, c1 and W2, else the outer ones."""


class GatedParameters:
    """Parameters of ``deltas``, outer ones scaled and gated, as their hosts use them.

    ``shifted``: number of a delta -> the host whose parameter it is added to; one that is None counts as 0. ``fused``: numbers of the low-rank
    adapters that :func:`paperlib.kernels.low_rank.adapter` computes -> that of a bias which goes into the adapter's own, or None. ``device``: where
    gates come from.

    Parameters of one shape and use are stacked, multiplied, added and cast to autocast's dtype together, forward and backward; apart, that is
    three launches and more for each. Dtypes are those the hosts compute in.
    """

    def __init__(
        self,
        deltas: Sequence[Delta],
        shifted: Mapping[int, nn.Module],
        fused: Mapping[int, int | None],
        device: torch.device,
    ):
        self.deltas, self.shifted, self.fused, self.device = deltas, shifted, fused, device
        self._groups = self._grouped()
        gated = [i for group in self._groups for i in group.gates]
        self._gates = torch.tensor(gated, device=device)
        self._scales = torch.tensor([deltas[i].scale for i in gated], device=device)
        self._of_lora = _alike({i: delta.A for i, delta in enumerate(deltas) if isinstance(delta, LoRA)})
        self._of_adapters = _alike({i: deltas[i].l1 for i in fused})

    def alone(self, i: int) -> Used:
        """Delta i without a gate."""
        delta, bias = self.deltas[i], self.fused.get(i)
        outer = [delta.scale * parameter for parameter in delta.outer_parameters()]
        if (frozen := self._frozen(i)) is not None:
            outer = [frozen + outer[0]]
        if bias is not None:
            outer[-1] = outer[-1] + self.alone(bias)[0]
        if isinstance(delta, LoRA):
            return delta.A, *outer
        return joined_factors(*delta.inner_parameters(), *outer) if i in self.fused else tuple(outer)

    def gated(self, z: torch.Tensor) -> dict[int, Used]:
        """All of them by number, but for biases that another's takes along, with the gates ``z`` (K,), differentiable in z and in the parameters."""
        dtype = autocast_dtype(z.device)
        outer = self._outer(z, dtype)
        used = {i: tuple(each) for i, each in outer.items()}
        for numbers in self._of_lora:
            A = _as(torch.stack([self.deltas[i].A for i in numbers]), dtype)
            used |= {i: (each, *outer[i]) for i, each in zip(numbers, A.unbind(), strict=True)}
        for numbers in self._of_adapters:
            alone = (self.deltas[i].inner_parameters() + outer[i] for i in numbers)
            factors = (_as(torch.stack(each), dtype) for each in zip(*alone, strict=True))
            joined = (each.unbind() for each in joined_factors(*factors))
            used |= dict(zip(numbers, zip(*joined, strict=True), strict=True))
        return used

    def _outer(self, z: torch.Tensor, dtype: torch.dtype | None) -> dict[int, list[torch.Tensor]]:
        found = {i: [None] * len(self.deltas[i].outer) for i in dict.fromkeys(i for i, *_ in self._separate())}
        factors = (z.index_select(0, self._gates) * self._scales).split([len(group.gates) for group in self._groups])
        for group, each in zip(self._groups, factors, strict=True):
            together = self._together(group, each)
            together = _as(together, dtype) if group.narrow else together
            for (i, slot), parameter in zip(group.members, together.unbind(), strict=True):
                found[i][slot] = parameter
        return found

    def _together(self, group: "_Group", factors: torch.Tensor) -> torch.Tensor:
        parameters = [self.deltas[i].outer_parameters()[slot] for i, slot in group.members]
        stacked = torch.stack(parameters + [self.deltas[i].b for i in group.biases])
        gated = stacked * factors.to(stacked.dtype).view(-1, *[1] * (stacked.dim() - 1))
        if group.biases:
            gated = torch.add(*gated.unflatten(0, (2, -1)).unbind())
        if group.frozen:
            gated = torch.stack([self._frozen(i) for i, _ in group.members]) + gated
        return gated

    def _frozen(self, i: int) -> nn.Parameter | None:
        return getattr(self.shifted[i], self.deltas[i].shifts) if i in self.shifted else None

    def _grouped(self) -> list["_Group"]:
        members: dict[tuple, list[tuple[int, int]]] = {}
        for i, slot, parameter in self._separate():
            # A bias that shifts a linear map's, like every factor of a product, is used in the dtype computed in.
            narrow = self.deltas[i].multiplies or isinstance(self.shifted.get(i), nn.Linear)
            biased = self.fused.get(i) is not None and parameter is self.deltas[i].outer_parameters()[-1]
            key = parameter.shape, narrow, self._frozen(i) is not None, biased
            members.setdefault(key, []).append((i, slot))
        return [
            _Group(alike, [self.fused[i] for i, _ in alike] if biased else [], frozen, narrow)
            for (_, narrow, frozen, biased), alike in members.items()
        ]

    def _separate(self) -> Iterator[tuple[int, int, nn.Parameter]]:
        """``(delta, slot, parameter)`` of outer parameters, but for biases that another's takes along."""
        for i, delta in enumerate(self.deltas):
            if i not in self.fused.values():
                for slot, parameter in enumerate(delta.outer_parameters()):
                    yield i, slot, parameter


class _Group(NamedTuple):
    """Outer parameters of one shape and use.

    ``members``: ``(delta, slot)`` of each; ``biases``: of each, the delta whose bias is added, or none at all; ``frozen``: whether parameters of
    hosts are added; ``narrow``: whether they are used in the dtype computed in.
    """

    members: list[tuple[int, int]]
    biases: list[int]
    frozen: bool
    narrow: bool

    @property
    def gates(self) -> list[int]:
        """Numbers of the gates that multiply what is stacked."""
        return [i for i, _ in self.members] + self.biases


def _alike(parameters: Mapping[int, nn.Parameter]) -> list[list[int]]:
    """Numbers of the parameters of each shape."""
    found: dict[torch.Size, list[int]] = {}
    for i, parameter in parameters.items():
        found.setdefault(parameter.shape, []).append(i)
    return [*found.values()]


def _as(tensor: torch.Tensor, dtype: torch.dtype | None) -> torch.Tensor:
    return tensor if dtype is None else tensor.to(dtype)
