"""Dropout on CPUs from 16 random bits per element.

torch draws one Bernoulli number per element from a serial Mersenne twister, a sixth of a small model's training step.
Here SFC64 fills 64-bit words and every word decides four elements: a threshold on 16 bits, so that the drop probability is
``round(p * 65536) / 65536`` (0.1 becomes 0.100006) and the scale of what stays is its exact complement.
"""

import numpy as np
import torch
from torch.overrides import TorchFunctionMode

LEVELS = 65536


def threshold(p: float) -> int:
    """Number of the 65536 levels that drop an element: the nearest to ``p`` (in [0, 1))."""
    return min(round(p * LEVELS), LEVELS - 1)


def dropout(x: torch.Tensor, p: float, generator: np.random.Generator) -> torch.Tensor:
    """``x`` with each element zeroed with probability ``p`` and the rest scaled by 1 / (1 - p).

    ``x``: any shape, fp32 or bf16, on the CPU; differentiable. Moves 2 random bytes and one factor of x's size per element.
    """
    drop = threshold(p)
    words = generator.integers(0, 2**64, -(-x.numel() // 4), dtype=np.uint64)
    keep = words.view(np.uint16)[: x.numel()] >= drop
    factor = torch.tensor(LEVELS / (LEVELS - drop), dtype=x.dtype)
    # The factor's own bits where kept, zero elsewhere: one multiplication instead of a cast from bool.
    bits = factor.view(torch.int16 if x.element_size() == 2 else torch.int32).numpy()
    return x * torch.from_numpy(keep * bits).view(x.dtype).view(x.shape)


def dropout_reference(x: torch.Tensor, p: float, generator: np.random.Generator) -> torch.Tensor:
    """The same numbers, element by element: for tests."""
    words = generator.integers(0, 2**64, -(-x.numel() // 4), dtype=np.uint64)
    levels = torch.from_numpy(words.view(np.uint16).astype(np.int64))[: x.numel()].view(x.shape)
    factor = torch.tensor(LEVELS / (LEVELS - threshold(p)), dtype=x.dtype)
    return torch.where(levels >= threshold(p), x * factor, torch.zeros_like(x))


class FastDropout(TorchFunctionMode):
    """Within this context every ``torch.nn.functional.dropout`` in training, modules' included, is :func:`dropout`."""

    def __init__(self, generator: np.random.Generator):
        super().__init__()
        self.generator = generator

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function is not torch.nn.functional.dropout:
            return function(*args, **kwargs)
        return self._dropout(*args, **kwargs)

    def _dropout(self, x, p=0.5, training=True, inplace=False):
        if not training or p == 0.0:
            return x
        dropped = dropout(x, p, self.generator)
        return x.copy_(dropped) if inplace else dropped
