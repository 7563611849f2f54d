"""One-pass AdamW over a list of tensors: mask, clipping, decay and the accumulation of squared gradients in the pass that moves the weights.

Step t of one entry, with g = gradient * clip, and g = 0 where its mask is off:

    w <- w - lr wd w                  or, with a start,  w <- w + lr wd (start - w)
    m <- m + (1 - beta1) (g - m)
    v <- beta2 v + (1 - beta2) g^2
    w <- w - lr / (1 - beta1^t) m / (sqrt(v) / sqrt(1 - beta2^t) + eps)
    gam <- gam + gradient^2           neither clipped nor masked

Under the policy "grad_zero" an entry whose mask is off decays and follows its momentum as it fades; under "freeze" its w, m and v keep their bits.
Everything is computed in fp32 and rounded once, when it is stored.

Masks are bits (:mod:`paperlib.kernels.packing`), not bytes. In fp32 the step moves 28 bytes per entry: a byte would add 3.6 %, a bit adds 0.4 %; in
bf16, 14 bytes, 7.1 % and 0.9 %. And what a mask takes between steps is 1/8 byte per entry: 36 MiB for the 302 million of BERT-large's layers instead
of 288.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch

from paperlib.kernels.packing import packed_size, unpack
from paperlib.kernels.triton_path import sent, taken_by

FLOATS = (torch.float32, torch.bfloat16)
COLUMNS = ("weight", "exp_avg", "exp_avg_sq", "mask", "start", "gam")


@dataclass(frozen=True, slots=True, eq=False)
class Slot:
    """What steps move of one tensor; written: ``weight``, ``exp_avg``, ``exp_avg_sq``, ``gam``.

    Tensors are fp32 or bf16 each for itself, of one shape and on one device, with any strides (on a GPU those that are not contiguous take a
    copy). ``mask``: packed, None for all on. ``start``: what the weight decays toward, None for zero. ``gam``: the sum of squared
    gradients. ValueError: other types, sizes that do not fit.
    """

    weight: torch.Tensor
    exp_avg: torch.Tensor
    exp_avg_sq: torch.Tensor
    mask: torch.Tensor | None = None
    start: torch.Tensor | None = None
    gam: torch.Tensor | None = None

    def __post_init__(self):
        for name in COLUMNS:
            if (tensor := getattr(self, name)) is None:
                continue
            if name == "mask":
                fits = tensor.dtype == torch.uint8 and tensor.shape == (packed_size(self.weight.numel()),)
                fits = fits and tensor.is_contiguous()
            else:
                fits = tensor.dtype in FLOATS and tensor.shape == self.weight.shape
            if not fits or tensor.device != self.weight.device:
                raise ValueError(
                    f"{name} does not fit a weight {tuple(self.weight.shape)} on {self.weight.device}: "
                    f"{tensor.dtype} {tuple(tensor.shape)} on {tensor.device}"
                )


class Rate(NamedTuple):
    """What a step does to one tensor; ``step``: t, from 1."""

    lr: float
    weight_decay: float
    step: int


class OnePassAdamW:
    """AdamW (Loshchilov and Hutter 2019, without amsgrad) over a list of tensors, made ready once.

    On a GPU with Triton one launch for all tensors alike in their types and in what they have (mask, start, gam): their addresses lie on the
    device, and a step costs the host a look at the gradients. Otherwise plain PyTorch, one tensor after the other. The slots must stay where
    they are; for others, such as new masks, make another. Bytes moved per entry: :mod:`paperlib.kernels.traffic`. ValueError: an unknown policy.
    """

    def __init__(
        self,
        slots: Sequence[Slot],
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        policy: Literal["grad_zero", "freeze"] = "grad_zero",
    ):
        if policy not in ("grad_zero", "freeze"):
            raise ValueError(f"policy must be grad_zero or freeze, got {policy!r}")
        self.betas = betas
        self._scalars = (*betas, eps, policy == "freeze")
        self._groups = [(numbers, _ready([slots[i] for i in numbers])) for numbers in _alike(slots)]

    @torch.no_grad()
    def step(
        self, gradients: Sequence[torch.Tensor | None], rates: Sequence[Rate], clip: torch.Tensor | None = None
    ) -> None:
        """Move every slot by its gradient, where it has one; gradients stay as they are.

        ``gradients``: fp32 or bf16, of the weights' shapes; those of one type of weight have one type. ``clip``: what they are multiplied
        by, a 0-d fp32 tensor on their device, so that the host waits for nothing; None for 1. ValueError: others.
        """
        known: dict[Rate, tuple[float, ...]] = {}
        for rate in rates:
            if rate not in known:
                known[rate] = _factors(rate, self.betas)
        for numbers, ready in self._groups:
            ready.step([gradients[i] for i in numbers], [known[rates[i]] for i in numbers], clip, *self._scalars)

    @torch.no_grad()
    def norms(self, gradients: Sequence[torch.Tensor | None]) -> torch.Tensor:
        """L2 norms of all gradients together, of all entries and of those whose mask is on: fp32 (2,), where the slots are.

        What clipping asks for, without the masked gradients: on a GPU 4 1/8 bytes per fp32 entry for both, instead of 4 and of 9 and 4 for a
        product with the mask and its norm.
        """
        found = [ready.squares([gradients[i] for i in numbers]) for numbers, ready in self._groups]
        return sum(found[1:], found[0]).sqrt().float()


def reference(
    weights: Sequence[torch.Tensor],
    gradients: Sequence[torch.Tensor],
    exp_avgs: Sequence[torch.Tensor],
    exp_avg_sqs: Sequence[torch.Tensor],
    masks: Sequence[torch.Tensor],
    starts: Sequence[torch.Tensor],
    gams: Sequence[torch.Tensor],
    rates: torch.Tensor,
    clip: torch.Tensor | None,
    beta1: float,
    beta2: float,
    eps: float,
    freeze: bool,
) -> None:
    """The step in plain PyTorch; ``masks``, ``starts`` and ``gams`` are as long as ``weights`` or empty.

    ``rates``: fp32 (n, 4), per tensor: 1 - lr wd, lr wd, lr / (1 - beta1^t), sqrt(1 - beta2^t).
    """
    for i, moving in enumerate(zip(weights, exp_avgs, exp_avg_sqs, strict=True)):
        w, m, v = (each.float() for each in moving)
        kept, pull, rate, root = rates[i]
        g = gradients[i].float()
        if gams:
            gams[i].copy_(gams[i].float().addcmul(g, g))
        g = g if clip is None else g * clip
        keep = unpack(masks[i], g.shape) if masks else None
        g = g if keep is None else torch.where(keep, g, torch.zeros_like(g))
        w = w.lerp(starts[i].float(), pull) if starts else w * kept
        m = m.lerp(g, 1 - beta1)
        v = (v * beta2).addcmul_(g, g, value=1 - beta2)
        w = w - rate * m / ((v.sqrt() / root) + eps)
        for old, new in zip(moving, (w, m, v), strict=True):
            old.copy_(torch.where(keep, new.to(old.dtype), old) if freeze and keep is not None else new)


def squares(gradients: Sequence[torch.Tensor], masks: Sequence[torch.Tensor]) -> torch.Tensor:
    """Sums of squares of all gradients together, of all entries and of those whose mask is on: fp64 (2,).

    ``gradients``: one at least; ``masks``: as many, or none.
    """
    found = []
    for i, gradient in enumerate(gradients):
        each = gradient.float().square()
        whole = each.sum(dtype=torch.float64)
        found.append(
            torch.stack([whole, each[unpack(masks[i], each.shape)].sum(dtype=torch.float64) if masks else whole])
        )
    return torch.stack(found).sum(0)


class _Plain:
    """:func:`reference` and :func:`squares` over columns of slots."""

    def __init__(self, columns: list[list[torch.Tensor]]):
        self.columns = columns

    def step(self, gradients, rates, clip, beta1, beta2, eps, freeze):
        (weights, *others), gradients, rates = present(self.columns, gradients, rates)
        reference(weights, gradients, *others, rates, clip, beta1, beta2, eps, freeze)

    def squares(self, gradients):
        columns, gradients, _ = present(self.columns, gradients, [()] * len(gradients))
        zero = torch.zeros(2, dtype=torch.float64, device=self.columns[0][0].device)
        return squares(gradients, columns[3]) if gradients else zero


def present(columns, gradients, rates):
    """Columns, gradients and the table of rates of the tensors that have a gradient."""
    check(columns[0], gradients)
    here = [i for i, gradient in enumerate(gradients) if gradient is not None]
    table = sent(torch.tensor([rates[i] for i in here], dtype=torch.float32), columns[0][0].device)
    return [[column[i] for i in here] if column else [] for column in columns], [gradients[i] for i in here], table


def check(weights: Sequence[torch.Tensor], gradients: Sequence[torch.Tensor | None]) -> None:
    """ValueError unless the gradients fit their weights and are all of one type."""
    types = set()
    for weight, gradient in zip(weights, gradients, strict=True):
        if gradient is not None:
            types.add(gradient.dtype)
            if gradient.shape != weight.shape or gradient.device != weight.device:
                raise ValueError(
                    f"a gradient {tuple(gradient.shape)} on {gradient.device} does not fit its weight, "
                    f"{tuple(weight.shape)} on {weight.device}"
                )
    if len(types) > 1 or not types <= set(FLOATS):
        raise ValueError(f"gradients must be all float32 or all bfloat16, got {sorted(map(str, types))}")


def _alike(slots: Sequence[Slot]) -> list[list[int]]:
    """Numbers of the slots that one launch can move together: on one device, of the same types, with the same columns."""
    groups: dict[tuple, list[int]] = {}
    for i, slot in enumerate(slots):
        tensors = [getattr(slot, name) for name in COLUMNS]
        kind = slot.weight.device, *(None if tensor is None else tensor.dtype for tensor in tensors)
        groups.setdefault(kind, []).append(i)
    return list(groups.values())


def _ready(slots: list[Slot]):
    columns = [[getattr(each, name) for each in slots if getattr(each, name) is not None] for name in COLUMNS]
    if not taken_by(slots[0].weight):
        return _Plain(columns)
    from paperlib.kernels.adamw_triton import Ready

    return Ready(columns)


def _factors(rate: Rate, betas: tuple[float, float]) -> tuple[float, ...]:
    """1 - lr wd, lr wd, lr / (1 - beta1^t), sqrt(1 - beta2^t)."""
    if rate.step < 1:
        raise ValueError(f"steps are counted from 1, got {rate.step}")
    lr, decay, t = rate
    return 1 - lr * decay, lr * decay, lr / (1 - betas[0] ** t), math.sqrt(1 - betas[1] ** t)
