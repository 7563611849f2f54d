"""Adapters (Houlsby et al. 2019), which LeTS is compared with: two small bottlenecks per layer, between frozen maps.

As published: after the dropout of both sub-layers' outputs and before the residual sum, x + U gelu(D x + b) + c; D and U drawn from a normal
distribution of scale 0.001 cut at two scales, biases 0, so that a new adapter passes x on; layer norms and the head are trained too. Inferred: the
pooler counts as the head.
"""

from collections.abc import Iterator

import torch
from torch import nn
from torch.nn import functional

from paperlib.errors import InputError
from paperlib.lets.comparisons import pretrained
from paperlib.lets.frozen_pass import BERT_TYPES
from paperlib.training import Method

SCALE = 1e-3
BOTTLENECK = 64


class Adapter(nn.Module):
    """x + U gelu(D x + b) + c: (..., d) -> (..., d), through ``bottleneck`` m values. 2 d m + d + m parameters."""

    def __init__(self, hidden: int, bottleneck: int):
        super().__init__()
        self.down, self.up = nn.Linear(hidden, bottleneck), nn.Linear(bottleneck, hidden)
        for linear in (self.down, self.up):
            nn.init.trunc_normal_(linear.weight, std=SCALE, a=-2 * SCALE, b=2 * SCALE)
            nn.init.zeros_(linear.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.up(functional.gelu(self.down(x)))


class Adapters(Method):
    """Trains adapters of ``bottleneck`` m, layer norms and the head; they are put into the model, drawn from torch's generator.

    InputError: a bottleneck below 1; a model that is not of the BERT type.
    """

    def __init__(self, bottleneck: int = BOTTLENECK):
        if not isinstance(bottleneck, int) or bottleneck < 1:
            raise InputError(f"adapters: the bottleneck must be a positive whole number, not {bottleneck!r}")
        self.bottleneck = bottleneck

    def attach(self, model: nn.Module, total_steps: int) -> None:
        config = model.config
        if config.model_type not in BERT_TYPES:
            raise InputError(
                f"adapters need a model of the BERT type ({', '.join(BERT_TYPES)}), not {config.model_type}"
            )
        for weight in pretrained(model).values():
            weight.requires_grad_(False)
        for module in model.base_model.modules():
            if isinstance(module, nn.LayerNorm):
                module.requires_grad_(True)
        for place in _places(model):
            adapter = Adapter(config.hidden_size, self.bottleneck).to(next(model.parameters()))
            place.dropout = nn.Sequential(place.dropout, adapter)


def _places(model: nn.Module) -> Iterator[nn.Module]:
    """Modules whose dropout an adapter follows."""
    for layer in model.base_model.encoder.layer:
        yield layer.attention.output
        yield layer.output
