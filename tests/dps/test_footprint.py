"""What the methods allocate in real steps, against the byte model: the model's promises hold to the byte where nothing is rounded."""

from functools import cache

import pytest
import torch

from paperlib import backbones
from paperlib.dps import footprint, memory
from paperlib.dps.footprint import Setting
from paperlib.dps.methods import Choice
from paperlib.dps.scope import tracked
from paperlib.training.random_rows import RandomRows

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU's allocator rounds sizes up")

# As many tokens as make activations, not optimizer steps, the peak.
SETTING = Setting(batch_size=32, length=64, precision="fp32", seed=0)


@cache
def backbone():
    return backbones.load("tiny-bert", 2, seed=0, dropout=0.0)


@cache
def counts():
    return memory.counts_of(backbone().model)


@cache
def of(method, reference_dtypes=False):
    return footprint.footprint(backbone(), Choice(method, reference_dtypes=reference_dtypes), SETTING)


def beyond_vanilla(method, reference_dtypes=False):
    """Bytes at the peak of stage I and of the selection step."""
    found, vanilla = of(method, reference_dtypes), of("vanilla")
    return found.stage_one - vanilla.stage_one, found.selection - vanilla.selection


def test_vanillas_own_part_is_sixteen_bytes_a_weight():
    vanilla = of("vanilla")
    assert (vanilla.parameters, vanilla.gradients, vanilla.moments) == (
        4 * counts().all,
        4 * counts().all,
        8 * counts().all,
    )
    assert vanilla.state == 0 and vanilla.before >= vanilla.parameters
    assert vanilla.stage_one == vanilla.selection > 12 * counts().all


def test_dps_dense_takes_four_bytes_then_one():
    n = counts().tracked
    assert beyond_vanilla("dps_dense") == (4 * n, 1 * n)


def test_dps_dense_as_published_takes_twenty_bytes_where_it_selects():
    n = counts().tracked
    assert beyond_vanilla("dps_dense", reference_dtypes=True) == (4 * n, 20 * n)


def test_child_tuning_d_takes_one_byte_for_each_weight_of_the_layers():
    assert beyond_vanilla("child_tuning_d") == (counts().encoder, counts().encoder)


@pytest.mark.parametrize("reference_dtypes", [False, True])
@pytest.mark.parametrize("method", ["mixout", "dps_mix"])
def test_mixed_weights_come_on_top_of_what_is_kept_one_layer_at_a_time(method, reference_dtypes):
    """At the peak the backward pass may have left the head behind, and with it the masks on its graph, 8 bytes a weight at most."""
    items = (memory.AS_CODED if reference_dtypes else memory.LEAN)[method]
    sizes = {name: weight.numel() for name, weight in tracked(backbone().model).items()}
    head = sum(size for name, size in sizes.items() if "encoder" not in name)
    for extra, moment in zip(
        beyond_vanilla(method, reference_dtypes), (memory.STAGE_ONE, memory.SELECTION), strict=True
    ):
        kept = memory.extra_bytes(items, counts(), moment)
        assert kept - 8 * head <= extra <= kept + 40 * max(sizes.values()), moment


@pytest.mark.parametrize("method", memory.TWO_FORWARDS)
def test_two_forward_passes_hold_about_two_graphs(method):
    activations = of("vanilla").stage_one - 12 * counts().all
    assert 1.7 < 1 + beyond_vanilla(method)[0] / activations < 2.6


def test_every_column_is_measured_as_ours_and_where_it_is_wider_as_published():
    found = footprint.choices()
    assert [choice.method for choice in found if not choice.reference_dtypes] == list(memory.METHODS)
    assert [choice.method for choice in found if choice.reference_dtypes] == ["mixout", "dps_dense", "dps_mix"]


@pytest.mark.parametrize("stage_steps, steps", [(1, 1), (1, 2), (2, 3), (7, 49), (23, 468), (3, 3)])
def test_the_update_ratio_gives_the_stages_asked_for(stage_steps, steps):
    assert int(steps * footprint.ratio_of(stage_steps, steps)) == stage_steps


def test_random_rows_are_all_of_one_length_and_the_same_for_a_seed():
    one, again = (RandomRows.draw(backbone(), 5, 12, seed=3).train for _ in range(2))
    assert one.lengths.tolist() == [12] * 5 and (one.labels == again.labels).all()
    assert all((a == b).all() for a, b in zip(one.input_ids, again.input_ids, strict=True))
    assert max(ids.max() for ids in one.input_ids) < backbone().model.config.vocab_size
