"""How alike two weight masks are, against chance (Figure 7, appendix C): shared entries, rank correlation, and crowding into rows and columns."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from paperlib.errors import InputError


@dataclass(frozen=True)
class Overlap:
    """Two masks of the same ``entries`` n that keep ``kept`` K_a and K_b, ``shared`` of them both.

    Of two masks drawn uniformly, ``expected`` K_a K_b / n are shared, with deviation ``sd`` (hypergeometric). ``z``: (shared - expected) / sd,
    None where chance has no choice. ``fraction``: shared / min(K_a, K_b); ``iou``: shared / those in either; ``enrichment``: shared / expected;
    None where nothing is kept.
    """

    entries: int
    kept: tuple[int, int]
    shared: int
    expected: float
    sd: float
    z: float | None
    fraction: float | None
    iou: float | None
    enrichment: float | None

    @classmethod
    def of(cls, one: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]) -> "Overlap":
        """Of boolean masks by name, all entries together. InputError: not the same names and shapes, or nothing to compare."""
        _require_alike(one, other)
        n = sum(mask.numel() for mask in one.values())
        a, b = (sum(int(mask.sum()) for mask in masks.values()) for masks in (one, other))
        return cls.counted(n, (a, b), sum(int((mask & other[name]).sum()) for name, mask in one.items()))

    @classmethod
    def counted(cls, n: int, kept: tuple[int, int], shared: int) -> "Overlap":
        """Of masks that have been counted already."""
        a, b = kept
        expected = a * b / n
        sd = (expected * (1 - a / n) * (n - b) / (n - 1)) ** 0.5 if n > 1 else 0.0
        return cls(
            entries=n,
            kept=kept,
            shared=shared,
            expected=expected,
            sd=sd,
            z=(shared - expected) / sd if sd else None,
            fraction=shared / min(a, b) if min(a, b) else None,
            iou=shared / (a + b - shared) if a + b else None,
            enrichment=shared / expected if expected else None,
        )


def concentration(mask: torch.Tensor) -> dict[str, float | None]:
    """How kept entries of a matrix crowd into ``rows`` and ``columns``: the variance of their counts over that of a uniform draw; 1: chance.

    None where chance has no choice. InputError: not a boolean matrix.
    """
    _require_matrix(mask)
    n, kept = mask.numel(), int(mask.sum())
    found = {}
    for name, dim in (("rows", 1), ("columns", 0)):
        counts = mask.sum(dim).double()
        share = 1 / len(counts)
        chance = kept * share * (1 - share) * (n - kept) / max(n - 1, 1)
        found[name] = (counts - kept * share).square().mean().item() / chance if chance else None
    return found


def rank_correlation(one: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]) -> float | None:
    """Spearman's rho of two scores by name, all entries together; None where all of one are equal. InputError: as :meth:`Overlap.of`."""
    from scipy.stats import rankdata

    _require_alike(one, other)
    flat = (np.concatenate([scores[name].detach().flatten().cpu().numpy() for name in one]) for scores in (one, other))
    a, b = (ranks - ranks.mean() for ranks in map(rankdata, flat))
    norm = np.sqrt((a @ a) * (b @ b))
    return float(a @ b / norm) if norm else None


def uniform(like: Mapping[str, torch.Tensor], seed: int) -> dict[str, torch.Tensor]:
    """Scores by chance: their largest k m entries are as likely to be these as any others. float64, on the CPU."""
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.rand(each.shape, generator=generator, dtype=torch.float64) for name, each in like.items()}


def column_chance(
    one: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor], rows: Mapping[str, int]
) -> tuple[float, float]:
    """Expected number of shared entries, and its deviation, of masks drawn uniformly but for how many entries each column keeps.

    ``one``, ``other``: kept entries by column, of every matrix of as many ``rows``. What two masks share beyond this are entries, not stripes.
    InputError: as :meth:`Overlap.of`.
    """
    _require_alike(one, other)
    expected = variance = 0.0
    for name, n in rows.items():
        a, b = one[name].double(), other[name].double()
        mean = a * b / n
        expected += mean.sum().item()
        variance += (mean * (1 - a / n) * (n - b)).sum().item() / max(n - 1, 1)
    return expected, variance**0.5


def matrix(places: torch.Tensor, shape: tuple[int, int]) -> torch.Tensor:
    """The boolean mask that is true at ``places``, flat indices."""
    mask = torch.zeros(shape, dtype=torch.bool)
    mask.view(-1)[places.long()] = True
    return mask


def blocks(mask: torch.Tensor, most: int) -> torch.Tensor:
    """Which square blocks of a boolean matrix hold a kept entry, at most ``most`` to a side: a sparse mask that can be seen on a page."""
    _require_matrix(mask)
    side = -(-max(mask.shape) // most)
    high, wide = (-(-size // side) for size in mask.shape)
    padded = torch.zeros(high * side, wide * side, dtype=torch.bool)
    padded[: mask.shape[0], : mask.shape[1]] = mask
    return padded.view(high, side, wide, side).any(3).any(1)


def draw(ax, mask: torch.Tensor, most: int = 128) -> None:
    """A mask as Figure 7 has it, kept entries yellow, in at most ``most`` :func:`blocks` to a side; ``ax``: matplotlib's."""
    ax.imshow(blocks(mask, most), cmap="viridis", vmin=0, vmax=1, interpolation="nearest")
    ax.set(xticks=[], yticks=[])
    ax.grid(visible=False)


def _require_alike(one: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]) -> None:
    shapes = [{name: tuple(each.shape) for name, each in masks.items()} for masks in (one, other)]
    if shapes[0] != shapes[1] or not sum(each.numel() for each in one.values()):
        raise InputError(f"overlap: masks of {shapes[0]} and {shapes[1]}; give the same weights, at least one entry")


def _require_matrix(mask: torch.Tensor) -> None:
    if mask.ndim != 2 or mask.dtype != torch.bool:
        raise InputError(f"overlap: a {mask.dtype} mask of shape {tuple(mask.shape)}; give a boolean matrix")
