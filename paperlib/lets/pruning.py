"""Delta-pruning (appendix C and D, Algorithm 2): which task offsets W^d = W^f - W^p are kept.

Repaired against the print: the warm-up that gives W^f counts optimizer steps, not epochs, and an offset is kept where its score is
at least the threshold ("<=" would keep nearly all others). Weights, offsets, scores and masks are dictionaries by parameter name, the
scores all float32 or all float64. Which weights take part is the caller's choice; scores are ranked over all of them together, as the
algorithm's one sum over the whole vector says.
"""

from collections.abc import Mapping

import torch

from paperlib.errors import InputError
from paperlib.kernels.selection import kth_largest

Tensors = Mapping[str, torch.Tensor]


def offsets(tuned: Tensors, pretrained: Tensors) -> dict[str, torch.Tensor]:
    """W^d = W^f - W^p of every weight of ``tuned``."""
    return {name: weight.detach() - pretrained[name] for name, weight in tuned.items()}


def mask_gradients(loss: torch.Tensor, tuned: Tensors, delta: Tensors) -> dict[str, torch.Tensor]:
    """g = dL(W^p + c W^d) / dc at c = 1, which is W^d dL/dW at W^f: to first order the loss saved by dropping each offset.

    ``loss``: of one batch, with its graph, at the weights ``tuned`` (W^f); ``delta``: W^d. Weights the loss does not depend on get 0.
    """
    slopes = torch.autograd.grad(loss, [*tuned.values()], materialize_grads=True)
    return {name: delta[name] * slope for name, slope in zip(tuned, slopes, strict=True)}


def scores(g: Tensors) -> dict[str, torch.Tensor]:
    """s = |g| / sum |g|, the sum over all entries of all weights; the norm changes no order, and so, but for ties that
    rounding makes, no mask.

    InputError: a sum that is 0 or not finite.
    """
    total = sum(each.abs().sum(dtype=torch.float64) for each in g.values())
    if not (0 < total < torch.inf):
        raise InputError(f"delta-pruning: mask gradients sum to {float(total):g}; look at the offsets and the loss")
    return {name: each.abs() / total for name, each in g.items()}


def magnitudes(delta: Tensors) -> dict[str, torch.Tensor]:
    """|W^d|, the scores of the non-adaptive difference: offsets of a whole fine-tuning, the largest kept (a baseline)."""
    return {name: each.abs() for name, each in delta.items()}


def kept(k: float, entries: int) -> int:
    """kappa = round(k m) of ``entries`` m. InputError: k outside (0, 1], or so small that nothing is kept."""
    if not 0 < k <= 1:
        raise InputError(f"delta-pruning: the kept share k must lie in (0, 1], got {k:g}")
    if not (kappa := round(k * entries)):
        enough = f"; give at least {1 / entries:.1g}" if entries else ""
        raise InputError(f"delta-pruning: k = {k:g} keeps none of {entries} offsets{enough}")
    return kappa


def masks(scores: Tensors, k: float, per_matrix: bool = False) -> dict[str, torch.Tensor]:
    """c, boolean: true where a score is at least the kappa-th largest, of all weights together or of each alone (``per_matrix``).

    Scores that tie with the threshold are all kept, so there may be more than kappa; entries of score 0 or NaN never are, so there may be
    fewer. InputError: as for :func:`kept`.
    """
    groups = [[name] for name in scores] if per_matrix else [[*scores]]
    found = {}
    for group in groups:
        threshold = _threshold([scores[name] for name in group], k)
        found |= {name: (scores[name] >= threshold) & (scores[name] > 0) for name in group}
    return found


def _threshold(values: list[torch.Tensor], k: float) -> torch.Tensor:
    return kth_largest(values, kept(k, sum(each.numel() for each in values)))
