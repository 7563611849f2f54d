"""The global shifted sigmoid by hand (appendix C.2): what autograd must give, written out in numpy, float64.

Nothing here is shared with :mod:`paperlib.s3delta.gates`, which the search uses: the two are held against each other. K modules, all arrays (K,):
``alpha`` logits, ``sizes`` n_i, ``p`` = p~ probabilities, ``g`` = dL/dp, ``budget`` B in scalars, ``tau`` the temperature.

The print of eqs. 29 to 33 is lost in the text at hand. 29 and 33 follow from 27, 28 and 34; that 30 to 32 are the steps between them is our reading.
"""

import warnings

import numpy as np
from scipy.optimize import brentq, fsolve
from scipy.special import expit

from paperlib.errors import InputError

# The published code's: log-odds are held above -200, and the budget is aimed at from just below.
FLOOR, SHORT = -200.0, 1e-7


def shift(alpha, sizes, budget: float, tau: float = 1.0) -> float:
    """zeta with sum_i n_i sigmoid((alpha_i - zeta) / tau) = B, by Brent's method between the bounds min and max alpha - tau logit(B / N)."""
    x = np.asarray(alpha, dtype=float) / tau
    centre = -np.log(budget / (np.sum(sizes) - budget))
    if np.ptp(x) == 0:
        return float(tau * (x[0] + centre))
    root = brentq(lambda z: sizes @ expit(x - z) - budget, x.min() + centre - 1, x.max() + centre + 1, xtol=1e-14)
    return float(tau * root)


def published_shift(alpha, sizes, budget: float, tau: float, start: float) -> float:
    """zeta as the published code solves for it: ``fsolve`` from ``start``, the root of the step before; wherever that ends."""

    def overspent(zeta):
        return sizes @ expit(np.maximum((alpha - zeta) / tau, FLOOR)) - budget * (1 - SHORT)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return float(fsolve(overspent, start)[0])


def probabilities(alpha, sizes, budget: float, tau: float = 1.0) -> np.ndarray:
    """p~_i = sigmoid((alpha_i - zeta) / tau)."""
    return expit((alpha - shift(alpha, sizes, budget, tau)) / tau)


def slope(p, tau: float = 1.0) -> np.ndarray:
    """s_i = dp~_i/dalpha_i = p~_i (1 - p~_i) / tau, zeta held."""
    return p * (1 - p) / tau


def local_gradient(g, p, sizes=None, tau: float = 1.0) -> np.ndarray:
    """Eq. 29, p~ in place of p: dL/dalpha_i = dL/dp~_i s_i. Sizes do not enter."""
    return g * slope(p, tau)


def factor_slope(p) -> np.ndarray:
    """Eq. 31: dlambda/dp~_i = -sg[sum p~] / (sum p~)^2 = -1 / sum_k p~_k, the same for every i."""
    return np.full_like(p, -1 / p.sum())


def jacobian(p) -> np.ndarray:
    """Eq. 32, (K, K): row j, column i is dp_j/dp~_i = 1[i = j] - p~_j / sum_k p~_k."""
    return np.eye(len(p)) + p[:, None] * factor_slope(p)


def chained(g, p, tau: float = 1.0) -> np.ndarray:
    """Eq. 30: dL/dalpha_i = sum_j dL/dp_j dp_j/dalpha_i, through the whole matrix of eq. 32."""
    return g @ (jacobian(p) * slope(p, tau))


def adjustment(g, p) -> float:
    """Eq. 34, the additional term: -sum_j (p~_j / sum_k p~_k) dL/dp_j. It stands beside dL/dp_i, before both are multiplied by s_i."""
    return float(-(p @ g) / p.sum())


def global_gradient(g, p, sizes=None, tau: float = 1.0) -> np.ndarray:
    """Eq. 33: dL/dalpha_i = (dL/dp_i - sum_j (p~_j / sum_k p~_k) dL/dp_j) s_i. Sizes do not enter."""
    return (g + adjustment(g, p)) * slope(p, tau)


def implicit_gradient(g, p, sizes, tau: float = 1.0) -> np.ndarray:
    """Not in the paper: zeta differentiated too, dL/dalpha_i = s_i (dL/dp_i - n_i sum_j s_j dL/dp_j / sum_j n_j s_j).

    It is the gradient of L(p(alpha)) as it is, so 0 exactly where no exchange of modules within the budget lowers L: dL/dp_i in proportion to n_i.
    """
    s = slope(p, tau)
    return s * (g - sizes * (s @ g) / (sizes @ s))


GRADIENTS = {"local": local_gradient, "global": global_gradient, "implicit": implicit_gradient}


def descend(
    form: str,
    targets,
    sizes,
    budget: float,
    steps: int,
    rate: float,
    adam: bool = False,
    noise: float = 0.0,
    seed: int = 0,
) -> np.ndarray:
    """(steps + 1, K): logits, from 0, under a gradient of ``GRADIENTS`` of the loss sum_i (p_i - targets_i)^2 / 2.

    Plain gradient descent at ``rate``; with ``adam`` Adam (0.9, 0.999, 1e-8) at a rate that falls linearly to 0, as in the search. ``noise``:
    standard deviation of what is added to every dL/dp_i at every step, drawn by ``seed``.
    """
    generator = np.random.default_rng(seed)
    path = np.zeros((steps + 1, len(targets)))
    first, second = np.zeros(len(targets)), np.zeros(len(targets))
    for step in range(steps):
        p = probabilities(path[step], sizes, budget)
        move = GRADIENTS[form](p - targets + noise * generator.standard_normal(len(p)), p, sizes)
        if adam:
            first, second = 0.9 * first + 0.1 * move, 0.999 * second + 0.001 * move**2
            mean, square = first / (1 - 0.9 ** (step + 1)), second / (1 - 0.999 ** (step + 1))
            move = (1 - step / steps) * mean / (np.sqrt(square) + 1e-8)
        path[step + 1] = path[step] - rate * move
    return path


def cheapest(targets, sizes, budget: float) -> np.ndarray:
    """p of the least sum_i (p_i - targets_i)^2 / 2 under sum_i n_i p_i = B: targets_i - mu n_i. InputError where a p would leave [0, 1]."""
    p = targets - sizes * (sizes @ targets - budget) / (sizes @ sizes)
    if p.min() < 0 or p.max() > 1:
        raise InputError(
            "the cheapest p lies outside [0, 1]: take sizes that differ less, or targets nearer to the budget"
        )
    return p


def expected_cosine(sizes, offset) -> np.ndarray:
    """Cosine of global and implicit gradient where all p are equal and dL/dp is independent of n: 1 / sqrt(1 + (offset cv)^2).

    ``offset``: mean of dL/dp over its standard deviation; cv: standard deviation of n over its mean. In the limit of many modules.
    """
    return 1 / np.sqrt(1 + (np.asarray(offset) * np.std(sizes) / np.mean(sizes)) ** 2)
