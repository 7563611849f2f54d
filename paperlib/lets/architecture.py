"""The LeTS architecture, reconstructed ("LeTS-R"): the smallest design in which everything the appendix states holds.

The appendix names additive task weights on a frozen transformer, two-way selectors per layer, reuse of frozen results, aggregation
linears, a Bi-LSTM, biases with a learning rate of their own, and a space that contains full fine-tuning and freezing the bottom layers.
No code was published. Layer j of L, H^t_0 = H^p_0; p: frozen, t: of the sub-task:

    s1  input source   X_j   = H^p_{j-1}                          or  H^t_{j-1}
    s2  attention      M^t_j = M^p_j                              or  Attn(X_j; W^p + W^d, b^t)
    s3  feed-forward   H^t_j = (H^p_j if M^t_j is M^p_j, else M^t_j)  or  FFN(M^t_j; W^p + W^d, b^t)

share on the left, own on the right. Where s1 shares, W^f x = W^p x + W^d x (A1) takes W^p x of q, k and v from the frozen pass; where
it owns, W^f is merged and x multiplied densely. Inferred, in no source:

1.  Three selectors per layer, at these places; none for q, k and v apart.
2.  To share the feed-forward above own attention is to skip it.
3.  Selectors mix softly: P(share) share + P(own) own. The share branch of s3 is what discrete selectors would pass on, on average over
    s2: P(s2 share) H^p_j + P(s2 own) Attn(X_j).
4.  The Bi-LSTM runs over layers, not tokens; it reads U_j H^t_j[CLS] + u_j, a linear map per layer; the head reads its last two states.
5.  Sizes of aggregation and Bi-LSTM. The defaults (64, 64) make the readout 0.49 % of BERT-large; advertised is 1.4 % for everything.
6.  Embeddings are shared by all: "full fine-tuning" means all layers, and the pooler is not used.
7.  Layer norms above owned maps are owned, with weight and bias, as full fine-tuning trains both. A layer norm's bias counts as a bias.
8.  The biases with a learning rate of their own are those of the transformer; the readout's learn with everything else.
9.  Offsets start at 0 and biases at b^p: a new sub-task computes what the frozen model computes.
10. The frozen pass has no dropout, since all sub-tasks share it. In training a sub-task drops where the backbone would: at attention
    probabilities, after W_o and the feed-forward, and H^t_0, where embeddings have theirs (ELECTRA's narrower ones before they are
    projected). So all-own trains as the plain model does.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional

from paperlib.errors import InputError
from paperlib.lets.frozen_pass import FrozenEncoder, FrozenPass
from paperlib.lets.own_layers import TaskLayer
from paperlib.lets.readout import Readout, ReadoutSizes


class Own(NamedTuple):
    """The selectors s1, s2, s3 of one layer: True owns, False shares."""

    input: bool
    attention: bool
    feed_forward: bool


@dataclass(frozen=True)
class Architecture:
    """A point of the search space: the selectors of all layers, from bottom to top. InputError: not three truth values per layer."""

    layers: tuple[Own, ...]

    def __post_init__(self):
        if not self.layers:
            raise InputError("architecture: at least one layer is needed")
        for j, row in enumerate(self.layers, start=1):
            if len(row) != len(Own._fields) or not all(isinstance(choice, bool) for choice in row):
                raise InputError(
                    f"architecture: layer {j} needs true or false for {', '.join(Own._fields)}, not {row!r}"
                )
        object.__setattr__(self, "layers", tuple(Own(*row) for row in self.layers))

    @classmethod
    def all_share(cls, layers: int) -> "Architecture":
        """The frozen model under a readout."""
        return cls((Own(False, False, False),) * layers)

    @classmethod
    def all_own(cls, layers: int) -> "Architecture":
        """Full fine-tuning under a readout; with probabilities for selectors, the super-network."""
        return cls((Own(True, True, True),) * layers)

    @classmethod
    def freeze_bottom(cls, layers: int, frozen: int) -> "Architecture":
        """The bottom ``frozen`` of ``layers`` layers shared, the others owned. InputError: more frozen layers than layers."""
        if not isinstance(frozen, int) or not 0 <= frozen <= layers:
            raise InputError(f"freeze_bottom: {frozen!r} frozen layers; the encoder has {layers}")
        return cls((Own(False, False, False),) * frozen + (Own(True, True, True),) * (layers - frozen))

    @classmethod
    def most_probable(cls, own: torch.Tensor) -> "Architecture":
        """The likelier choice of every selector; ``own``: P(own), (L, 3). A tie is shared."""
        return cls(tuple(Own(*row) for row in (own > 0.5).tolist()))

    def reduced(self) -> "Architecture":
        """The same sub-task, but for dropout in training, with no more operations: where all below is shared, H^t_{j-1} is H^p_{j-1}, and the
        own input the shared one."""
        rows, shared = [], True
        for own in self.layers:
            rows.append(own._replace(input=own.input and own.attention and not shared))
            shared = shared and not (own.attention or own.feed_forward)
        return Architecture(tuple(rows))

    def probabilities(self, **options) -> torch.Tensor:
        """One-hot: P(own), (L, 3), each 0 or 1; ``options`` as for ``torch.tensor``."""
        return torch.tensor(self.layers, **({"dtype": torch.get_default_dtype()} | options))


class Task(nn.Module):
    """A sub-task: what it owns by ``architecture``, and a readout of ``outputs`` scores. Its parameters are all that is trained.

    The frozen weights stay in ``frozen`` and are no part of this module. The readout's dropout is that of the backbone's head.
    InputError: an architecture for another number of layers.
    """

    def __init__(
        self,
        frozen: FrozenEncoder,
        architecture: Architecture,
        outputs: int,
        sizes: ReadoutSizes | None = None,
    ):
        super().__init__()
        config = frozen.config
        if len(architecture.layers) != len(frozen.layers):
            raise InputError(
                f"an architecture for {len(architecture.layers)} layers; the encoder has {len(frozen.layers)}: give one for each"
            )
        self.architecture = architecture
        self.layers = nn.ModuleList(
            TaskLayer(layer, config, own.attention, own.feed_forward)
            for layer, own in zip(frozen.layers, architecture.layers, strict=True)
        )
        self.embedding_dropout = config.hidden_dropout_prob
        of_head = getattr(config, "classifier_dropout", None)
        dropout = config.hidden_dropout_prob if of_head is None else of_head
        self.readout = Readout(len(frozen.layers), config.hidden_size, outputs, sizes or ReadoutSizes(), dropout)
        self.readout.to(next(frozen.parameters()))

    def forward(self, shared: FrozenPass, own: Architecture | torch.Tensor | None = None) -> torch.Tensor:
        """Scores, (B, outputs). ``shared``, ``own``: as in :meth:`hidden_states`."""
        # A view of [CLS] would keep all of H^t_j in memory.
        pooled = [hidden[:, 0].clone() for hidden in self._states(shared, own)]
        return self.readout(torch.stack(pooled))

    def hidden_states(self, shared: FrozenPass, own: Architecture | torch.Tensor | None = None) -> list[torch.Tensor]:
        """H^t_1 .. H^t_L, each (B, l, d).

        ``shared``: the frozen pass of the input, which any number of sub-tasks may use. ``own``: the task's own architecture unless given;
        another one that asks for nothing the task does not own; or probabilities P(own), (L, 3), differentiable, where it owns all.
        ValueError: it does not.
        """
        return list(self._states(shared, own))

    def parameter_groups(self, learning_rate: float, bias_learning_rate: float) -> list[dict]:
        """Two groups for a torch optimizer: all but the transformer's biases, and those."""
        named = [*self.named_parameters()]
        return [
            {"params": [p for name, p in named if _part(name) != "biases"], "lr": learning_rate},
            {"params": [p for name, p in named if _part(name) == "biases"], "lr": bias_learning_rate},
        ]

    def sizes(self) -> dict[str, int]:
        """Parameters by part: ``offsets`` (dense), ``biases`` (of linear maps and layer norms), ``norms`` (their weights), ``readout``."""
        counts = dict.fromkeys(("offsets", "biases", "norms", "readout"), 0)
        for name, parameter in self.named_parameters():
            counts[_part(name)] += parameter.numel()
        return counts

    def _states(self, shared: FrozenPass, own: Architecture | torch.Tensor | None) -> Iterator[torch.Tensor]:
        hidden = functional.dropout(shared.embedded, self.embedding_dropout, self.training)
        for layer, cached, selectors in zip(self.layers, shared.layers, self._selectors(own), strict=True):
            hidden = layer(cached, hidden, shared.mask, selectors)
            yield hidden

    def _selectors(self, own: Architecture | torch.Tensor | None) -> list[tuple]:
        if isinstance(own, torch.Tensor):
            if own.shape != (len(self.layers), 3):
                raise ValueError(f"selectors of shape {tuple(own.shape)} for {len(self.layers)} layers of 3")
            rows = [tuple(row.unbind()) for row in own.unbind()]
        else:
            rows = list((own or self.architecture).layers)
        for j, (layer, (_, *asked)) in enumerate(zip(self.layers, rows, strict=True), start=1):
            owned = (layer.attention, layer.feed_forward)
            if any(choice is not False and part is None for choice, part in zip(asked, owned, strict=True)):
                raise ValueError(f"the task does not own what it is to compute in layer {j}")
        return rows


def _part(name: str) -> str:
    """The part of a task that the parameter ``name`` is counted in."""
    if name.startswith("readout."):
        return "readout"
    if name.endswith(".bias"):
        return "biases"
    return "norms" if ".norm." in name else "offsets"
