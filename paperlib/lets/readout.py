"""The readout of a sub-task: aggregation linears, a Bi-LSTM over layers, and the head (LeTS-R)."""

from dataclasses import dataclass

import torch
from torch import nn

from paperlib.errors import InputError


@dataclass(frozen=True)
class ReadoutSizes:
    """``aggregation`` m, what is kept of every layer; ``lstm`` h, per direction."""

    aggregation: int = 64
    lstm: int = 64

    def __post_init__(self):
        for name, size in vars(self).items():
            if not isinstance(size, int) or size < 1:
                raise InputError(f"readout: {name} must be a positive whole number, not {size!r}")


class Readout(nn.Module):
    """z_j = U_j H^t_j[CLS] + u_j for every layer j, a Bi-LSTM over z_1 .. z_L, dropout, and a linear head; all drawn from torch's
    generator, as torch draws linear maps."""

    def __init__(self, layers: int, hidden: int, outputs: int, sizes: ReadoutSizes, dropout: float):
        super().__init__()
        m, h = sizes.aggregation, sizes.lstm
        bound = hidden**-0.5
        # All U_j side by side: one batched product in place of L small ones.
        self.aggregation_weight = nn.Parameter(torch.empty(layers, hidden, m).uniform_(-bound, bound))
        self.aggregation_bias = nn.Parameter(torch.empty(layers, 1, m).uniform_(-bound, bound))
        self.lstm = nn.LSTM(m, h, bidirectional=True)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(2 * h, outputs)

    def forward(self, pooled: torch.Tensor) -> torch.Tensor:
        """``pooled``: [CLS] of every H^t_j, (L, B, d). Returns scores, (B, outputs)."""
        aggregated = torch.baddbmm(self.aggregation_bias, pooled, self.aggregation_weight)
        _, (last, _) = self.lstm(aggregated)
        forward, backward = last
        return self.head(self.dropout(torch.cat((forward, backward), dim=-1)))
