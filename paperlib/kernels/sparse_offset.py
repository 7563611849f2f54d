"""Products of several tasks' sparse weight offsets with one input, each added onto the dense product that the tasks share:

    y_t = known + W^d_t x + b_t        for t = 1..N

The offsets stay as values and places (8 bytes per kept fp32 entry): no dense W^d is made on a GPU, where all tasks take one launch
(:mod:`paperlib.kernels.sparse_offset_triton`). Not differentiable.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch.nn import functional

from paperlib.kernels import triton_path


@dataclass(frozen=True)
class SparseOffsets:
    """The offsets of one weight, (out, in), for N tasks.

    ``values``: (n,), floating; ``places``: (n,), int32, in the flattened weight, rising within a task; both task after task. ``ends``: where
    each task's end in them, N numbers. ``biases``: (N, out). ``inputs``: in. ValueError: sizes that do not fit.
    """

    values: torch.Tensor
    places: torch.Tensor
    ends: tuple[int, ...]
    biases: torch.Tensor
    inputs: int

    def __post_init__(self):
        right = self.values.shape == self.places.shape == (self.ends[-1],) and len(self.biases) == len(self.ends)
        if not right or self.places.dtype != torch.int32:
            raise ValueError(
                f"offsets of {len(self.ends)} tasks that end at {self.ends}: {tuple(self.values.shape)} values at "
                f"{self.places.dtype} places {tuple(self.places.shape)}, biases {tuple(self.biases.shape)}"
            )

    @classmethod
    def of(
        cls, values: Sequence[torch.Tensor], places: Sequence[torch.Tensor], biases: Sequence[torch.Tensor], inputs: int
    ) -> "SparseOffsets":
        """Those of every task together; at least one task, empty ones among them."""
        ends = torch.tensor([len(each) for each in values]).cumsum(0).tolist()
        return cls(torch.cat(list(values)), torch.cat(list(places)), tuple(ends), torch.stack(list(biases)), inputs)

    @cached_property
    def starts(self) -> torch.Tensor:
        """Where each row of each task begins, and after its last one where the task ends: int32 (N, out + 1)."""
        # In 64 bits: one past the last place may be one more than 32 bits hold.
        rows = torch.arange(self.biases.shape[1] + 1, device=self.places.device) * self.inputs
        begins = (0, *self.ends[:-1])
        found = [
            torch.searchsorted(self.places[begin:end].long(), rows) + begin
            for begin, end in zip(begins, self.ends, strict=True)
        ]
        return torch.stack(found).int()

    def dense(self, task: int) -> torch.Tensor:
        """W^d of one task, (out, in), in fp32 or fp64."""
        kept = slice(self.ends[task - 1] if task else 0, self.ends[task])
        outputs = self.biases.shape[1]
        flat = torch.zeros(outputs * self.inputs, dtype=_wide(self.values), device=self.values.device)
        flat[self.places[kept].long()] = self.values[kept].to(flat.dtype)
        return flat.view(outputs, self.inputs)


@torch.no_grad()
def add_products(x: torch.Tensor, known: torch.Tensor, offsets: SparseOffsets) -> torch.Tensor:
    """y of all tasks: (N, ..., out), of the type of ``known``; summed in fp32 (fp64 for fp64 values) and rounded once.

    ``x``: (..., in); ``known``: (..., out), the shared W^p x + b^p. Moves on a GPU, for fp32, per element of y: 4 bytes written, 4 / N of
    ``known``, and (out of L2) 4 bytes of x for each kept entry of its row; 12 bytes per entry of x for all tasks together.
    """
    if triton_path.taken_by(x) and offsets.values.dtype != torch.float64:
        from paperlib.kernels import sparse_offset_triton

        o = offsets
        flat = x.reshape(-1, x.shape[-1]), known.reshape(-1, known.shape[-1]).contiguous()
        return sparse_offset_triton.add_products(*flat, o.values, o.places, o.starts, o.biases.contiguous()).view(
            len(o.ends), *known.shape
        )
    return torch.stack([_one(x, known, offsets, task) for task in range(len(offsets.ends))])


def _one(x, known, offsets, task):
    weight = offsets.dense(task)
    product = functional.linear(x.to(weight.dtype), weight, offsets.biases[task].to(weight.dtype))
    return (known.to(weight.dtype) + product).to(known.dtype)


def _wide(values: torch.Tensor) -> torch.dtype:
    return torch.promote_types(values.dtype, torch.float32)
