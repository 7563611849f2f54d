"""Delta tuning: training a structure's modules, or a baseline's, from fresh ones with every gate at 1."""

from collections.abc import Sequence

import torch

from paperlib.errors import InputError
from paperlib.s3delta.positions import BASELINES, baseline
from paperlib.s3delta.structure import Structure, budget
from paperlib.s3delta.supernet import Supernet, head
from paperlib.training import Method

FINE_TUNING = "fine_tuning"


def placed(
    placement: str,
    model: torch.nn.Module,
    backbone: str,
    space: str,
    per_ten_thousand: float,
    seed: int,
    searched: Sequence[Structure] = (),
) -> Structure | str:
    """What :class:`DeltaTuning` is to train: for "searched" the structure of ``searched`` (of their mean p where they are several), for "random"
    one that fills the budget at random, else the baseline by its name.

    ``model``: the backbone called ``backbone``, without deltas. InputError: structures that were searched for another one, and what
    :meth:`Structure.average` and :meth:`Structure.random` refuse.
    """
    if placement == "random":
        return Structure.random(backbone, model, space, budget(model, per_ten_thousand), seed)
    if placement != "searched":
        return placement
    found = searched[0] if len(searched) == 1 else Structure.average(searched, model)
    if found.backbone != backbone:
        raise InputError(f"a structure searched for backbone {found.backbone!r} does not fit {backbone!r}; search one")
    return found


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
