"""What steps of the search launch on a GPU: counted on narrow models, where the gates' kernel cannot run."""

import copy

import torch

from paperlib.backbones import Backbone
from paperlib.errors import InputError
from paperlib.s3delta.gates import Gates
from paperlib.training.launches import Launches

# Draws of gates per search step; of one of them the gradient is taken.
DRAWS = {"second": 2, "first": 2, "one-level": 1}
NARROW = {
    "t5": {"d_model": 64, "d_ff": 128, "d_kv": 32, "num_heads": 2},
    "bert": {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 2},
}


def of_gates(gates: Gates) -> tuple[int, int]:
    """Launches of a draw, and of its gradient, where PyTorch's operators compose them, as they do on a CPU."""
    alpha = torch.zeros(len(gates.sizes), dtype=torch.float64, requires_grad=True)
    with Launches() as forward:
        z = gates.draw(alpha)
    slope = torch.ones_like(z)
    with Launches() as backward:
        torch.autograd.grad(z, alpha, slope)
    return forward.total, backward.total


def with_kernel(composed: Launches, gates: Gates, order: str) -> int:
    """Launches of a search step that was counted on a CPU where gates take two each: uniform numbers and the draw, and one for their gradient."""
    draw, gradient = of_gates(gates)
    return composed.total - DRAWS[order] * (draw - 2) - (gradient - 1)


def narrowed(backbone: Backbone) -> Backbone:
    """An untrained model of the same architecture and depth, tiny in every width: its steps launch what those of ``backbone`` do.

    Attention is torch's fused one, as on a GPU. ``backbone``: a BERT or T5, may be on the meta device. InputError: of another type.
    """
    config = copy.deepcopy(backbone.model.config)
    if config.model_type not in NARROW:
        raise InputError(f"launches are counted for {', '.join(NARROW)} models, not for {config.model_type!r}")
    for name, width in NARROW[config.model_type].items():
        setattr(config, name, width)
    config.vocab_size = 512
    torch.manual_seed(0)
    model = type(backbone.model)._from_config(config, attn_implementation="sdpa")
    return Backbone(backbone.name, model, None)
