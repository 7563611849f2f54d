"""Which weights are tracked: all Linear ones, nothing else."""

import pytest
import torch

from paperlib import backbones
from paperlib.dps.scope import tracked
from paperlib.errors import InputError


def test_bert_gives_exactly_its_linear_weights():
    """Query, key, value, both outputs and the intermediate of every layer; pooler; classifier."""
    model = backbones.load("tiny-bert", 2, seed=0).model
    parts = ("attention.self.query", "attention.self.key", "attention.self.value")
    parts += ("attention.output.dense", "intermediate.dense", "output.dense")
    expected = {f"bert.encoder.layer.{layer}.{part}.weight" for layer in (0, 1) for part in parts}
    assert set(tracked(model)) == expected | {"bert.pooler.dense.weight", "classifier.weight"}


ATTENTION = ("attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense")
DENSE = (*ATTENTION, "intermediate.dense", "output.dense")
SELF = tuple(f"self_attn.{each}_proj" for each in ("k", "v", "q", "out"))
CROSS = tuple(f"encoder_attn.{each}_proj" for each in ("k", "v", "q", "out"))
LAYERS = {
    "tiny-roberta": {"roberta.encoder.layer": DENSE},
    "tiny-electra": {"electra.encoder.layer": DENSE},
    "tiny-deberta": {
        "deberta.encoder.layer": [f"{each}_proj" if "self" in each else each for each in DENSE],
    },
    "tiny-bart": {
        "model.encoder.layers": (*SELF, "fc1", "fc2"),
        "model.decoder.layers": (*SELF, *CROSS, "fc1", "fc2"),
    },
}
OTHERS = {
    "tiny-roberta": {"classifier.dense", "classifier.out_proj"},
    "tiny-electra": {"electra.embeddings_project", "classifier.dense", "classifier.out_proj"},
    "tiny-deberta": {"pooler.dense", "classifier"},
    "tiny-bart": {"classification_head.dense", "classification_head.out_proj"},
}


@pytest.mark.parametrize("name", LAYERS)
def test_other_architectures_give_theirs(name):
    """Projections of embeddings and heads of two layers among them; embeddings of positions relative to one another are embeddings."""
    expected = {f"{stack}.{i}.{part}" for stack, parts in LAYERS[name].items() for i in (0, 1) for part in parts}
    found = tracked(backbones.load(name, 2, seed=0).model)
    assert set(found) == {f"{each}.weight" for each in expected | OTHERS[name]}


@pytest.mark.parametrize("name", ["tiny-bert", "tiny-bart", "tiny-t5"])
def test_names_are_the_models_own(name):
    """State keyed by them survives a checkpoint."""
    model = backbones.load(name, 2, seed=0).model
    parameters = dict(model.named_parameters())
    assert all(parameters[each] is weight for each, weight in tracked(model).items())


def test_bert_large_has_the_count_behind_the_memory_table():
    with torch.device("meta"):
        model = backbones.load("bert-large-config", 2, seed=0).model
    assert sum(weight.numel() for weight in tracked(model).values()) == 303_040_512


def test_an_output_layer_that_shares_the_embedding_is_the_embedding():
    model = backbones.load("tiny-t5", 2, seed=0).model
    assert model.lm_head.weight is model.shared.weight
    assert not any(weight is model.shared.weight for weight in tracked(model).values())
    assert len(tracked(model)) == 2 * (4 + 2) + 2 * (8 + 2)


def test_a_model_may_be_one_linear_and_two_may_share_a_weight():
    one, two = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    assert set(tracked(one)) == {"weight"}
    two.weight = one.weight
    assert set(tracked(torch.nn.Sequential(one, two))) == {"0.weight"}


def test_frozen_weights_are_left_alone():
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2))
    model[0].weight.requires_grad_(False)
    assert set(tracked(model)) == {"1.weight"}


@pytest.mark.parametrize("model", [torch.nn.Embedding(3, 2), torch.nn.LayerNorm(2), torch.nn.Sequential()])
def test_a_model_without_linear_weights_is_refused(model):
    with pytest.raises(InputError, match="no trainable Linear weight"):
        tracked(model)
