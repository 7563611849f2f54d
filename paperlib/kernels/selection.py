"""Exact selection of the largest entries of a matrix."""

import torch


def largest(values: torch.Tensor, count: int) -> torch.Tensor:
    """Boolean mask of the entries not smaller than the ``count``-th largest: all that tie with it are in.

    ``values``: fp32 or fp64, any shape, at least one entry; NaN entries are never chosen. ``count``: 1..numel. One partial selection, no sort.
    """
    ranked = torch.nan_to_num(values, nan=-torch.inf, posinf=torch.inf, neginf=-torch.inf).flatten()
    smallest_kept = ranked.kthvalue(ranked.numel() - count + 1).values
    return (values >= smallest_kept) & ~values.isnan()
