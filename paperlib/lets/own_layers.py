"""What a sub-task may own of one layer: its attention and its feed-forward, as differences from the frozen weights (LeTS-R)."""

from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional

from paperlib.lets.frozen_pass import FrozenLayer, multi_head
from paperlib.lets.offsets import Offset, offset_linear


class DenseOffset(nn.Module):
    """W^d, dense and 0 at first: (d_out, d_in), as the frozen weight it belongs to.

    A compact form, :class:`CompactOffset`, may take its place: all that is asked of an offset are these three methods.
    """

    def __init__(self, frozen: torch.Tensor):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros_like(frozen))

    def merged(self, frozen: torch.Tensor) -> torch.Tensor:
        """W^f = W^p + W^d."""
        return frozen + self.weight

    def merged_product(self, frozen: torch.Tensor, x: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        """W^f x + bias: (..., d_in) -> (..., d_out)."""
        return functional.linear(x, self.merged(frozen), bias)

    def product(self, x: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        """W^d x + bias: (..., d_in) -> (..., d_out)."""
        return functional.linear(x, self.weight, bias)


class CompactOffset(nn.Module):
    """c W^d with its kept ``values`` alone: trained in place of a dense offset, from ``start``, without a mask and without a second copy of W.

    A float of value, gradient and two moments and 4 bytes of place for a kept weight; nothing for the others.
    """

    def __init__(self, start: Offset):
        super().__init__()
        self.values = nn.Parameter(start.values.detach().clone())
        self.register_buffer("indices", start.indices)
        self.shape = torch.Size(start.shape)

    def offset(self) -> Offset:
        """The offset as it is now; its values are the parameter itself."""
        return Offset(self.values, self.indices, self.shape)

    def merged(self, frozen: torch.Tensor) -> torch.Tensor:
        """W^p + c W^d."""
        return frozen + self.offset().dense()

    def merged_product(self, frozen: torch.Tensor, x: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        """(W^p + c W^d) x + bias: (..., d_in) -> (..., d_out)."""
        return offset_linear(x, frozen, self.values, self.indices, self.shape, bias)

    def product(self, x: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        """c W^d x + bias: (..., d_in) -> (..., d_out)."""
        return offset_linear(x, None, self.values, self.indices, self.shape, bias)


class OwnLinear(nn.Module):
    """A linear map of the sub-task: its ``offset`` from the frozen weight and its own ``bias`` b^t, which starts at b^p."""

    def __init__(self, frozen: nn.Linear):
        super().__init__()
        self.offset = DenseOffset(frozen.weight)
        self.bias = nn.Parameter(frozen.bias.detach().clone())

    def forward(self, frozen: nn.Linear, x: torch.Tensor) -> torch.Tensor:
        """W^f x + b^t of an input of the sub-task's own: one dense product with the merged weight."""
        return self.offset.merged_product(frozen.weight, x, self.bias)

    def reusing(self, frozen: nn.Linear, x: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
        """The same of an ``x`` whose frozen result is ``known`` = W^p x + b^p: only W^d x is computed (A1)."""
        return known + self.offset.product(x, self.bias - frozen.bias)


class OwnNorm(nn.Module):
    """A layer norm of the sub-task, which starts as the frozen one."""

    def __init__(self, frozen: nn.LayerNorm):
        super().__init__()
        self.eps = frozen.eps
        self.weight = nn.Parameter(frozen.weight.detach().clone())
        self.bias = nn.Parameter(frozen.bias.detach().clone())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(..., d) -> (..., d)."""
        return functional.layer_norm(x, self.weight.shape, self.weight, self.bias, self.eps)


class OwnAttention(nn.Module):
    """Attention of one layer with the sub-task's weights; dropout as in ``config``."""

    def __init__(self, layer: nn.Module, config):
        super().__init__()
        attention = layer.attention
        self.query = OwnLinear(attention.self.query)
        self.key = OwnLinear(attention.self.key)
        self.value = OwnLinear(attention.self.value)
        self.output = OwnLinear(attention.output.dense)
        self.norm = OwnNorm(attention.output.LayerNorm)
        self.attention_dropout = config.attention_probs_dropout_prob
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, layer: FrozenLayer, x: torch.Tensor | None, mask: torch.Tensor | None) -> torch.Tensor:
        """Attn(X_j; W^f, b^t) with residual sum and layer norm, (B, l, d).

        ``x``: the sub-task's own X_j, or None for the frozen H^p_{j-1}, where Q^p, K^p and V^p are reused.
        """
        frozen = layer.module.attention
        if x is None:
            x = layer.input
            query = self.query.reusing(frozen.self.query, x, layer.query)
            key = self.key.reusing(frozen.self.key, x, layer.key)
            value = self.value.reusing(frozen.self.value, x, layer.value)
        else:
            query = self.query(frozen.self.query, x)
            key = self.key(frozen.self.key, x)
            value = self.value(frozen.self.value, x)
        context = multi_head(frozen.self, query, key, value, mask, host=self, dropout=self.attention_dropout)
        return self.norm(self.dropout(self.output(frozen.output.dense, context)) + x)


class OwnFeedForward(nn.Module):
    """Feed-forward of one layer with the sub-task's weights; dropout as in ``config``."""

    def __init__(self, layer: nn.Module, config):
        super().__init__()
        self.intermediate = OwnLinear(layer.intermediate.dense)
        self.output = OwnLinear(layer.output.dense)
        self.norm = OwnNorm(layer.output.LayerNorm)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, layer: FrozenLayer, x: torch.Tensor) -> torch.Tensor:
        """FFN(M^t_j; W^f, b^t) with residual sum and layer norm: (B, l, d) -> (B, l, d)."""
        frozen = layer.module
        inner = frozen.intermediate.intermediate_act_fn(self.intermediate(frozen.intermediate.dense, x))
        return self.norm(self.dropout(self.output(frozen.output.dense, inner)) + x)


Selector = bool | torch.Tensor
"""Whether to own, or P(own) as a scalar tensor."""


class TaskLayer(nn.Module):
    """Layer j of a sub-task, which owns ``attention`` and ``feed_forward`` or shares them (None)."""

    def __init__(self, layer: nn.Module, config, attention: bool, feed_forward: bool):
        super().__init__()
        self.attention = OwnAttention(layer, config) if attention else None
        self.feed_forward = OwnFeedForward(layer, config) if feed_forward else None

    def forward(
        self,
        layer: FrozenLayer,
        below: torch.Tensor,
        mask: torch.Tensor | None,
        own: tuple[Selector, Selector, Selector],
    ) -> torch.Tensor:
        """H^t_j, (B, l, d). ``below``: H^t_{j-1}; ``own``: the selectors s1, s2 and s3."""
        s1, s2, s3 = own
        ours = None
        if s2 is not False:
            x = None if s1 is False else mix(s1, lambda: layer.input, lambda: below)
            ours = self.attention(layer, x, mask)
        middle = mix(s2, lambda: layer.attended, lambda: ours)
        return mix(
            s3,
            share=lambda: mix(s2, lambda: layer.output, lambda: ours),
            ours=lambda: self.feed_forward(layer, middle),
        )


def mix(own: Selector, share: Callable[[], torch.Tensor], ours: Callable[[], torch.Tensor]) -> torch.Tensor:
    """The branch a selector takes, the other one not computed; for a probability P(share) share + P(own) ours."""
    if isinstance(own, torch.Tensor):
        return (1 - own) * share() + own * ours()
    return ours() if own else share()
