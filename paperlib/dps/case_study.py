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


@dataclass(frozen=True)
class Move:
    """What becomes of one method's rows under another, on the same rows; numbers of rows.

    ``easy``: easy ones of the first, ``lost``: of these no longer easy. ``hard``: hard ones of the first, ``solved``: of these easy now.
    """

    easy: int
    lost: int
    hard: int
    solved: int


def move(one: Cases, other: Cases) -> Move:
    """From ``one`` to ``other``; ValueError if they scored different numbers of rows."""
    if one.counts.shape != other.counts.shape:
        raise ValueError("both methods must have scored the same rows")
    return Move(
        int(one.easy.sum()),
        int((one.easy & ~other.easy).sum()),
        int(one.hard.sum()),
        int((one.hard & other.easy).sum()),
    )


def cases(correct: list[list[int]]) -> Cases:
    """Cases from 1 or 0 per row, one list per restart; ValueError if the restarts saw different numbers of rows."""
    table = np.asarray(correct)
    if table.ndim != 2:
        raise ValueError("every restart must have scored the same rows")
    return Cases(table.sum(axis=0), len(table))
