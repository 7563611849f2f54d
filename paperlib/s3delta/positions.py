"""Where delta modules may stand: candidate positions of T5-type and BERT-type models, found by structure (appendix A).

Every layer has places by role: linear maps Q, K, V, O, W1, W2; norms SelfAttn.LN, CrossAttn.LN, FFN.LN; and the outputs of its self-attention
and feed-forward blocks before the residual is added, SelfAttn and FFN. Cross-attention itself, embeddings, relative biases and output layers
are no candidates. The mapping beyond T5 is ours: the published search runs T5 alone.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from paperlib import backbones
from paperlib.errors import InputError
from paperlib.s3delta.deltas import Adapter, BitFit, Delta, LNFiT, LoRA, LowRankAdapter

LINEARS = ("Q", "K", "V", "O", "W1 gate", "W1", "W2")
NORMS = ("SelfAttn.LN", "CrossAttn.LN", "FFN.LN", "Final_LN")
BLOCKS = ("SelfAttn", "FFN")

ROWS = (
    *(f"{role} LoRA" for role in LINEARS),
    *(f"{role} LRA" for role in BLOCKS),
    *("SelfAttn.LN BitFit", "Q BitFit", "K BitFit", "V BitFit", "O BitFit", "CrossAttn.LN BitFit", "FFN.LN BitFit"),
    *("W1 gate BitFit", "W1 BitFit", "W2 BitFit", "Final_LN BitFit"),
    *(f"{role} LNFiT" for role in NORMS),
)
"""Rows of the heat map in the order of Figure 9, which has no "W1 gate": gated feed-forward blocks alone have one."""

TITLES = {"lora": "LoRA", "bitfit": "BitFit", "lnfit": "LNFiT", "lra": "LRA", "adapter": "Adapter"}


@dataclass(frozen=True)
class Position:
    """A place for one delta module.

    ``type``: lora, bitfit, lnfit, lra or adapter. ``path``: dotted name of the host module. ``side``: encoder or decoder. ``layer``: index in its
    stack; that of the last layer for final norms. ``role``: see the module. ``rank``: LoRA's and LRA's.
    """

    type: str
    path: str
    side: str
    layer: int
    role: str
    rank: int = 1

    @property
    def name(self) -> str:
        """Unique within a model, such as ``encoder.block.0.layer.0.SelfAttention.q:lora``."""
        return f"{self.path}:{self.type}"

    @property
    def row(self) -> str:
        """Row of the heat map, one of ``ROWS`` for the search spaces."""
        return f"{self.role} {TITLES[self.type]}"

    @property
    def parallel(self) -> bool:
        """Whether the delta reads the host's input; else it reads the host's output with the parallel deltas added."""
        return self.type in ("lora", "lnfit")

    def size(self, model: nn.Module) -> int:
        """n_i, trainable scalars of the delta module; nothing is drawn."""
        with torch.device("meta"):
            return self._delta(model, model.get_submodule(self.path)).numel

    def delta(self, model: nn.Module) -> Delta:
        """A fresh delta module for this place, on the host's device in its precision."""
        host = model.get_submodule(self.path)
        sample = next(host.parameters())
        return self._delta(model, host).to(device=sample.device, dtype=sample.dtype)

    def _delta(self, model: nn.Module, host: nn.Module) -> Delta:
        match self.type:
            case "lora":
                return LoRA(host.in_features, host.out_features, self.rank)
            case "bitfit":
                return BitFit(host.out_features if isinstance(host, nn.Linear) else len(host.weight))
            case "lnfit":
                return LNFiT(host)
            case "lra":
                return LowRankAdapter(model.config.hidden_size, rank=self.rank)
            case _:
                return Adapter(model.config.hidden_size)


@dataclass(frozen=True)
class Place:
    """A module of the model with its role."""

    path: str
    side: str
    layer: int
    role: str

    def position(self, type: str, rank: int = 1) -> Position:
        return Position(type, self.path, self.side, self.layer, self.role, rank)


def candidates(model: nn.Module, space: str) -> list[Position]:
    """All positions of the search space "M" or "L", in the published order: the order of ties.

    M (S3Delta-M): LoRA and BitFit on every linear map, LNFiT and BitFit on every norm, layer by layer; then LRA on every block output. L
    (S3Delta-L): LoRA on every linear map. InputError: an unknown space, a model without the places.
    """
    found = places(model)
    if space == "L":
        return _at(found, LINEARS, "lora")
    if space != "M":
        raise InputError(f"unknown search space {space!r}; known: M, L")
    first = [
        place.position(type)
        for place in found
        if place.role not in BLOCKS
        for type in (("lora" if place.role in LINEARS else "lnfit"), "bitfit")
    ]
    return first + _at(found, BLOCKS, "lra")


def baseline(model: nn.Module, name: str) -> list[Position]:
    """The manual placement ``name`` of ``BASELINES``: all positions of one type at the usual places. InputError: unknown name."""
    if name not in BASELINES:
        raise InputError(f"unknown baseline {name!r}; known: {', '.join(BASELINES)}")
    return BASELINES[name](places(model)) + (_output_bias(model) if name == "bitfit" else [])


def _at(found: Iterable[Place], roles: tuple[str, ...], type: str, rank: int = 1) -> list[Position]:
    return [place.position(type, rank) for place in found if place.role in roles]


BASELINES = {
    "adapter": partial(_at, roles=BLOCKS, type="adapter"),
    "lora_r8": partial(_at, roles=("Q", "V"), type="lora", rank=8),
    "lora_r1": partial(_at, roles=("Q", "V"), type="lora", rank=1),
    "bitfit": partial(_at, roles=LINEARS + NORMS, type="bitfit"),
    "lnfit": partial(_at, roles=NORMS, type="lnfit"),
    "lra": partial(_at, roles=BLOCKS, type="lra"),
}


def _output_bias(model: nn.Module) -> list[Position]:
    """BitFit on the output layer of a text-to-text model, which has no head of its own to train."""
    output = model.get_output_embeddings()
    path = next((name for name, module in model.named_modules() if module is output), None)
    return [] if path is None else [Position("bitfit", path, "decoder", len(backbones.stacks(model)[-1]) - 1, "Output")]


def places(model: nn.Module) -> list[Place]:
    """Every place of the model, in the order of its modules. InputError for a model whose layers have other names."""
    names = {module: name for name, module in model.named_modules()}
    found: list[Place] = []
    for side, stack in zip(("encoder", "decoder"), backbones.stacks(model), strict=False):
        for index, layer in enumerate(stack):
            found += _of_layer(layer, names[layer], side, index, model)
        parent = names[stack].rpartition(".")[0]
        if hasattr(model.get_submodule(parent), "final_layer_norm"):
            found.append(Place(f"{parent}.final_layer_norm", side, len(stack) - 1, "Final_LN"))
    order = {name: number for number, name in enumerate(names.values())}
    return sorted(found, key=lambda place: order[place.path])


def _of_layer(layer: nn.Module, name: str, side: str, index: int, model: nn.Module) -> Iterator[Place]:
    family = next((paths for paths in FAMILIES if all(_has(layer, path) for path in paths.values())), None)
    if family is None:
        raise InputError(
            f"no delta positions known for layers of a model of type {model.config.model_type!r}: give one built like T5, BERT, "
            "RoBERTa, ELECTRA, DeBERTa-v2 or BART"
        )
    return (Place(f"{name}.{path}", side, index, role) for role, path in family.items())


def _has(layer: nn.Module, path: str) -> bool:
    try:
        layer.get_submodule(path)
    except AttributeError:
        return False
    return True


def _t5(decoder: bool, gated: bool) -> dict[str, str]:
    attention, block = "layer.0.SelfAttention", f"layer.{2 if decoder else 1}.DenseReluDense"
    cross = {"CrossAttn.LN": "layer.1.layer_norm"} if decoder else {}
    wide = {"W1 gate": f"{block}.wi_0", "W1": f"{block}.wi_1"} if gated else {"W1": f"{block}.wi"}
    norms = {"SelfAttn.LN": "layer.0.layer_norm", **cross, "FFN.LN": block.replace("DenseReluDense", "layer_norm")}
    linears = {role: f"{attention}.{role.lower()}" for role in ("Q", "K", "V", "O")} | wide | {"W2": f"{block}.wo"}
    return {"SelfAttn": attention, "FFN": block} | linears | norms


def _bert(suffix: str) -> dict[str, str]:
    """Blocks end where their last linear map does: what follows is the residual and the norm."""
    attention, block = "attention.output", "output"
    inner = {role: f"attention.self.{name}{suffix}" for role, name in (("Q", "query"), ("K", "key"), ("V", "value"))}
    linears = inner | {"O": f"{attention}.dense", "W1": "intermediate.dense", "W2": f"{block}.dense"}
    norms = {"SelfAttn.LN": f"{attention}.LayerNorm", "FFN.LN": f"{block}.LayerNorm"}
    return {"SelfAttn": linears["O"], "FFN": linears["W2"]} | linears | norms


def _bart(decoder: bool) -> dict[str, str]:
    linears = {role: f"self_attn.{role.lower()}_proj" for role in ("Q", "K", "V")}
    linears |= {"O": "self_attn.out_proj", "W1": "fc1", "W2": "fc2"}
    cross = {"CrossAttn.LN": "encoder_attn_layer_norm"} if decoder else {}
    norms = {"SelfAttn.LN": "self_attn_layer_norm", **cross, "FFN.LN": "final_layer_norm"}
    return {"SelfAttn": linears["O"], "FFN": "fc2"} | linears | norms


# Role -> path within a layer; the first whose paths all exist is the layer's, so decoders stand before encoders that lack a norm of theirs.
FAMILIES = [
    *(_t5(decoder, gated) for decoder in (True, False) for gated in (False, True)),
    *(_bert(suffix) for suffix in ("", "_proj")),
    *(_bart(decoder) for decoder in (True, False)),
]
