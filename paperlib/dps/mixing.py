"""Forward passes that see mixed weights instead of the trained ones."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch.overrides import TorchFunctionMode

from paperlib.kernels.mixing import Draw, Gate, mixed_linear


class Mix(NamedTuple):
    """What a weight is mixed with: see :func:`paperlib.kernels.mixing.mixed_linear`."""

    start: torch.Tensor
    gate: Gate
    factor: float
    gradient_factor: float


class Draws:
    """Numbered draws of the gates of all columns of ``weights``, shut with probability ``p``: a word of Philox for each, in the weights' order.

    The seed comes from torch's generator, one number for a whole run; the draws of a step are a function of it, so nothing need be kept to go on.
    ``words``: how many a draw of all weights takes; those of each weight begin at a multiple of 4.
    """

    def __init__(self, weights: Mapping[str, torch.Tensor], p: float):
        self.seed, self.p, self.words = int(torch.randint(2**63 - 1, ())), p, 0
        self.span: dict[str, slice] = {}
        for name, weight in weights.items():
            columns = weight.shape[1]
            self.span[name] = slice(self.words, self.words + columns)
            self.words += -(-columns // 4) * 4

    def of(self, name: str, step: int, turn: int = 0) -> Draw:
        """Gates of one weight, in the ``turn``-th draw of the step."""
        return Draw(self.seed, step, turn * self.words + self.span[name].start, self.p)

    def of_all(self, step: int) -> Draw:
        """Gates of all weights, (words,), in the step's first draw."""
        return Draw(self.seed, step, 0, self.p)


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
