"""Backbones: what loads, from which seed, and what a user is told of what does not."""

import json
import time

import numpy as np
import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import save_file

from paperlib import backbones
from paperlib.errors import InputError

RANDOM = [name for name, entry in backbones.catalogue().items() if entry["kind"] == "random"]


def equal(one, other):
    return {name: torch.equal(a, dict(other.named_parameters())[name]) for name, a in one.named_parameters()}


@pytest.fixture
def folder(tmp_path):
    """tiny-bert and its tokenizer as save_pretrained leaves them."""
    tiny = backbones.load("tiny-bert", 2, seed=0)
    tiny.model.save_pretrained(tmp_path)
    tiny.tokenizer.save_pretrained(tmp_path)
    return tmp_path


# --- what loads


@pytest.mark.parametrize("name", RANDOM)
def test_random_backbones_are_drawn_from_the_seed(name):
    one, again, other = (backbones.load(name, 3, seed).model for seed in (5, 5, 6))
    assert all(equal(one, again).values()) and not all(equal(one, other).values())


def test_of_embedded_weights_only_the_head_is_drawn():
    one, again, other = (backbones.load("minilm", 3, seed).model for seed in (5, 5, 6))
    assert all(equal(one, again).values())
    assert {name for name, same in equal(one, other).items() if not same} == {"classifier.weight"}
    assert one.classifier.weight.shape == (3, 384) and one.dtype == torch.float32


def test_the_head_has_as_many_outputs_as_asked():
    for outputs in (1, 2, 3):
        assert backbones.load("tiny-bert", outputs, seed=0).model.classifier.out_features == outputs


def test_text_to_text_or_not():
    assert backbones.load("tiny-t5", 2, seed=0).text_to_text
    assert not backbones.load("tiny-bert", 2, seed=0).text_to_text


def test_a_local_folder_gives_its_weights(folder):
    loaded = backbones.load(str(folder), 2, seed=9)
    assert loaded.tokenizer("a cat")["input_ids"] == backbones.tokenizer("minilm")("a cat")["input_ids"]
    assert all(equal(loaded.model, backbones.load("tiny-bert", 2, seed=0).model).values())


def test_head_and_pooler_are_drawn_where_the_weights_have_no_fitting_ones(tmp_path):
    """A model saved without head or pooler, as pre-trained ones are, or with a head of another width."""
    tiny = backbones.load("tiny-bert", 3, seed=0)
    tiny.tokenizer.save_pretrained(tmp_path)
    tiny.model.bert.pooler = None
    for saved in (tiny.model, tiny.model.bert):
        saved.save_pretrained(tmp_path)
        loaded = backbones.load(str(tmp_path), 2, seed=9).model
        assert loaded.classifier.weight.shape == (2, 32)
        assert all(equal(tiny.model.bert, loaded.bert).values())


def dropouts(model):
    return {module.p for module in model.modules() if isinstance(module, torch.nn.Dropout)}


@pytest.mark.parametrize("name", ["minilm", *RANDOM])
def test_dropout_is_the_configurations_own_or_replaced_throughout(name):
    """DeBERTa's pooler and BART's head have a dropout of their own, of 0."""
    own = {"tiny-deberta": {0.0, 0.1}, "tiny-bart": {0.0}}
    assert dropouts(backbones.load(name, 2, seed=0).model) == own.get(name, {0.1})
    for p in (0.0, 0.3):
        model = backbones.load(name, 2, seed=0, dropout=p).model
        assert dropouts(model) == {p}
        # Attention dropout may be a number that no module holds.
        assert {getattr(model.config, key) for key in backbones.DROPOUT_KEYS if hasattr(model.config, key)} <= {p, None}


def test_a_dropout_that_only_the_head_has_is_replaced_too(folder):
    told = json.loads((folder / "config.json").read_text()) | {"classifier_dropout": 0.2}
    (folder / "config.json").write_text(json.dumps(told))
    assert dropouts(backbones.load(str(folder), 2, seed=0).model) == {0.1, 0.2}
    assert dropouts(backbones.load(str(folder), 2, seed=0, dropout=0.0).model) == {0.0}


@pytest.mark.parametrize("task", ["cola", "rte", "stsb", "copa", "multirc", "record"])
@pytest.mark.parametrize("name", RANDOM)
def test_random_backbones_read_every_kind_of_task(make_problem, name, task):
    """With token types where the model tells two of them apart, and never otherwise; BART finds an end in every row, as many in each."""
    problem = make_problem(task, name, train=4, test=5)
    batch = problem.batch(problem.train, np.arange(4))
    assert ("token_type_ids" in batch) == (name in ("tiny-bert", "tiny-electra"))
    logits = problem.logits(batch)
    assert logits.isfinite().all() and problem.loss(logits, batch).isfinite()
    assert len(problem.scores(problem.test, 3)) == len(problem.test)


@pytest.mark.parametrize("name", ["tiny-roberta", "tiny-bart"])
def test_a_folder_with_a_tokenizer_of_more_types_than_the_model_is_read_without_them(tmp_path, name):
    backbones.load(name, 2, seed=0).model.save_pretrained(tmp_path)
    backbones.tokenizer("minilm").save_pretrained(tmp_path)
    loaded = backbones.load(str(tmp_path), 2, seed=0)
    assert set(loaded.tokenizer("a cat", "a dog")) == {"input_ids", "attention_mask"}


@pytest.mark.parametrize("name", [name for name in RANDOM if name != "tiny-t5"])
def test_encoders_read_as_many_tokens_as_any_task_has(name):
    """RoBERTa counts its positions from the padding's id up."""
    ids = torch.full((1, 512), 7)
    ids[0, -1] = 102
    assert backbones.load(name, 2, seed=0).model(input_ids=ids).logits.isfinite().all()


def test_on_a_gpu_attention_is_fused_where_the_architecture_has_it(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    used = {name: backbones.load(name, 2, seed=0).model.config._attn_implementation for name in RANDOM}
    assert used == dict.fromkeys(RANDOM, "sdpa") | {"tiny-deberta": "eager"}


@pytest.mark.parametrize("name", RANDOM)
def test_stacks_go_from_the_bottom_up_encoder_first(name):
    """Two layers a side, in the order of their names, and every one of them."""
    model = backbones.load(name, 2, seed=0).model
    sides = ["encoder", "decoder"] if name in ("tiny-bart", "tiny-t5") else ["encoder"]
    names = {module: path for path, module in model.named_modules()}
    found = [[names[layer] for layer in stack] for stack in backbones.stacks(model)]
    assert [[path.split(".")[-1] for path in stack] for stack in found] == [["0", "1"]] * len(sides)
    assert [{path.split(".")[-3] for path in stack} for stack in found] == [{side} for side in sides]


@pytest.mark.parametrize(
    "name, parameters",
    [
        ("bert-large-config", 333_581_314),
        ("t5-small-config", 60_506_624),
        ("t5-base-config", 222_903_552),
        ("t5-large-config", 737_668_096),
    ],
)
def test_configurations_have_the_published_sizes(name, parameters):
    """BERT-large-cased with a head of two; the T5s with input and output embedding shared."""
    with torch.device("meta"):
        backbone = backbones.load(name, 2, seed=0)
    assert sum(parameter.numel() for parameter in backbone.model.parameters()) == parameters
    assert backbone.tokenizer is None


def test_the_catalogue_is_complete():
    for name, entry in backbones.catalogue().items():
        assert entry["kind"] in ("embedded", "random", "config") and entry["note"]
        assert backbones.available(name)


# --- what does not


def refused(name, match):
    with pytest.raises(InputError, match=match) as error:
        backbones.load(str(name), 2, seed=0)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["bert", "./nowhere/bert", "/no/such/folder", "a/b/c"])
def test_an_unknown_name_lists_the_known_ones(name):
    refused(name, f"unknown backbone '{name}'; known: minilm, tiny-bert, .*, a local folder, or a hub id")


def test_a_folder_without_configuration(tmp_path):
    refused(tmp_path, "the folder has no config.json; give a folder saved by save_pretrained")


def test_a_folder_without_weights(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    refused(tmp_path, "no weights; convert them to model.safetensors")


def test_weights_in_pickle_format_are_not_opened(folder):
    class Bomb:
        def __reduce__(self):
            return pytest.fail, ("unpickled",)

    (folder / "model.safetensors").unlink()
    torch.save({"weight": Bomb()}, folder / "pytorch_model.bin")
    refused(folder, r"weights only in pickle format \(pytorch_model.bin\); convert them to model.safetensors")


def test_a_configuration_that_is_none(folder):
    (folder / "config.json").write_text("not json")
    refused(folder, "backbone '.*': .*config")


def test_a_folder_that_asks_for_its_own_code(folder):
    told = json.loads((folder / "config.json").read_text())
    told |= {"model_type": "homemade", "auto_map": {"AutoConfig": "evil.Config"}}
    (folder / "config.json").write_text(json.dumps(told))
    (folder / "evil.py").write_text("raise SystemExit('ran')")
    refused(folder, "backbone '.*': ")


def test_weights_that_are_damaged(folder):
    (folder / "model.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0half a header")
    refused(folder, "backbone '.*': ")


def test_a_folder_without_tokenizer(tmp_path):
    backbones.load("tiny-bert", 2, seed=0).model.save_pretrained(tmp_path)
    refused(tmp_path, "no tokenizer beside the weights; put one there with save_pretrained")


@pytest.mark.parametrize("wrong", [{"hidden_size": 64}, {"num_hidden_layers": 3}])
def test_weights_of_another_shape_or_depth(folder, wrong):
    told = json.loads((folder / "config.json").read_text()) | wrong
    (folder / "config.json").write_text(json.dumps(told))
    refused(folder, "the weights are not of this model; [0-9]+ tensors missing, such as bert[.]")


@pytest.mark.parametrize("name", ["tiny-bert", "tiny-t5"])
def test_weights_of_another_model(tmp_path, name):
    """They would otherwise train from noise, unnoticed."""
    tiny = backbones.load(name, 2, seed=0)
    tiny.model.config.save_pretrained(tmp_path)
    tiny.tokenizer.save_pretrained(tmp_path)
    save_file({"something": torch.zeros(1)}, tmp_path / "model.safetensors", metadata={"format": "pt"})
    refused(tmp_path, "the weights are not of this model; [0-9]+ tensors missing, such as")


def test_an_unreachable_hub_is_one_line_within_seconds(monkeypatch, tmp_path):
    """For real: an endpoint that refuses connections, and an empty cache."""
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    start = time.monotonic()
    refused(
        "nobody/nothing", "'nobody/nothing': the hub cannot be reached or has no such model; use a local folder, or"
    )
    assert time.monotonic() - start < 10
