"""What LeTS is compared with on a whole model: freezing the bottom, and tuning a fixed small part of the weights (the non-adaptive difference).

Full fine-tuning is :class:`paperlib.training.Method` itself, and freezing none; DiffPruning and adapters have modules of their own. Inferred: what
is the head's, and so trained whole by all of them, is everything outside of the model's body, and the pooler, which not every backbone comes with.
"""

from collections.abc import Mapping

import torch
from torch import nn

from paperlib import backbones
from paperlib.errors import InputError
from paperlib.lets import pruning
from paperlib.lets.offsets import Offset, compact
from paperlib.training import Method

POOLER = "pooler"


def pretrained(model: nn.Module) -> dict[str, nn.Parameter]:
    """W^p by name in ``model``: embeddings and layers, with biases and layer norms, without pooler and head."""
    prefix = model.base_model_prefix + "."
    body = {name.removeprefix(prefix): weight for name, weight in model.base_model.named_parameters()}
    named = {id(weight): name for name, weight in model.named_parameters()}
    return {named[id(weight)]: weight for name, weight in body.items() if not name.startswith(POOLER)}


class FreezeBottom(Method):
    """The bottom ``layers`` layers and the embeddings keep their pre-trained weights; 0 is full fine-tuning.

    Inferred: the embeddings belong to the bottom, and frozen layers keep their dropout. InputError: more layers than there are.
    """

    def __init__(self, layers: int):
        self.layers = layers

    def attach(self, model: nn.Module, total_steps: int) -> None:
        stack = [layer for each in backbones.stacks(model) for layer in each]
        if not isinstance(self.layers, int) or not 0 <= self.layers <= len(stack):
            raise InputError(f"freeze_bottom: {self.layers!r} frozen layers; the model has {len(stack)}")
        above = {id(weight) for layer in stack[self.layers :] for weight in layer.parameters()}
        for weight in pretrained(model).values() if self.layers else ():
            weight.requires_grad_(id(weight) in above)


def largest(tuned: pruning.Tensors, start: pruning.Tensors, k: float) -> dict[str, Offset]:
    """The non-adaptive difference: the largest share ``k`` of W^f - W^p, of all weights of ``tuned`` together."""
    return largest_of(pruning.offsets(tuned, start), k)


def largest_of(delta: pruning.Tensors, k: float) -> dict[str, Offset]:
    """The largest share ``k`` of the offsets ``delta``, of all weights together. InputError: k outside (0, 1] or too small."""
    return compact(delta, pruning.masks(pruning.magnitudes(delta), k))


class Difference(Method):
    """Full fine-tuning that remembers W^p: the first half of the non-adaptive difference."""

    def attach(self, model: nn.Module, total_steps: int) -> None:
        self.weights = pretrained(model)
        self.start = {name: weight.detach().clone() for name, weight in self.weights.items()}

    def offsets(self, k: float) -> dict[str, Offset]:
        """The largest share ``k`` of W^f - W^p, as :func:`largest` gives it."""
        return largest(self.weights, self.start, k)


class FixedMask(Method):
    """Fine-tuning from W^p + c W^d of nothing but the kept entries of ``start`` and the head.

    Gradients of the others are dropped before the norm is clipped, so that what is trained alone counts; neither moments nor decay move them.
    Keeps W^p beside the weights. InputError: offsets for weights that the model has not.
    """

    def __init__(self, start: Mapping[str, Offset]):
        self.start = start

    @torch.no_grad()
    def attach(self, model: nn.Module, total_steps: int) -> None:
        weights = pretrained(model)
        if unknown := sorted(self.start.keys() - weights.keys()):
            raise InputError(f"fixed mask: the model has no pre-trained weight {unknown[0]!r}")
        self.weights = {name: weights[name] for name in self.start}
        self.pretrained = {name: weight.detach().clone() for name, weight in self.weights.items()}
        self.places = {name: offset.indices.to(weights[name].device) for name, offset in self.start.items()}
        for name, weight in weights.items():
            weight.requires_grad_(name in self.start)
        for name, weight in self.weights.items():
            offset = self.start[name]
            weight.view(-1)[self.places[name]] += offset.values.detach().to(weight)

    def after_backward(self, step: int) -> bool:
        for name, weight in self.weights.items():
            if weight.grad is not None:
                weight.grad.copy_(_only(weight.grad, self.places[name], torch.zeros_like(weight.grad)))
        return True

    @torch.no_grad()
    def after_step(self, step: int, optimizer: torch.optim.Optimizer) -> None:
        for name, weight in self.weights.items():
            weight.copy_(_only(weight, self.places[name], self.pretrained[name]))

    def offsets(self) -> dict[str, Offset]:
        """c W^d as it is now."""
        return {
            name: Offset(_at(weight.detach(), places) - _at(self.pretrained[name], places), places, weight.shape)
            for (name, weight), places in zip(self.weights.items(), self.places.values(), strict=True)
        }


def _at(values: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    return values.reshape(-1)[places]


def _only(values: torch.Tensor, places: torch.Tensor, elsewhere: torch.Tensor) -> torch.Tensor:
    """``elsewhere`` with the entries of ``values`` at ``places``."""
    found = elsewhere.reshape(-1).clone()
    found[places] = _at(values, places)
    return found.view_as(values)
