"""DiffPruning (Guo, Rush and Kim 2021), which LeTS is compared with: a sparse difference from W^p whose mask is learned with it.

W = W^p + z w. z is hard-concrete: s = sigmoid(logit u + alpha) of a uniform u, stretched to (l, r) and cut to [0, 1]. The expected number of
entries that are not 0, sum of sigmoid(alpha - log(-l / r)), is added to the loss with a small weight lambda; after training the largest offsets
are kept and trained on with a fixed mask (:class:`paperlib.lets.comparisons.FixedMask`).

Constants are those of the authors' published code, and so is: temperature 1; u held in [0.0001, 0.9999]; alpha starts at 5 and learns at 0.1 with
an AdamW of its own, without decay, on the same schedule, clipped by itself at norm 1; w starts at 0; all pre-trained weights take part, embeddings,
biases and layer norms among them; the structured variant multiplies z by one more of each tensor, whose probability is added to the penalty.
Inferred: the pooler counts as the head; evaluation sees z of u = 1/2, where the code evaluates whatever was drawn last; z is drawn anew for every
micro-batch.
"""

import math

import numpy as np
import torch
from scipy.special import expit, logit
from torch import nn
from torch.nn.utils import clip_grad_norm_, parametrize

from paperlib.errors import InputError
from paperlib.lets.comparisons import largest_of, pretrained
from paperlib.lets.offsets import Offset
from paperlib.training import Method

LOWER, UPPER = -1.5, 1.5
PENALTY = 1.25e-7
START, RATE = 5.0, 0.1
HELD = 1e-4
CLIP_NORM = 1.0


def stretched(s: torch.Tensor, lower: float = LOWER, upper: float = UPPER) -> torch.Tensor:
    """z of s: lower + (upper - lower) s, cut to [0, 1]."""
    return (lower + (upper - lower) * s).clamp(0, 1)


def sample(alpha: torch.Tensor, u: torch.Tensor, lower: float = LOWER, upper: float = UPPER) -> torch.Tensor:
    """z under the uniform draws ``u``, of alpha's shape; differentiable in ``alpha``, with slope 0 where z is cut."""
    return _Sample.apply(alpha, u, lower, upper)


def fixed(alpha: torch.Tensor, lower: float = LOWER, upper: float = UPPER) -> torch.Tensor:
    """z of u = 1/2."""
    return stretched(torch.sigmoid(alpha), lower, upper)


def log_ratio(lower: float = LOWER, upper: float = UPPER) -> float:
    """log(-l / r); sigmoid(alpha - log(-l / r)) is the probability that z is not 0. InputError: l is not below 0 or r not above 1."""
    if not (-math.inf < lower < 0 and 1 < upper < math.inf):
        raise InputError(f"hard concrete: the bounds ({lower:g}, {upper:g}) must hold 0 and 1 strictly inside")
    return math.log(-lower / upper)


class _Sample(torch.autograd.Function):
    """Keeps z alone for the backward pass, where plain operations would keep three tensors of its size: s is known from z where it is not cut."""

    @staticmethod
    def forward(ctx, alpha, u, lower, upper):
        z = stretched(torch.logit(u.clamp(HELD, 1 - HELD)).add_(alpha).sigmoid_(), lower, upper)
        ctx.save_for_backward(z)
        ctx.bounds = (lower, upper)
        return z

    @staticmethod
    def backward(ctx, grad):
        (z,) = ctx.saved_tensors
        lower, upper = ctx.bounds
        slope = (z - lower).mul_(upper - z).div_(upper - lower)
        return slope.mul_(grad).masked_fill_((z == 0) | (z == 1), 0.0), None, None, None


# --- closed forms of one z, without the holding of u; numpy functions of alpha


def cdf(t, alpha, lower: float = LOWER, upper: float = UPPER):
    """Pr(z <= t) for t in [0, 1): sigmoid(logit((t - l) / (r - l)) - alpha). At t = 0 it is the probability that z is 0."""
    log_ratio(lower, upper)
    t = np.asarray(t, dtype=float)
    if not np.all((t >= 0) & (t < 1)):
        raise InputError("hard concrete: t must lie in [0, 1)")
    return expit(logit((t - lower) / (upper - lower)) - alpha)


def nonzero(alpha, lower: float = LOWER, upper: float = UPPER):
    """Pr(z > 0) = sigmoid(alpha - log(-l / r))."""
    return expit(np.asarray(alpha) - log_ratio(lower, upper))


def whole(alpha, lower: float = LOWER, upper: float = UPPER):
    """Pr(z = 1) = sigmoid(alpha - log((1 - l) / (r - 1)))."""
    log_ratio(lower, upper)
    return expit(np.asarray(alpha) - math.log((1 - lower) / (upper - 1)))


# --- the method


class DiffPruning(Method):
    """Trains w and alpha of every pre-trained weight, and the head as it is.

    ``penalty``: lambda, per entry. ``start``, ``rate``: of alpha. ``structured``: one more z for each tensor. The penalty's gradient is added
    after the backward pass, so losses are those of the task alone. w takes the place of its weight among the model's parameters, and decay, if the
    settings have any, pulls it to 0. W^p, w, alpha, their gradients and moments: 36 bytes per weight in
    float32, and a z for the backward pass.
    InputError: lambda negative, a rate that is not positive, bounds that do not hold 0 and 1 strictly inside.
    """

    def __init__(
        self,
        penalty: float = PENALTY,
        start: float = START,
        rate: float = RATE,
        structured: bool = False,
        lower: float = LOWER,
        upper: float = UPPER,
    ):
        if not (0 <= penalty < math.inf and 0 < rate < math.inf and math.isfinite(start)):
            raise InputError(
                f"diff_pruning: penalty {penalty:g}, rate {rate:g} and start {start:g}; give finite numbers, the rate above 0, the penalty from 0"
            )
        self.log_ratio = log_ratio(lower, upper)
        self.penalty, self.start, self.rate, self.structured = penalty, start, rate, structured
        self.bounds = (lower, upper)

    def attach(self, model: nn.Module, total_steps: int) -> None:
        self.parts = {
            name: _Masked(weight, self.start, self.structured, self.bounds)
            for name, weight in pretrained(model).items()
        }
        self.w: dict[str, torch.Tensor] = {}
        for name, part in self.parts.items():
            place, _, leaf = name.rpartition(".")
            module = parametrize.register_parametrization(model.get_submodule(place), leaf, part)
            self.w[name] = module.parametrizations[leaf].original
        self.alphas = {
            f"{name}.{kind}": alpha for name, part in self.parts.items() for kind, alpha in part.alphas.items()
        }
        self.optimizer = torch.optim.AdamW([*self.alphas.values()], lr=self.rate, weight_decay=0.0, fused=True)

    def forward_weights(self, step: int):
        # A step that was skipped leaves its gradients.
        if step != getattr(self, "_step", None):
            self._step = step
            self.optimizer.zero_grad(set_to_none=True)
        return super().forward_weights(step)

    @torch.no_grad()
    def after_backward(self, step: int) -> bool:
        for alpha in self.alphas.values():
            p = torch.sigmoid(alpha - self.log_ratio)
            slope = (1 - p).mul_(p).mul_(self.penalty)
            alpha.grad = slope if alpha.grad is None else alpha.grad.add_(slope)
        return False

    def after_clipping(self, step: int, optimizer: torch.optim.Optimizer) -> None:
        clip_grad_norm_(self.alphas.values(), CLIP_NORM)
        group = optimizer.param_groups[0]
        self.optimizer.param_groups[0]["lr"] = self.rate * group["lr"] / group["initial_lr"]
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    @torch.no_grad()
    def expected(self) -> float:
        """Entries whose own z is expected not to be 0: what the penalty counts, but for the z of whole tensors."""
        return sum(
            torch.sigmoid(part.alphas["entries"] - self.log_ratio).sum(dtype=torch.float64).item()
            for part in self.parts.values()
        )

    @torch.no_grad()
    def offsets(self, k: float) -> dict[str, Offset]:
        """The share ``k`` of largest z w, z of u = 1/2, of all weights together: the projection before the mask is fixed.

        InputError: k outside (0, 1] or so small that nothing is kept.
        """
        return largest_of({name: part.z(sampled=False) * self.w[name] for name, part in self.parts.items()}, k)

    def state_dict(self) -> dict[str, torch.Tensor]:
        state = {f"diff_pruning.{name}": alpha.detach() for name, alpha in self.alphas.items()}
        for name, alpha in self.alphas.items():
            moments = self.optimizer.state.get(alpha, {})
            state |= {f"diff_pruning.{name}.{key}": value for key, value in moments.items()}
        return state

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        for name, alpha in self.alphas.items():
            key = f"diff_pruning.{name}"
            alpha.copy_(state[key])
            moments = {kind: state.get(f"{key}.{kind}") for kind in ("step", "exp_avg", "exp_avg_sq")}
            if moments["step"] is not None:
                self.optimizer.state[alpha] = {kind: value.to(alpha.device) for kind, value in moments.items()}


class _Masked(nn.Module):
    """W^p + z w as a parametrization of a weight, whose trained tensor is w. W^p and alpha are no parameters of the model."""

    def __init__(self, weight: nn.Parameter, start: float, structured: bool, bounds: tuple[float, float]):
        super().__init__()
        self.pretrained, self.bounds = weight.detach().clone(), bounds
        self.alphas = {"entries": torch.full_like(self.pretrained, start)}
        if structured:
            self.alphas["tensor"] = self.pretrained.new_full((), start)
        for alpha in self.alphas.values():
            alpha.requires_grad_()

    def forward(self, w: torch.Tensor) -> torch.Tensor:
        return self.pretrained + self.z(sampled=self.training) * w

    def right_inverse(self, weight: torch.Tensor) -> torch.Tensor:
        """w where z is 1."""
        return weight - self.pretrained

    def z(self, sampled: bool) -> torch.Tensor:
        """Of all entries, drawn from torch's generator or of u = 1/2."""
        z = torch.ones((), dtype=self.pretrained.dtype, device=self.pretrained.device)
        for alpha in self.alphas.values():
            z = z * (sample(alpha, torch.rand_like(alpha), *self.bounds) if sampled else fixed(alpha, *self.bounds))
        return z
