"""Seconds of one-pass AdamW and of exact selection beside torch's operators and beside a copy, on the same tensors in one process."""

from dataclasses import dataclass
from functools import partial

import torch

from paperlib import measure
from paperlib.kernels import selection, triton_path
from paperlib.kernels.adamw import OnePassAdamW, Rate, Slot
from paperlib.kernels.packing import pack
from paperlib.kernels.selection import at_least, kth_largest
from paperlib.kernels.traffic import Variant, variants
from paperlib.training.limits import DTYPES, copy
from paperlib.training.timing import Timing, Turn, interleaved

SIDE = 1024
"""Tensors are square matrices of this side, as BERT-large's are, and what is left over one vector."""
STEP, RATE, DECAY = 3, 1e-3, 0.01


@dataclass(frozen=True)
class Measurement:
    """What tensors of ``entries`` entries in all cost.

    ``steps``: by variant of the step (:func:`paperlib.kernels.traffic.variants`), "one pass" and "in turn". ``rankings``: their bytes are those of
    the values, read once. ``beside``: the most bytes that stood beside the values while the k-th largest was sought.
    """

    entries: int
    copy: Timing
    steps: dict[str, dict[str, Timing]]
    rankings: dict[str, Timing]
    beside: int


def measurement(entries: int, dtype: str, kept: float, rounds: int, seed: int) -> Measurement:
    """Everything in turns, ``rounds`` times after a turn that warms up: a drift of the machine's speed hits all alike."""
    state = State(entries, DTYPES[dtype], kept, seed)
    with measure.Allocations() as allocations:
        state.kth_largest()
        allocations.mark("selection")
    found = variants(state.dtype.itemsize)
    steps = {(name, how): getattr(state, how)(each) for name, each in found.items() for how in ("one_pass", "in_turn")}
    turns = {"copy": copy(entries, state.dtype)} | steps | state.rankings()
    seconds = interleaved(turns, rounds, cover=turns["copy"])
    return Measurement(
        entries,
        Timing(2 * state.dtype.itemsize * entries, seconds["copy"]),
        {
            name: _timings(each, entries, seconds[name, "one_pass"], seconds[name, "in_turn"])
            for name, each in found.items()
        },
        {name: Timing(4 * entries, seconds[name]) for name in state.rankings()},
        allocations.peak["selection"],
    )


def passes() -> int:
    """How often the k-th largest reads all fp32 values on the run's device: once for each digit of their bits."""
    digit = selection.DIGIT
    if triton_path.taken_by(torch.empty(0, device=measure.device())):
        from paperlib.kernels import selection_triton

        digit = selection_triton.DIGIT_BITS
    return 32 // digit


def flops(variant: Variant) -> int:
    """Floating-point operations that a step needs per entry, roots and quotients counted as one each.

    Both moments 7, the bias's correction and epsilon 2, root, quotient and step 4, decay 1, or 3 toward a start; clipping 1, GAM 2.
    """
    return 13 + (3 if variant.start else 1) + variant.clip + 2 * bool(variant.gam)


def _timings(variant: Variant, entries: int, one_pass: list[float], in_turn: list[float]) -> dict[str, Timing]:
    moved = {"one pass": (variant.one_pass, one_pass), "in turn": (sum(variant.in_turn.values()), in_turn)}
    return {how: Timing(each * entries, seconds, flops(variant) * entries) for how, (each, seconds) in moved.items()}


class State:
    """Weights of ``entries`` entries in all, with all that a step of AdamW reads and writes of them; masks keep a share ``kept``.

    GAM and the values ranked are fp32. The factor of clipping is 1 and masks choose what stays the same, so rounds do not change the numbers' kind.
    """

    def __init__(self, entries: int, dtype: torch.dtype, kept: float, seed: int):
        self.entries, self.dtype, self.kept, self.device = entries, dtype, kept, measure.device()
        torch.manual_seed(seed)
        self.weights = self._drawn(0.02)
        self.gradients = self._drawn(1e-3)
        self.exp_avgs = self._drawn(1e-3)
        self.exp_avg_sqs = [each.square() for each in self._drawn(1e-3)]
        self.starts = self._drawn(0.02)
        self.gams = [each.float().square() for each in self._drawn(1e-3)]
        self.masks = [torch.rand_like(each, dtype=torch.float32) < kept for each in self.weights]
        self.bits = [pack(each) for each in self.masks]
        self.clip = torch.ones((), device=self.device)

    def _drawn(self, scale: float) -> list[torch.Tensor]:
        return [torch.randn(each, device=self.device, dtype=self.dtype) * scale for each in shapes(self.entries)]

    def one_pass(self, variant: Variant) -> Turn:
        """:class:`paperlib.kernels.adamw.OnePassAdamW`."""
        nothing = [None] * len(self.weights)
        columns = (
            *(self.weights, self.exp_avgs, self.exp_avg_sqs),
            *(self.bits if variant.policy else nothing, self.starts if variant.start else nothing),
            self.gams if variant.gam else nothing,
        )
        optimizer = OnePassAdamW(
            [Slot(*each) for each in zip(*columns, strict=True)], policy=variant.policy or "grad_zero"
        )
        rates = [Rate(RATE, DECAY, STEP)] * len(self.weights)
        return partial(optimizer.step, self.gradients, rates, self.clip if variant.clip else None)

    def in_turn(self, variant: Variant) -> Turn:
        """torch's fused AdamW with what the variant adds in operators of its own, before and after."""
        parameters = [torch.nn.Parameter(each) for each in self.weights]
        decay = 0.0 if variant.start else DECAY
        optimizer = torch.optim.AdamW(parameters, lr=RATE, weight_decay=decay, fused=True)
        moments = zip(parameters, self.exp_avgs, self.exp_avg_sqs, strict=True)
        for parameter, exp_avg, exp_avg_sq in moments:
            step = torch.tensor(STEP - 1.0, device=self.device)
            optimizer.state[parameter] = {"step": step, "exp_avg": exp_avg, "exp_avg_sq": exp_avg_sq}
        for parameter, gradient in zip(parameters, self.gradients, strict=True):
            parameter.grad = gradient
        return partial(self._in_turn, variant, optimizer)

    @torch.no_grad()
    def _in_turn(self, variant: Variant, optimizer: torch.optim.Optimizer) -> None:
        if variant.gam:
            torch._foreach_addcmul_(self.gams, self.gradients, self.gradients)
        if variant.policy:
            for gradient, mask in zip(self.gradients, self.masks, strict=True):
                gradient.mul_(mask)
        if variant.clip:
            torch._foreach_mul_(self.gradients, self.clip)
        if variant.start:
            for weight, start in zip(self.weights, self.starts, strict=True):
                weight.lerp_(start, RATE * DECAY)
        moving = [*self.weights, *self.exp_avgs, *self.exp_avg_sqs] if variant.policy == "freeze" else []
        before = [each.clone() for each in moving]
        optimizer.step()
        for now, then, mask in zip(moving, before, self.masks * 3, strict=False):
            torch.where(mask, now, then, out=now)

    def rankings(self) -> dict[str, Turn]:
        """Ways to the smallest GAM of the share ``kept`` that has the largest, over all tensors together, and to the mask."""
        return {
            "kth_largest": self.kth_largest,
            "kth_largest and packed masks": lambda: at_least(self.gams, self.kth_largest()),
            "torch.kthvalue": lambda: self._joined().kthvalue(self.entries + 1 - self._k),
            "torch.sort": lambda: self._joined().sort(descending=True),
        }

    def kth_largest(self) -> torch.Tensor:
        return kth_largest(self.gams, self._k)

    @property
    def _k(self) -> int:
        return max(1, round(self.kept * self.entries))

    def _joined(self) -> torch.Tensor:
        return torch.cat([each.view(-1) for each in self.gams])


def shapes(entries: int) -> list[tuple[int, ...]]:
    """Square matrices and a vector that have so many entries together."""
    matrices, rest = divmod(entries, SIDE * SIDE)
    return [(SIDE, SIDE)] * matrices + ([(rest,)] if rest else [])
