"""How far the search's optimizer can carry the structural logits alpha, and how soon: AdamW with a rate that falls linearly to 0.

No model is needed: AdamW takes the size out of a gradient, so what bounds alpha is the sum of its rates, and what matters of tau is how many
of its units that sum is.
"""

import math

import torch
from torch.nn.utils import clip_grad_norm_

from paperlib.s3delta.gates import Gates


def rates(rate: float, total: int) -> list[float]:
    """The rate of each of ``total`` steps: rate (1 - t / T), t = 0, 1, ..."""
    return [rate * (1 - step / total) for step in range(total)]


def reach(rate: float, total: int) -> float:
    """Sum of all rates, rate (T + 1) / 2: how far alpha moves if its gradient never changes."""
    return rate * (total + 1) / 2


def steps_to(distance: float, rate: float, total: int) -> int | None:
    """Steps until the rates so far sum to ``distance`` or more; None if they never do."""
    # n steps sum to rate (n - n (n - 1) / (2 T)): a parabola whose top is at n = T + 1/2.
    if distance > reach(rate, total):
        return None
    return next(n for n in range(total + 1) if rate * (n - n * (n - 1) / (2 * total)) >= distance * (1 - 1e-12))


def crossing(p: float, target: float, tau: float) -> float:
    """Distance in alpha from probability ``p`` to ``target``, zeta held: tau (logit target - logit p)."""
    return tau * (math.log(target / (1 - target)) - math.log(p / (1 - p)))


def first_moves(slopes: list[float], rate: float, clip_norm: float = math.inf) -> list[float]:
    """What AdamW's first step adds to alphas of 0 whose gradients are ``slopes``, clipped together to ``clip_norm``."""
    alpha, optimizer = _alphas(len(slopes), rate)
    alpha.grad = torch.tensor(slopes, dtype=torch.float64)
    clip_grad_norm_([alpha], clip_norm)
    optimizer.step()
    return alpha.detach().tolist()


def walk(
    gates: Gates, gains: torch.Tensor, noise: float, rate: float, steps: int, seed: int, clip_norm: float = math.inf
):
    """p before every step and after the last, (steps + 1, K), of a search without a model.

    The loss of a step is -(gains + noise * e) @ z with e standard normal: a module's gate is worth its gain. ``gains``: (K,), float64.
    Draws of e and z come from ``seed``; alpha starts at 0.
    """
    alpha, optimizer = _alphas(len(gains), rate)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / steps)
    generator, p = torch.Generator().manual_seed(seed), []
    for _ in range(steps):
        p.append(gates.p(alpha.detach()))
        z = gates.sample(alpha, torch.rand(len(gains), dtype=torch.float64, generator=generator))
        worth = gains + noise * torch.randn(len(gains), dtype=torch.float64, generator=generator)
        optimizer.zero_grad()
        (-(worth @ z)).backward()
        clip_grad_norm_([alpha], clip_norm)
        optimizer.step()
        schedule.step()
    return torch.stack([*p, gates.p(alpha.detach())])


def _alphas(count: int, rate: float):
    """Logits of 0 and the optimizer the search gives them."""
    alpha = torch.nn.Parameter(torch.zeros(count, dtype=torch.float64))
    return alpha, torch.optim.AdamW([alpha], lr=rate, eps=1e-8, weight_decay=0.0)
