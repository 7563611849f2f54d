"""Exact selection among many values without sorting or copying them.

Radix selection: the bits of a float, read as an integer with the order of the floats, are counted digit by digit of 16 bits from the top.
Each pass finds the digit of the value sought and keeps to the values that share it: two passes over fp32, four over fp64, in pieces of
bounded size, so that the extra memory does not grow with the number of values.

On a GPU with Triton :mod:`paperlib.kernels.selection_triton` does the same with digits of 8 bits, in few launches, and the host waits for nothing.
"""

import math
from collections.abc import Iterator, Sequence

import torch

from paperlib.kernels import triton_path
from paperlib.kernels.packing import pack

DIGIT = 16
PIECE = 2**20
INTEGERS = {torch.float32: torch.int32, torch.float64: torch.int64}


def largest(values: torch.Tensor, count: int) -> torch.Tensor:
    """Boolean mask of the entries not smaller than the ``count``-th largest: all that tie with it are in.

    ``values``: fp32 or fp64, any shape, at least one entry; NaN entries are never chosen. ``count``: 1..numel, else ValueError.
    """
    return values >= kth_largest([values], count)


def kth_largest(values: Sequence[torch.Tensor], k: int) -> torch.Tensor:
    """The ``k``-th largest of all entries of all tensors together, a 0-d tensor.

    ``values``: all fp32 or all fp64, on one device, any shapes and strides, empty ones among them. NaN counts as -inf, and of two zeros
    either may be returned. Extra memory: some tens of MB, however many values. ValueError: ``k`` outside 1..number of entries, other types.
    """
    _check(values, k, sum(each.numel() for each in values))
    return _kth_largest(values, [k])[0]


def kth_largest_each(values: Sequence[torch.Tensor], ranks: Sequence[int]) -> torch.Tensor:
    """Of each tensor the largest of its rank: ``kth_largest([values[i]], ranks[i])``, (T,); on a GPU all at once. Errors as there."""
    for each, k in zip(values, ranks, strict=True):
        _check(values, k, each.numel())
    return _kth_largest(values, ranks)


def at_least(values: Sequence[torch.Tensor], smallest: torch.Tensor) -> list[torch.Tensor]:
    """Of each tensor the packed mask (:mod:`paperlib.kernels.packing`) of the entries >= ``smallest``, uint8 (ceil(numel / 8),).

    ``smallest``: one number for all tensors, 0-d, or (T,), one for each; all that tie with it are in, NaN never is. ``values``: fp32 or
    fp64, any shapes. Reads a value and writes a bit: 4 1/8 bytes per fp32 entry on a GPU, where all tensors take one launch. ValueError: other
    types.
    """
    _check_types(values)
    if values and triton_path.taken_by(values[0]):
        from paperlib.kernels import selection_triton

        return selection_triton.at_least(list(values), smallest.reshape(-1))
    return [pack(each >= bound) for each, bound in zip(values, smallest.expand(len(values)), strict=True)]


def percentile(values: Sequence[torch.Tensor], q: float) -> torch.Tensor:
    """The linearly interpolated ``q``-th percentile (0..100) of all entries of all tensors together, as numpy's default, a 0-d tensor.

    The rank is computed in double precision. ``values``: finite; types, memory and errors as for :func:`kth_largest`.
    """
    total = sum(each.numel() for each in values)
    rank = q / 100 * (total - 1)
    lower = kth_largest(values, total - math.floor(rank))
    if rank == math.floor(rank):
        return lower
    upper = kth_largest(values, total - math.floor(rank) - 1)
    return torch.lerp(lower.double(), upper.double(), rank % 1).to(lower.dtype)


def _check(values: Sequence[torch.Tensor], k: int, entries: int) -> None:
    if not 1 <= k <= entries:
        raise ValueError(f"k must lie in 1..{entries}, the number of values, got {k}")
    _check_types(values)


def _check_types(values: Sequence[torch.Tensor]) -> None:
    found = {each.dtype for each in values}
    if len(found) > 1 or not found <= INTEGERS.keys():
        raise ValueError(f"values must be all float32 or all float64, got {sorted(map(str, found))}")


def _kth_largest(values: Sequence[torch.Tensor], ranks: Sequence[int]) -> torch.Tensor:
    """With one rank of all entries together, (1,), otherwise of each tensor, (T,)."""
    if triton_path.taken_by(values[0]):
        from paperlib.kernels import selection_triton

        return selection_triton.kth_largest(list(values), list(ranks))
    groups = [values] if len(ranks) == 1 else [[each] for each in values]
    return torch.stack([_kth_of_all(group, k) for group, k in zip(groups, ranks, strict=True)])


def _kth_of_all(values: Sequence[torch.Tensor], k: int) -> torch.Tensor:
    dtype = values[0].dtype
    width, image = torch.finfo(dtype).bits, 0
    for shift in range(width - DIGIT, -1, -DIGIT):
        counts = _histogram(values, shift, image)
        # How many lie at or above a digit, from the highest digit down: the first that reaches k is the digit sought.
        from_top = counts.flip(0).cumsum(0)
        digit = len(counts) - 1 - int(torch.searchsorted(from_top, k))
        k -= int(from_top[-1 - digit] - counts[digit])
        image = image << DIGIT | digit
    return _value(image, dtype).to(values[0].device)


def _histogram(values: Sequence[torch.Tensor], shift: int, above: int) -> torch.Tensor:
    """How often each digit stands ``shift`` bits up in the images whose bits above it are ``above``; int64 (65536,), on the CPU."""
    counts = torch.zeros(2**DIGIT, dtype=torch.int64, device=values[0].device)
    for piece in _pieces(values):
        image = _image(piece)
        width = 8 * image.element_size()
        if shift + DIGIT < width:
            image = image[_bits(image, shift + DIGIT, width) == above]
        counts += torch.bincount(_bits(image, shift, shift + DIGIT), minlength=len(counts))
    return counts.cpu()


def _pieces(values: Sequence[torch.Tensor]) -> Iterator[torch.Tensor]:
    """All entries, in whatever order, as flat tensors of at most ``PIECE``; no more than a piece is ever copied."""
    for each in values:
        if each.is_contiguous():
            yield from each.view(-1).split(PIECE)
        elif each.numel() <= PIECE:
            yield each.reshape(-1)
        else:
            longest = max(range(each.ndim), key=each.shape.__getitem__)
            yield from _pieces(each.tensor_split(2, dim=longest))


def _image(piece: torch.Tensor) -> torch.Tensor:
    """The order-preserving image: read as unsigned integers, images compare as the floats do."""
    bits = torch.nan_to_num(piece, nan=-torch.inf, posinf=torch.inf, neginf=-torch.inf).view(INTEGERS[piece.dtype])
    # Negative floats grow in magnitude with their bits: all bits turn. Of the others only the sign does, to lie above.
    return bits ^ (bits >> (8 * bits.element_size() - 1) | torch.iinfo(bits.dtype).min)


def _bits(image: torch.Tensor, low: int, high: int) -> torch.Tensor:
    """Bits ``low`` up to ``high`` of every image, as a number that is not negative."""
    return image >> low & (1 << (high - low)) - 1


def _value(image: int, dtype: torch.dtype) -> torch.Tensor:
    """The float whose image, as an unsigned integer, is ``image``."""
    width = torch.finfo(dtype).bits
    sign = 1 << (width - 1)
    bits = image ^ sign if image & sign else image ^ (2 * sign - 1)
    return torch.tensor(bits - 2 * sign if bits & sign else bits, dtype=INTEGERS[dtype]).view(dtype)
