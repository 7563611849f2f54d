"""Narrow models launch what wide ones do, and the gates' kernel takes the place of the operators that compose it."""

import pytest
import torch
from transformers import AutoConfig, AutoModelForSequenceClassification

from paperlib import backbones
from paperlib.backbones import Backbone
from paperlib.errors import InputError
from paperlib.s3delta import launches, search_cost
from paperlib.s3delta.gates import Gates
from paperlib.s3delta.positions import candidates
from paperlib.training.launches import counted

SETTING = search_cost.Setting(budget=500, batch_size=2, length=8, precision="bf16", seed=0)


@pytest.mark.parametrize("order", search_cost.PASSES)
def test_a_wide_model_launches_what_its_narrow_twin_does(order):
    config = AutoConfig.for_model("bert", vocab_size=900, hidden_size=96, num_hidden_layers=2, num_attention_heads=3)
    config.intermediate_size = 320
    wide = AutoModelForSequenceClassification.from_config(config, attn_implementation="sdpa")
    backbone = Backbone("wide", wide, None)
    found = []
    for each in (backbone, launches.narrowed(backbone)):
        step = SETTING.searching(each, candidates(each.model, "M"), order)
        found.append(counted(step, 2).operators)
    assert found[0] == found[1] and found[0].total() > 100


def test_the_narrow_twin_of_a_text_to_text_model_is_as_deep():
    full = backbones.load("tiny-t5", 2, seed=0)
    narrow = launches.narrowed(full)
    names = [[position.name for position in candidates(each.model, "M")] for each in (full, narrow)]
    assert names[0] == names[1] and narrow.model.config.d_model == 64


def test_other_architectures_are_refused():
    with pytest.raises(InputError, match="counted for t5, bert models, not for 'roberta'"):
        launches.narrowed(backbones.load("tiny-roberta", 2, seed=0))


def test_the_kernel_takes_the_place_of_the_gates_operators():
    """Twenty sections of ten operators each are the least of them."""
    backbone = launches.narrowed(backbones.load("tiny-bert", 2, seed=0))
    gates = Gates(torch.tensor([3, 5, 2, 7]), 9.0)
    draw, gradient = launches.of_gates(gates)
    assert draw > 200 and gradient > 10
    for order, left in (("second", 2 * draw + gradient - 5), ("one-level", draw + gradient - 3)):
        step = counted(SETTING.searching(backbone, candidates(backbone.model, "M"), order), 2)
        assert launches.with_kernel(step, gates, order) == step.total - left
