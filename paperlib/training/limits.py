"""What the machine reaches at most: bytes per second of a copy and FLOP per second of a matrix product, which draw a roofline."""

import statistics
from dataclasses import dataclass
from functools import partial

import torch

from paperlib import measure
from paperlib.training.timing import Turn, interleaved

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
COPIED = {"cpu": 2**26, "cuda": 2**30}
"""Bytes of what is copied: far more than a processor's cache holds."""
SIDES = {"cpu": 1024, "cuda": 8192}
"""Of the square matrices multiplied: as many rows as keep the processor's arithmetic at work all the time."""


@dataclass(frozen=True)
class Limits:
    """``bandwidth``: bytes per second of a copy, read and written; ``rate``: FLOP per second of a matrix product."""

    bandwidth: float
    rate: float

    @property
    def ridge(self) -> float:
        """FLOP per byte above which arithmetic limits, and below which memory does."""
        return self.rate / self.bandwidth

    def roof(self, intensity: float) -> float:
        """FLOP per second that so many FLOP per byte allow."""
        return min(self.rate, intensity * self.bandwidth)


def limits(precision: str, rounds: int) -> Limits:
    """Medians of ``rounds`` interleaved turns in ``precision``, "fp32" or "bf16", on the device of the run.

    fp32 as torch multiplies it where nothing is set: without TF32.
    """
    dtype, device = DTYPES[precision], measure.device().type
    entries, side = COPIED[device] // dtype.itemsize, SIDES[device]
    turns = {"copy": copy(entries, dtype), "product": product(side, dtype)}
    seconds = interleaved(turns, rounds, cover=turns["copy"])
    return Limits(
        bandwidth=2 * COPIED[device] / statistics.median(seconds["copy"]),
        rate=product_flops(side) / statistics.median(seconds["product"]),
    )


def copy(entries: int, dtype: torch.dtype) -> Turn:
    """One tensor of so many entries to another: what moves bytes fastest. Twice the tensor's bytes."""
    source = torch.randn(entries, device=measure.device()).to(dtype)
    return partial(torch.empty_like(source).copy_, source)


def product(side: int, dtype: torch.dtype) -> Turn:
    """Of two square matrices: what multiplies fastest."""
    one, other = (torch.randn(side, side, device=measure.device()).to(dtype) for _ in range(2))
    return partial(torch.mm, one, other, out=torch.empty_like(one))


def product_flops(side: int) -> int:
    """Multiplications and additions of :func:`product`."""
    return 2 * side**3
