"""Where Triton kernels are tested: on a GPU, or on the CPU through Triton's interpreter; and how they are compiled without a GPU."""

import importlib.util
import json
import os
import subprocess
import sys

import pytest
import torch


@pytest.fixture(scope="session")
def kernel_device() -> torch.device:
    """The device whose tensors Triton kernels take: the GPU, or the CPU where the interpreter runs them (see tests/conftest.py)."""
    pytest.importorskip("triton", reason="Triton is not installed")
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@pytest.fixture(scope="session")
def compiled(tmp_path_factory):
    """``compiled(script)``: the JSON that the script, which has Triton's compiler, prints.

    In a process of its own: in this one the interpreter has taken the compiler's place.
    """
    if importlib.util.find_spec("triton") is None:
        pytest.skip("Triton is not installed")

    def run(script: str):
        folder = tmp_path_factory.mktemp("triton")
        variables = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
        variables |= {"TRITON_CACHE_DIR": str(folder), "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        path = folder / "compiled.py"
        path.write_text(script)
        ran = subprocess.run([sys.executable, path], env=variables, capture_output=True, text=True, timeout=300)
        assert ran.returncode == 0, ran.stderr
        return json.loads(ran.stdout)

    return run
