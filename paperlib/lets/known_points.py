"""Points of the reconstructed search space that are known models: full fine-tuning and freezing the bottom layers (appendix A.1, last paragraph).

A sub-task whose upper layers are its own, with any weights, beside a plain transformers model with these weights in these layers.
"""

from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import nn

from paperlib.lets.architecture import Architecture, Task
from paperlib.lets.frozen_pass import FrozenEncoder
from paperlib.lets.own_layers import OwnLinear, TaskLayer

PLACES = {
    "attention.query": "attention.self.query",
    "attention.key": "attention.self.key",
    "attention.value": "attention.self.value",
    "attention.output": "attention.output.dense",
    "attention.norm": "attention.output.LayerNorm",
    "feed_forward.intermediate": "intermediate.dense",
    "feed_forward.output": "output.dense",
    "feed_forward.norm": "output.LayerNorm",
}
"""Maps and norms of a :class:`TaskLayer` that owns both halves, and where a layer of transformers has them."""


@dataclass(frozen=True)
class Difference:
    """Largest absolute differences between the two: of any hidden state, and of any gradient of a trained weight or bias. ``moved``: how far the
    hidden states lie from those of the model before it was trained."""

    states: float
    gradients: float
    moved: float


def difference(model: nn.Module, frozen_layers: int, inputs: dict[str, torch.Tensor], seed: int = 0) -> Difference:
    """Between the two forms of ``model``, a BERT-type model without dropout or in evaluation mode, with its bottom ``frozen_layers`` frozen.

    What is above gets random offsets, drawn by ``seed``. Hidden states of all layers on ``inputs``, and gradients of the sum of their squares.
    ``model`` is not changed.
    """
    plain = deepcopy(model).base_model
    before = plain(**inputs, output_hidden_states=True).hidden_states[1:]
    frozen = FrozenEncoder(deepcopy(model))
    layers = len(frozen.layers)
    task = Task(frozen, Architecture.freeze_bottom(layers, frozen_layers), outputs=1).eval()
    _shake(task, seed)
    own = [(task.layers[j], plain.encoder.layer[j]) for j in range(frozen_layers, layers)]
    for ours, theirs in own:
        put(ours, theirs)
    plain.encoder.layer[:frozen_layers].requires_grad_(False)

    states = task.hidden_states(frozen(**inputs))
    expected = plain(**inputs, output_hidden_states=True).hidden_states[1:]
    for each in (states, expected):
        if own:
            sum(state.square().sum() for state in each).backward()
    return Difference(
        _largest(zip(states, expected, strict=True)),
        _largest(pair for layers in own for pair in _gradients(*layers)),
        _largest(zip(before, expected, strict=True)),
    )


@torch.no_grad()
def _shake(task: Task, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in task.parameters():
        parameter += 0.1 * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)


@torch.no_grad()
def put(ours: TaskLayer, theirs: nn.Module) -> None:
    """Write W^p + W^d, b^t and the norms of a sub-task's layer, which owns both halves, into the same layer of a plain model."""
    for place, target in PLACES.items():
        own, module = ours.get_submodule(place), theirs.get_submodule(target)
        module.bias.copy_(own.bias)
        if isinstance(own, OwnLinear):
            module.weight.copy_(own.offset.merged(module.weight))
        else:
            module.weight.copy_(own.weight)


def _gradients(ours: TaskLayer, theirs: nn.Module):
    for place, target in PLACES.items():
        own, module = ours.get_submodule(place), theirs.get_submodule(target)
        yield (own.offset.weight if isinstance(own, OwnLinear) else own.weight).grad, module.weight.grad
        yield own.bias.grad, module.bias.grad


@torch.no_grad()
def _largest(pairs) -> float:
    return max((float((one - other).abs().max()) for one, other in pairs), default=0.0)
