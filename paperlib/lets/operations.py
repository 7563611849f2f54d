"""Operations of a BERT-type encoder, in multiply-adds (MAC) for one sequence; one MAC is two FLOPs.

Counted are the matrix products. Embeddings, layer norms, softmax, activations, biases and residual sums are not (under 1 %), nor
is the pooler (0.003 % of BERT-large at length 128).
"""

from dataclasses import dataclass

from paperlib.errors import InputError


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
