"""The search's loss: cross-entropy and the expected operations of the architecture (appendix B; its form is inferred, section 3 being unread).

The appendix says of it only that E_ops counts billions of operations and that two constants are 0.5. Three forms that fit are here; "L1" is the
default because with these constants its factor is near 1 for BERT (0.96 large, 0.78 base at length 128 in multiply-adds), as FBNet's is, while
"L2" adds several nats.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import torch

from paperlib.errors import InputError
from paperlib.lets import operations
from paperlib.lets.operations import Encoder

BILLION = 1e9
FLOOR = 1e-3  # billions; a small encoder of 6 layers has 1.4 billion
SHARE, OWN = 0, 1
INPUT, ATTENTION, FEED_FORWARD = 0, 1, 2  # the selectors of a layer
SELECTORS = 3

Choices = Collection[tuple[int, int]]
"""(selector, choice) pairs, at most one per selector; selectors count from 0 through all layers."""


class Cost:
    """Operations as a multilinear function of selector probabilities: sum over terms of ops times the product of their choices' P.

    ``terms``: operations spent where all of a set of choices are made; the empty set is a constant. The selectors are drawn independently, so
    this is the exact expectation of the discrete cost. InputError: a term with two choices of one selector or outside ``selectors`` x 2.
    """

    def __init__(self, terms: Mapping[Choices, float], selectors: int):
        for choices in terms:
            known = all(0 <= selector < selectors and choice in (SHARE, OWN) for selector, choice in choices)
            if not known or len({selector for selector, _ in choices}) < len(choices):
                raise InputError(
                    f"cost: the term {sorted(choices)} must name each of selectors 0..{selectors - 1} at most once, with choice 0 or 1"
                )
        self.terms, self.selectors = {frozenset(choices): ops for choices, ops in terms.items()}, selectors
        # Where a term has fewer choices than the longest, a probability of 1 behind all others stands in.
        longest = max(map(len, self.terms), default=0)
        flat = ([2 * selector + choice for selector, choice in sorted(choices)] for choices in self.terms)
        rows = [places + [2 * selectors] * (longest - len(places)) for places in flat]
        self._places = torch.tensor(rows, dtype=torch.int64).reshape(len(rows), longest)
        self._operations = torch.tensor([*self.terms.values()], dtype=torch.float64)

    def expected(self, p: torch.Tensor) -> torch.Tensor:
        """E_ops, a float64 scalar, differentiable in ``p`` (..., 2): every selector's probabilities, in order."""
        if p.numel() != 2 * self.selectors:
            raise InputError(f"cost: probabilities of shape {tuple(p.shape)} for {self.selectors} two-way selectors")
        padded = torch.cat([p.double().reshape(-1), p.new_ones(1, dtype=torch.float64)])
        return padded[self._places.to(p.device)].prod(1) @ self._operations.to(p.device)

    def discrete(self, choices: torch.Tensor) -> float:
        """Operations of the one architecture ``choices`` (any shape, 0 or 1 per selector, in order)."""
        made = set(enumerate(choices.reshape(-1).tolist()))
        return sum(ops for needed, ops in self.terms.items() if needed <= made)


def reconstruction(encoder: Encoder, length: int, density: float, overhead: float = 0.0) -> Cost:
    """Multiply-adds of a task in the reconstructed space (inferred): selectors INPUT, ATTENTION, FEED_FORWARD of layer 1, of layer 2, ...

    P(attention own) [P(input share) C_sh + P(input own) C_own] + P(feed-forward own) C_ffn per layer: on the frozen input, q, k and v cost
    their offsets of kept share ``density`` only. The readout is not in it. ``overhead``: a constant; whether E_ops has the frozen part's is
    unknown. InputError: a density outside (0, 1].
    """
    if not 0 < density <= 1:
        raise InputError(f"cost: a kept share of {density:g}; it must lie in (0, 1]")
    macs = operations.layer(encoder, length)
    attention = macs["scores_and_context"] + macs["output"]
    terms: dict[Choices, float] = {frozenset(): overhead}
    for first in range(0, SELECTORS * encoder.layers, SELECTORS):
        own_attention = (first + ATTENTION, OWN)
        terms[frozenset({own_attention, (first + INPUT, SHARE)})] = density * macs["qkv"] + attention
        terms[frozenset({own_attention, (first + INPUT, OWN)})] = macs["qkv"] + attention
        terms[frozenset({(first + FEED_FORWARD, OWN)})] = macs["feed_forward"]
    return Cost(terms, SELECTORS * encoder.layers)


@dataclass(frozen=True)
class Objective:
    """The loss of the search, E in billions of operations:

    "L1" CE alpha log(1 + E)^beta; "L2" CE + alpha E^beta; "L3" CE + alpha log(1 + E)^beta.

    Guard: L1 and L3 stand for log E, which is negative below a billion operations, where its root is NaN, and has an infinite slope
    at one; log(1 + E) differs by 0.4 % in the factor of BERT-large and still has a slope where a small encoder shares everything. All forms hold E at
    a million operations at least, below which it has no gradient. Operations are those of the cost handed in, multiply-adds or not.
    InputError: an unknown form, constants not positive.
    """

    form: str = "L1"
    alpha: float = 0.5
    beta: float = 0.5

    def __post_init__(self):
        if self.form not in _FORMS:
            raise InputError(f"unknown objective {self.form!r}; known: {', '.join(_FORMS)}")
        for name in ("alpha", "beta"):
            if not 0 < getattr(self, name) < float("inf"):
                raise InputError(f"objective: {name} must be a finite number above 0, got {getattr(self, name):g}")

    def __call__(self, cross_entropy: torch.Tensor, expected: torch.Tensor) -> torch.Tensor:
        """The loss, a scalar, of the cross-entropy and of E_ops in operations."""
        billions = (expected / BILLION).clamp(min=FLOOR)
        return _FORMS[self.form](cross_entropy, billions, self.alpha, self.beta)


def _multiplied(cross_entropy, billions, alpha, beta):
    return cross_entropy * alpha * billions.log1p() ** beta


def _added_power(cross_entropy, billions, alpha, beta):
    return cross_entropy + alpha * billions**beta


def _added_log(cross_entropy, billions, alpha, beta):
    return cross_entropy + alpha * billions.log1p() ** beta


_FORMS = {"L1": _multiplied, "L2": _added_power, "L3": _added_log}
