"""How long a training takes until its validation scores are nearly as good as they get (appendix A.2, training time)."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from paperlib.errors import InputError


@dataclass(frozen=True)
class Curve:
    """The validations of one training: each one's ``steps`` and ``epochs`` trained by then, and its score."""

    steps: list[int]
    epochs: list[float]
    scores: list[float]

    @classmethod
    def of(cls, results: Mapping[str, Any], metric: str, batch_size: int, interval: int) -> "Curve":
        """From ``results`` of a run: "validation", "losses", one per optimizer step, and "train_rows".

        ``interval``: steps between validations, 0 for one per epoch; the last step is followed by one in any case. InputError: no
        validations, others than these make, or a score that is not finite.
        """
        scores, last = [look[metric] for look in results["validation"]], len(results["losses"])
        per_epoch = math.ceil(results["train_rows"] / batch_size)
        every = interval or per_epoch
        if not scores or len(scores) != math.ceil(last / every):
            raise InputError(
                f"convergence: {len(scores)} validations, one every {every} steps, do not fit {last} steps"
            )
        if not all(map(math.isfinite, scores)):
            raise InputError("convergence: a validation score is not finite")
        steps = [min((look + 1) * every, last) for look in range(len(scores))]
        return cls(steps, [step / per_epoch for step in steps], scores)

    @property
    def best(self) -> int:
        """Number, from 0, of the validation whose weights are kept: the best, of equal ones the last."""
        return max(range(len(self.scores)), key=lambda look: (self.scores[look], look))

    def nearly_best(self, share: float = 0.99) -> int:
        """Number of the first validation whose score is below the best by 1 - ``share`` of its size at most."""
        best = max(self.scores)
        return next(look for look, score in enumerate(self.scores) if score >= best - (1 - share) * abs(best))
