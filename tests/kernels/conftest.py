"""Where Triton kernels are tested: on a GPU, or on the CPU through Triton's interpreter."""

import pytest
import torch


@pytest.fixture(scope="session")
def kernel_device() -> torch.device:
    """The device whose tensors Triton kernels take: the GPU, or the CPU where the interpreter runs them (see tests/conftest.py)."""
    pytest.importorskip("triton", reason="Triton is not installed")
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
