"""The kernels of layers beside torch's operators: mixed weights, gates, sparse offsets, low-rank terms, dropout.

Bytes are those that each way must move to and from memory, counted operator by operator; floating-point operations those that the result needs,
the same for every way to it.
"""

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch.nn import functional

from paperlib import measure
from paperlib.kernels.dropout import dropout
from paperlib.kernels.gates import PASSES, SECTIONS, budget_shift, drawn
from paperlib.kernels.low_rank import low_rank_adapter, low_rank_linear
from paperlib.kernels.mixing import Draw, count_open, gated, mixed
from paperlib.kernels.packing import pack
from paperlib.kernels.sparse_offset import SparseOffsets, add_products
from paperlib.training.limits import DTYPES, SIDES, Limits, copy, product, product_flops
from paperlib.training.timing import Timing, Turn, interleaved

OURS = "paperlib"
"""The way that is ours; the others are its peers."""
WIDTH = 1024
"""Inputs and outputs of a layer, as BERT-large's."""
HEIGHT = 4096
"""Most rows of a weight that is mixed."""
TASKS, OFFSETS = 8, 0.005
"""Sub-tasks on one frozen layer, and the share of its weights that each has an offset for."""
RANK, BOTTLENECK = 8, 24
MODULES, TAU, BETA = 916, 1.0, 1.0
"""Of S3Delta's search over T5-large, and its temperatures."""


@dataclass(frozen=True)
class Way:
    """One way to a result: ``bytes`` it moves, ``flops`` the result needs, and a ``turn`` that computes it."""

    bytes: float
    flops: float
    turn: Turn


Ways = dict[str, Way]


@dataclass(frozen=True)
class Measurement:
    """Of every kernel and way what a turn took, beside a ``copy`` of ``entries`` entries and a matrix ``product`` in the same rounds."""

    entries: int
    copy: Timing
    product: Timing
    kernels: dict[str, dict[str, Timing]]

    @property
    def limits(self) -> Limits:
        """What the copy and the product reached."""
        return Limits(self.copy.bytes / self.copy.median, self.product.rate)


def measurement(entries: int, dtype: str, kept: float, rounds: int, seed: int) -> Measurement:
    """Everything in turns, ``rounds`` times after a turn that warms up. Parameters as for :func:`kernels`."""
    kind, side = DTYPES[dtype], SIDES[measure.device().type]
    found = kernels(entries, kind, kept, seed)
    turns = {"copy": copy(entries, kind), "product": product(side, kind)}
    turns |= {(name, way): each.turn for name, ways in found.items() for way, each in ways.items()}
    seconds = interleaved(turns, rounds, cover=turns["copy"])
    return Measurement(
        entries,
        Timing(2 * kind.itemsize * entries, seconds["copy"]),
        Timing(3 * kind.itemsize * side**2, seconds["product"], product_flops(side)),
        {
            name: {way: Timing(each.bytes, seconds[name, way], each.flops) for way, each in ways.items()}
            for name, ways in found.items()
        },
    )


def kernels(entries: int, dtype: torch.dtype, kept: float, seed: int) -> dict[str, Ways]:
    """Every kernel's ways, at a size that ``entries`` weights, or hidden states of all tasks together, have.

    ``dtype``: fp32 or bf16, what layers compute in. Weights are fp32 and so are sparse offsets. ``kept``: share of open gates. Each device has
    the gates that training has there: on a GPU drawn in the kernel, or bits; on a CPU drawn by torch, or bool. Counting drawn columns and
    S3Delta's gates are for a GPU alone, dropout for a CPU alone.
    """
    torch.manual_seed(seed)
    on_gpu, rows = measure.device().type == "cuda", max(1, entries // (TASKS * WIDTH))
    found = (
        mixing(entries, dtype, kept, seed, on_gpu) | {"sparse offsets": sparse_offsets(rows)} | low_rank(rows, dtype)
    )
    if on_gpu:
        return found | {"counts of open columns": counts(max(1, entries // HEIGHT), 1 - kept, seed), "gates": gates()}
    return found | {"dropout": dropouts(entries, dtype, seed)}


def mixing(entries: int, dtype: torch.dtype, kept: float, seed: int, on_gpu: bool) -> dict[str, Ways]:
    """Mixed weights and gated gradients of all weights, whole columns open or single entries.

    torch: a bool for each column or entry; then a factor, ``lerp`` and a cast, or a cast and ``mul_``.
    """
    weights, starts, gradients = (_normal(entries) for _ in range(3))
    gradients = [each.to(dtype) for each in gradients]
    draws = [Draw(seed, 1, WIDTH * place, 1 - kept) for place in range(len(weights))]
    columns = [draw.gate(WIDTH, measure.device()) for draw in draws]
    masks = [torch.rand_like(each) < kept for each in weights]
    bits, bit = ([pack(each) for each in masks], 1 / 8) if on_gpu else (masks, 1)
    count, size = sum(each.numel() for each in weights), dtype.itemsize
    cast = (4 + size) * (size < 4)
    mix, lerp = partial(mixed, factor=1 / kept, dtype=dtype), partial(_lerp, factor=1 / kept, dtype=dtype)
    narrow, found = partial(gated, factor=1.0, dtype=torch.float32), {}
    # What is open; our gates and torch's; bytes per entry of our gates, of torch's, and of those times the factor, written and read.
    cases = ("columns", draws if on_gpu else columns, columns, 0, 0, 0), ("entries", bits, masks, bit, 1, 8)
    for what, ours, theirs, own, read, scaled in cases:
        found[f"mixed weights, {what}"] = {
            OURS: Way((8 + size + own) * count, 3 * count, partial(_all, mix, weights, starts, ours)),
            "torch": Way((12 + cast + read + scaled) * count, 3 * count, partial(_all, lerp, weights, starts, theirs)),
        }
        found[f"gated gradients, {what}"] = {
            OURS: Way((size + 4 + own) * count, count, partial(_all, narrow, gradients, ours)),
            "torch": Way((8 + cast + read) * count, count, partial(_all, _gate, gradients, theirs)),
        }
    return found


def counts(columns: int, p: float, seed: int) -> Ways:
    """How often columns were open, drawn again, or drawn by torch's own generator."""
    ours, theirs = (torch.zeros(columns, dtype=torch.int32, device=measure.device()) for _ in range(2))
    return {
        OURS: Way(8 * columns, columns, partial(count_open, ours, Draw(seed, 1, 0, p))),
        "torch": Way(18 * columns, columns, lambda: theirs.add_(torch.rand(columns, device=theirs.device) >= p)),
    }


def gates() -> Ways:
    """Gates of S3Delta under a budget, forward and backward, float64: in two launches, or composed of torch's operators.

    So few numbers that launches are all that counts.
    """
    device = measure.device()
    alpha, u = (torch.rand(MODULES, dtype=torch.float64, device=device) for _ in range(2))
    alpha.requires_grad_()
    sizes = torch.randint(1, 5000, (MODULES,), device=device)
    budget = 0.3 * sizes.sum().item()
    numbers = torch.tensor([budget, TAU, BETA], dtype=torch.float64, device=device)
    # A sigmoid, counted as 4, a product and a sum for each cut of each pass.
    flops = MODULES * SECTIONS * PASSES * 6
    composed = partial(_gates, alpha, sizes, u, budget)
    return {
        OURS: Way(96 * MODULES, flops, lambda: _slope(drawn(alpha, sizes, u, numbers, "local", False), alpha)),
        "torch": Way((200 + 488 * PASSES) * MODULES, flops, lambda: _slope(composed(), alpha)),
    }


def sparse_offsets(rows: int) -> Ways:
    """Products of several tasks' sparse offsets with one input, fp32, beside dense products and torch's compressed rows."""
    device, entries = measure.device(), WIDTH * WIDTH
    kept = round(OFFSETS * entries)
    places = [torch.randperm(entries)[:kept].sort().values.int().to(device) for _ in range(TASKS)]
    values, biases = (list(torch.randn(TASKS, size, device=device)) for size in (kept, WIDTH))
    offsets = SparseOffsets.of(values, places, biases, WIDTH)
    x, known = (torch.randn(rows, WIDTH, device=device) for _ in range(2))
    dense = [_dense(*each) for each in zip(values, places, strict=True)]
    with warnings.catch_warnings(action="ignore", category=UserWarning):  # that the format is in beta
        compressed = [weight.to_sparse_csr() for weight in dense]
    y, flops = TASKS * rows * WIDTH, TASKS * rows * 2 * (kept + WIDTH)
    return {
        OURS: Way(4 * y + 4 * y / TASKS + 12 * x.numel(), flops, partial(add_products, x, known, offsets)),
        "dense": Way(
            20 * y + 4 * TASKS * entries,
            flops,
            lambda: [known + functional.linear(x, *each) for each in zip(dense, biases, strict=True)],
        ),
        "torch.sparse": Way(
            *(28 * y + 8 * TASKS * kept, flops),
            lambda: [known + (one @ x.T).T + bias for one, bias in zip(compressed, biases, strict=True)],
        ),
    }


def low_rank(rows: int, dtype: torch.dtype) -> dict[str, Ways]:
    """A frozen linear layer with a low-rank term and a low-rank adapter, forward and backward, beside their formulas in torch's operators."""
    device, states = measure.device(), rows * WIDTH * dtype.itemsize
    x, g = (torch.randn(rows, WIDTH, device=device).to(dtype) for _ in range(2))
    x.requires_grad_()
    weight = (torch.randn(WIDTH, WIDTH, device=device) / math.sqrt(WIDTH)).to(dtype)
    A, B = _factors(dtype, (RANK, WIDTH), (WIDTH, RANK))
    factors = _factors(
        dtype, *((WIDTH, RANK), (RANK, BOTTLENECK), (BOTTLENECK,)), *((BOTTLENECK, RANK), (RANK, WIDTH), (WIDTH,))
    )
    of_term = 2 * rows * (2 * WIDTH * WIDTH + 6 * RANK * WIDTH)
    of_adapter = 6 * rows * (2 * RANK * WIDTH + 2 * RANK * BOTTLENECK)
    both = 2 * weight.nbytes
    return {
        "low-rank term": {
            OURS: Way(
                12 * states + both, of_term, partial(_trained, partial(low_rank_linear, x, weight, None), g, x, A, B)
            ),
            "torch": Way(16 * states + both, of_term, partial(_trained, partial(_term, x, weight), g, x, A, B)),
        },
        "low-rank adapter": {
            OURS: Way(8 * states, of_adapter, partial(_trained, partial(low_rank_adapter, x), g, x, *factors)),
            "torch": Way(15 * states, of_adapter, partial(_trained, partial(_adapter, x), g, x, *factors)),
        },
    }


def dropouts(entries: int, dtype: torch.dtype, seed: int) -> Ways:
    """Dropout on a CPU: 16 bits, a truth value and a factor for each entry, or torch's mask and factor."""
    x, size = torch.randn(entries).to(dtype), dtype.itemsize
    ours = partial(dropout, x, 0.1, np.random.Generator(np.random.SFC64(seed)))
    return {
        OURS: Way((4 * size + 6) * entries, entries, ours),
        "torch": Way(6 * size * entries, entries, partial(functional.dropout, x, 0.1)),
    }


def _normal(entries: int) -> list[torch.Tensor]:
    """Weights of about so many entries in all, the last one lower than the others."""
    rows = torch.randn(max(1, entries // WIDTH), WIDTH, device=measure.device())
    return list(rows.split(HEIGHT))


def _all(one: Callable, *columns: Sequence) -> None:
    """``one`` for every weight; what it returns is let go."""
    for each in zip(*columns, strict=True):
        one(*each)


def _lerp(weight, start, gate, factor, dtype):
    return torch.lerp(start, weight, gate * factor).to(dtype)


def _gate(gradient, gate):
    return gradient.float().mul_(gate)


def _dense(values: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    return values.new_zeros(WIDTH * WIDTH).index_copy_(0, places.long(), values).view(WIDTH, WIDTH)


def _gates(alpha, sizes, u, budget):
    logits = (alpha - budget_shift(alpha, sizes, budget, TAU)) / TAU
    return torch.sigmoid((torch.logit(u) + logits) / BETA)


def _slope(z: torch.Tensor, alpha: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Gates and the gradient of their sum."""
    return z.detach(), *torch.autograd.grad(z.sum(), alpha)


def _factors(dtype: torch.dtype, *shapes: tuple[int, ...]) -> list[torch.Tensor]:
    return [(torch.randn(each, device=measure.device()) / WIDTH).to(dtype).requires_grad_() for each in shapes]


def _term(x, weight, A, B):
    return functional.linear(x, weight) + functional.linear(functional.linear(x, A), B)


def _adapter(x, l1, r1, c1, l2, r2, c2):
    return x + functional.gelu(x @ l1 @ r1 + c1, approximate="tanh") @ l2 @ r2 + c2


def _trained(formula: Callable, g: torch.Tensor, x: torch.Tensor, *factors: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Gradients of ``x`` and the factors of ``formula(*factors)``, whose own gradient is ``g``."""
    return torch.autograd.grad(formula(*factors), [x, *factors], g)
