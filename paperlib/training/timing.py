"""Timing in turns: contestants one after the other in every round, so that a drift of the machine's speed hits all alike."""

import statistics
import time
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass

import torch
from tqdm import tqdm

COVERS = 10
"""Turns of the cover on the GPU that hide the host's share of a turn: copies of 300 million entries last some 7 ms."""

Turn = Callable[[], object]


@dataclass(frozen=True)
class Timing:
    """``bytes`` that a turn must move and ``flops`` that its result needs, both counted, and its ``seconds`` in every round."""

    bytes: float
    seconds: list[float]
    flops: float = 0

    @property
    def median(self) -> float:
        """Seconds."""
        return statistics.median(self.seconds)

    @property
    def intensity(self) -> float:
        """FLOP per byte."""
        return self.flops / self.bytes

    @property
    def rate(self) -> float:
        """FLOP per second, of the median turn."""
        return self.flops / self.median

    def over(self, other: "Timing") -> float:
        """Median over the rounds of its seconds to another's in the same round."""
        return statistics.median(a / b for a, b in zip(self.seconds, other.seconds, strict=True))

    def reach(self, copy: "Timing") -> float:
        """Median over the rounds of its bytes per second to a copy's in the same round."""
        return self.bytes / copy.bytes / self.over(copy)


def interleaved(turns: Mapping[Hashable, Turn], rounds: int, cover: Turn) -> dict[Hashable, list[float]]:
    """Seconds of every turn in every round; a first round is not counted.

    ``cover``, a copy say, runs before every turn, so that all find caches alike. On a GPU the device's own seconds: it is kept at work with
    ``cover`` while the host makes the turn ready, as far as that suffices.
    """
    seconds: dict[Hashable, list[float]] = {name: [] for name in turns}
    timed = _on_device if torch.cuda.is_available() else _on_host
    for counted in tqdm([False] + [True] * rounds, unit="round"):
        for name, turn in turns.items():
            found = timed(turn, cover)
            if counted:
                seconds[name].append(found)
    return seconds


def _on_host(turn: Turn, cover: Turn) -> float:
    cover()
    start = time.perf_counter()
    turn()
    return time.perf_counter() - start


def _on_device(turn: Turn, cover: Turn) -> float:
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    for _ in range(COVERS):
        cover()
    start.record()
    turn()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1000
