"""What a computation runs on and what it costs: device, precision, wall time, peak memory, energy."""

import gc
import os
import platform
import sys
import time
from collections.abc import Iterator
from typing import Any

import torch

_MARK = "paperlib.measure.mark"


def device() -> torch.device:
    """The GPU this process was given, or the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def device_name() -> str:
    """Human name of :func:`device`."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    capabilities = getattr(torch.cpu, "get_capabilities", dict)()
    return capabilities.get("cpu_name") or platform.processor() or platform.machine()


def precision(asked: str) -> str:
    """``"bf16"`` or ``"fp32"``: what ``asked`` ("auto", "bf16", "fp32") means on this device.

    ``auto`` is bf16 autocast where the hardware multiplies bf16: CUDA, and CPUs with AMX or AVX512-BF16.
    """
    if asked != "auto":
        return asked
    if torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported() else "fp32"
    return "bf16" if torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported() else "fp32"


def environment(asked_precision: str) -> dict[str, Any]:
    """Device, precision, threads and determinism, for a record's provenance."""
    return {
        "device": f"{device().type}: {device_name()}",
        "precision": precision(asked_precision),
        "threads": torch.get_num_threads(),
        "deterministic": device().type == "cpu" or torch.are_deterministic_algorithms_enabled(),
    }


class Energy:
    """Joules that the GPU draws from construction on, as its driver counts them.

    The counter moves 10 to 50 times a second and counts the whole card: take seconds, not single steps, and of a card that nobody else uses.
    """

    def __init__(self):
        self._start = _millijoules()

    def joules(self) -> float | None:
        """Since construction, the work that the GPU has yet to finish among it; None on a CPU and where no driver tells."""
        now = _millijoules()
        return None if now is None or self._start is None else (now - self._start) / 1000


class Meter:
    """Cost from construction to :meth:`cost`: wall seconds, peak memory, and energy where the GPU's driver tells it."""

    def __init__(self):
        self._start, self._energy = time.perf_counter(), Energy()
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()

    def cost(self) -> dict[str, Any]:
        """Wall seconds, peak bytes (allocated on the GPU; resident set of this process on the CPU), joules or None."""
        return {
            "energy_joules": self._energy.joules(),
            "wall_seconds": time.perf_counter() - self._start,
            "peak_memory_bytes": peak_memory(),
        }


class Allocations:
    """Exact bytes of tensors that a stretch of code allocates, relative to what was there when it began.

    A context manager; :meth:`mark` ends a part of the stretch and names it. Afterwards ``peak`` holds, by name, the most bytes alive at once
    within each part and ``held`` the bytes alive at its end. On a GPU the caching allocator counts; on a CPU torch's profiler lists every
    allocation and release. Not seen on a CPU: workspaces inside its math libraries, and memory that numpy or a mapped file holds. On a GPU the
    high-water mark that :class:`Meter` tells begins anew at every mark.
    """

    def __init__(self):
        self.peak: dict[str, int] = {}
        self.held: dict[str, int] = {}

    def __enter__(self) -> "Allocations":
        self._names: list[str] = []
        # What earlier code left in reference cycles must not be released within the stretch.
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
            self._before = torch.cuda.memory_allocated()
        else:
            # The profiler tells of each of its own steps on stderr, which a page shows; this level is above all it knows.
            os.environ.setdefault("KINETO_LOG_LEVEL", "99")
            self._profiler = torch.autograd.profiler.profile(profile_memory=True)
            self._profiler.__enter__()
        return self

    def mark(self, name: str) -> None:
        """End a part of the stretch; what comes next belongs to the next part."""
        self._names.append(name)
        if torch.cuda.is_available():
            self.peak[name] = torch.cuda.max_memory_allocated() - self._before
            self.held[name] = torch.cuda.memory_allocated() - self._before
            torch.cuda.reset_peak_memory_stats()
        else:
            with torch.profiler.record_function(_MARK):
                pass

    def __exit__(self, *error) -> None:
        if not torch.cuda.is_available():
            self._profiler.__exit__(*error)
            alive = peak = 0
            names = iter(self._names)
            for change in _changes(self._profiler):
                if change is not None:
                    alive += change
                    peak = max(peak, alive)
                elif (name := next(names, None)) is not None:
                    self.peak[name], self.held[name] = peak, alive
                    peak = alive


def _changes(profiler: torch.autograd.profiler.profile) -> Iterator[int | None]:
    """Bytes allocated (positive) or released (negative) on the CPU in order of time, and None at every mark."""
    found = profiler.kineto_results.events()
    cpu = torch.autograd.DeviceType.CPU
    for event in sorted(found, key=lambda each: each.start_ns()):
        if event.name() == _MARK:
            yield None
        elif event.name() == "[memory]" and event.device_type() == cpu:
            yield event.nbytes()


def peak_memory() -> int:
    """Peak bytes allocated on the GPU, or the process's peak resident set on the CPU."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def now() -> float:
    """Seconds of a clock, read when the GPU has done all that it was given."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def _millijoules() -> int | None:
    """What the current GPU has drawn since its driver was loaded, or None where nothing tells."""
    if not torch.cuda.is_available():
        return None
    try:
        import pynvml
    except ImportError:
        return None
    torch.cuda.synchronize()
    try:
        pynvml.nvmlInit()
        # By name: the driver numbers all cards of the machine, CUDA those it may see, in an order of its own.
        card = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties().uuid}")
        return pynvml.nvmlDeviceGetTotalEnergyConsumption(card)
    except pynvml.NVMLError:  # a card, or a part of one, that does not count
        return None
