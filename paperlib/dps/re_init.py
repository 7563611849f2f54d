"""Re-init: forget the topmost pre-trained layers before fine-tuning."""

import torch

from paperlib import backbones
from paperlib.errors import InputError
from paperlib.training import Method

STD = 0.02


class ReInit(Method):
    """Re-init (Zhang et al. 2021): the pooler and the top ``layers`` layers are drawn anew, the rest is left as it is.

    Weights of Linear and Embedding modules ~ N(0, initializer_range), or N(0, 0.02) in the pooler and where the configuration knows none
    (BART, T5); Linear biases 0; layer norms 1 and 0. The topmost stack counts: the decoder's where there is one. A model without
    a pooler in its body, such as ELECTRA, has layers drawn only.
    """

    def __init__(self, layers: int):
        self.layers = layers

    @torch.no_grad()
    def attach(self, model: torch.nn.Module, total_steps: int) -> None:
        stack = backbones.stacks(model)[-1]
        if not 1 <= self.layers <= len(stack):
            raise InputError(f"re_init takes 1 to {len(stack)} layers, the model's number, got {self.layers}")
        pooler = getattr(model.base_model, "pooler", None)
        if pooler is not None:
            _draw(pooler, STD)
        for layer in stack[len(stack) - self.layers :]:
            _draw(layer, getattr(model.config, "initializer_range", STD))


def _draw(part: torch.nn.Module, std: float) -> None:
    for module in part.modules():
        if isinstance(module, torch.nn.Linear | torch.nn.Embedding):
            module.weight.normal_(0.0, std)
        elif _is_norm(module):
            module.weight.fill_(1.0)
        else:
            continue
        if getattr(module, "bias", None) is not None:
            module.bias.zero_()


def _is_norm(module: torch.nn.Module) -> bool:
    """Layer norms, and T5's root-mean-square norm, which is a class of its own."""
    return isinstance(module, torch.nn.LayerNorm) or type(module).__name__ == "T5LayerNorm"
