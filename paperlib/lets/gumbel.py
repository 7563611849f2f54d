"""Two-way selectors under Gumbel-softmax (appendix B.1, eq. 14), their temperature schedule, and when the search stops.

A selector has two logits a_0 (share) and a_1 (own) in the last dimension of ``alpha``; g are Gumbel(0, 1) draws of the same shape and T the
temperature. Drawing works on tensors and lets gradients through, dP_0/da_0 = P_0 P_1 / T; the closed forms are numpy functions, element by
element, of the logit difference Delta = a_0 - a_1: the difference of two Gumbel draws is Logistic(0, 1).
"""

import math

import numpy as np
import torch
from scipy.special import expit, logit

from paperlib.errors import InputError

START, RATE = 4.0, 0.065  # the appendix prints exp(-0.065) = 0.936; it is 0.937067
TENTHS = 10
PATIENCE = 3


def gumbel(u: torch.Tensor) -> torch.Tensor:
    """g = -log(-log u) of uniform draws ``u`` in [0, 1], which are held one rounding step away from 0 and 1: always finite."""
    limits = torch.finfo(u.dtype)
    return -torch.log(-torch.log(u.clamp(limits.tiny, 1 - limits.eps / 2)))


def noise(alpha: torch.Tensor) -> torch.Tensor:
    """Fresh Gumbel draws for ``alpha``, float64, from torch's global generator of its device."""
    return gumbel(torch.rand(alpha.shape, dtype=torch.float64, device=alpha.device))


def log_probabilities(alpha: torch.Tensor, g: torch.Tensor, temperature: float) -> torch.Tensor:
    """log P of eq. (14) under the draws ``g``, float64, shape of ``alpha``; the other choice's may be -inf when T is small.

    The last dimension holds the choices, any number of them. InputError: a temperature that is not positive.
    """
    _require_temperature(temperature)
    noisy = alpha.double() + g
    # Adding the same to all logits changes nothing, and with the largest at 0 the division cannot give inf - inf.
    return torch.log_softmax((noisy - noisy.detach().amax(-1, keepdim=True)) / temperature, dim=-1)


def probabilities(alpha: torch.Tensor, g: torch.Tensor, temperature: float) -> torch.Tensor:
    """P of eq. (14): how much each choice's branch counts in the super-net."""
    return log_probabilities(alpha, g, temperature).exp()


def selected(alpha: torch.Tensor) -> torch.Tensor:
    """The choice of every selector, argmax of its logits without noise: also the likeliest argmax of a draw, at any temperature.

    int64, the shape of ``alpha`` without its last dimension; of equal logits the first choice, share.
    """
    return alpha.detach().argmax(-1)


# --- closed forms of one selector


def cdf(p, delta, temperature):
    """Pr(P_0 <= p) = sigmoid(T logit(p) - Delta), p in (0, 1). InputError: p outside."""
    _require_temperature(temperature)
    p = np.asarray(p)
    if not np.all((p > 0) & (p < 1)):
        raise InputError("gumbel: a probability p must lie strictly between 0 and 1")
    return expit(temperature * logit(p) - delta)


def median(delta, temperature):
    """sigmoid(Delta / T)."""
    _require_temperature(temperature)
    return expit(np.asarray(delta) / temperature)


def above_half(delta):
    """Pr(P_0 > 1/2) = sigmoid(Delta) = softmax(a)_0, whatever the temperature."""
    return expit(delta)


def mean_at_one(delta):
    """E[P_0] at T = 1: K (K - 1 - Delta) / (K - 1)^2 with K = exp(Delta); not softmax(a)_0 unless Delta = 0.

    It is the derivative of Delta / (1 - 1/K), whose series replaces it near 0, where it cancels; elsewhere it is written in exp(-|Delta|).
    """
    delta = np.asarray(delta, dtype=float)
    near = np.abs(delta) < 0.1
    series = delta / 6 - delta**3 / 180 + delta**5 / 5040 - delta**7 / 151200
    far = np.where(near, 1.0, np.abs(delta))
    x = np.exp(-far)
    return 0.5 + np.where(near, series, np.sign(delta) * (1 - x**2 - 2 * far * x) / (2 * (1 - x) ** 2))


def variance_as_cold(delta):
    """Limit of Var P_0 as T goes to 0: that of a coin, sigmoid(Delta) sigmoid(-Delta)."""
    return expit(delta) * expit(-np.asarray(delta))


def variance_as_hot(temperature):
    """Var P_0 to first order in 1/T^2 as T grows: (pi^2 / 3) / (16 T^2)."""
    _require_temperature(temperature)
    return math.pi**2 / (48 * np.asarray(temperature) ** 2)


# --- temperature and early stop


def tenth(step: int, steps_per_epoch: int) -> int:
    """Completed tenths of an epoch after ``step`` steps of the weights; ``steps_per_epoch``: of the weights' part of the data, D1."""
    if step < 0 or steps_per_epoch < 1:
        raise InputError(
            f"gumbel: step {step} of {steps_per_epoch} an epoch; give steps from 0 and epochs of at least 1"
        )
    return TENTHS * step // steps_per_epoch


def annealed(tenths: int, start: float = START, rate: float = RATE) -> float:
    """The temperature T_n = start exp(-rate n), n completed tenths of an epoch. InputError: start not positive, n or rate negative."""
    _require_temperature(start)
    if not (tenths >= 0 and 0 <= rate < math.inf):
        raise InputError(f"gumbel: {tenths} tenths at a rate of {rate:g}; neither may be negative")
    return start * math.exp(-rate * tenths)


class EarlyStop:
    """Ends the search once the selected model has not changed for ``patience`` tenths of an epoch.

    With a look at every tenth that is ``patience`` + 1 equal looks in a row: 4, as the appendix's 3/10 epoch is read here.
    InputError: a ``patience`` below 1.
    """

    def __init__(self, patience: int = PATIENCE):
        if patience < 1:
            raise InputError(f"early stop: a patience of {patience} tenths; give at least 1")
        self.patience, self.since, self.choices = patience, 0, None

    def look(self, tenths: int, choices: torch.Tensor) -> bool:
        """Whether to stop, after ``tenths`` with the model ``choices`` (of :func:`selected`)."""
        choices = choices.cpu()
        if self.choices is None or not torch.equal(choices, self.choices):
            self.since, self.choices = tenths, choices.clone()
        return tenths - self.since >= self.patience

    def state_dict(self) -> dict[str, torch.Tensor]:
        """What a resumed search needs; empty before the first look."""
        return {} if self.choices is None else {"since": torch.tensor(self.since), "choices": self.choices}

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        self.since, self.choices = (int(state["since"]), state["choices"]) if state else (0, None)


def _require_temperature(temperature) -> None:
    values = np.asarray(temperature)
    if not np.all((values > 0) & np.isfinite(values)):
        raise InputError(f"gumbel: the temperature must be a finite number above 0, got {temperature}")
