"""The stage clock of DPS: which stage an optimizer step belongs to."""

from dataclasses import dataclass

from paperlib.errors import InputError


@dataclass(frozen=True)
class StageClock:
    """Stages of ``us = int(T * ur)`` steps: odd ones accumulate (stage I), even ones train the chosen subnetwork (stage II).

    ``total_steps``: T, optimizer steps. ``update_ratio``: ur in (0, 1]. InputError if us would be less than 1.
    """

    total_steps: int
    update_ratio: float

    def __post_init__(self):
        if self.stage_steps < 1:
            # A little more than 1 / T, so that neither printing nor multiplying rounds it to less than one step.
            raise InputError(
                f"update_ratio {self.update_ratio:g} of {self.total_steps} steps is less than one step; "
                f"raise it to at least {1.01 / self.total_steps:.3g} or train longer"
            )

    @property
    def stage_steps(self) -> int:
        """us, steps per stage."""
        return int(self.total_steps * self.update_ratio)

    def stage(self, step: int) -> tuple[int, int]:
        """``(1 or 2, i)`` for step t = 1..T: the stage and the step's number i = 1..us within it."""
        index, within = divmod(step - 1, self.stage_steps)
        return 1 + index % 2, within + 1
