"""Gates: structural logits alpha become probabilities p under a budget, and probabilities become gates z (eqs. 23, 27 and 28).

K modules; module i has n_i trainable scalars (``sizes``) and the logit alpha_i; B is the budget in scalars, N the sum of all n_i, tau and beta
are the temperatures of the shifted sigmoid and of the binary concrete distribution. Everything is computed in float64 and in
log-odds, where nothing overflows, and on the device of alpha, which is never asked for a value.
"""

import math
from dataclasses import dataclass
from functools import cached_property

import torch

from paperlib.errors import InputError
from paperlib.kernels import gates as kernels
from paperlib.kernels import triton_path
from paperlib.kernels.gates import budget_shift

TINY = torch.finfo(torch.float64).tiny


def relaxed(log_odds: torch.Tensor, beta: float, u: torch.Tensor) -> torch.Tensor:
    """Draws of the binary concrete distribution (eq. 23): z~ = sigmoid((logit u + logit p) / beta).

    ``log_odds``: logit p, (K,). ``u``: uniform draws in [0, 1] that broadcast with it, held one rounding step away from 0 and 1.
    """
    return _sigmoid((torch.logit(u, eps=torch.finfo(u.dtype).eps) + log_odds) / beta)


def _sigmoid(x):
    """The sigmoid with a derivative that keeps its digits where the value rounds to 1: global gradients divide it by 1 - p."""
    held = x.detach()
    return torch.sigmoid(held) + torch.sigmoid(held) * torch.sigmoid(-held) * (x - held)


@dataclass(frozen=True, eq=False)
class Gates:
    """How logits become gates.

    ``sizes``: int64 (K,), n_i. ``budget``: B in scalars, at least the smallest n_i and less than N. ``gradient``: what p passes back to alpha:
    "local" (eq. 29), zeta held; "global" (eqs. 30 to 34), p = lambda p~ with lambda = sg[sum p~] / sum p~ of value 1, zeta held; "implicit",
    zeta differentiated. ``hard``: gates of 0 and 1 with a straight-through gradient.
    InputError: a budget, temperature or gradient out of range.
    """

    sizes: torch.Tensor
    budget: float
    tau: float = 1.0
    beta: float = 1.0
    gradient: str = "global"
    hard: bool = False

    def __post_init__(self):
        if self.gradient not in _FORMS:
            raise InputError(f"unknown structural gradient {self.gradient!r}; known: {', '.join(_FORMS)}")
        for name, value in (("tau", self.tau), ("beta", self.beta)):
            if not (math.isfinite(value) and value > 0):
                raise InputError(f"the temperature {name} must be a finite number above 0, got {value:g}")
        smallest, total = int(self.sizes.min()), int(self.sizes.sum())
        if not smallest <= self.budget < total:
            raise InputError(
                f"a budget of {self.budget:g} scalars; give at least {smallest}, the smallest module, "
                f"and less than {total}, all modules together"
            )

    def log_odds(self, alpha: torch.Tensor) -> torch.Tensor:
        """logit p, float64 (K,), of ``alpha`` (K,); zeta is solved anew."""
        alpha = alpha.double()
        zeta = budget_shift(alpha, self.sizes, self.budget, self.tau)
        return _FORMS[self.gradient](alpha, zeta, self.tau, self.sizes)

    def p(self, alpha: torch.Tensor) -> torch.Tensor:
        """Probabilities, float64 (K,): sum_i n_i p_i = B."""
        return _sigmoid(self.log_odds(alpha))

    def sample(self, alpha: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
        """Gates z of the uniform draws ``u`` (K,): z~ itself, or 1 where z~ >= 1/2 and 0 elsewhere if ``hard``.

        A hard gate that is on passes the gradient of its z~, one that is off none. Where every gate would be 0 the one
        of the largest p is on. On a GPU with Triton two launches, one forward and one backward.
        """
        if triton_path.taken_by(alpha):
            return kernels.drawn(alpha, self.sizes, u, self._numbers, self.gradient, self.hard)
        log_odds = self.log_odds(alpha)
        soft = relaxed(log_odds, self.beta, u)
        on = 1 + (soft - soft.detach())
        z = torch.where(soft >= 0.5, on, 0.0) if self.hard else soft
        likeliest = torch.arange(len(z), device=z.device) == log_odds.argmax()
        return torch.where((z == 0).all() & likeliest, on, z)

    def draw(self, alpha: torch.Tensor) -> torch.Tensor:
        """Gates of fresh uniform draws from torch's global generator of alpha's device."""
        return self.sample(alpha, torch.rand(len(alpha), dtype=torch.float64, device=alpha.device))

    @cached_property
    def _numbers(self) -> torch.Tensor:
        """B, tau and beta where the sizes are: sent once, since the host waits for what it sends from ordinary memory."""
        return torch.tensor([self.budget, self.tau, self.beta], dtype=torch.float64, device=self.sizes.device)


def _local(alpha, zeta, tau, sizes):
    return (alpha - zeta) / tau


def _global(alpha, zeta, tau, sizes):
    """d logit p = d logit p~ - d log(sum p~) / (1 - p~): the form of eq. 32 in log-odds; the second term's value is 0."""
    log_odds = _local(alpha, zeta, tau, sizes)
    log_sum = torch.sigmoid(log_odds).sum().log()
    return log_odds - (log_sum - log_sum.detach()) / torch.sigmoid(-log_odds.detach()).clamp(min=TINY)


def _implicit(alpha, zeta, tau, sizes):
    """zeta with its derivative dzeta/dalpha_k = n_k s_k / sum_j n_j s_j, s = p (1 - p) / tau, and its value as it was."""
    held = alpha.detach()
    log_odds = _local(held, zeta, tau, sizes)
    slope = sizes * torch.sigmoid(log_odds) * torch.sigmoid(-log_odds)
    return _local(alpha, zeta + slope @ (alpha - held) / slope.sum().clamp(min=TINY), tau, sizes)


_FORMS = {"local": _local, "global": _global, "implicit": _implicit}
