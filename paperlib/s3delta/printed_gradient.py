"""Eqs. 27 and 28 as printed, differentiated by autograd, against the forms by hand (appendix C.2)."""

from dataclasses import dataclass

import numpy as np
import torch

from paperlib.s3delta import shifted_sigmoid
from paperlib.s3delta.gates import Gates, budget_shift

EQUATIONS = {
    "27": "p_i = λ p̃_i has the value p̃_i",
    "28": "λ = 1",
    "29": "local gradient",
    "30": "global gradient as a sum over j",
    "31": "dλ / dp̃_i",
    "32": "dp_j / dp̃_i, the whole matrix",
    "33": "global gradient, closed form",
    "34": "global minus local gradient is (34) times s_i",
    "search": "(33) against the gates of the search, which work in log-odds",
}


@dataclass(frozen=True, eq=False)
class Case:
    """A super-net's logits and a random loss L(p) = sum (tanh(p W + 1))^2 of them. Arrays: ``alpha``, ``sizes`` (K,), ``mixing`` W (K, width)."""

    sizes: np.ndarray
    budget: float
    tau: float
    alpha: np.ndarray
    mixing: np.ndarray

    @classmethod
    def random(cls, sizes: np.ndarray, budget: float, tau: float, generator: np.random.Generator) -> "Case":
        """Standard normal logits and W, of width 16."""
        count = len(sizes)
        return cls(sizes, budget, tau, generator.standard_normal(count), generator.standard_normal((count, 16)))

    def loss(self, p: torch.Tensor) -> torch.Tensor:
        """L(p)."""
        return torch.tanh(p @ torch.from_numpy(self.mixing) + 1).square().sum()


def errors(case: Case) -> dict[str, float]:
    """Largest absolute difference between autograd and the form by hand, for each of ``EQUATIONS``; "extra": the largest entry of the extra term."""
    alpha, sizes, tau = torch.from_numpy(case.alpha).requires_grad_(), torch.from_numpy(case.sizes), case.tau
    zeta = budget_shift(alpha, sizes, case.budget, tau)
    local = torch.sigmoid((alpha - zeta) / tau)
    factor = local.detach().sum() / local.sum()
    p = factor * local

    g, global_ = _slopes(case.loss(p), p, alpha)
    (local_,) = _slopes(case.loss(local), alpha)
    (factor_slope,) = _slopes(factor, local)
    (searched,) = _slopes(case.loss(Gates(sizes, case.budget, tau=tau).p(alpha)), alpha)

    q = shifted_sigmoid.probabilities(case.alpha, case.sizes, case.budget, tau)
    by_hand = shifted_sigmoid.global_gradient(g, q, tau=tau)
    extra = shifted_sigmoid.adjustment(g, q) * shifted_sigmoid.slope(q, tau)
    compared = {
        "27": (p.detach().numpy(), q),
        "28": (factor.item(), 1.0),
        "29": (local_, shifted_sigmoid.local_gradient(_slopes(case.loss(local), local)[0], q, tau=tau)),
        "30": (global_, shifted_sigmoid.chained(g, q, tau)),
        "31": (factor_slope, shifted_sigmoid.factor_slope(q)),
        "32": (_matrix(local), shifted_sigmoid.jacobian(q)),
        "33": (global_, by_hand),
        "34": (global_ - local_, extra),
        "search": (searched, by_hand),
    }
    found = {name: float(np.abs(one - other).max()) for name, (one, other) in compared.items()}
    return found | {"extra": float(np.abs(extra).max())}


def _slopes(value: torch.Tensor, *variables: torch.Tensor) -> list[np.ndarray]:
    return [slope.numpy() for slope in torch.autograd.grad(value, variables, retain_graph=True)]


def _matrix(local: torch.Tensor) -> np.ndarray:
    """dp_j/dp~_i of eqs. 27 and 28, row j and column i."""
    leaf = local.detach().requires_grad_()
    p = leaf.detach().sum() / leaf.sum() * leaf
    (rows,) = torch.autograd.grad(p, leaf, torch.eye(len(leaf), dtype=leaf.dtype), is_grads_batched=True)
    return rows.numpy()
