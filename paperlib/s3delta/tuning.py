"""Delta tuning: training a structure's modules, or a baseline's, from fresh ones with every gate at 1."""

import torch

from paperlib.errors import InputError
from paperlib.s3delta.positions import BASELINES, baseline
from paperlib.s3delta.structure import Structure
from paperlib.s3delta.supernet import Supernet, head
from paperlib.training import Method

FINE_TUNING = "fine_tuning"


class DeltaTuning(Method):
    """Trains the delta modules that ``placement`` names and the task head; the backbone is frozen.

    ``placement``: a structure, searched or random, or a baseline: fine_tuning (all parameters, no delta), adapter, lora_r8, lora_r1, bitfit,
    lnfit or lra. Modules are drawn when the loop attaches the method; ``supernet`` holds them from then on (None when fine-tuning).
    InputError: an unknown baseline; on attaching, a model without the positions.
    """

    def __init__(self, placement: Structure | str):
        if isinstance(placement, str) and placement not in (FINE_TUNING, *BASELINES):
            raise InputError(f"unknown baseline {placement!r}; known: {', '.join((FINE_TUNING, *BASELINES))}")
        self.placement = placement
        self.supernet: Supernet | None = None

    def attach(self, model: torch.nn.Module, total_steps: int) -> None:
        self.model = model
        if self.placement != FINE_TUNING:
            chosen = (
                baseline(model, self.placement) if isinstance(self.placement, str) else self.placement.positions(model)
            )
            self.supernet = Supernet(model, chosen)

    @property
    def numel(self) -> int:
        """Trained scalars, the task head's not counted."""
        if self.supernet is None:
            return sum(parameter.numel() for parameter in self.model.parameters()) - self.head_numel
        return self.supernet.numel

    @property
    def head_numel(self) -> int:
        """Scalars of the task head, trained under every placement and reported beside the budget."""
        return sum(parameter.numel() for parameter in head(self.model).values())
