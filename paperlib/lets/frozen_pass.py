"""The frozen pre-trained pass: what all sub-tasks share, computed once per input (LeTS-R, see ``paperlib.lets.architecture``)."""

from functools import cached_property
from typing import NamedTuple

import torch
from torch import nn
from transformers.masking_utils import create_bidirectional_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.bert.modeling_bert import eager_attention_forward

from paperlib.errors import InputError

# Encoders whose layers are BERT's, module by module; they differ in their embeddings alone.
BERT_TYPES = ("bert", "roberta", "xlm-roberta", "camembert", "electra")


class FrozenEncoder(nn.Module):
    """The encoder of ``model``, taken over in place: without gradients, and evaluating (no dropout) whatever ``train`` says.

    Its results serve all sub-tasks, so no sub-task's dropout may be in them. Heads and poolers of ``model`` are not used.
    InputError: not an encoder of the BERT type, which attends to all tokens.
    """

    def __init__(self, model: nn.Module):
        super().__init__()
        config = model.config
        decoder = getattr(config, "is_decoder", False)
        if config.model_type not in BERT_TYPES or decoder:
            kind = f"{config.model_type} decoder" if decoder else config.model_type
            raise InputError(f"LeTS needs an encoder of the BERT type ({', '.join(BERT_TYPES)}), not a {kind}")
        self.config = config
        self.body = model.base_model.requires_grad_(False).eval()

    @property
    def layers(self) -> nn.ModuleList:
        """The L layers, from bottom to top."""
        return self.body.encoder.layer

    def train(self, mode: bool = True) -> "FrozenEncoder":
        """Nothing here is trained."""
        return super().train(False)

    @torch.no_grad()
    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
    ) -> "FrozenPass":
        """``input_ids``, ``attention_mask`` (1: read, 0: padding), ``token_type_ids``: (B, l), as the backbone takes them."""
        hidden = self.body.embeddings(input_ids=input_ids, token_type_ids=token_type_ids)
        if hasattr(self.body, "embeddings_project"):  # ELECTRA's narrower embeddings
            hidden = self.body.embeddings_project(hidden)
        return FrozenPass(self.layers, hidden, create_bidirectional_mask(self.config, hidden, attention_mask))


class FrozenPass:
    """One input through the frozen encoder. Nothing is computed before a sub-task asks for it, and nothing twice.

    ``embedded``: H^p_0, (B, l, d). ``layers``: one :class:`FrozenLayer` per layer. ``mask``: the backbone's own form of the attention
    mask (additive where attention is eager), or None.
    """

    def __init__(self, modules: nn.ModuleList, embedded: torch.Tensor, mask: torch.Tensor | None):
        self.embedded, self.mask = embedded, mask
        self.layers: list[FrozenLayer] = []
        below = _Embedded(embedded)
        for module in modules:
            below = FrozenLayer(module, below, mask)
            self.layers.append(below)


class FrozenLayer:
    """Cached activations of layer j, each (B, l, d) and without gradient. ``module``: the transformers layer, with W^p and b^p."""

    def __init__(self, module: nn.Module, below: "FrozenLayer | _Embedded", mask: torch.Tensor | None):
        self.module, self._below, self._mask = module, below, mask

    @property
    def input(self) -> torch.Tensor:
        """H^p_{j-1}."""
        return self._below.output

    @cached_property
    @torch.no_grad()
    def query(self) -> torch.Tensor:
        """Q^p_j = W^p_q H^p_{j-1} + b^p_q."""
        return self.module.attention.self.query(self.input)

    @cached_property
    @torch.no_grad()
    def key(self) -> torch.Tensor:
        """K^p_j."""
        return self.module.attention.self.key(self.input)

    @cached_property
    @torch.no_grad()
    def value(self) -> torch.Tensor:
        """V^p_j."""
        return self.module.attention.self.value(self.input)

    @cached_property
    @torch.no_grad()
    def attended(self) -> torch.Tensor:
        """M^p_j: attention, W^p_o, residual sum and layer norm."""
        attention = self.module.attention
        context = multi_head(attention.self, self.query, self.key, self.value, self._mask, host=attention.self)
        return attention.output(context, self.input)

    @cached_property
    @torch.no_grad()
    def output(self) -> torch.Tensor:
        """H^p_j: feed-forward, residual sum and layer norm."""
        return self.module.output(self.module.intermediate(self.attended), self.attended)


class _Embedded(NamedTuple):
    """What stands below the first layer."""

    output: torch.Tensor


def multi_head(
    attention: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None,
    host: nn.Module,
    dropout: float = 0.0,
) -> torch.Tensor:
    """softmax(Q K^T / sqrt(d / h) + mask) V over all h heads, side by side: (B, l, d), by the backbone's own implementation.

    ``attention``: the backbone's self-attention, which knows heads and scale. ``query``, ``key``, ``value``: (B, l, d). The probabilities
    are dropped with ``dropout`` where ``host`` is in training.
    """

    def heads(x: torch.Tensor) -> torch.Tensor:
        return x.unflatten(-1, (-1, attention.attention_head_size)).transpose(1, 2)

    attend = ALL_ATTENTION_FUNCTIONS.get(attention.config._attn_implementation, eager_attention_forward)
    rate = dropout if host.training else 0.0
    options = {"dropout": rate, "scaling": attention.scaling, "is_causal": False}
    context, _ = attend(host, heads(query), heads(key), heads(value), mask, **options)
    return context.flatten(2)
