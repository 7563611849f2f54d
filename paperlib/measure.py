"""What a computation runs on and what it costs: device, precision, wall time, peak memory, energy."""

import platform
import sys
import time
from typing import Any

import torch


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


class Meter:
    """Cost from construction to :meth:`cost`: wall seconds, peak memory, and energy where the GPU's driver tells it."""

    def __init__(self):
        self._start = time.perf_counter()
        self._energy = _millijoules()
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()

    def cost(self) -> dict[str, Any]:
        """Wall seconds, peak bytes (allocated on the GPU; resident set of this process on the CPU), joules or None."""
        energy = _millijoules()
        return {
            "wall_seconds": time.perf_counter() - self._start,
            "peak_memory_bytes": peak_memory(),
            "energy_joules": None if energy is None or self._energy is None else (energy - self._energy) / 1000,
        }


def peak_memory() -> int:
    """Peak bytes allocated on the GPU, or the process's peak resident set on the CPU."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _millijoules() -> int | None:
    if not torch.cuda.is_available():
        return None
    try:
        import pynvml

        pynvml.nvmlInit()
        return pynvml.nvmlDeviceGetTotalEnergyConsumption(
            pynvml.nvmlDeviceGetHandleByIndex(torch.cuda.current_device())
        )
    except Exception:  # no driver library, or a card that does not count: the cost is then unknown, not an error
        return None
