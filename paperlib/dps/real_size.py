"""Table 3 of DPS measured: records of footprints and of step costs brought into its shape (appendix F)."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

from paperlib.dps import memory

MEASURED = {"stage_one": memory.STAGE_ONE, "selection": memory.SELECTION}
"""Field of a footprint -> the moment it is the peak of."""


def rows(runs: Iterable[tuple[int, list[dict[str, Any]]]]) -> list[dict[str, Any]]:
    """One row a method, version, moment and batch size, with its ``peak`` and the ``extra`` above vanilla's, in bytes.

    ``runs``: batch size and footprints of each run, vanilla's first.
    """
    return [
        {
            **{"method": each["method"], "version": "published" if each["reference_dtypes"] else "ours"},
            **{"moment": moment, "batch size": batch_size, "peak": each[field], "extra": each[field] - found[0][field]},
        }
        for batch_size, found in runs
        for each in found
        for field, moment in MEASURED.items()
    ]


def peaks(measured: Iterable[Mapping[str, Any]]) -> dict[tuple[str, str, int], float]:
    """(method, version, batch size) -> GiB at the worst moment. A method with one version has it under both names."""
    found: dict[tuple[str, str, int], float] = {}
    for row in measured:
        key = (row["method"], row["version"], row["batch size"])
        found[key] = max(found.get(key, 0.0), row["peak"] / memory.GIB)
    return {(m, "published", b): size for (m, _, b), size in found.items()} | found


def step_times(batch_size: int, ratios: Mapping[str, Mapping[str, list[float]]]) -> dict[tuple[str, int], float]:
    """(method, batch size) -> median seconds of a step over vanilla's, selection steps at the weight of RTE's stages."""
    return {(method, batch_size): median(found["at us"]) for method, found in ratios.items()}


@dataclass(frozen=True)
class Extra:
    """What a version of DPS takes beyond vanilla: ``bytes`` per tracked weight and ``percent`` of vanilla, by batch size in order."""

    bytes: list[float]
    percent: list[float]

    @property
    def fixed(self) -> bool:
        """The same at every batch size, to one part in a hundred."""
        return max(self.bytes) / min(self.bytes) <= 1.01

    @property
    def falling(self) -> bool:
        """Less in percent at every larger batch size."""
        return all(later < earlier for earlier, later in zip(self.percent, self.percent[1:], strict=False))


def extras(measured: list[dict[str, Any]], tracked: int) -> dict[tuple[str, str], Extra]:
    """(method, version) -> :class:`Extra`, for both methods of DPS as they were measured."""
    high = peaks(measured)
    batches = sorted({row["batch size"] for row in measured})
    found = {}
    for method, version in dict.fromkeys(
        (r["method"], r["version"]) for r in measured if r["method"].startswith("dps")
    ):
        own = [r for r in measured if (r["method"], r["version"]) == (method, version)]
        worst = [max(row["extra"] for row in own if row["batch size"] == batch) / tracked for batch in batches]
        percent = [100 * (high[method, version, b] / high["vanilla", "ours", b] - 1) for b in batches]
        found[method, version] = Extra(worst, percent)
    return found
