"""Operation counts of BERT-type encoders (LeTS, appendix A.1) against torch's own counter."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModel

from paperlib import backbones
from paperlib.errors import InputError
from paperlib.lets import objective, operations
from paperlib.lets.architecture import Architecture, Own, Task
from paperlib.lets.frozen_pass import FrozenEncoder
from paperlib.lets.operations import Encoder
from paperlib.lets.readout import ReadoutSizes

BASE, LARGE = Encoder(12, 768, 3072), Encoder(24, 1024, 4096)
TINY = Encoder(3, 32, 64)
encoders = st.builds(Encoder, st.integers(1, 48), st.integers(1, 2048), st.integers(1, 8192))
owns = st.builds(Own, st.booleans(), st.booleans(), st.booleans())
architectures = st.lists(owns, min_size=3, max_size=3).map(lambda rows: Architecture(tuple(rows)))


@pytest.mark.parametrize(
    ("encoder", "length", "one_layer", "all_layers"),
    [
        (BASE, 128, 931_135_488, 11_173_625_856),
        (BASE, 512, 48_318_382_080 // 12, 48_318_382_080),
        (LARGE, 128, 1_644_167_168, 39_460_012_032),
        (LARGE, 512, 167_503_724_544 // 24, 167_503_724_544),
    ],
)
def test_known_counts(encoder, length, one_layer, all_layers):
    assert sum(operations.layer(encoder, length).values()) == one_layer
    assert operations.total(encoder, length) == all_layers


def test_shares_of_a_bert_large_layer():
    shares = {}
    for length in (128, 512):
        macs = operations.layer(LARGE, length)
        shares[length] = [round(100 * part / sum(macs.values()), 2) for part in macs.values()]
    assert shares == {128: [24.49, 2.04, 8.16, 65.31], 512: [23.08, 7.69, 7.69, 61.54]}


@pytest.mark.parametrize("name", ["bert-base-config", "bert-large-config"])
@pytest.mark.parametrize("length", [128, 512])
def test_torch_counts_the_same_in_the_real_model(name, length):
    config = backbones.configuration(name)
    seen = operations.counted(config, length)
    encoder = Encoder.of(config)
    assert seen.pop("encoder") == operations.total(encoder, length)
    assert seen == operations.layer(encoder, length)


def test_torch_counts_the_same_where_the_feed_forward_width_is_not_four_times_hidden():
    config = backbones.configuration("tiny-bert")
    seen = operations.counted(config, 7)
    assert seen.pop("encoder") == operations.total(Encoder.of(config), 7)
    assert seen == operations.layer(Encoder(2, 32, 64), 7)


@given(encoder=encoders, length=st.integers(1, 4096))
def test_only_the_products_of_tokens_grow_with_the_square_of_the_length(encoder, length):
    once, twice = operations.layer(encoder, length), operations.layer(encoder, 2 * length)
    assert {name: twice[name] / once[name] for name in once} == {
        "qkv": 2,
        "scores_and_context": 4,
        "output": 2,
        "feed_forward": 2,
    }


def test_quadratic_and_linear_part_meet_at_six_times_the_hidden_size():
    macs = operations.layer(LARGE, 6 * 1024)
    quadratic = macs.pop("scores_and_context")
    assert quadratic == sum(macs.values())


@pytest.mark.parametrize("length", [0, -1, 12.5])
def test_a_length_is_a_positive_whole_number(length):
    with pytest.raises(InputError, match="sequence length"):
        operations.total(BASE, length)
    with pytest.raises(InputError, match="sequence length"):
        operations.counted(backbones.configuration("tiny-bert"), length)


@pytest.mark.parametrize("sizes", [(0, 768, 3072), (12, -1, 3072), (12, 768, 0.5)])
def test_sizes_are_positive_whole_numbers(sizes):
    with pytest.raises(InputError, match="positive whole number"):
        Encoder(*sizes)


# --- sub-tasks


def share_of_a_layer(own, kept=0.005):
    macs = operations.task_layer(LARGE, 128, own, kept)
    return round(100 * sum(macs.values()) / sum(operations.layer(LARGE, 128).values()), 2)


@pytest.mark.parametrize(
    ("own", "percent"),
    [
        (Own(False, False, False), 0),
        (Own(False, True, False), 10.33),
        (Own(False, True, True), 75.63),
        (Own(True, True, False), 34.69),
        (Own(False, False, True), 65.31),
        (Own(True, True, True), 100),
    ],
)
def test_the_share_of_a_bert_large_layer_that_a_sub_task_computes(own, percent):
    assert share_of_a_layer(own) == percent
    assert (
        round(100 * operations.task_layer(LARGE, 128, Own(False, True, False), 0.005)["qkv"] / 1_644_167_168, 3)
        == 0.122
    )


@given(architecture=architectures, kept=st.floats(1e-3, 1), length=st.integers(1, 300))
def test_a_sub_task_costs_what_the_search_expects_of_it(architecture, kept, length):
    """The objective's multilinear cost, at the corner that the architecture is."""
    expected = objective.reconstruction(TINY, length, kept).discrete(torch.tensor(architecture.layers).int())
    found = operations.task(TINY, length, architecture, kept)
    assert sum(sum(layer.values()) for layer in found) == pytest.approx(expected, rel=1e-12)


def test_points_of_the_space_that_are_known_models():
    total = operations.total(LARGE, 128)

    def macs(layers):
        return sum(sum(layer.values()) for layer in layers)

    for architecture, new, shared in [
        (Architecture.all_own(24), total, 0),
        (Architecture.freeze_bottom(24, 12), total / 2, total / 2),
        (Architecture.all_share(24), 0, total),
    ]:
        assert macs(operations.task(LARGE, 128, architecture, 0.005)) == new
        assert macs(operations.frozen(LARGE, 128, [architecture])) == shared


@pytest.mark.parametrize("name", ["bert-base-config", "bert-large-config"])
@pytest.mark.parametrize("length", [128, 512])
def test_torch_counts_the_same_in_sub_tasks_of_real_size(name, length):
    """With all offsets kept, whose product is then dense, and on the meta device, where the LSTM is not fused."""
    config = backbones.configuration(name)
    encoder, sizes = Encoder.of(config), ReadoutSizes()
    rows = ((Own(False, False, False), Own(False, True, True)), (Own(True, True, False), Own(False, False, True)))
    architecture = Architecture(tuple(row for pair in rows for row in pair) * (encoder.layers // 4))
    with torch.device("meta"), torch.no_grad():
        frozen = FrozenEncoder(AutoModel.from_config(config, attn_implementation="eager"))
        task = Task(frozen, architecture, 3, sizes).eval()
        with FlopCounterMode(display=False) as counter:
            task(frozen(torch.zeros(1, length, dtype=torch.long)))
    seen = counter.get_total_flops() // 2
    readout = sum(operations.readout(encoder.layers, encoder.hidden, sizes, 3).values())
    parts = operations.task(encoder, length, architecture, 1.0) + operations.frozen(encoder, length, [architecture])
    assert seen == sum(sum(part.values()) for part in parts) + readout


def test_of_a_frozen_layer_only_what_is_asked_for_is_counted():
    asked = {
        Own(False, True, True): ["qkv"],
        Own(False, False, True): ["qkv", "scores_and_context", "output"],
        Own(False, False, False): ["qkv", "scores_and_context", "output", "feed_forward"],
        Own(True, True, True): [],
    }
    for top, names in asked.items():
        architecture = Architecture((Own(True, True, True), top, Own(True, True, True)))
        below, found, above = operations.frozen(TINY, 8, [architecture])
        assert [*found] == names and above == {}
        assert below == (operations.layer(TINY, 8) if names else {})


@given(st.lists(architectures, min_size=1, max_size=4))
def test_what_several_ask_for_is_all_that_any_asks_for(some):
    together = operations.frozen(TINY, 8, some)
    alone = [operations.frozen(TINY, 8, [each]) for each in some]
    for j, found in enumerate(together):
        assert found.keys() == set().union(*(each[j] for each in alone))


@given(architecture=architectures, kept=st.floats(0, 1), length=st.integers(1, 300))
def test_what_is_read_is_no_more_than_everything(architecture, kept, length):
    whole = operations.task(TINY, length, architecture, kept)
    read = operations.task(TINY, length, architecture, kept, only_read=True)
    for j, (some, all_of_it) in enumerate(zip(read, whole, strict=True)):
        assert some.keys() == all_of_it.keys()
        assert all(some[name] <= all_of_it[name] for name in some)
        above = architecture.layers[j + 1 :]
        if above and above[0].input and above[0].attention:
            assert some == all_of_it


def test_of_a_last_layer_only_one_position_is_read():
    *_, last = operations.task(LARGE, 128, Architecture.all_own(24), 0.005, only_read=True)
    d, length = 1024, 128
    assert last == {
        "qkv": d**2 + 2 * length * d**2,
        "scores_and_context": 2 * length * d,
        "output": d**2,
        "feed_forward": 8 * d**2,
    }


def test_kept_shares_may_differ_by_layer():
    architecture = Architecture((Own(False, True, False),) * 3)
    found = operations.task(TINY, 8, architecture, [0.0, 0.1, 1.0])
    qkv = operations.layer(TINY, 8)["qkv"]
    assert [layer["qkv"] for layer in found] == [0, 0.1 * qkv, qkv]


def test_a_readout_of_bert_large():
    """Sizes of 256: 25.2 million for the LSTM, 0.064 % of the encoder."""
    found = operations.readout(24, 1024, ReadoutSizes(256, 256), 2)
    assert found == {"aggregation": 24 * 1024 * 256, "lstm": 25_165_824, "head": 1024}
    assert round(100 * found["lstm"] / operations.total(LARGE, 128), 3) == 0.064


@pytest.mark.parametrize(("bottleneck", "percent"), [(64, 2.04), (256, 8.16)])
def test_adapters_add_to_a_model(bottleneck, percent):
    added = operations.adapters(LARGE, 128, bottleneck)
    assert round(100 * added / operations.total(LARGE, 128), 2) == percent


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: operations.task_layer(TINY, 8, Own(True, True, True), 1.1), r"must lie in \[0, 1\]"),
        (lambda: operations.task_layer(TINY, 8, Own(True, True, True), 0.1, 9), "9 of 8 tokens"),
        (lambda: operations.task_layer(TINY, 8, Own(True, True, True), 0.1, 0), "tokens must be a positive"),
        (lambda: operations.task(TINY, 8, Architecture.all_own(2), 0.1), "for 2 layers; the encoder has 3"),
        (lambda: operations.frozen(TINY, 8, [Architecture.all_own(4)]), "for 4 layers; the encoder has 3"),
        (lambda: operations.task(TINY, 8, Architecture.all_own(3), [0.1]), "kept shares of 1 layers"),
        (lambda: operations.adapters(TINY, 8, 0), "bottleneck must be a positive"),
    ],
)
def test_bad_input_of_sub_tasks(call, message):
    with pytest.raises(InputError, match=message):
        call()
