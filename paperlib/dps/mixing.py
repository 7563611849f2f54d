"""Forward passes that see mixed weights instead of the trained ones."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch.overrides import TorchFunctionMode

from paperlib.kernels.mixing import mixed_linear


class Mix(NamedTuple):
    """What a weight is mixed with: see :func:`paperlib.kernels.mixing.mixed_linear`."""

    start: torch.Tensor
    gate: torch.Tensor
    factor: float
    gradient_factor: float


class MixedWeights(TorchFunctionMode):
    """Within this context every linear layer over a weight among ``names`` computes with the mix that ``mix(name)`` gives, asked anew each time.

    Weights are known by identity, so any model whose layers end in ``torch.nn.functional.linear`` is served, tied weights included.
    """

    def __init__(self, names: dict[torch.nn.Parameter, str], mix: Callable[[str], Mix]):
        super().__init__()
        self.names, self.mix = names, mix

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function is torch.nn.functional.linear:
            return self._linear(*args, **kwargs)
        return function(*args, **kwargs)

    def _linear(self, x, weight, bias=None):
        if weight not in self.names or not torch.is_grad_enabled():
            return torch.nn.functional.linear(x, weight, bias)
        return mixed_linear(x, weight, bias, *self.mix(self.names[weight]))
