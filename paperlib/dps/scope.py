"""Which weights the subnetwork methods look after."""

import torch

from paperlib.errors import InputError


def tracked(model: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    """Weights of all trainable Linear modules by name, pooler and classifier included; no bias, layer norm or embedding.

    A Linear that shares an embedding's weight, as T5's output layer does, counts as the embedding. InputError if the model has none.
    """
    names = {parameter: name for name, parameter in model.named_parameters()}
    embeddings = {module.weight for module in model.modules() if isinstance(module, torch.nn.Embedding)}
    weights = {
        names[module.weight]: module.weight
        for module in model.modules()
        if isinstance(module, torch.nn.Linear) and module.weight.requires_grad and module.weight not in embeddings
    }
    if not weights:
        raise InputError("the model has no trainable Linear weight: there is no subnetwork to choose")
    return weights
