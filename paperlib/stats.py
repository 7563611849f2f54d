"""Statistics for few seeds."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Interval:
    """A mean with its two-sided interval and the number of values behind it."""

    mean: float
    low: float
    high: float
    n: int

    def percent(self) -> tuple[float, tuple[float, float]]:
        """For a bar: the mean and its distances to both ends, in percent."""
        return 100 * self.mean, (100 * (self.mean - self.low), 100 * (self.high - self.mean))

    def columns(self, scale: float = 1.0) -> dict[str, float | int | None]:
        """For a table: mean, low, high (None where unbounded) and n, the first three times ``scale``."""
        ends = {"mean": self.mean, "low": self.low, "high": self.high}
        return {name: scale * end if np.isfinite(end) else None for name, end in ends.items()} | {"n": self.n}


def proportion(which: Sequence[bool], level: float = 0.95) -> Interval:
    """Share of rows for which ``which`` is true, with Wilson's interval over the rows."""
    from scipy import stats

    found = np.asarray(which, dtype=bool)
    ends = stats.binomtest(int(found.sum()), found.size).proportion_ci(level, method="wilson")
    return Interval(float(found.mean()), float(ends.low), float(ends.high), found.size)


def t_interval(values: Sequence[float], level: float = 0.95) -> Interval:
    """Student-t interval of the mean, which keeps its nominal coverage at three to five seeds.

    One value has no spread: its interval is the whole line.
    """
    from scipy import stats

    sample = np.asarray(values, dtype=float)
    n = sample.size
    if n == 0:
        raise ValueError("an interval needs at least one value")
    mean = float(sample.mean())
    if n == 1:
        return Interval(mean, -np.inf, np.inf, 1)
    half = stats.t.ppf(0.5 + level / 2, n - 1) * sample.std(ddof=1) / np.sqrt(n)
    return Interval(mean, float(mean - half), float(mean + half), n)


def paired_permutation(a: Sequence[float], b: Sequence[float]) -> float:
    """Two-sided p-value of ``mean(a - b) = 0`` under sign flips of the paired differences (same seeds).

    All 2^n flips up to n = 12, 100,000 random ones beyond.
    """
    from scipy import stats

    outcome = stats.permutation_test(
        (np.asarray(a, float), np.asarray(b, float)),
        lambda x, y, axis: np.mean(x - y, axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=np.inf if len(a) <= 12 else 100_000,
        rng=0,
    )
    return float(outcome.pvalue)


def bootstrap_difference(a: Sequence[float], b: Sequence[float], level: float = 0.95, draws: int = 9999) -> Interval:
    """Mean of ``a - b``, both measured on the same rows, with a percentile interval from resampling the rows."""
    from scipy import stats

    difference = np.asarray(a, dtype=float) - np.asarray(b, dtype=float)
    if np.ptp(difference) == 0:
        return Interval(float(difference[0]), float(difference[0]), float(difference[0]), difference.size)
    ends = stats.bootstrap(
        (difference,), np.mean, confidence_level=level, n_resamples=draws, method="percentile", rng=0, batch=1000
    ).confidence_interval
    return Interval(float(difference.mean()), float(ends.low), float(ends.high), difference.size)
