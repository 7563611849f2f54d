"""A layer's anatomy: counts that add up, layers written out that equal the models', and formulas that tell the norms apart."""

import pytest
import torch

from paperlib import backbones
from paperlib.s3delta import anatomy

EXACT = ["tiny-t5", "tiny-bert"]


@pytest.mark.parametrize("name", ["t5-small-config", "bert-base-config", "tiny-roberta", "tiny-deberta", "tiny-bart"])
def test_every_parameter_of_a_layer_is_counted_once(name):
    model = anatomy.shapes(name)
    found = anatomy.layers(model)
    stacks = [layer for stack in backbones.stacks(model) for layer in stack]
    assert [layer.numel for layer in found] == [sum(p.numel() for p in layer.parameters()) for layer in stacks]
    assert not any(layer.elsewhere for layer in found)


def test_a_t5_layer_of_width_d_has_the_sub_modules_of_its_formulas():
    d, inner, heads = 512, 2048, 8
    encoder, decoder = (side for side in (anatomy.layers(anatomy.shapes("t5-small-config"))[i] for i in (0, -1)))
    assert (encoder.self_attention, encoder.feed_forward, encoder.norms) == (4 * d * d, 2 * d * inner, 2 * d)
    assert encoder.attention_extra == 32 * heads, "32 buckets of relative positions, in the first layer alone"
    assert (decoder.cross_attention, decoder.attention_extra, decoder.norms) == (4 * d * d, 0, 3 * d)


def test_heads_cost_parameters_in_t5_alone():
    bert, t5 = anatomy.by_heads("bert-base-config"), anatomy.by_heads("t5-small-config")
    assert len(set(bert.values())) == 1
    assert {heads: count - t5[1] for heads, count in t5.items()} == {h: 2 * 32 * (h - 1) for h in anatomy.HEADS}


def test_a_vocabulary_can_be_cut():
    whole, cut = (anatomy.shapes("t5-large-config", tokens) for tokens in (None, anatomy.T5_TOKENS))
    assert sum(p.numel() for p in whole.parameters()) - sum(p.numel() for p in cut.parameters()) == 28 * 1024


@pytest.mark.parametrize("name, first", [("tiny-t5", "SelfAttn.LN"), ("tiny-bert", "Q"), ("tiny-bart", "Q")])
def test_the_order_of_calls_tells_pre_norm_from_post_norm(small_model, name, first):
    order = anatomy.calls(small_model(name), "encoder", 0)
    assert order[0] == first and set(order) == {"Q", "K", "V", "O", "W1", "W2", "SelfAttn.LN", "FFN.LN"}


def test_a_decoder_layer_calls_its_cross_attention_norm_between_its_blocks(small_model):
    order = anatomy.calls(small_model("tiny-t5"), "decoder", 1)
    assert order.index("O") < order.index("CrossAttn.LN") < order.index("FFN.LN")


def test_looking_at_calls_leaves_no_hook_behind(small_model):
    model = small_model("tiny-bert")
    anatomy.calls(model, "encoder", 0)
    assert not any(module._forward_pre_hooks for module in model.modules())


@pytest.mark.parametrize("name", EXACT)
@pytest.mark.parametrize("index", [0, 1])
def test_a_layer_written_out_is_the_model_s(small_model, name, index):
    assert anatomy.layer_error(small_model(name), seed=3, index=index) < 1e-14


@pytest.mark.parametrize("name", EXACT)
def test_a_layer_written_out_from_other_weights_is_another(small_model, monkeypatch, name):
    """The comparison is no identity: with one weight of one map changed in the formula it fails."""
    model = small_model(name)
    theirs = anatomy.fed_forward
    monkeypatch.setattr(anatomy, "fed_forward", lambda hosts, x, activation: 1.001 * theirs(hosts, x, activation))
    assert anatomy.layer_error(model, seed=3) > 1e-6


def test_equation_21_is_torch_s_layer_norm():
    x, s, b = (torch.randn(*shape, dtype=torch.float64) for shape in ((5, 7), (7,), (7,)))
    theirs = torch.nn.functional.layer_norm(x, (7,), s, b, 1e-5)
    torch.testing.assert_close(anatomy.layer_norm(x, s, b, 1e-5), theirs, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("name, fits", [("tiny-bert", "(21) with ε"), ("tiny-t5", "H / rms · s")])
def test_one_formula_fits_each_norm(small_model, name, fits):
    errors = anatomy.norm_errors(anatomy.modules(small_model(name), 0)["FFN.LN"], seed=0)
    assert errors[fits] < 1e-14
    assert all(error > 1e-3 for formula, error in errors.items() if not formula.startswith(fits[:4]))


def test_the_sample_s_standard_deviation_is_not_meant(small_model):
    """It is larger than the population's by sqrt(d / (d - 1))."""
    errors = anatomy.norm_errors(anatomy.modules(small_model("tiny-bert"), 0)["FFN.LN"], seed=0)
    assert errors["(21) with the sample's std"] == pytest.approx(1 - (31 / 32) ** 0.5, rel=1e-2)


def test_the_tanh_form_of_gelu():
    x = torch.linspace(-5, 5, 101, dtype=torch.float64)
    theirs = torch.nn.functional.gelu(x, approximate="tanh")
    torch.testing.assert_close(anatomy.gelu(x), theirs, rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("name", EXACT)
def test_tokens_meet_in_self_attention_alone(small_model, name):
    model = small_model(name)
    functions = anatomy.sublayers(anatomy.modules(model, 0), model.config.num_attention_heads)
    x = torch.randn(3, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = {part: anatomy.interaction(function, x) for part, function in functions.items()}
    assert found["self-attention"] > 0 and found["feed-forward"] == found["norm"] == 0


def test_widths_and_biases():
    assert anatomy.inner_width(anatomy.shapes("bert-large-config")) == 4096
    assert anatomy.has_biases(anatomy.shapes("tiny-bert")) and not anatomy.has_biases(anatomy.shapes("tiny-t5"))
