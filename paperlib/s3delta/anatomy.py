"""What a transformer layer is made of, counted and recomputed by hand (appendix A.1)."""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass

import torch
from torch import nn
from torch.nn import functional

from paperlib import backbones
from paperlib.s3delta.positions import LINEARS, Place, places

T5_TOKENS = 32100  # of T5's tokenizer, to which the published code cuts the vocabulary
HEADS = (1, 2, 4, 8, 16)
ATTENTION = ("Q", "K", "V", "O")
FEED_FORWARD = tuple(role for role in LINEARS if role not in ATTENTION)


@dataclass(frozen=True)
class Layer:
    """Scalars of one layer by sub-module. ``attention_extra``: within self-attention, but in none of its four linear maps."""

    side: str
    index: int
    self_attention: int
    attention_extra: int
    cross_attention: int
    feed_forward: int
    norms: int
    elsewhere: int

    @property
    def numel(self) -> int:
        """All scalars of the layer."""
        return sum(value for name, value in asdict(self).items() if name not in ("side", "index"))


def shapes(name: str, vocabulary: int | None = None, **changed) -> nn.Module:
    """The backbone ``name`` with two outputs; without storage (on the meta device) where it is made from a configuration.

    ``vocabulary`` and ``changed`` replace entries of that configuration.
    """
    entry = backbones.catalogue().get(name)
    if entry is None or entry["kind"] == "embedded":
        return backbones.load(name, 2, seed=0).model
    from transformers import AutoModelForSeq2SeqLM, AutoModelForSequenceClassification

    config = backbones.configuration(name)
    config.update({"vocab_size": vocabulary or config.vocab_size, **changed})
    kind = AutoModelForSeq2SeqLM if config.model_type == "t5" else AutoModelForSequenceClassification
    with torch.device("meta"):
        return kind.from_config(config)


def layers(model: nn.Module) -> list[Layer]:
    """Every layer of every stack, bottom to top, each parameter counted in exactly one sub-module."""
    names = {module: name for name, module in model.named_modules()}
    found = []
    for side, stack in zip(("encoder", "decoder"), backbones.stacks(model), strict=False):
        for index, layer in enumerate(stack):
            here = {place.path: place for place in places(model) if (place.side, place.layer) == (side, index)}
            counts = dict.fromkeys(list(Layer.__dataclass_fields__)[2:], 0)
            for name, parameter in layer.named_parameters():
                counts[_submodule(f"{names[layer]}.{name}", here)] += parameter.numel()
            found.append(Layer(side, index, **counts))
    return found


def _submodule(parameter: str, here: dict[str, Place]) -> str:
    """The field of :class:`Layer` a parameter belongs to."""
    role = next((p.role for path, p in here.items() if path == parameter.rpartition(".")[0]), "")
    inner = {path.rpartition(".")[0] for path, place in here.items() if place.role == "Q"}
    if role.endswith("LN"):
        return "norms"
    if role in (*ATTENTION, "SelfAttn"):
        return "self_attention"
    if role in (*FEED_FORWARD, "FFN"):
        return "feed_forward"
    if any(parameter.startswith(f"{path}.") for path in inner):
        return "attention_extra"
    return "cross_attention" if "EncDecAttention" in parameter or "encoder_attn" in parameter else "elsewhere"


def by_heads(name: str) -> dict[int, int]:
    """Scalars of the configuration ``name`` by its number of attention heads, their joint width unchanged."""
    config = backbones.configuration(name)
    found = {}
    for heads in HEADS:
        # BERT's heads share its hidden width; T5's have a width of their own.
        width = {"d_kv": config.d_kv * config.num_heads // heads} if config.model_type == "t5" else {}
        key = "num_heads" if config.model_type == "t5" else "num_attention_heads"
        found[heads] = sum(p.numel() for p in shapes(name, **{key: heads}, **width).parameters())
    return found


def inner_width(model: nn.Module) -> int:
    """d_m, of the feed-forward layer."""
    return modules(model, 0)["W1"].out_features


def has_biases(model: nn.Module) -> bool:
    """Whether the feed-forward layer has b1 and b2."""
    hosts = modules(model, 0)
    return all(hosts[role].bias is not None for role in ("W1", "W2"))


def calls(model: nn.Module, side: str, index: int, seed: int = 0) -> list[str]:
    """Roles of one layer's places in the order in which a forward pass uses them; blocks, which have no order, left out."""
    order, handles = [], []
    for place in places(model):
        if (place.side, place.layer) == (side, index) and place.role not in ("SelfAttn", "FFN", "Final_LN"):
            hook = _noting(order, place.role)
            handles.append(model.get_submodule(place.path).register_forward_pre_hook(hook))
    logits(model, seed)
    for handle in handles:
        handle.remove()
    return order


def _noting(order: list[str], role: str) -> Callable:
    def before(host, inputs):
        order.append(role)

    return before


@torch.no_grad()
def logits(model: nn.Module, seed: int, rows: int = 2, tokens: int = 6) -> torch.Tensor:
    """What the model says of ``rows`` rows of random tokens."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(1000, model.config.vocab_size, (rows, tokens), generator=generator)
    if model.config.eos_token_id is not None:
        ids[:, -1] = model.config.eos_token_id  # BART's head reads there
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if model.config.model_type == "t5":
        inputs["decoder_input_ids"] = ids.flip(1)
    return model(**inputs).logits


# --- the sub-modules by hand


def layer_norm(x: torch.Tensor, s: torch.Tensor, b: torch.Tensor, epsilon: float = 0.0) -> torch.Tensor:
    """Equation (21): (x - mean) / std * s + b over the last axis, std of the population; ``epsilon`` is added to the variance."""
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + epsilon).sqrt() * s + b


def rms_norm(x: torch.Tensor, s: torch.Tensor, epsilon: float) -> torch.Tensor:
    """T5's norm: x / rms * s, no mean and no bias; its mean square is taken in fp32 whatever x is, as the model does."""
    return x * torch.rsqrt(x.float().square().mean(-1, keepdim=True) + epsilon) * s


def gelu(x: torch.Tensor) -> torch.Tensor:
    """The tanh form of GELU, written out."""
    return x / 2 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def linear(host: nn.Linear, x: torch.Tensor) -> torch.Tensor:
    """x W + b with the host's own weights; no b where it has none."""
    return x @ host.weight.T + (0 if host.bias is None else host.bias)


def normalised(host: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """What a norm of either kind computes."""
    if isinstance(host, nn.LayerNorm):
        return layer_norm(x, host.weight, host.bias, host.eps)
    return rms_norm(x, host.weight, host.variance_epsilon)


def attended(hosts: dict[str, nn.Module], x: torch.Tensor, heads: int, bias=0.0, scaled: bool = True) -> torch.Tensor:
    """Multi-head self-attention of x (s, d) from its four linear maps alone. ``bias``: added to the scores, (heads, s, s)."""
    q, k, v = (linear(hosts[role], x).view(len(x), heads, -1).transpose(0, 1) for role in "QKV")
    scores = q @ k.transpose(1, 2) / (math.sqrt(q.shape[-1]) if scaled else 1.0) + bias
    return linear(hosts["O"], (scores.softmax(-1) @ v).transpose(0, 1).reshape(len(x), -1))


def fed_forward(hosts: dict[str, nn.Module], x: torch.Tensor, activation: Callable) -> torch.Tensor:
    """sigma(x W1 + b1) W2 + b2."""
    return linear(hosts["W2"], activation(linear(hosts["W1"], x)))


def post_norm_layer(hosts: dict[str, nn.Module], x: torch.Tensor, heads: int) -> torch.Tensor:
    """BERT's layer: each sub-layer, its skip connection, then the norm (21)."""
    hidden = normalised(hosts["SelfAttn.LN"], x + attended(hosts, x, heads))
    return normalised(hosts["FFN.LN"], hidden + fed_forward(hosts, hidden, functional.gelu))


def pre_norm_layer(hosts: dict[str, nn.Module], x: torch.Tensor, heads: int, bias: torch.Tensor) -> torch.Tensor:
    """T5's encoder layer: the norm, the sub-layer, then its skip connection; scores are not scaled."""
    hidden = x + attended(hosts, normalised(hosts["SelfAttn.LN"], x), heads, bias, scaled=False)
    return hidden + fed_forward(hosts, normalised(hosts["FFN.LN"], hidden), torch.relu)


def sublayers(hosts: dict[str, nn.Module], heads: int) -> dict[str, Callable[[torch.Tensor], torch.Tensor]]:
    """The three sub-layers of (s, d) hidden states, each without its skip connection."""
    return {
        "self-attention": lambda x: attended(hosts, x, heads),
        "feed-forward": lambda x: fed_forward(hosts, x, torch.relu),
        "norm": lambda x: normalised(hosts["FFN.LN"], x),
    }


@torch.no_grad()
def norm_errors(host: nn.Module, seed: int, tokens: int = 64) -> dict[str, float]:
    """Relative error of four formulas for a norm, on random hidden states of unit variance, in float64."""
    x = torch.randn(tokens, len(host.weight), generator=torch.Generator().manual_seed(seed)).to(host.weight.dtype)
    x = (x - x.mean(-1, keepdim=True)) / x.std(-1, keepdim=True) + 0.5
    s, b = host.weight, getattr(host, "bias", None)
    b = torch.zeros_like(s) if b is None else b
    centred = isinstance(host, nn.LayerNorm)
    epsilon = host.eps if centred else host.variance_epsilon
    formulas = {
        "(21)": layer_norm(x, s, b),
        "(21) with ε": layer_norm(x, s, b, epsilon),
        "(21) with the sample's std": (x - x.mean(-1, keepdim=True)) / x.std(-1, keepdim=True) * s + b,
        "H / rms · s": rms_norm(x, s, epsilon),
    }
    return {name: relative(found, host(x)) for name, found in formulas.items()}


@torch.no_grad()
def layer_error(model: nn.Module, seed: int, index: int = 0, tokens: int = 6) -> float:
    """Largest relative difference between an encoder layer (float64) and the layer written out, on random hidden states."""
    x = torch.randn(tokens, model.config.hidden_size, generator=torch.Generator().manual_seed(seed)).to(torch.float64)
    layer, hosts, heads = backbones.stacks(model)[0][index], modules(model, index), model.config.num_attention_heads
    if model.config.model_type == "t5":
        attention = layer.layer[0].SelfAttention
        bias = attention.compute_bias(tokens, tokens)[0] if attention.has_relative_attention_bias else 0.0
        theirs, ours = layer(x[None])[0], pre_norm_layer(hosts, x, heads, bias)
    else:
        theirs, ours = layer(x[None]), post_norm_layer(hosts, x, heads)
    theirs = theirs[0] if isinstance(theirs, tuple) else theirs
    return relative(ours, theirs.reshape(ours.shape))


def modules(model: nn.Module, index: int) -> dict[str, nn.Module]:
    """Role -> module of one encoder layer."""
    at = (p for p in places(model) if (p.side, p.layer) == ("encoder", index))
    return {place.role: model.get_submodule(place.path) for place in at}


def relative(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """Largest absolute difference over the largest absolute value."""
    return ((ours - theirs).abs().max() / theirs.abs().max()).item()


def interaction(function: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor) -> float:
    """Largest |d out_i / d in_j| over pairs of different tokens i and j; x (s, d)."""
    jacobian = torch.autograd.functional.jacobian(function, x)
    own = torch.eye(len(x), dtype=torch.bool)[:, None, :, None].expand(jacobian.shape)
    return jacobian.masked_fill(own, 0.0).abs().max().item()
