"""The two ways to take a step of AdamW do the same, and ways to rank find the same."""

import pytest
import torch

from paperlib import measure
from paperlib.kernels.packing import unpack
from paperlib.kernels.traffic import variants
from paperlib.training import kernel_cost
from paperlib.training.kernel_cost import State, shapes

MOVED = ("weights", "exp_avgs", "exp_avg_sqs", "gams")


def state(dtype=torch.float32, entries=1000):
    return State(entries, dtype, kept=0.3, seed=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", variants(4))
def test_one_pass_and_operators_in_turn_take_the_same_step(name, dtype):
    variant = variants(dtype.itemsize)[name]
    one, other, before = state(dtype), state(dtype), state(dtype)
    one.one_pass(variant)()
    other.in_turn(variant)()
    # A pull, a step and a product are each rounded to bf16 in turn, in one pass all at once.
    tolerance = {"rtol": 2e-6, "atol": 1e-8} if dtype == torch.float32 else {"rtol": 2**-6, "atol": 2e-5}
    for column in MOVED:
        torch.testing.assert_close(getattr(one, column), getattr(other, column), **tolerance)
        moves = column != "gams" or bool(variant.gam)
        assert moves != torch.equal(getattr(one, column)[0], getattr(before, column)[0]), column


def test_turns_are_repeated_on_numbers_of_the_same_kind():
    """No gradient fades and no weight grows, however many rounds."""
    variant = variants(4)["clipped, masked, with GAM"]
    one = state()
    turns = [one.in_turn(variant), one.one_pass(variant)]
    for _ in range(20):
        for turn in turns:
            turn()
    kept = one.masks[0]
    assert torch.equal(one.gradients[0][kept], state().gradients[0][kept])
    assert all(each.isfinite().all() for column in MOVED for each in getattr(one, column))


def test_masks_of_bits_are_the_masks():
    one = state()
    for mask, bits in zip(one.masks, one.bits, strict=True):
        assert torch.equal(unpack(bits, mask.shape), mask)
        assert 0.2 < mask.float().mean() < 0.4


def test_all_ways_to_rank_find_the_same_value():
    one = state()
    ways = one.rankings()
    values = torch.cat([each.view(-1) for each in one.gams])
    found = ways["kth_largest"]()
    assert (values >= found).sum() == 300
    assert ways["torch.kthvalue"]().values == found and ways["torch.sort"]().values[299] == found
    (bits,) = ways["kth_largest and packed masks"]()
    assert torch.equal(unpack(bits, values.shape), values >= found)


@pytest.mark.parametrize(
    "entries, expected", [(5, [(5,)]), (2**21, [(1024, 1024)] * 2), (2**20 + 7, [(1024, 1024), (7,)])]
)
def test_matrices_and_a_vector(entries, expected):
    assert shapes(entries) == expected


@pytest.mark.parametrize(
    "name, expected", [("AdamW", 14), ("clipped, masked, with GAM", 17), ("clipped, toward the start", 17)]
)
def test_operations_of_a_step(name, expected):
    assert kernel_cost.flops(variants(4)[name]) == expected


@pytest.mark.parametrize("by_triton, expected", [(False, 2), (True, 4)])
def test_passes_are_digits(monkeypatch, by_triton, expected):
    monkeypatch.setattr(kernel_cost.triton_path, "taken_by", lambda tensor: by_triton)
    assert kernel_cost.passes() == expected


def test_a_measurement_times_everything_once_per_round():
    found = kernel_cost.measurement(1000, "bf16", kept=0.3, rounds=2, seed=0)
    assert list(found.steps) == list(variants(2)) and list(found.rankings) == list(state().rankings())
    timings = [found.copy, *found.rankings.values(), *(each for how in found.steps.values() for each in how.values())]
    assert all(len(each.seconds) == 2 and min(each.seconds) > 0 for each in timings)
    assert found.copy.bytes == 4000 and found.steps["clipped, masked"]["one pass"].bytes == 14125
    assert {each.flops for each in found.steps["clipped, masked"].values()} == {15_000}
    assert found.beside > 0 or measure.device().type == "cuda"
