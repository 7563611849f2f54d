"""What a method has the optimizer do beside AdamW, and whether all of it is done in one pass over the weights."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch

from paperlib.kernels.adamw import FLOATS
from paperlib.kernels.triton_path import taken_by


@dataclass(frozen=True, eq=False)
class Extra:
    """What a step does beside AdamW; tensors by parameter name, parameters without a gradient left out.

    ``gam``: sums of squared gradients, of the weight's shape, that this step's are added to, neither clipped nor masked. ``mask``: which entries
    are trained, bool or int64 of the weight's shape or packed bits (uint8, :mod:`paperlib.kernels.packing`). ``policy``: outside of it "grad_zero"
    takes a gradient of 0, "freeze" keeps the bits of weight and moments. ``clip_sees``: the norm that clipping goes by, of "masked" gradients
    or of "all".

    Its tensors stay the same ones for as long as it lives, and an optimizer that has made itself ready for them lets go of them with it.
    """

    gam: Mapping[str, torch.Tensor] = field(default_factory=dict)
    mask: Mapping[str, torch.Tensor] = field(default_factory=dict)
    policy: Literal["grad_zero", "freeze"] = "grad_zero"
    clip_sees: Literal["masked", "all"] = "masked"


def in_one_pass(weights: Iterable[torch.Tensor]) -> bool:
    """Whether one kernel moves all these weights: fp32 or bf16 where Triton is. Methods then keep their masks packed and number their draws."""
    return all(taken_by(weight) and weight.dtype in FLOATS for weight in weights)
