"""The case study (appendix A): which rows are easy and which are hard over random restarts."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Cases:
    """How often each test row was right over R restarts.

    ``counts``: int array (rows,), c = number of restarts that got the row right, 0..R. A row is easy if c > R/2, hard if R - c > R/2, and
    neither where the two tie, which only an even R allows.
    """

    counts: np.ndarray
    restarts: int

    @property
    def easy(self) -> np.ndarray:
        """Bool (rows,): right in more than half of the restarts."""
        return 2 * self.counts > self.restarts

    @property
    def hard(self) -> np.ndarray:
        """Bool (rows,): wrong in more than half of the restarts."""
        return 2 * self.counts < self.restarts

    @property
    def tied(self) -> np.ndarray:
        """Bool (rows,): as often right as wrong."""
        return 2 * self.counts == self.restarts


def cases(correct: list[list[int]]) -> Cases:
    """Cases from 1 or 0 per row, one list per restart; ValueError if the restarts saw different numbers of rows."""
    table = np.asarray(correct)
    if table.ndim != 2:
        raise ValueError("every restart must have scored the same rows")
    return Cases(table.sum(axis=0), len(table))
