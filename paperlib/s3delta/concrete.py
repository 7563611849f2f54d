"""The binary concrete distribution: a soft coin z~ in (0, 1) that shows heads with probability p (appendix C.1).

Sampling works on tensors and lets gradients through; the closed forms work on numbers and numpy arrays, element by element.
Everywhere ``p`` is the probability of heads and ``beta`` > 0 the temperature.
"""

import numpy as np
from scipy.special import expit, logit

from paperlib.errors import InputError


def sample(p, beta: float, u):
    """Draws of z~ (eq. 23) in the log-odds form, sigmoid((logit u + logit p) / beta).

    ``p``: tensor of probabilities in [0, 1]. ``u``: tensor of uniform draws in [0, 1] that broadcasts with ``p``. Both are
    held one rounding step away from 0 and 1, where log-odds are infinite, so the draws are finite at any temperature.
    Differentiable in ``p``. InputError: ``p`` or ``u`` outside [0, 1], ``beta`` not positive.
    """
    import torch

    from paperlib.s3delta.gates import relaxed

    _require(beta)
    for name, value in (("p", p), ("u", u)):
        if not bool(((value >= 0) & (value <= 1)).all()):
            raise InputError(f"binary concrete: {name} must lie in [0, 1]; look at what computes it")
    limits = torch.finfo(p.dtype)
    return relaxed(torch.logit(p, eps=limits.eps), max(beta, limits.tiny), u)


def cdf(e, p, beta):
    """P(z~ < e) = sigmoid(beta logit e - logit p)."""
    _require(beta, epsilon=e, p=p)
    return expit(beta * logit(e) - logit(p))


def upper_tail(e, p, beta):
    """P(z~ > 1 - e) = sigmoid(beta logit e + logit p), exact also where 1 - e rounds to 1."""
    _require(beta, epsilon=e, p=p)
    return expit(beta * logit(e) + logit(p))


def pdf(z, p, beta):
    """Density of z~ at ``z`` in (0, 1): beta F (1 - F) / (z (1 - z)) with F the CDF."""
    _require(beta, z=z, p=p)
    x = beta * logit(z) - logit(p)
    return beta * expit(x) * expit(-x) / (z * (1 - z))


def limit_error(e, p, beta):
    """First-order distance of P(z~ < e) from 1 - p, and of P(z~ > 1 - e) from p: beta p (1 - p) logit e.

    The rest is O((beta logit e)^2). Not uniform in e: at a fixed beta the distance does not vanish as e goes to 0.
    """
    _require(beta, epsilon=e, p=p)
    return beta * p * (1 - p) * logit(e)


def moments(p):
    """(E[z~], E[z~^2]) at temperature 1.

    With c = 2p - 1 and g = (artanh(c)/c - 1) / c^2: E[z~] = p (1 - 2c(1-p) g), E[z~^2] = p (1 - 4p(1-p) g). This is
    (p/c)(1 - ((1-p)/c) ln(p/(1-p))) and its like, written so that nothing cancels at p = 1/2 (g = 1/3).
    """
    _require(beta=1.0, p=p)
    c = 2 * np.asarray(p, dtype=float) - 1
    near = np.abs(c) < 0.3
    series = sum(c ** (2 * k) / (2 * k + 3) for k in range(20))
    far = np.where(near, 1.0, c)
    g = np.where(near, series, (logit(p) / (2 * far) - 1) / far**2)  # artanh(c) = logit(p) / 2
    return p * (1 - 2 * c * (1 - p) * g), p * (1 - 4 * p * (1 - p) * g)


def draw(p: float, beta: float, draws: int, generator):
    """``draws`` samples of z~ from a torch ``generator``, as a numpy array in float64."""
    import torch

    u = torch.rand(draws, dtype=torch.float64, generator=generator)
    return sample(torch.tensor(p, dtype=torch.float64), beta, u).numpy()


def frequencies(p: float, beta: float, e: float, draws: int, generator) -> dict[str, float]:
    """Monte Carlo counterpart of the closed forms, from ``draws`` samples.

    Shares of draws ``below`` e, ``above`` 1 - e and over one ``half``, and their ``mean``, beside ``p`` and ``beta``.
    """
    if draws < 1:
        raise InputError(f"binary concrete: {draws} draws; give at least 1")
    _require(beta, epsilon=e)
    z = draw(p, beta, draws, generator)
    shares = {"below": z < e, "above": z > 1 - e, "half": z > 0.5, "mean": z}
    return {"p": p, "beta": beta, **{name: float(values.mean()) for name, values in shares.items()}}


def _require(beta, **inside) -> None:
    """InputError unless the temperature is positive and every other value lies strictly between 0 and 1."""
    beta = np.asarray(beta)
    if not np.all((beta > 0) & np.isfinite(beta)):
        raise InputError("binary concrete: the temperature beta must be a finite number above 0")
    for name, value in inside.items():
        value = np.asarray(value)
        if not np.all((value > 0) & (value < 1)):
            raise InputError(f"binary concrete: {name} must lie strictly between 0 and 1")
