"""Compact task offsets: of each weight the kept values of c W^d and where they stand, in place of a dense offset and a mask.

A kept offset takes 8 bytes in float32: 4 of value, 4 of place. Offsets of a model are a dictionary by parameter name.
"""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional

from paperlib.errors import InputError

LARGEST = 2**31


@dataclass(frozen=True, eq=False)
class Offset:
    """What is added to one weight.

    ``values`` (n,), floating, may be a parameter; ``indices`` (n,), int32, places in the flattened weight, rising; ``shape``: the
    weight's. InputError: other types or lengths, places that do not rise or lie outside, a weight of more entries than int32 counts.
    """

    values: torch.Tensor
    indices: torch.Tensor
    shape: torch.Size

    def __post_init__(self):
        entries = torch.Size(self.shape).numel()
        if entries > LARGEST:
            raise InputError(f"offset: a weight of {entries} entries; 32-bit places reach {LARGEST}")
        if self.indices.dtype != torch.int32 or not self.values.is_floating_point():
            raise InputError(
                f"offset: {self.indices.dtype} places and {self.values.dtype} values; give int32 and floating ones"
            )
        if self.indices.ndim != 1 or self.indices.shape != self.values.shape:
            raise InputError(
                f"offset: values of shape {tuple(self.values.shape)} at places of shape {tuple(self.indices.shape)}"
            )
        places = self.indices
        if len(places) and not (places[0] >= 0 and places[-1] <= entries - 1 and (places[1:] > places[:-1]).all()):
            raise InputError(f"offset: places must rise, each from 0 to {entries - 1}")

    @classmethod
    def of(cls, dense: torch.Tensor, mask: torch.Tensor) -> "Offset":
        """The entries of ``dense``, W^d, where the boolean ``mask``, c, of its shape is true; zeros among them stay, as they can be trained."""
        if mask.shape != dense.shape or mask.dtype != torch.bool:
            raise InputError(f"offset: a {mask.dtype} mask of shape {tuple(mask.shape)} for {tuple(dense.shape)}")
        places = mask.reshape(-1).nonzero()[:, 0]
        return cls(dense.detach().reshape(-1)[places], places.int(), dense.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of values and places."""
        return self.values.nbytes + self.indices.nbytes

    def dense(self) -> torch.Tensor:
        """c W^d, of the weight's shape; differentiable in the values."""
        flat = self.values.new_zeros(torch.Size(self.shape).numel())
        return flat.index_put((self.indices,), self.values).view(self.shape)


def compact(delta: Mapping[str, torch.Tensor], masks: Mapping[str, torch.Tensor]) -> dict[str, Offset]:
    """Compact offsets of all weights in ``masks``."""
    return {name: Offset.of(delta[name], mask) for name, mask in masks.items()}


@contextmanager
def applied(weights: Mapping[str, torch.Tensor], offsets: Mapping[str, Offset]) -> Iterator[None]:
    """Inside, ``weights`` W^p are W^p + c W^d, in place; afterwards, whatever was raised, W^p bit for bit.

    Weights without an offset are left alone. Only the entries that change are put aside. Nested, the inner offsets come on top of the
    outer. InputError: an offset for an unknown weight, of another shape, or for a weight that is not contiguous.
    """
    with ExitStack() as stack:
        for name, offset in offsets.items():
            stack.enter_context(_added(name, weights.get(name), offset))
        yield


@contextmanager
def _added(name: str, weight: torch.Tensor | None, offset: Offset):
    if weight is None or weight.shape != offset.shape or not weight.is_contiguous():
        found = "no such weight" if weight is None else f"a weight of shape {tuple(weight.shape)}"
        raise InputError(
            f"offset {name!r} of shape {tuple(offset.shape)}: {found}; it needs a contiguous one of its shape"
        )
    flat = weight.detach().view(-1)
    before = flat[offset.indices]
    # Adding and then subtracting would round twice: the entries themselves are kept.
    flat[offset.indices] = before + offset.values.detach().to(flat.dtype)
    try:
        yield
    finally:
        flat[offset.indices] = before


def offset_linear(
    x: torch.Tensor,
    frozen: torch.Tensor | None,
    values: torch.Tensor,
    indices: torch.Tensor,
    shape: torch.Size,
    bias: torch.Tensor,
) -> torch.Tensor:
    """(W^p + c W^d) x + bias, or c W^d x + bias without ``frozen``: (..., d_in) -> (..., d_out), differentiable once in all but W^p.

    ``values``, ``indices``, ``shape``: an :class:`Offset` of W^p. The sum W^f lives as long as the product alone, in either pass: for the backward
    pass nothing is kept but ``x``. The gradient of W^f, d_out x d_in, lives until its kept entries are taken.
    """
    return _OffsetLinear.apply(x, frozen, values, indices, shape, bias)


class _OffsetLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, frozen, values, indices, shape, bias):
        y = functional.linear(x, _merged(frozen, values, indices, shape), bias)
        ctx.save_for_backward(x, frozen, values, indices)
        ctx.shape, ctx.bias_dtype = shape, bias.dtype
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, of_y):
        x, frozen, values, indices = ctx.saved_tensors
        of_x = of_values = of_bias = None
        rows = of_y.flatten(0, -2)
        if ctx.needs_input_grad[0]:
            # Under autocast the product was in of_y's type, whatever x and the weights are.
            of_x = (of_y @ _merged(frozen, values, indices, ctx.shape).to(of_y.dtype)).to(x.dtype)
        if ctx.needs_input_grad[2]:
            dense = rows.t() @ x.flatten(0, -2).to(of_y.dtype)
            of_values = dense.view(-1)[indices].to(values.dtype)
        if ctx.needs_input_grad[5]:
            of_bias = rows.sum(0).to(ctx.bias_dtype)
        return of_x, None, of_values, None, None, of_bias


def _merged(frozen, values, indices, shape) -> torch.Tensor:
    flat = values.new_zeros(shape.numel()) if frozen is None else frozen.detach().reshape(-1).clone()
    return flat.index_add_(0, indices, values.detach()).view(shape)


def to_tensors(offsets: Mapping[str, Offset]) -> dict[str, torch.Tensor]:
    """Named tensors as safetensors stores them: ``NAME.values`` and ``NAME.indices``; shapes are the model's to know."""
    return {
        f"{name}.{part}": getattr(offset, part).detach()
        for name, offset in offsets.items()
        for part in ("values", "indices")
    }


def from_tensors(tensors: Mapping[str, torch.Tensor], weights: Mapping[str, torch.Tensor]) -> dict[str, Offset]:
    """The offsets :func:`to_tensors` gave, with the shapes of ``weights``. InputError: a weight that is not there, half an offset, bad places."""
    names = {name.rpartition(".")[0] for name in tensors}
    wanted = {f"{name}.{part}" for name in names for part in ("values", "indices")}
    if odd := sorted((wanted ^ tensors.keys()) | (names - weights.keys())):
        raise InputError(f"offsets: values and indices of weights that exist are needed; look at {', '.join(odd)}")
    return {
        name: Offset(tensors[f"{name}.values"], tensors[f"{name}.indices"], weights[name].shape)
        for name in sorted(names)
    }


def save(path: Path, offsets: Mapping[str, Offset]) -> None:
    """Write offsets as safetensors in one atomic step, whatever device they are on."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    save_file({name: tensor.cpu().contiguous() for name, tensor in to_tensors(offsets).items()}, part)
    part.replace(path)


def load(path: Path, weights: Mapping[str, torch.Tensor]) -> dict[str, Offset]:
    """The offsets :func:`save` wrote; errors as :func:`from_tensors`."""
    return from_tensors(load_file(path), weights)
