"""Choosing among configurations (appendix D): on the rows that are reported, as the papers do, or on others."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np


@dataclass(frozen=True)
class Selection:
    """One method's configurations, compared on the same rows.

    ``correct``: (configurations, rows), share of the seeds that got the row right. ``first``: bool (rows,), the rows of one half; the other
    half is the rest. ValueError: shapes that do not fit, or an empty half.
    """

    correct: np.ndarray
    first: np.ndarray

    def __post_init__(self):
        if self.correct.ndim != 2 or self.first.shape != self.correct.shape[1:]:
            raise ValueError(
                f"correct {self.correct.shape} and first {self.first.shape} must be (configurations, rows) and (rows,)"
            )
        if self.first.all() or not self.first.any():
            raise ValueError("both halves need rows: a selection needs some to choose on and others to report")

    @cached_property
    def best(self) -> np.ndarray:
        """Numbers of the configurations with the highest accuracy on all rows."""
        return _best(self.correct)

    @cached_property
    def chosen(self) -> tuple[np.ndarray, np.ndarray]:
        """Numbers of the configurations chosen on the first half, and on the second; several where they tie."""
        return _best(self.correct[:, self.first]), _best(self.correct[:, ~self.first])

    @cached_property
    def same_rows(self) -> np.ndarray:
        """(rows,): what the configuration chosen on all rows scores on them; the mean is the score the papers report."""
        return self.correct[self.best].mean(axis=0)

    @cached_property
    def held_out(self) -> np.ndarray:
        """(rows,): every row scored by the configuration chosen on the half it is not in (cross-fitting); ties count by their mean."""
        on_first, on_second = self.chosen
        return np.where(self.first, self.correct[on_second].mean(axis=0), self.correct[on_first].mean(axis=0))

    @property
    def optimism(self) -> float:
        """How much accuracy the choice on the reported rows adds: never below 0 in expectation, and 0 with one configuration."""
        return float(self.same_rows.mean() - self.held_out.mean())


def halves(rows: int, seed: int) -> np.ndarray:
    """Bool (rows,): which rows are in the first half, drawn by ``seed``; with an odd number it is the smaller one."""
    first = np.zeros(rows, dtype=bool)
    first[np.random.default_rng(seed).permutation(rows)[: rows // 2]] = True
    return first


def _best(correct: np.ndarray) -> np.ndarray:
    scores = correct.mean(axis=1)
    return np.flatnonzero(np.isclose(scores, scores.max(), rtol=0, atol=1e-12))
