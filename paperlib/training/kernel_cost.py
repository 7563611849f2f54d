"""Seconds of one-pass AdamW and of exact selection beside torch's operators and beside a copy, on the same tensors in one process."""

import statistics
import time
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from tqdm import tqdm

from paperlib import measure
from paperlib.kernels.adamw import OnePassAdamW, Rate, Slot
from paperlib.kernels.packing import pack
from paperlib.kernels.selection import at_least, kth_largest
from paperlib.kernels.traffic import Variant, variants

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
SIDE = 1024
"""Tensors are square matrices of this side, as BERT-large's are, and what is left over one vector."""
COVERS = 10
"""Copies on the GPU that hide the host's share of a turn: with 300 million entries they last some 7 ms."""
STEP, RATE, DECAY = 3, 1e-3, 0.01


@dataclass(frozen=True)
class Timing:
    """``bytes`` that a turn must move, counted, and its ``seconds`` in every round."""

    bytes: float
    seconds: list[float]

    @property
    def median(self) -> float:
        """Seconds."""
        return statistics.median(self.seconds)

    def over(self, other: "Timing") -> float:
        """Median over the rounds of its seconds to another's in the same round."""
        return statistics.median(a / b for a, b in zip(self.seconds, other.seconds, strict=True))

    def reach(self, copy: "Timing") -> float:
        """Median over the rounds of its bytes per second to a copy's in the same round."""
        return self.bytes / copy.bytes / self.over(copy)


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
    turns = {"copy": state.copy()} | steps | state.rankings()
    seconds = interleaved(turns, rounds, cover=turns["copy"])
    one_pass = {name: Timing(each.one_pass * entries, seconds[name, "one_pass"]) for name, each in found.items()}
    in_turn = {
        name: Timing(sum(each.in_turn.values()) * entries, seconds[name, "in_turn"]) for name, each in found.items()
    }
    return Measurement(
        entries,
        Timing(2 * state.dtype.itemsize * entries, seconds["copy"]),
        {name: {"one pass": one_pass[name], "in turn": in_turn[name]} for name in found},
        {name: Timing(4 * entries, seconds[name]) for name in state.rankings()},
        allocations.peak["selection"],
    )


def interleaved(
    turns: Mapping[Hashable, Callable[[], object]], rounds: int, cover: Callable[[], object]
) -> dict[Hashable, list[float]]:
    """Seconds of every turn in every round; a first round is not counted.

    On a GPU the device's own seconds: it is kept at work with ``cover`` while the host makes the turn ready, as far as that suffices.
    """
    seconds: dict[Hashable, list[float]] = {name: [] for name in turns}
    timed = _on_device if torch.cuda.is_available() else _on_host
    for counted in tqdm([False] + [True] * rounds, unit="round"):
        for name, turn in turns.items():
            found = timed(turn, cover)
            if counted:
                seconds[name].append(found)
    return seconds


def _on_host(turn: Callable[[], object], cover: Callable[[], object]) -> float:
    start = time.perf_counter()
    turn()
    return time.perf_counter() - start


def _on_device(turn: Callable[[], object], cover: Callable[[], object]) -> float:
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    for _ in range(COVERS):
        cover()
    start.record()
    turn()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1000


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

    def copy(self) -> Callable[[], object]:
        """One tensor of all entries to another: what moves bytes fastest."""
        source = torch.randn(self.entries, device=self.device).to(self.dtype)
        return partial(torch.empty_like(source).copy_, source)

    def one_pass(self, variant: Variant) -> Callable[[], object]:
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

    def in_turn(self, variant: Variant) -> Callable[[], object]:
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

    def rankings(self) -> dict[str, Callable[[], object]]:
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
