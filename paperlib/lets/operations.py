"""Operations of a BERT-type encoder, in multiply-adds (MAC) for one sequence; one MAC is two FLOPs.

Counted are the matrix products. Embeddings, layer norms, softmax, activations, biases and residual sums are not (under 1 %), nor
is the pooler (0.003 % of BERT-large at length 128). The parts of a sub-task are those of the reconstruction (``paperlib.lets.architecture``).
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from paperlib.errors import InputError

if TYPE_CHECKING:
    from paperlib.lets.architecture import Architecture, Own
    from paperlib.lets.readout import ReadoutSizes

Kept = float | Sequence[float]
"""Kept share of the offsets of q, k and v: one for all layers, or one per layer (their mean over the three matrices)."""


@dataclass(frozen=True)
class Encoder:
    """Sizes of an encoder: ``layers`` L, ``hidden`` d, ``intermediate`` f (4d in BERT)."""

    layers: int
    hidden: int
    intermediate: int

    def __post_init__(self):
        for name, size in vars(self).items():
            require_positive(size, name)

    @classmethod
    def of(cls, config) -> "Encoder":
        """Sizes from a transformers configuration of the BERT type."""
        return cls(config.num_hidden_layers, config.hidden_size, config.intermediate_size)


def layer(encoder: Encoder, length: int) -> dict[str, int]:
    """MAC of one layer by sub-module, at ``length`` l tokens.

    ``qkv`` 3ld^2, ``scores_and_context`` 2l^2 d (QK^T, and its softmax times V), ``output`` ld^2, ``feed_forward`` 2ldf.
    """
    require_positive(length, "sequence length")
    d = encoder.hidden
    return {
        "qkv": 3 * length * d**2,
        "scores_and_context": 2 * length**2 * d,
        "output": length * d**2,
        "feed_forward": 2 * length * d * encoder.intermediate,
    }


def total(encoder: Encoder, length: int) -> int:
    """MAC of all layers: ops(BERT) in the appendix's equations (10) to (13)."""
    return encoder.layers * sum(layer(encoder, length).values())


def task_layer(encoder: Encoder, length: int, own: "Own", kept: float, tokens: int | None = None) -> dict[str, float]:
    """MAC of one layer of a sub-task with the selectors ``own``, by sub-module (names of :func:`layer`); nothing for what it shares.

    On a shared input q, k and v cost their ``kept`` share of offsets alone: nnz l. ``tokens``: for how many of the ``length`` l positions
    H^t_j is computed, all unless given; keys and values are always those of all positions. InputError: a kept share outside [0, 1], more
    tokens than the length.
    """
    if not 0 <= kept <= 1:
        raise InputError(f"operations: a kept share of {kept:g}; it must lie in [0, 1]")
    tokens = length if tokens is None else tokens
    require_positive(tokens, "tokens")
    if tokens > length:
        raise InputError(f"operations: {tokens} of {length} tokens; there are no more than the length")
    whole = layer(encoder, length)
    some = {name: macs * tokens // length for name, macs in whole.items()}
    found: dict[str, float] = {}
    if own.attention:
        qkv = (some["qkv"] + 2 * whole["qkv"]) // 3
        found["qkv"] = qkv if own.input else kept * qkv
        found |= {name: some[name] for name in ("scores_and_context", "output")}
    if own.feed_forward:
        found["feed_forward"] = some["feed_forward"]
    return found


def read_above(architecture: "Architecture") -> list[bool]:
    """For each layer j whether the next one reads all of H^t_j: it owns its attention and its input. Of other layers, as of the last,
    the readout's [CLS] is all that anything reads."""
    return [own.input and own.attention for own in architecture.layers[1:]] + [False]


def task(
    encoder: Encoder, length: int, architecture: "Architecture", kept: Kept, only_read: bool = False
) -> list[dict[str, float]]:
    """MAC of a sub-task's layers, from bottom to top, each as :func:`task_layer` gives it; the readout is apart (:func:`readout`).

    ``only_read``: positions that nothing reads (:func:`read_above`) are left out, which the appendix does not speak of; otherwise all of a
    layer is computed, as it counts. InputError: an architecture or ``kept`` shares for another number of layers.
    """
    require_layers(encoder, architecture)
    shares = _per_layer(kept, encoder.layers)
    tokens = [length if above or not only_read else 1 for above in read_above(architecture)]
    return [
        task_layer(encoder, length, own, share, count)
        for own, share, count in zip(architecture.layers, shares, tokens, strict=True)
    ]


def frozen(encoder: Encoder, length: int, architectures: Collection["Architecture"]) -> list[dict[str, int]]:
    """MAC of the frozen pass that sub-tasks of these ``architectures`` share, by layer and sub-module: only what one of them asks for.

    Above the last layer whose results are asked for nothing is computed: the appendix counts 50 % where the bottom half is frozen.
    """
    for architecture in architectures:
        require_layers(encoder, architecture)
    macs = layer(encoder, length)
    found: list[dict[str, int]] = []
    above = False
    for j in reversed(range(encoder.layers)):
        rows = [architecture.layers[j] for architecture in architectures]
        output = above or any(not (own.attention or own.feed_forward) for own in rows)
        attended = output or any(not own.attention for own in rows)
        qkv = attended or any(own.attention and not own.input for own in rows)
        asked = {"qkv": qkv, "scores_and_context": attended, "output": attended, "feed_forward": output}
        found.insert(0, {name: macs[name] for name, wanted in asked.items() if wanted})
        above = qkv
    return found


def readout(layers: int, hidden: int, sizes: "ReadoutSizes", outputs: int) -> dict[str, int]:
    """MAC of a readout: ``aggregation`` of [CLS] of every layer, L d m; ``lstm``, L steps in two directions, 2 L 4h (m + h); ``head``.

    torch's counter sees all of it where an LSTM is a row of products: on the meta device, and in float64 on a CPU. Of a fused one it counts nothing.
    """
    m, h = sizes.aggregation, sizes.lstm
    return {
        "aggregation": layers * hidden * m,
        "lstm": 2 * layers * 4 * h * (m + h),
        "head": 2 * h * outputs,
    }


def adapters(encoder: Encoder, length: int, bottleneck: int) -> int:
    """MAC that two adapters per layer add to a whole model: 4 l d m in each of L layers."""
    require_positive(bottleneck, "bottleneck")
    return encoder.layers * 4 * length * encoder.hidden * bottleneck


def counted(config, length: int) -> dict[str, int]:
    """What torch's operation counter sees in the transformers model of ``config``: MAC of its first layer by sub-module
    (names of :func:`layer`) and of the whole ``encoder``.

    The model is built on the meta device: nothing is allocated or computed. Attention is eager, because the counter does
    not see every fused kernel.
    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode
    from transformers import AutoModel

    require_positive(length, "sequence length")
    with torch.device("meta"), FlopCounterMode(display=False) as counter, torch.no_grad():
        AutoModel.from_config(config, attn_implementation="eager")(torch.zeros(1, length, dtype=torch.long))
    macs = {
        name.partition(".")[2]: {str(op).removeprefix("aten."): flops // 2 for op, flops in by_op.items()}
        for name, by_op in counter.get_flop_counts().items()
    }
    first = "encoder.layer.0"
    return {
        "qkv": macs[f"{first}.attention.self"]["addmm"],
        "scores_and_context": macs[f"{first}.attention.self"]["bmm"],
        "output": macs[f"{first}.attention.output"]["addmm"],
        "feed_forward": macs[f"{first}.intermediate"]["addmm"] + macs[f"{first}.output"]["addmm"],
        "encoder": sum(macs["encoder"].values()),
    }


def require_positive(value: int, name: str) -> None:
    """InputError unless ``value`` is a positive whole number."""
    if not isinstance(value, int) or value < 1:
        raise InputError(f"operations: {name} must be a positive whole number, not {value!r}")


def require_layers(encoder: Encoder, architecture: "Architecture") -> None:
    """InputError unless the architecture is for as many layers as the encoder has."""
    if len(architecture.layers) != encoder.layers:
        raise InputError(
            f"operations: an architecture for {len(architecture.layers)} layers; the encoder has {encoder.layers}"
        )


def _per_layer(kept: Kept, layers: int) -> list[float]:
    shares = [float(kept)] * layers if isinstance(kept, int | float) else [float(share) for share in kept]
    if len(shares) != layers:
        raise InputError(f"operations: kept shares of {len(shares)} layers; the encoder has {layers}")
    return shares
