"""Re-init: exactly the named tensors are drawn anew, from the distributions named."""

import math

import pytest
import torch

from paperlib.dps.re_init import ReInit
from paperlib.errors import InputError
from paperlib.training import Loop

# Where each family keeps the layers of its topmost stack, and its pooler if its body has one.
TOP = {
    "bert": "bert.encoder.layer.",
    "roberta": "roberta.encoder.layer.",
    "electra": "electra.encoder.layer.",
    "deberta-v2": "deberta.encoder.layer.",
    "bart": "model.decoder.layers.",
    "t5": "decoder.block.",
}
POOLER = {"bert": "bert.pooler."}


def used(model):
    """The model with every parameter moved, as training would, so that none is what it is drawn as."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.5 + torch.rand_like(parameter))
    return model


def attach(model, layers):
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    ReInit(layers).attach(model, 10)
    return {name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])}


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_exactly_the_top_layers_and_the_pooler(make_model, family, layers):
    model = used(make_model(family))
    drawn = tuple(f"{TOP[family]}{number}." for number in range(3 - layers, 3)) + (POOLER.get(family, "none"),)
    expected = {name for name, _ in model.named_parameters() if name.startswith(drawn)}
    assert len(expected) > 8 * layers
    assert attach(model, layers) == expected


def close_to_normal(values, std):
    """Mean and standard deviation within five standard errors of those of N(0, std)."""
    n = values.numel()
    assert abs(values.mean().item()) < 5 * std / math.sqrt(n)
    assert abs(values.std(correction=0).item() / std - 1) < 5 / math.sqrt(2 * n)


def test_what_is_drawn(make_model, family):
    """Norms 1, biases 0, and the weights normal and not cut off: together they reach beyond three deviations."""
    model = used(make_model(family))
    if hasattr(model.config, "initializer_range"):
        model.config.initializer_range = 0.05
    std = 0.05 if hasattr(model.config, "initializer_range") else 0.02
    attach(model, 1)
    weights = []
    for name, parameter in model.named_parameters():
        if not name.startswith(f"{TOP[family]}2."):
            continue
        if name.endswith("bias"):
            assert not parameter.any(), name
        elif "norm" in name.lower():
            assert (parameter == 1).all(), name
        else:
            weights.append(parameter.detach().flatten())
            close_to_normal(weights[-1], std)
    assert torch.cat(weights).abs().max() > 3 * std


def test_only_bart_and_t5_have_no_range_of_their_own(make_model, family):
    assert hasattr(make_model(family).config, "initializer_range") == (family not in ("bart", "t5"))


def test_the_pooler_is_drawn_with_its_own_deviation(make_model):
    model = used(make_model("bert"))
    model.config.initializer_range = 0.3
    attach(model, 1)
    close_to_normal(model.bert.pooler.dense.weight.detach(), 0.02)
    assert not model.bert.pooler.dense.bias.any()


def test_a_body_built_without_its_pooler_is_no_problem(make_model):
    model = used(make_model("bert"))
    model.bert.pooler = None
    assert all(name.startswith("bert.encoder.layer.2.") for name in attach(model, 1))


def test_draws_are_a_function_of_the_seed(make_problem, make_settings):
    models = []
    for seed in (0, 0, 1):
        problem = make_problem()
        Loop(problem, ReInit(2), make_settings(seed=seed))
        models.append(dict(problem.model.named_parameters()))
    one, again, other = models
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert not torch.equal(*(each["bert.encoder.layer.1.attention.self.query.weight"] for each in (one, other)))


@pytest.mark.parametrize("layers", [-1, 0, 4])
def test_more_layers_than_there_are_are_refused(make_model, family, layers):
    model = make_model(family)
    with pytest.raises(InputError, match=f"re_init takes 1 to 3 layers, the model's number, got {layers}"):
        ReInit(layers).attach(model, 10)
