"""Candidate positions: the published counts on models without weights, and every family's places by role."""

from collections import Counter
from functools import cache

import pytest
import torch

from paperlib import backbones
from paperlib.errors import InputError
from paperlib.s3delta.positions import BASELINES, LINEARS, ROWS, baseline, candidates, places
from paperlib.s3delta.structure import budget
from paperlib.s3delta.supernet import backbone_size, head

TOKENS = 32100  # of T5's tokenizer, to which the published code cuts the vocabulary


@cache
def skeleton(name, vocabulary=None, **changed):
    """The named backbone on the meta device: shapes alone."""
    from transformers import AutoModelForSeq2SeqLM, AutoModelForSequenceClassification

    config = backbones.configuration(name)
    config.update({"vocab_size": vocabulary or config.vocab_size, **changed})
    kind = AutoModelForSeq2SeqLM if config.model_type == "t5" else AutoModelForSequenceClassification
    with torch.device("meta"):
        return kind.from_config(config)


def scalars(model, positions):
    return sum(position.size(model) for position in positions)


# --- the published counts


@pytest.mark.parametrize(
    "name, space, modules, parameters",
    [
        ("t5-small-config", "M", 232, 236_672),
        ("t5-base-config", "M", 460, 706_944),
        ("t5-large-config", "M", 916, 1_881_088),
        ("t5-large-config", "L", 288, 884_736),
        ("bert-base-config", "M", 216, 342_720),
        ("bert-large-config", "M", 432, 913_920),
        ("bert-large-config", "L", 144, 442_368),
    ],
)
def test_the_search_spaces_have_their_published_sizes(name, space, modules, parameters):
    model = skeleton(name)
    found = candidates(model, space)
    assert len(found) == len({position.name for position in found}) == modules
    assert scalars(model, found) == parameters


@pytest.mark.parametrize("name, blocks", [("t5-small-config", 6), ("t5-base-config", 12), ("t5-large-config", 24)])
def test_a_t5_of_l_blocks_a_stack_has_modules_by_type(name, blocks):
    types = Counter(position.type for position in candidates(skeleton(name), "M"))
    assert types == {"lora": 12 * blocks, "bitfit": 17 * blocks + 2, "lnfit": 5 * blocks + 2, "lra": 4 * blocks}


def test_t5_large_has_the_published_table_of_modules():
    """Type, places: (positions, size of one, parameters)."""
    model, table = skeleton("t5-large-config"), {}
    for position in candidates(model, "M"):
        linear = {"W1": "wi", "W2": "wo"}.get(position.role, "qkvo") if position.role in LINEARS else ""
        key = position.type, "norms" if position.role.endswith("LN") else linear, position.size(model)
        table[key] = table.get(key, 0) + 1
    assert table == {
        ("lora", "qkvo", 2048): 192,
        ("lora", "wi", 5120): 48,
        ("lora", "wo", 5120): 48,
        ("bitfit", "qkvo", 1024): 192,
        ("bitfit", "wo", 1024): 48,
        ("bitfit", "wi", 4096): 48,
        ("bitfit", "norms", 1024): 122,
        ("lnfit", "norms", 1024): 122,
        ("lra", "", 3168): 96,
    }


@pytest.mark.parametrize(
    "name, modules, parameters",
    [
        ("adapter", 96, 4_819_200),
        ("lora_r8", 96, 1_572_864),
        ("lora_r1", 96, 196_608),
        ("bitfit", 411, 599_396),
        ("lnfit", 122, 124_928),
        ("lra", 96, 304_128),
    ],
)
def test_the_baselines_have_their_published_sizes(name, modules, parameters):
    model = skeleton("t5-large-config", TOKENS)
    found = baseline(model, name)
    assert (len(found), scalars(model, found)) == (modules, parameters)


def test_every_baseline_is_tested():
    assert set(BASELINES) == {"adapter", "lora_r8", "lora_r1", "bitfit", "lnfit", "lra"}


@pytest.mark.parametrize(
    "name, vocabulary, parameters",
    [
        ("t5-small-config", None, 60_506_624),
        ("t5-base-config", None, 222_903_552),
        ("t5-large-config", None, 737_668_096),
        ("t5-large-config", TOKENS, 737_639_424),
    ],
)
def test_the_backbones_have_their_published_sizes(name, vocabulary, parameters):
    assert backbone_size(skeleton(name, vocabulary)) == parameters


def test_the_printed_703_m_is_in_units_of_2_to_the_20():
    assert backbone_size(skeleton("t5-large-config", TOKENS)) / 2**20 == 703.4677734375


@pytest.mark.parametrize(
    "share, scalars", [(1.389, 102_458.1), (0.695, 51_265.9), (0.348, 25_669.9), (0.174, 12_834.9), (0.087, 6_417.5)]
)
def test_budgets_are_per_ten_thousand_of_the_backbone(share, scalars):
    assert budget(skeleton("t5-large-config", TOKENS), share) == pytest.approx(scalars, abs=0.05)


def test_the_task_head_is_no_part_of_the_backbone():
    """BERT's pooler is; the classifier of three classes is not."""
    model = skeleton("bert-base-config", num_labels=3)
    whole = sum(parameter.numel() for parameter in model.parameters())
    assert head(model).keys() == {"classifier.weight", "classifier.bias"}
    assert backbone_size(model) == whole - 3 * 769


@pytest.mark.parametrize(
    "name, first",
    [
        ("tiny-t5", None),
        ("tiny-roberta", "classifier.dense.weight"),
        ("tiny-electra", "classifier.dense.weight"),
        ("tiny-deberta", "pooler.dense.weight"),  # drawn afresh with the head, unlike BERT's
        ("tiny-bart", "classification_head.dense.weight"),
    ],
)
def test_the_head_is_what_lies_outside_the_body(name, first):
    assert next(iter(head(skeleton(name))), None) == first


# --- places and their names


FAMILIES = ["tiny-t5", "tiny-bert", "tiny-roberta", "tiny-electra", "tiny-deberta", "tiny-bart"]


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_has_every_role_in_every_layer(name):
    model = skeleton(name)
    found = Counter((place.side, place.layer, place.role) for place in places(model))
    encoder = {"SelfAttn", "FFN", "Q", "K", "V", "O", "W1", "W2", "SelfAttn.LN", "FFN.LN"}
    expected = {("encoder", layer, role) for layer in (0, 1) for role in encoder}
    if len(backbones.stacks(model)) == 2:
        expected |= {("decoder", layer, role) for layer in (0, 1) for role in encoder | {"CrossAttn.LN"}}
    if name == "tiny-t5":
        expected |= {("encoder", 1, "Final_LN"), ("decoder", 1, "Final_LN")}
    assert set(found) == expected and set(found.values()) == {1}


@pytest.mark.parametrize("name", FAMILIES)
def test_places_hold_what_their_role_says(name):
    """Linear maps of the right widths; norms; and nothing of cross-attention, embeddings or the head."""
    model = skeleton(name)
    d, inner = 32, 64
    for place in places(model):
        host = model.get_submodule(place.path)
        if place.role in LINEARS:
            widths = {"W1": (d, inner), "W2": (inner, d)}.get(place.role, (d, d))
            assert (host.in_features, host.out_features) == widths, place
        elif place.role.endswith("LN"):
            assert host.weight.shape == (d,), place
        assert not any(word in place.path for word in ("EncDec", "encoder_attn.", "embed", "classif", "pooler")), place


def test_names_and_rows_of_a_t5():
    found = {position.name: position for position in candidates(skeleton("tiny-t5"), "M")}
    q = found["encoder.block.0.layer.0.SelfAttention.q:lora"]
    assert (q.side, q.layer, q.row, q.parallel) == ("encoder", 0, "Q LoRA", True)
    rows = {
        "decoder.block.1.layer.1.layer_norm:bitfit": "CrossAttn.LN BitFit",
        "decoder.block.1.layer.2.DenseReluDense:lra": "FFN LRA",
        "decoder.block.0.layer.2.DenseReluDense.wi:bitfit": "W1 BitFit",
        "encoder.final_layer_norm:lnfit": "Final_LN LNFiT",
    }
    assert {name: found[name].row for name in rows} == rows


def test_sequential_and_parallel_types():
    by_type = {position.type: position.parallel for position in candidates(skeleton("tiny-bert"), "M")}
    assert by_type == {"lora": True, "lnfit": True, "bitfit": False, "lra": False}


def test_the_heat_map_of_t5_large_has_22_rows_of_48_cells():
    """916 of its 1056 cells are real, in Figure 9's order of rows; final norms stand in the last column of their stack."""
    found = candidates(skeleton("t5-large-config"), "M")
    cells = {(position.row, position.side, position.layer) for position in found}
    rows = [row for row in ROWS if row in {position.row for position in found}]
    assert len(cells) == 916 and len(rows) == 22
    assert {layer for row, _, layer in cells if row.startswith("Final")} == {23}
    assert rows[:8] == [*(f"{role} LoRA" for role in ("Q", "K", "V", "O", "W1", "W2")), "SelfAttn LRA", "FFN LRA"]
    assert rows[-4:] == [f"{role} LNFiT" for role in ("SelfAttn.LN", "CrossAttn.LN", "FFN.LN", "Final_LN")]


def test_ties_go_layer_by_layer_and_to_adapters_last():
    """The order of the published code: its first pass over the modules, then its second."""
    found = candidates(skeleton("tiny-bert"), "M")
    types = [position.type for position in found]
    assert types.index("lra") == len(types) - types.count("lra")
    assert [position.layer for position in found[:-4]] == sorted(position.layer for position in found[:-4])
    assert [position.row for position in found[:4]] == ["Q LoRA", "Q BitFit", "K LoRA", "K BitFit"]


def test_gated_feed_forward_blocks_have_both_their_inner_maps():
    model = skeleton("tiny-t5", is_gated_act=True, dense_act_fn="gelu_new")
    per_layer = [place.path for place in places(model) if (place.side, place.layer) == ("encoder", 0)]
    assert [path for path in per_layer if ".wi_" in path] == [
        "encoder.block.0.layer.1.DenseReluDense.wi_0",
        "encoder.block.0.layer.1.DenseReluDense.wi_1",
    ]
    assert {position.row for position in candidates(model, "M")} <= set(ROWS)


def test_sizes_are_those_of_the_modules_and_draw_nothing(small_model):
    model = small_model("tiny-bert")
    torch.manual_seed(0)
    before = torch.get_rng_state()
    found = [*candidates(model, "M"), *baseline(model, "adapter"), *baseline(model, "lora_r8")]
    sizes = [position.size(model) for position in found]
    assert torch.equal(before, torch.get_rng_state())
    assert sizes == [position.delta(model).numel for position in found]


def test_fresh_modules_stand_beside_their_host(small_model):
    model = small_model("tiny-t5", dtype=torch.bfloat16)
    for position in candidates(model, "M"):
        assert {p.dtype for p in position.delta(model).parameters()} == {torch.bfloat16}


# --- bad input


def test_unknown_spaces_and_baselines_are_named():
    with pytest.raises(InputError, match="unknown search space 'XL'; known: M, L"):
        candidates(skeleton("tiny-bert"), "XL")
    with pytest.raises(InputError, match="unknown baseline 'prompt'; known: adapter, lora_r8"):
        baseline(skeleton("tiny-bert"), "prompt")


@pytest.mark.parametrize(
    "family, changed",
    [("gpt2", {"n_layer": 1, "n_embd": 8, "n_head": 2}), ("distilbert", {"n_layers": 1, "dim": 8, "n_heads": 2})],
)
def test_models_without_the_positions_are_refused(family, changed):
    from transformers import AutoConfig, AutoModel

    with torch.device("meta"):
        model = AutoModel.from_config(AutoConfig.for_model(family, **changed))
    with pytest.raises(InputError, match=f"of type '{family}'"):
        candidates(model, "M")


def test_layers_of_other_names_are_refused():
    """A model with stacks of layers, but not built like any of the known ones."""
    from transformers import AutoConfig, AutoModel

    config = AutoConfig.for_model("vit", hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8)
    with torch.device("meta"):
        model = AutoModel.from_config(config)
    with pytest.raises(InputError, match="'vit'"):
        candidates(model, "M")
