"""Statistics for few seeds."""

import math
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

    All 2^n flips up to n = 12, 100,000 random ones beyond. A single pair says nothing: 1.
    """
    from scipy import stats

    if len(a) == 1:
        return 1.0

    outcome = stats.permutation_test(
        (np.asarray(a, float), np.asarray(b, float)),
        lambda x, y, axis: np.mean(x - y, axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=np.inf if len(a) <= 12 else 100_000,
        rng=0,
    )
    return float(outcome.pvalue)


def sign_test(gained: int, lost: int) -> float:
    """Two-sided p-value of gains and losses being equally likely (McNemar's exact test); 1 where nothing changed."""
    from scipy import stats

    return float(stats.binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0


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


def expected_maximum(scores: Sequence[Sequence[float]], level: float = 0.95, draws: int = 2000) -> list[Interval]:
    """Expected best of n = 1..N configurations out of the N tried (Dodge et al. 2019), drawn without replacement; item n - 1 is for n.

    ``scores``: per configuration one score per seed; a configuration counts with their mean. E[max] = sum_i v_(i) C(i - 1, n - 1) / C(N, n)
    over the sorted means. The percentile interval resamples configurations, and the seeds within each; it cannot reach beyond the best score
    seen, so near n = N it is too short above. A single score has no spread: its interval is the whole line.
    """
    sizes = {len(each) for each in scores}
    if not sizes or 0 in sizes:
        raise ValueError("an expected maximum needs at least one configuration, and a score of each")
    n = len(scores)
    weights = np.array([[math.comb(i, k - 1) / math.comb(n, k) for i in range(n)] for k in range(1, n + 1)])
    means = weights @ np.sort([np.mean(each) for each in scores])
    if n == 1 and sizes == {1}:
        return [Interval(float(means[0]), -np.inf, np.inf, 1)]
    rng = np.random.default_rng(0)
    resampled = np.array([_resampled_means(each, n, draws, rng) for each in scores])
    picked = rng.integers(n, size=(draws, n))
    curves = np.sort(resampled[picked, np.arange(draws)[:, None], np.arange(n)], axis=1) @ weights.T
    low, high = np.quantile(curves, [0.5 - level / 2, 0.5 + level / 2], axis=0)
    return [Interval(*map(float, ends), n) for ends in zip(means, low, high, strict=True)]


def _resampled_means(values: Sequence[float], times: int, draws: int, rng: np.random.Generator) -> np.ndarray:
    """(draws, times): means of as many values, drawn with replacement."""
    sample = np.asarray(values, dtype=float)
    return sample[rng.integers(sample.size, size=(draws, times, sample.size))].mean(axis=-1)
