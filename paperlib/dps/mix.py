"""DPS Mix: stage I mixes weights with their pre-trained values, stage II with a snapshot outside the chosen subnetwork."""

from contextlib import AbstractContextManager
from typing import Literal

import torch

from paperlib.dps.mixing import Draws, Mix, MixedWeights
from paperlib.dps.subnetwork import Subnetwork
from paperlib.kernels.mixing import Gate, count_open


class DPSMix(Subnetwork):
    """DPS Mix (Zhang et al. 2022).

    Stage I: xi ~ Bernoulli(keep_fraction) per input column, drawn once a step; forward passes see W0 + xi (W - W0) / keep_fraction, the
    gradient is g xi; FAM counts how often a column was active. Scores: GAM / FAM, times exp(-FAM / us) in stages of at least ``penalty_from``
    steps, FAM taken as 1 where it is 0. Stage II: forward passes see the snapshot Ws of W at the stage's beginning and, on the chosen entries,
    Ws + (W - Ws) / keep_fraction (``rescale``) or W; the gradient is g on them.

    Keeps per tracked weight W0 and GAM in stage I, W0, Ws and the mask in stage II: at most 9 bytes; and one count per column. Frozen
    weights are their own snapshot: without rescaling there is none. Where masks are packed, xi is a numbered draw: the counts then lie in one
    vector, for one launch to count them.
    """

    def __init__(
        self,
        keep_fraction: float,
        update_ratio: float,
        masked_policy: Literal["grad_zero", "freeze"],
        selection: Literal["matrix", "global"] = "matrix",
        reference_dtypes: bool = False,
        penalty_from: int = 50,
        rescale: bool = True,
    ):
        super().__init__(keep_fraction, update_ratio, masked_policy, selection, reference_dtypes)
        self.penalty_from, self.rescale = penalty_from, rescale
        self.fam: dict[str, torch.Tensor] = {}
        self.snapshot: dict[str, torch.Tensor] = {}
        self._drawn: tuple[int, dict[str, Gate]] = (0, {})
        self._counts: torch.Tensor | None = None

    def attach(self, model: torch.nn.Module, total_steps: int) -> None:
        super().attach(model, total_steps)
        # Drawn anew with the model on resume, so checkpoints do not carry it.
        self.start = {name: weight.detach().clone() for name, weight in self.weights.items()}
        self._names = {weight: name for name, weight in self.weights.items()}
        self._draws = Draws(self.weights, 1 - self.keep_fraction) if self._packed else None

    def forward_weights(self, step: int) -> AbstractContextManager:
        super().forward_weights(step)
        if self.clock.stage(step)[0] == 1:
            if self._drawn[0] != step:
                self._drawn = step, self._draw(step)
            return MixedWeights(self._names, self._noised)
        return MixedWeights({self.weights[name]: name for name in self.snapshot}, self._chosen)

    def _noised(self, name: str) -> Mix:
        return Mix(self.start[name], self._drawn[1][name], 1 / self.keep_fraction, 1.0)

    def _chosen(self, name: str) -> Mix:
        return Mix(self.snapshot[name], self.mask[name], 1 / self.keep_fraction if self.rescale else 1.0, 1.0)

    def after_backward(self, step: int) -> bool:
        changed = super().after_backward(step)
        if self.clock.stage(step)[0] == 1:
            self._count_frequency(step)
        return changed

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        super().load_state_dict(state)
        if self._draws and self.fam:
            loaded = dict(self.fam)
            self._begin_counts()
            for name, counts in loaded.items():
                self.fam[name].copy_(counts)

    def _draw(self, step: int) -> dict[str, Gate]:
        """xi of every weight, bool (in,) or a numbered draw."""
        if self._draws:
            return {name: self._draws.of(name, step) for name in self.weights}
        columns = [weight.shape[1] for weight in self.weights.values()]
        device = next(iter(self.weights.values())).device
        active = torch.rand(sum(columns), device=device) < self.keep_fraction
        return dict(zip(self.weights, active.split(columns), strict=True))

    def _stores(self) -> dict[str, dict[str, torch.Tensor]]:
        return super()._stores() | {"fam": self.fam, "snapshot": self.snapshot}

    def _begin_cycle(self) -> None:
        super()._begin_cycle()
        self.fam.clear()
        self.snapshot.clear()

    def _count_frequency(self, step: int) -> None:
        if self._draws:
            if not self.fam:
                self._begin_counts()
            count_open(self._counts, self._draws.of_all(step))
            return
        for name, xi in self._drawn[1].items():
            counts = self.fam.setdefault(name, self._no_counts(name))
            counts += xi

    def _begin_counts(self) -> None:
        """FAM of all weights, at 0, as parts of one vector."""
        device = next(iter(self.weights.values())).device
        self._counts = torch.zeros(self._draws.words, dtype=torch.int32, device=device)
        self.fam.update({name: self._counts[span] for name, span in self._draws.span.items()})

    def _no_counts(self, name: str) -> torch.Tensor:
        weight = self.weights[name]
        shape, dtype = (weight.shape, torch.int64) if self.reference_dtypes else (weight.shape[1], torch.int32)
        return torch.zeros(shape, dtype=dtype, device=weight.device)

    def _score(self, name: str) -> torch.Tensor:
        frequency = self.fam[name].clamp(min=1).to(self.gam[name].dtype)
        us = self.clock.stage_steps
        penalty = torch.exp(-frequency / us) if us >= self.penalty_from else torch.ones_like(frequency)
        return self.gam[name].mul_(penalty / frequency)

    def _choose(self) -> None:
        super()._choose()
        if self.rescale or self.masked_policy == "grad_zero":
            self.snapshot.update({name: self.weights[name].detach().clone() for name in self.mask})
        if not self.reference_dtypes:
            self.fam.clear()
