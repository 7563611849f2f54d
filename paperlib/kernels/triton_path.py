"""What the Triton paths share: which tensors take them, and how their tables reach the device."""

from functools import cache
from importlib.util import find_spec

import torch


def taken_by(tensor: torch.Tensor) -> bool:
    """Whether kernels over this tensor run through Triton: on a CUDA device, where Triton is installed. All others take plain PyTorch."""
    return tensor.is_cuda and _installed()


def sent(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """``tensor``, just made on the CPU, on ``device``. The host does not wait for what the device is at, as a copy from pageable memory would."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


@cache
def _installed() -> bool:
    return find_spec("triton") is not None
