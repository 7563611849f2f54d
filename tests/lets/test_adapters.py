"""Adapters, a comparison of LeTS: where they stand, what is trained, and what they cost."""

import copy

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForSequenceClassification

from paperlib import backbones
from paperlib.errors import InputError
from paperlib.lets import comparisons, operations
from paperlib.lets.adapters import SCALE, Adapter, Adapters
from paperlib.lets.operations import Encoder
from paperlib.training import Loop

CLOSE = {"rtol": 0, "atol": 1e-12}


def model_of(name="tiny-bert", attention="eager"):
    config = backbones.configuration(name)
    config.vocab_size, config.hidden_dropout_prob, config.attention_probs_dropout_prob = 50, 0.0, 0.0
    torch.manual_seed(0)
    return AutoModelForSequenceClassification.from_config(config, attn_implementation=attention).double().eval()


def with_adapters(model, bottleneck=4, seed=1):
    torch.manual_seed(seed)
    Adapters(bottleneck).attach(model, total_steps=1)
    return model


IDS = torch.randint(5, 50, (3, 7), generator=torch.Generator().manual_seed(0))


def test_an_adapter_is_a_bottleneck_beside_the_identity():
    torch.manual_seed(0)
    adapter, x = Adapter(6, 2).double(), torch.randn(5, 6, dtype=torch.float64)
    for parameter in adapter.parameters():
        torch.nn.init.normal_(parameter)
    inner = x @ adapter.down.weight.T + adapter.down.bias
    gelu = inner * 0.5 * (1 + torch.erf(inner / 2**0.5))
    torch.testing.assert_close(adapter(x), x + gelu @ adapter.up.weight.T + adapter.up.bias, **CLOSE)


def test_a_new_adapter_passes_on_what_it_gets():
    torch.manual_seed(0)
    adapter, x = Adapter(64, 64), torch.randn(100, 64)
    # Sums of 64 products of 64 products: five times their standard deviation, were gelu the identity.
    assert (adapter(x) - x).abs().max() < 5 * 64 * SCALE**2
    for linear in (adapter.down, adapter.up):
        assert linear.weight.abs().max() <= 2 * SCALE and linear.weight.std() > 0.5 * SCALE
        assert not linear.bias.any()


@pytest.mark.parametrize("name", ["tiny-bert", "tiny-roberta", "tiny-electra"])
def test_they_stand_before_the_residual_sum_of_both_sub_layers(name):
    """Against layers put together from the plain model's own modules."""
    plain = model_of(name)
    changed = with_adapters(copy.deepcopy(plain))
    torch.manual_seed(3)
    for module in changed.modules():
        if isinstance(module, Adapter):
            for parameter in module.parameters():
                torch.nn.init.normal_(parameter, std=0.3)
    hidden = plain.base_model(IDS, output_hidden_states=True).hidden_states[0]
    for layer, ours in zip(plain.base_model.encoder.layer, changed.base_model.encoder.layer, strict=True):
        context = layer.attention.self(hidden)[0]
        out = layer.attention.output
        middle = out.LayerNorm(ours.attention.output.dropout[1](out.dense(context)) + hidden)
        out = layer.output
        hidden = out.LayerNorm(ours.output.dropout[1](out.dense(layer.intermediate(middle))) + middle)
    found = changed.base_model(IDS).last_hidden_state
    torch.testing.assert_close(found, hidden, **CLOSE)
    assert not torch.allclose(found, plain.base_model(IDS).last_hidden_state, atol=0.1)


def test_adapters_layer_norms_and_the_head_are_trained(make_problem, make_settings):
    problem = make_problem()
    pretrained = {*comparisons.pretrained(problem.model)}
    loop = Loop(problem, Adapters(4), make_settings())
    before = {name: weight.detach().clone() for name, weight in problem.model.named_parameters()}
    loop.run()
    changed = {name for name, weight in problem.model.named_parameters() if not torch.equal(weight, before[name])}
    norms = {name for name in pretrained if "LayerNorm" in name}
    ours = {name for name in before if ".dropout.1." in name}
    assert changed == norms | ours | (before.keys() - pretrained - ours) and len(ours) == 2 * 2 * 4


@pytest.mark.parametrize(("bottleneck", "percent"), [(64, 2.1), (256, 8.4)])
def test_parameters_of_bert_large(bottleneck, percent):
    """2 L (2 d m + d + m) and two values per norm and unit: 2.1 % of the encoder's layers at 64, as is printed of them."""
    with torch.device("meta"):
        model = AutoModelForSequenceClassification.from_config(backbones.configuration("bert-large-config"))
    Adapters(bottleneck).attach(model, total_steps=1)
    d, layers = 1024, 24
    added = 2 * layers * (2 * d * bottleneck + d + bottleneck)
    norms = (2 * layers + 1) * 2 * d
    trained = [(n, p.numel()) for n, p in model.named_parameters() if p.requires_grad]
    assert sum(count for name, count in trained if ".pooler." not in name and "classifier" not in name) == added + norms
    assert round(100 * (added + norms) / (layers * 12_596_224), 1) == percent


def test_operations_are_counted_as_torch_does():
    plain, changed = model_of(), with_adapters(model_of(), bottleneck=5)
    counts = []
    for model in (plain, changed):
        with FlopCounterMode(display=False) as counter:
            model(IDS)
        counts.append(counter.get_total_flops())
    assert counts[1] - counts[0] == 2 * 3 * operations.adapters(Encoder(2, 32, 64), 7, 5)


@pytest.mark.parametrize("bottleneck", [0, -3, 2.5])
def test_a_bottleneck_is_a_positive_whole_number(bottleneck):
    with pytest.raises(InputError, match="bottleneck must be a positive whole number"):
        Adapters(bottleneck)


@pytest.mark.parametrize("backbone", ["tiny-deberta", "tiny-t5"])
def test_other_backbones_are_refused(make_problem, make_settings, backbone):
    with pytest.raises(InputError, match="adapters need a model of the BERT type"):
        Loop(make_problem(backbone=backbone), Adapters(), make_settings())
