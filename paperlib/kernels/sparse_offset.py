"""Products of several tasks' sparse weight offsets with one input, each added onto the dense product that the tasks share:

    y_t = known + W^d_t x + b_t        for t = 1..N

The offsets stay as values and places (8 bytes per kept fp32 entry): no dense W^d is made on a GPU, where all tasks take one launch
(:mod:`paperlib.kernels.sparse_offset_triton`). Not differentiable.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

import torch
from torch import Tensor
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
        ends = tuple(accumulate(map(len, values)))
        return cls(torch.cat(list(values)), torch.cat(list(places)), ends, torch.stack(list(biases)), inputs)

    @classmethod
    def joined(cls, parts: "Sequence[SparseOffsets]") -> "SparseOffsets":
        """The tasks of all ``parts``, of one weight, one after the other."""
        tensors = ([getattr(part, name) for part in parts] for name in ("values", "places", "biases"))
        values, places, biases = map(torch.cat, tensors)
        counts = [count for part in parts for count in part.counts]
        return cls(values, places, tuple(accumulate(counts)), biases, parts[0].inputs)

    def part(self, chosen: Sequence[int]) -> "SparseOffsets":
        """Those of some of the tasks, rising; in the same memory where they follow one another."""
        first, last = chosen[0], chosen[-1]
        if last - first + 1 > len(chosen):
            return SparseOffsets.joined([self.part([i]) for i in chosen])
        kept = slice(self.begins[first], self.ends[last])
        ends = tuple(end - kept.start for end in self.ends[first : last + 1])
        return SparseOffsets(self.values[kept], self.places[kept], ends, self.biases[first : last + 1], self.inputs)

    @property
    def begins(self) -> tuple[int, ...]:
        """Where each task's begin."""
        return (0, *self.ends[:-1])

    @property
    def counts(self) -> list[int]:
        """Kept entries of each task."""
        return [end - begin for begin, end in zip(self.begins, self.ends, strict=True)]

    @cached_property
    def starts(self) -> torch.Tensor:
        """Where each row of each task begins, and after its last one where the task ends: int32 (N, out + 1)."""
        # In 64 bits: one past the last place may be one more than 32 bits hold.
        rows = torch.arange(self.biases.shape[1] + 1, device=self.places.device) * self.inputs
        found = [
            torch.searchsorted(self.places[begin:end].long(), rows) + begin
            for begin, end in zip(self.begins, self.ends, strict=True)
        ]
        return torch.stack(found).int()


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
    return _plain(x, known, offsets.values, offsets.places, list(offsets.ends), offsets.biases)


# An operator as the Triton path is one, so that what counts operators sees the same on any device.
@torch.library.custom_op("paperlib::add_products_plain", mutates_args=())
def _plain(x: Tensor, known: Tensor, values: Tensor, places: Tensor, ends: list[int], biases: Tensor) -> Tensor:
    wide = torch.promote_types(values.dtype, torch.float32)
    weights = values.new_zeros(len(ends), biases.shape[1] * x.shape[-1], dtype=wide)
    for weight, begin, end in zip(weights, (0, *ends), ends, strict=False):
        weight[places[begin:end].long()] = values[begin:end].to(wide)
    with torch.autocast(x.device.type, enabled=False):
        weights = weights.view(*biases.shape, x.shape[-1])
        products = [functional.linear(x.to(wide), *each) for each in zip(weights, biases.to(wide), strict=True)]
        return (known.to(wide) + torch.stack(products)).to(known.dtype)
