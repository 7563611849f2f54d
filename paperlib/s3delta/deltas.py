"""Delta modules: small trainable maps added to what a frozen module computes (appendix A, eq. 22).

A frozen module m becomes ``m(H) + z delta(H)`` ("parallel") or ``H' + z delta(H')`` with H' its parallel output ("sequential"). Every delta is
linear in some of its parameters, the ``outer`` ones, so that a gate z multiplies those few numbers instead of the hidden states.
"""

import math

import torch
from torch import nn
from torch.nn import functional

from paperlib.errors import InputError

ALPHA = 16  # LoRA's numerator: at rank 1 the scale is 16
REDUCTION = 32  # hidden width over inner width of the low-rank adapter
BOTTLENECK = 24  # inner width of the adapter


class Delta(nn.Module):
    """One delta module. Parameters start on the CPU in fp32, drawn from torch's global generator.

    ``outer``: names of the parameters that gate and ``scale`` multiply; ``multiplies``: whether these are factors of matrix products, which
    autocast computes in its own dtype. ``shifts``: the parameter of the host that the delta adds to where the host has it, so that it costs
    nothing per token; None for the rest.
    """

    outer: tuple[str, ...]
    multiplies: bool = True
    shifts: str | None = None
    scale: float = 1.0

    @property
    def numel(self) -> int:
        """n_i, trainable scalars."""
        return sum(parameter.numel() for parameter in self.parameters())

    def outer_parameters(self) -> list[nn.Parameter]:
        """The parameters named in ``outer``."""
        return [getattr(self, name) for name in self.outer]

    def inner_parameters(self) -> list[nn.Parameter]:
        """The others, in order."""
        return [parameter for name, parameter in self.named_parameters() if name not in self.outer]

    def forward(self, x: torch.Tensor, *outer: torch.Tensor) -> torch.Tensor:
        """delta(x) for x (..., d_in), or with ``outer`` in place of the scaled outer parameters; broadcasts with (..., d_out)."""
        return self.map(x, *(outer or [self.scale * parameter for parameter in self.outer_parameters()]))

    def map(self, x: torch.Tensor, *outer: torch.Tensor) -> torch.Tensor:
        """delta(x) with the given outer parameters, which are scaled already."""
        raise NotImplementedError

    def merge(self, host: nn.Module) -> bool:
        """Add the delta to the host's own parameters, if it has the right ones, and tell whether it had: then the host alone computes the same."""
        return False


class LoRA(Delta):
    """(alpha / r) x A^T B^T beside a linear map; A (r, d_in) ~ U(-1/sqrt(d_in), 1/sqrt(d_in)), B (d_out, r) = 0."""

    outer = ("B",)

    def __init__(self, d_in: int, d_out: int, rank: int = 1, alpha: float = ALPHA):
        super().__init__()
        if rank < 1:
            raise InputError(f"LoRA's rank must be at least 1, got {rank}")
        self.scale = alpha / rank
        self.A = _uniform(1 / math.sqrt(d_in), rank, d_in)
        self.B = nn.Parameter(torch.zeros(d_out, rank))

    def map(self, x: torch.Tensor, B: torch.Tensor) -> torch.Tensor:
        return functional.linear(functional.linear(x, self.A), B)

    @torch.no_grad()
    def merge(self, host: nn.Module) -> bool:
        host.weight += self.scale * self.B @ self.A
        return True


class BitFit(Delta):
    """An additive bias b (d), 0 at the start."""

    outer, multiplies, shifts = ("b",), False, "bias"

    def __init__(self, d: int):
        super().__init__()
        self.b = nn.Parameter(torch.zeros(d))

    def map(self, x: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return b

    @torch.no_grad()
    def merge(self, host: nn.Module) -> bool:
        if getattr(host, "bias", None) is None:
            return False
        host.bias += self.b
        return True


class LNFiT(Delta):
    """s' times the normalised input of a norm, s' (d) = 0 at the start: the norm's scale s becomes s + z s'.

    Normalised as ``norm`` does it: T5's root mean square, or a layer norm's mean and variance; its epsilon too.
    """

    outer, multiplies, shifts = ("s",), False, "weight"

    def __init__(self, norm: nn.Module):
        super().__init__()
        self.centred = isinstance(norm, nn.LayerNorm)
        self.epsilon = norm.eps if self.centred else norm.variance_epsilon
        self.s = nn.Parameter(torch.zeros(norm.weight.shape))

    def map(self, x: torch.Tensor, s: torch.Tensor) -> torch.Tensor:
        if self.centred:
            return functional.layer_norm(x, s.shape, s, None, self.epsilon)
        return s * (x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.epsilon))

    @torch.no_grad()
    def merge(self, host: nn.Module) -> bool:
        host.weight += self.s
        return True


class LowRankAdapter(Delta):
    """act(h W1 + c1) W2 + c2 with W1 = l1 r1 (d, m) and W2 = l2 r2 (m, d) of rank rho; act = tanh-GELU; m = floor(d / reduction).

    Factors xavier-uniform with gain sqrt(2), biases 0. The only delta that is not the zero map at the start: rms(out) is about 0.044 rms(in)
    at d = 1024.
    """

    outer = ("r2", "c2")

    def __init__(self, d: int, reduction: int = REDUCTION, rank: int = 1):
        super().__init__()
        m = d // reduction
        if m < 1 or rank < 1:
            raise InputError(
                f"a low-rank adapter of width {d}, reduction {reduction} and rank {rank} is empty; "
                "the width must be at least the reduction, the rank at least 1"
            )
        outside, inside = math.sqrt(12 / (d + rank)), math.sqrt(12 / (m + rank))
        self.l1, self.r1 = _uniform(outside, d, rank), _uniform(inside, rank, m)
        self.c1 = nn.Parameter(torch.zeros(m))
        self.l2, self.r2 = _uniform(inside, m, rank), _uniform(outside, rank, d)
        self.c2 = nn.Parameter(torch.zeros(d))

    def map(self, x: torch.Tensor, r2: torch.Tensor, c2: torch.Tensor) -> torch.Tensor:
        inner = functional.linear(functional.linear(x, self.l1.T), self.r1.T, self.c1)
        return functional.linear(functional.linear(_gelu(inner), self.l2.T), r2.T, c2)


class Adapter(Delta):
    """U act(D h + c1) + c2 with D (m, d), U (d, m), m = ``bottleneck``, act = tanh-GELU; weights ~ N(0, 0.01^2), biases 0."""

    outer = ("U", "c2")

    def __init__(self, d: int, bottleneck: int = BOTTLENECK):
        super().__init__()
        self.D = nn.Parameter(torch.randn(bottleneck, d) * 0.01)
        self.c1 = nn.Parameter(torch.zeros(bottleneck))
        self.U = nn.Parameter(torch.randn(d, bottleneck) * 0.01)
        self.c2 = nn.Parameter(torch.zeros(d))

    def map(self, x: torch.Tensor, U: torch.Tensor, c2: torch.Tensor) -> torch.Tensor:
        return functional.linear(_gelu(functional.linear(x, self.D, self.c1)), U, c2)


def _uniform(bound: float, *shape: int) -> nn.Parameter:
    return nn.Parameter(torch.empty(shape).uniform_(-bound, bound))


def _gelu(x: torch.Tensor) -> torch.Tensor:
    return functional.gelu(x, approximate="tanh")
