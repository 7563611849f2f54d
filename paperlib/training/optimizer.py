"""The optimizer of every run: AdamW, with layer-wise learning rates and decay toward the pre-trained weights as options.

It also does what methods add to a step (:class:`paperlib.training.update.Extra`): in one pass on GPUs with Triton, else in turn.
"""

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch

from paperlib import backbones
from paperlib.errors import InputError
from paperlib.training import update
from paperlib.training.in_turn import InTurn
from paperlib.training.one_pass import OnePass

if TYPE_CHECKING:
    from paperlib.training.loop import Settings

# The power of the decay at the top layer; every layer below has one more, the embeddings one more than the bottom layer.
FORMS = {"electra": 2, "revisit": 1}


def adamw(model: torch.nn.Module, settings: "Settings") -> InTurn | OnePass:
    """AdamW (0.9, 0.999, 1e-8) with decay on all but biases and layer norms.

    Learning rates fall from the head to the embeddings where ``settings.layer_decay`` is below 1 (:func:`layer_rates`); with
    ``settings.decay_towards`` "pretrained" weights decay toward the values they have now.
    """
    rates = layer_rates(model, settings.layer_decay, settings.layer_decay_form)
    named = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    alike: dict[tuple[float, float], list[torch.nn.Parameter]] = {}
    for name, parameter in named.items():
        decay = 0.0 if _undecayed(name) else settings.weight_decay
        alike.setdefault((settings.learning_rate * rates[name], decay), []).append(parameter)
    groups = [{"params": p, "lr": lr, "initial_lr": lr, "weight_decay": decay} for (lr, decay), p in alike.items()]
    pull = Pull(groups) if settings.decay_towards == "pretrained" else None
    one_pass = update.in_one_pass(named.values()) and not settings.in_turn
    return (OnePass if one_pass else InTurn)(groups, named, pull)


def algorithm(optimizer: torch.optim.Optimizer) -> str:
    """Name of torch's class that an optimizer is or builds on."""
    return next(each.__name__ for each in type(optimizer).__mro__ if each.__module__.startswith("torch."))


def layer_rates(model: torch.nn.Module, decay: float, form: str) -> dict[str, float]:
    """Multiplier of the learning rate for every parameter by name: layer-wise learning-rate decay (Howard and Ruder 2018).

    Head and pooler 1; the layer l = 1..L counted from the top decay**l in ``form`` "revisit" (Zhang et al. 2021) and decay**(l + 1) in
    "electra" (the official code, whose task head takes one level more); embeddings and whatever else one power below the bottom layer. A
    decoder stands on top of its encoder. InputError: a decay outside (0, 1], an unknown form.
    """
    if not 0 < decay <= 1:
        raise InputError(f"layer_decay must lie in (0, 1], got {decay:g}; 1 is no decay")
    if form not in FORMS:
        raise InputError(f"unknown layer_decay_form {form!r}; known: {', '.join(FORMS)}")
    names = [name for name, _ in model.named_parameters()]
    if decay == 1:
        return dict.fromkeys(names, 1.0)
    depths = dict(_depths(model))
    bottom = 1 + max(depths.values())
    return {name: decay ** _exponent(name, model, depths, bottom, FORMS[form]) for name in names}


def _exponent(name: str, model: torch.nn.Module, depths: dict[str, int], bottom: int, top: int) -> int:
    layer = next((depth for prefix, depth in depths.items() if name.startswith(prefix)), None)
    if layer is not None:
        return layer - 1 + top
    in_body = name.startswith(f"{model.base_model_prefix}.") or model.base_model is model
    # T5's body is the whole model, with an output layer that may have a weight of its own.
    in_head = ".pooler." in name or name.startswith("lm_head.")
    return bottom - 1 + top if in_body and not in_head else 0


def _depths(model: torch.nn.Module) -> Iterator[tuple[str, int]]:
    """``(name prefix of a layer, its number counted from the top)``, the top layer being 1."""
    names = {module: name for name, module in model.named_modules()}
    layers = [layer for stack in backbones.stacks(model) for layer in stack]
    for depth, layer in enumerate(reversed(layers), start=1):
        yield f"{names[layer]}.", depth


def _undecayed(name: str) -> bool:
    return name.endswith(".bias") or re.search(r"layer_?norm", name, re.IGNORECASE) is not None


class Pull:
    """W <- W - lr * wd * (W - W0) before the optimizer's own step, whose decay is switched off; W0: ``start``, wd: ``rate``, by parameter.

    PriorWD of Zhang et al. (2021). The published code means to leave the head out and never does; neither do we. Keeps one copy of every
    decayed weight; the start is drawn anew on resume, so checkpoints do not carry it.
    """

    def __init__(self, groups: list[dict[str, Any]]):
        self.start: dict[torch.nn.Parameter, torch.Tensor] = {}
        self.rate: dict[torch.nn.Parameter, float] = {}
        for group in groups:
            for parameter in group["params"]:
                if group["weight_decay"]:
                    self.start[parameter], self.rate[parameter] = parameter.detach().clone(), group["weight_decay"]
            group["weight_decay"] = 0.0

    @torch.no_grad()
    def __call__(self, optimizer: torch.optim.Optimizer, args, kwargs) -> None:
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                if parameter in self.start and parameter.grad is not None:
                    parameter.lerp_(self.start[parameter], group["lr"] * self.rate[parameter])
