"""Full fine-tuning and freezing the bottom are points of the space, and the check that says so can fail."""

import pytest
import torch
from transformers import AutoModel

from paperlib import backbones
from paperlib.errors import InputError
from paperlib.lets import known_points

L = 3


def model(name="tiny-bert", dtype=torch.float64):
    config = backbones.configuration(name)
    config.num_hidden_layers, config.vocab_size = L, 50
    torch.manual_seed(0)
    return AutoModel.from_config(config, attn_implementation="eager").to(dtype).eval()


def inputs():
    ids = torch.randint(5, 50, (2, 7), generator=torch.Generator().manual_seed(0))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


@pytest.mark.parametrize("name", ["tiny-bert", "tiny-electra"])
@pytest.mark.parametrize("frozen", range(L + 1))
def test_the_two_forms_are_one_model_bit_for_bit(name, frozen):
    found = known_points.difference(model(name), frozen, inputs())
    assert found.states == found.gradients == 0
    assert (found.moved > 0.1) == (frozen < L), "with no layer of its own nothing moves"


def test_the_model_is_left_as_it_was():
    given = model()
    before = {name: weight.clone() for name, weight in given.state_dict().items()}
    known_points.difference(given, 1, inputs())
    assert all(torch.equal(weight, before[name]) for name, weight in given.state_dict().items())
    assert all(weight.requires_grad and weight.grad is None for weight in given.parameters())


def test_seeds_draw_other_weights():
    one, again, other = (known_points.difference(model(), 0, inputs(), seed).moved for seed in (0, 0, 1))
    assert one == again != other


@pytest.mark.parametrize("place", ["attention.output", "feed_forward.norm"])
def test_a_weight_left_out_is_seen(place, monkeypatch):
    monkeypatch.setattr(known_points, "PLACES", {k: v for k, v in known_points.PLACES.items() if k != place})
    assert known_points.difference(model(), 1, inputs()).states > 1e-3


def test_every_weight_of_a_layer_is_compared():
    parts = {target for place in known_points.PLACES.values() for target in (f"{place}.weight", f"{place}.bias")}
    assert parts == {name for name, _ in model().encoder.layer[0].named_parameters()}


def test_no_more_layers_are_frozen_than_there_are():
    with pytest.raises(InputError, match="4 frozen layers"):
        known_points.difference(model(), L + 1, inputs())
