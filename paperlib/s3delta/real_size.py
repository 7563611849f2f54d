"""What a record of ``performance/search_cost`` says about Table 5 of S3Delta (appendix D.1)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

SEARCH, TRAINING = "M, second", "train lowest"


@dataclass(frozen=True)
class StepCost:
    """A second-order search step over space M beside a training step of the lowest structure.

    ``search`` and ``training``: median seconds. ``time``: the median of their ratios over ``rounds`` rounds; ``memory``: the ratio of their peaks.
    """

    search: float
    training: float
    time: float
    memory: float
    rounds: int

    @classmethod
    def of(
        cls, seconds: Mapping[str, float], ratios: Mapping[str, Sequence[float]], peaks: Mapping[str, int]
    ) -> "StepCost":
        """From ``seconds`` and ``ratios`` of the record's cost and ``peaks`` of its results; ratios are those to :data:`TRAINING`."""
        memory, rounds = peaks[SEARCH] / peaks[TRAINING], ratios[SEARCH]
        return cls(seconds[SEARCH], seconds[TRAINING], median(rounds), memory, len(rounds))
