"""Masks as bits: eight entries to a byte, entry i of the flattened mask at bit i % 8 of byte i // 8, as numpy's ``packbits(bitorder="little")``."""

import math

import torch


def pack(mask: torch.Tensor) -> torch.Tensor:
    """``mask`` (bool, any shape and strides) as uint8 (ceil(numel / 8),); the bits after the last entry are 0."""
    entries = mask.new_zeros(packed_size(mask.numel()) * 8)
    entries[: mask.numel()] = mask.reshape(-1)
    return (entries.view(-1, 8).to(torch.uint8) << _places(mask.device)).sum(1, dtype=torch.uint8)


def unpack(bits: torch.Tensor, shape: torch.Size | tuple[int, ...]) -> torch.Tensor:
    """The bool mask of ``shape`` whose :func:`pack` is ``bits``."""
    entries = (bits[:, None] >> _places(bits.device)) & 1
    return entries.view(-1)[: math.prod(shape)].view(shape).bool()


def as_bits(mask: torch.Tensor) -> torch.Tensor:
    """``mask``, whether bits (uint8) or a number per entry, as bits; bits themselves."""
    return mask if mask.dtype == torch.uint8 else pack(mask.bool())


def as_flags(mask: torch.Tensor, shape: torch.Size | tuple[int, ...]) -> torch.Tensor:
    """``mask``, whether bits (uint8) or a number per entry of ``shape``, as a number per entry; such a one itself."""
    return unpack(mask, shape) if mask.dtype == torch.uint8 else mask


def packed_size(entries: int) -> int:
    """Bytes that so many entries take."""
    return -(-entries // 8)


def _places(device: torch.device) -> torch.Tensor:
    return torch.arange(8, dtype=torch.uint8, device=device)
