"""The optimizer: every parameter's learning rate and decay, and decay toward the weights training began with."""

import re

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoConfig, AutoModel

from paperlib import backbones
from paperlib.errors import InputError
from paperlib.training import Loop, Method, Settings
from paperlib.training.optimizer import adamw, algorithm, layer_rates

FORMS = ["electra", "revisit"]
RANDOM = [name for name, entry in backbones.catalogue().items() if entry["kind"] == "random"]


def on_meta(name):
    with torch.device("meta"):
        return backbones.load(name, 2, seed=0).model


# --- learning rates layer by layer


# Layers from the bottom; None: the head; "rest": embeddings and what belongs to no layer.
LAYERS = {
    "bert-large-config": (24, {r"bert\.encoder\.layer\.(\d+)\.": 0, r"(bert\.pooler|classifier)\.": None}),
    "tiny-roberta": (2, {r"roberta\.encoder\.layer\.(\d+)\.": 0, r"classifier\.(dense|out_proj)\.": None}),
    "tiny-electra": (2, {r"electra\.encoder\.layer\.(\d+)\.": 0, r"classifier\.(dense|out_proj)\.": None}),
    "tiny-deberta": (2, {r"deberta\.encoder\.layer\.(\d+)\.": 0, r"(pooler\.dense|classifier)\.": None}),
    "tiny-bart": (
        4,
        {
            r"model\.encoder\.layers\.(\d+)\.": 0,
            r"model\.decoder\.layers\.(\d+)\.": 2,
            r"classification_head\.": None,
        },
    ),
    "t5-small-config": (12, {r"encoder\.block\.(\d+)\.": 0, r"decoder\.block\.(\d+)\.": 6}),
}
REST = {
    "bert-large-config": r"bert\.embeddings\.",
    "tiny-roberta": r"roberta\.embeddings\.",
    "tiny-electra": r"electra\.(embeddings|embeddings_project)\.",
    "tiny-deberta": r"deberta\.(embeddings\.|encoder\.rel_embeddings\.|encoder\.LayerNorm\.)",
    "tiny-bart": r"model\.(shared|(encoder|decoder)\.(embed_positions|layernorm_embedding))\.",
    "t5-small-config": r"(shared|(encoder|decoder)\.final_layer_norm)\.",
}


@pytest.mark.parametrize("form, top", [("electra", 2), ("revisit", 1)])
@pytest.mark.parametrize("name", LAYERS)
def test_every_parameter_has_its_layers_rate(name, form, top):
    """Of L layers in all, the decoder's on the encoder's, the top one decay**top, each below one power more, the embeddings last."""
    (layers, patterns), decay = LAYERS[name], 0.5
    model, counted = on_meta(name), 0
    for parameter, rate in layer_rates(model, decay, form).items():
        found = [(re.match(pattern, parameter), below) for pattern, below in patterns.items()]
        found = [(match, below) for match, below in found if match]
        if not found:
            assert re.match(REST[name], parameter), parameter
            assert rate == decay ** (layers + top), parameter
        elif found[0][1] is None:
            assert rate == 1, parameter
        else:
            from_the_bottom = int(found[0][0][1]) + found[0][1]
            assert rate == decay ** (layers - 1 - from_the_bottom + top), parameter
        counted += 1
    assert counted == len(list(model.named_parameters()))


@pytest.mark.parametrize("form, top, bottom, embeddings", [("electra", 2, 25, 26), ("revisit", 1, 24, 25)])
def test_the_powers_of_bert_large(form, top, bottom, embeddings):
    rates = layer_rates(on_meta("bert-large-config"), 0.9, form)
    assert rates["classifier.weight"] == rates["bert.pooler.dense.bias"] == 1
    assert rates["bert.encoder.layer.23.output.dense.weight"] == 0.9**top
    assert rates["bert.encoder.layer.0.attention.self.query.bias"] == 0.9**bottom
    assert rates["bert.embeddings.word_embeddings.weight"] == rates["bert.embeddings.LayerNorm.bias"] == 0.9**embeddings
    assert sorted(set(rates.values())) == sorted({1.0, *(0.9**power for power in range(top, embeddings + 1))})


def test_an_output_layer_of_its_own_is_a_head():
    """As T5 1.1's weights have it; of the first T5 it is the embedding."""
    model = on_meta("t5-small-config")
    assert "lm_head.weight" not in layer_rates(model, 0.5, "revisit")
    model.lm_head.weight = torch.nn.Parameter(model.shared.weight.detach().clone())
    rates = layer_rates(model, 0.5, "revisit")
    assert (rates["lm_head.weight"], rates["shared.weight"]) == (1, 0.5**13)


@pytest.mark.parametrize("form", FORMS)
def test_without_decay_all_rates_are_one_whatever_the_model(form):
    assert layer_rates(torch.nn.Linear(2, 2), 1.0, form) == {"weight": 1, "bias": 1}


@pytest.mark.parametrize("decay", [0.0, -0.1, 1.5, float("nan")])
def test_a_decay_outside_its_range_is_refused(decay):
    with pytest.raises(InputError, match=r"layer_decay must lie in \(0, 1\], got .*; 1 is no decay"):
        layer_rates(torch.nn.Linear(2, 2), decay, "electra")


def test_an_unknown_form_is_refused():
    with pytest.raises(InputError, match="unknown layer_decay_form 'google'; known: electra, revisit"):
        layer_rates(torch.nn.Linear(2, 2), 0.9, "google")


def test_a_model_without_stacks_is_refused():
    model = AutoModel.from_config(AutoConfig.for_model("convnext", hidden_sizes=[4] * 4, depths=[1] * 4))
    with pytest.raises(InputError, match="no stack of layers found in a model of type 'convnext'"):
        layer_rates(model, 0.9, "electra")


# --- groups


def groups_by_name(model, settings):
    """``name -> (rate, decay)``, checking that each parameter stands in one group only."""
    optimizer = adamw(model, settings)
    found = [(p, group) for group in optimizer.param_groups for p in group["params"]]
    assert len(found) == len({p for p, _ in found}) == len(list(model.parameters()))
    names = {parameter: name for name, parameter in model.named_parameters()}
    return {names[p]: (group["lr"], group["weight_decay"]) for p, group in found}


@pytest.mark.parametrize("decay", [1.0, 0.8])
@pytest.mark.parametrize("name", RANDOM)
def test_groups_hold_every_parameter_once_at_its_rate(make_settings, name, decay):
    """Decay everywhere but on biases and on the weights of layer norms, told by the module and not by the name."""
    model = backbones.load(name, 2, seed=0).model
    rates = layer_rates(model, decay, "electra")
    found = groups_by_name(model, make_settings(layer_decay=decay, learning_rate=3e-3, weight_decay=0.2))
    modules = list(model.modules())
    undecayed = {module.bias for module in modules if isinstance(getattr(module, "bias", None), torch.nn.Parameter)}
    undecayed |= {module.weight for module in modules if type(module).__name__ in ("LayerNorm", "T5LayerNorm")}
    for key, parameter in model.named_parameters():
        assert found[key] == (3e-3 * rates[key], 0.0 if parameter in undecayed else 0.2), key


def test_frozen_parameters_are_in_no_group(make_settings):
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2))
    model[0].requires_grad_(False)
    assert {p for group in adamw(model, make_settings()).param_groups for p in group["params"]} == {
        model[1].weight,
        model[1].bias,
    }


def test_rates_fall_with_the_schedule_all_alike(make_problem, make_settings):
    """Linear warm-up and fall of the head's rate; every other group its multiple."""
    loop = Loop(make_problem(), Method(), make_settings(layer_decay=0.5, warmup_ratio=0.5))
    factors = []
    for _ in range(6):
        shares = {group["lr"] / group["initial_lr"] for group in loop.optimizer.param_groups}
        assert len({round(share, 12) for share in shares}) == 1
        factors.append(shares.pop())
        loop.step([np.arange(4)])
    assert factors == pytest.approx([0, 1 / 3, 2 / 3, 1, 2 / 3, 1 / 3])
    initial = {group["initial_lr"] for group in loop.optimizer.param_groups}
    assert initial == {1e-3 * 0.5**power for power in (0, 2, 3, 4)}


# --- decay toward the start


class Toy(torch.nn.Module):
    """A weight that decays and a bias that does not."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(3, 2, dtype=torch.float64)


def pulled(make_settings, rate, decay):
    model = Toy()
    settings = make_settings(learning_rate=rate, weight_decay=decay, decay_towards="pretrained")
    return model, adamw(model, settings)


def set_gradients(model, value):
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, value)


@given(rate=st.floats(1e-5, 0.5), decay=st.floats(1e-3, 0.9), steps=st.integers(1, 6), away=st.floats(-3, 3, width=32))
def test_without_gradient_the_distance_shrinks_by_one_factor(rate, decay, steps, away):
    """W - W0 becomes (1 - lr wd)^n of itself; what does not decay stays where it is."""
    settings = Settings(1, 1, rate, 0, weight_decay=decay, decay_towards="pretrained")
    model = Toy()
    optimizer = adamw(model, settings)
    start = model.layer.weight.detach().clone()
    with torch.no_grad():
        model.layer.weight.add_(away), model.layer.bias.add_(away)
    bias = model.layer.bias.detach().clone()
    for _ in range(steps):
        set_gradients(model, 0.0)
        optimizer.step()
    expected = start + away * (1 - rate * decay) ** steps
    torch.testing.assert_close(model.layer.weight.detach(), expected, rtol=0, atol=1e-14)
    assert torch.equal(model.layer.bias, bias)


def test_the_optimizers_own_decay_is_off_and_adam_goes_on_from_the_pulled_weights(make_settings):
    """W1 = W + lr wd (W0 - W); W2 = W1 - lr sign(g) at the first step."""
    model, optimizer = pulled(make_settings, 0.1, 0.5)
    assert {group["weight_decay"] for group in optimizer.param_groups} == {0.0}
    start = model.layer.weight.detach().clone()
    with torch.no_grad():
        model.layer.weight.add_(2.0)
    set_gradients(model, 3.0)
    optimizer.step()
    torch.testing.assert_close(model.layer.weight.detach(), start + 2 * 0.95 - 0.1, rtol=0, atol=1e-8)


def test_weights_without_gradient_are_not_pulled(make_settings):
    """As AdamW decays none of them: a skipped step moves nothing."""
    model, optimizer = pulled(make_settings, 0.1, 0.5)
    with torch.no_grad():
        model.layer.weight.add_(2.0)
    before = model.layer.weight.detach().clone()
    optimizer.step()
    assert torch.equal(model.layer.weight, before)


@pytest.mark.parametrize("decay", [0.0, 0.3])
def test_towards_zero_is_adamws_own_decay(make_settings, decay):
    """W shrinks by 1 - lr wd itself."""
    model = Toy()
    optimizer = adamw(model, make_settings(learning_rate=0.1, weight_decay=decay))
    before = model.layer.weight.detach().clone()
    set_gradients(model, 0.0)
    optimizer.step()
    torch.testing.assert_close(model.layer.weight.detach(), before * (1 - 0.1 * decay), rtol=0, atol=1e-15)


def test_a_resumed_run_is_pulled_towards_the_same_start(make_problem, make_settings, tmp_path):
    """Not towards the weights of the checkpoint."""

    def loop(folder, checkpoint_seconds=1e9):
        told = make_settings(
            learning_rate=0.01, weight_decay=0.9, decay_towards="pretrained", checkpoint_seconds=checkpoint_seconds
        )
        return Loop(make_problem(), Method(), told, folder)

    class Killed(Exception):
        pass

    def killing(step):
        if step == 4:
            raise Killed
        return Method.forward_weights(broken.method, step)

    whole, broken = loop(None), loop(tmp_path, -1.0)
    losses = whole.run().losses
    broken.method.forward_weights = killing
    with pytest.raises(Killed):
        broken.run()
    resumed = loop(tmp_path)
    assert resumed.resumed and resumed.run().losses == losses
    for one, other in zip(resumed.model.parameters(), whole.model.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.AdamW])
def test_an_optimizer_is_known_by_the_class_of_torchs_it_builds_on(kind):
    class Ours(kind):
        pass

    parameters = [torch.nn.Parameter(torch.ones(1))]
    assert [algorithm(each(parameters, lr=1.0)) for each in (kind, Ours)] == [kind.__name__] * 2
