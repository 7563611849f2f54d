"""What DPS Dense and DPS Mix share: the stages, the choice of a subnetwork, and what the optimizer is to do about it."""

import math
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import torch

from paperlib.dps.clock import StageClock
from paperlib.dps.scope import tracked
from paperlib.errors import InputError
from paperlib.kernels.packing import as_bits, as_flags
from paperlib.kernels.selection import at_least, kth_largest, kth_largest_each, largest
from paperlib.training.method import Method
from paperlib.training.update import Extra, in_one_pass


class Subnetwork(Method):
    """Stage I accumulates GAM, the sum of squared gradients; stage II trains the entries with the largest scores and masks the others.

    A subnetwork is chosen before the first forward pass of stage II: of each tracked matrix (``selection`` "matrix", ties kept) or of all
    together ("global") the share ``keep_fraction``. GAM sees gradients unscaled and before clipping; clipping sees them masked. The constant
    1e-3 of the published code is left out, as it changes no order.

    ``masked_policy``: "grad_zero" masks gradients only, so AdamW's momentum and decay still move masked entries; "freeze" leaves their weight
    and moments as they are, bitwise. Masks are bool, a byte per entry, or packed, a bit, where one pass moves the weights. ``reference_dtypes``:
    int64 masks, twice at the selection step, and GAM kept through stage II, as the published code holds them: other memory, the same numbers.
    InputError: a ``keep_fraction`` outside (0, 1].
    """

    def __init__(
        self,
        keep_fraction: float,
        update_ratio: float,
        masked_policy: Literal["grad_zero", "freeze"],
        selection: Literal["matrix", "global"] = "matrix",
        reference_dtypes: bool = False,
    ):
        if not 0 < keep_fraction <= 1:
            raise InputError(f"the kept share must lie in (0, 1], got {keep_fraction:g}")
        self.keep_fraction, self.update_ratio, self.masked_policy = keep_fraction, update_ratio, masked_policy
        self.selection, self.reference_dtypes = selection, reference_dtypes
        self.gam: dict[str, torch.Tensor] = {}
        self.mask: dict[str, torch.Tensor] = {}
        self._on_graph: dict[str, torch.Tensor] = {}
        self._extra: Extra | None = None

    def attach(self, model: torch.nn.Module, total_steps: int) -> None:
        self.weights = tracked(model)
        self.clock = StageClock(total_steps, self.update_ratio)
        self._packed = in_one_pass(self.weights.values()) and not self.reference_dtypes

    # The loop skips steps whose loss or gradient is not finite, so the first step of a stage may never be seen: a stage is known by what is in
    # store.

    def forward_weights(self, step: int) -> AbstractContextManager:
        if self.clock.stage(step)[0] == 2 and self.gam and not self.mask:
            self._choose()
        return nullcontext()

    def after_backward(self, step: int) -> bool:
        stage, i = self.clock.stage(step)
        if stage == 1 and (i == 1 or self.mask):
            self._begin_cycle()
        self._on_graph = {}
        return False

    def extra(self, step: int) -> Extra:
        """GAM in stage I, the mask in stage II."""
        if self.clock.stage(step)[0] == 1:
            self._watch()
            self._extra = self._extra or Extra(gam=self.gam)
        else:
            self._extra = self._extra or Extra(mask=self.mask, policy=self.masked_policy)
        return self._extra

    def state_dict(self) -> dict[str, torch.Tensor]:
        return {f"{kind}.{name}": t for kind, store in self._stores().items() for name, t in store.items()}

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        for kind, store in self._stores().items():
            for name, weight in self.weights.items():
                if f"{kind}.{name}" in state:
                    store[name] = state[f"{kind}.{name}"].to(weight.device)
        for name, mask in self.mask.items():
            self.mask[name] = self._kept(mask, self.weights[name].shape)
        self._extra = None

    def _stores(self) -> dict[str, dict[str, torch.Tensor]]:
        """What must be remembered, by kind and weight."""
        return {"gam": self.gam, "mask": self.mask}

    def _begin_cycle(self) -> None:
        self._extra = None
        self.gam.clear()
        self.mask.clear()

    def _watch(self) -> None:
        """Begin GAM, at 0, of the weights that have a gradient for the first time in this stage."""
        fresh = [n for n, weight in self.weights.items() if weight.grad is not None and n not in self.gam]
        if fresh:
            self._extra = None
            self.gam |= {name: torch.zeros_like(self.weights[name].grad) for name in fresh}

    def _kept(self, mask: torch.Tensor, shape: torch.Size) -> torch.Tensor:
        """A mask of whatever type in the one it is kept in."""
        if self._packed:
            return as_bits(mask)
        flags = as_flags(mask, shape)
        return flags.long() if self.reference_dtypes else flags.bool()

    def _score(self, name: str) -> torch.Tensor:
        """What entries of this weight are ranked by; may be GAM itself, changed in place."""
        return self.gam[name]

    def _choose(self) -> None:
        """Set ``mask`` from the scores, giving up GAM: packed ones all at once, others one weight after the other."""
        # With it the optimizer lets go of GAM.
        self._extra = None
        if self._packed:
            scores = {name: self._score(name) for name in self.gam}
            self.mask |= zip(scores, self._bits([*scores.values()]), strict=True)
            self.gam.clear()
            return
        masks = self._per_matrix() if self.selection == "matrix" else self._of_all()
        for name, mask in masks:
            self.mask[name] = mask.long() if self.reference_dtypes else mask
            if self.reference_dtypes:
                self._on_graph[name] = self.mask[name].clone()
            else:
                del self.gam[name]

    def _bits(self, scores: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """The packed masks; on a GPU the host waits for none of it."""
        sizes = [score.numel() for score in scores]
        if self.selection == "matrix":
            return at_least(scores, kth_largest_each(scores, [self._count(size) for size in sizes]))
        return at_least(scores, kth_largest(scores, self._count(sum(sizes))))

    def _count(self, entries: int) -> int:
        # In double precision exactly as written: a rounding error may add one entry, as in the published code.
        return math.ceil(entries * self.keep_fraction)

    def _per_matrix(self) -> Iterable[tuple[str, torch.Tensor]]:
        for name in list(self.gam):
            score = self._score(name)
            yield name, largest(score, self._count(score.numel()))

    def _of_all(self) -> Iterable[tuple[str, torch.Tensor]]:
        scores = {name: self._score(name) for name in self.gam}
        count = self._count(sum(score.numel() for score in scores.values()))
        smallest_kept = kth_largest(list(scores.values()), count)
        for name, score in scores.items():
            yield name, score >= smallest_kept
