"""Bytes of memory that a step of AdamW must move per entry: in one pass, and by torch's operators one after the other."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Variant:
    """What a step reads and writes per entry; sizes in bytes, 0 for what there is not."""

    weight: int = 4
    gradient: int = 4
    moment: int = 4
    start: int = 0
    gam: int = 0
    clip: bool = False
    policy: Literal["grad_zero", "freeze"] | None = None

    @property
    def one_pass(self) -> float:
        """:class:`paperlib.kernels.adamw.OnePassAdamW`: every tensor read once, what changes written once, a mask of bits.

        Clipping and freezing move nothing of their own.
        """
        mask = 1 / 8 if self.policy else 0
        return 2 * self.weight + self.gradient + 4 * self.moment + self.start + 2 * self.gam + mask

    @property
    def in_turn(self) -> dict[str, float]:
        """torch's operators by what they are for, with a mask of bytes, as torch has them; their sum is what the step moves."""
        copied = self.weight + 2 * self.moment
        parts = {
            "fused AdamW": 2 * self.weight + self.gradient + 4 * self.moment,
            "GAM: addcmul_": (self.gradient + 2 * self.gam) * bool(self.gam),
            "mask: mul_": (2 * self.gradient + 1) * bool(self.policy),
            "clipping: mul_": 2 * self.gradient * self.clip,
            "decay toward the start: lerp_": (2 * self.weight + self.start) * bool(self.start),
            # Weight and both moments: copied before the step, chosen from what is and what was after it.
            "freeze: clone": 2 * copied * (self.policy == "freeze"),
            "freeze: where": (3 * copied + 3) * (self.policy == "freeze"),
        }
        return {name: moved for name, moved in parts.items() if moved}


def variants(size: int) -> dict[str, Variant]:
    """The steps that methods take, by name, with weights, gradients, moments and starts of ``size`` bytes and GAM of 4."""
    sizes = {"weight": size, "gradient": size, "moment": size}
    return {
        "AdamW": Variant(**sizes),
        "clipped": Variant(**sizes, clip=True),
        "clipped, toward the start": Variant(**sizes, clip=True, start=size),
        "clipped, with GAM": Variant(**sizes, clip=True, gam=4),
        "clipped, masked": Variant(**sizes, clip=True, policy="grad_zero"),
        "clipped, masked, with GAM": Variant(**sizes, clip=True, policy="grad_zero", gam=4),
        "clipped, frozen": Variant(**sizes, clip=True, policy="freeze"),
    }
