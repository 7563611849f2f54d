"""Operation counts of BERT-type encoders (LeTS, appendix A.1) against torch's own counter."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paperlib import backbones
from paperlib.errors import InputError
from paperlib.lets import operations
from paperlib.lets.operations import Encoder

BASE, LARGE = Encoder(12, 768, 3072), Encoder(24, 1024, 4096)
encoders = st.builds(Encoder, st.integers(1, 48), st.integers(1, 2048), st.integers(1, 8192))


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
