"""How far alpha moves: the sum of its rates, whatever the gradients, in units of tau."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from paperlib.s3delta import movement
from paperlib.s3delta.gates import Gates

SIZES = torch.tensor([3, 5, 2, 8, 4, 6])
GAINS = torch.tensor([1.0, -0.5, 0.2, 0.0, 2.0, -1.0], dtype=torch.float64)


@given(rate=st.floats(1e-3, 1.0), total=st.integers(1, 300))
def test_the_reach_is_the_sum_of_the_rates(rate, total):
    assert movement.reach(rate, total) == pytest.approx(math.fsum(movement.rates(rate, total)))


def test_the_rates_fall_from_the_whole_to_one_part_of_t():
    assert movement.rates(0.1, 4) == pytest.approx([0.1, 0.075, 0.05, 0.025])


@given(rate=st.floats(1e-2, 1.0), total=st.integers(1, 200), distance=st.floats(0, 20))
def test_steps_to_a_distance_are_the_first_whose_rates_reach_it(rate, total, distance):
    found, rates = movement.steps_to(distance, rate, total), movement.rates(rate, total)
    if found is None:
        assert math.fsum(rates) < distance
    else:
        assert math.fsum(rates[:found]) == pytest.approx(distance) or math.fsum(rates[:found]) >= distance
        assert found == 0 or math.fsum(rates[: found - 1]) < distance


def test_a_crossing_is_the_distance_that_carries_p_to_its_target():
    for tau in (0.1, 0.3, 1.0):
        distance = movement.crossing(0.05, 0.9, tau)
        assert 1 / (1 + math.exp(-(distance / tau + math.log(0.05 / 0.95)))) == pytest.approx(0.9)


@settings(deadline=None)  # torch loads its compiler with the first optimizer
@given(size=st.floats(1e-4, 1e4), clip=st.sampled_from([2.0, 1e9]))
def test_the_first_step_is_the_rate_against_the_gradient_s_sign_whatever_its_size(size, clip):
    moves = movement.first_moves([size, -size, 3 * size], rate=0.1, clip_norm=clip)
    assert moves == pytest.approx([-0.1, 0.1, -0.1], rel=2e-3)


def test_without_a_gradient_nothing_moves():
    assert movement.first_moves([0.0, 1.0], rate=0.1)[0] == 0


def test_a_walk_starts_from_equal_p_within_the_budget_and_finds_what_is_worth_most():
    gates = Gates(SIZES, budget=7.0)
    p = movement.walk(gates, GAINS, noise=0.1, rate=0.1, steps=150, seed=0)
    assert p.shape == (151, 6) and p[0] == pytest.approx(torch.full((6,), 7 / 28))
    assert (p @ SIZES.double()).numpy() == pytest.approx(7.0)
    assert p[-1].argmax() == GAINS.argmax() and p[-1, 4] > 0.7


@pytest.mark.parametrize("tau", [0.1, 0.3])
def test_without_clipping_a_rate_and_a_tau_are_one_parameter(tau):
    """alpha / tau moves by rate / tau a step, and AdamW takes no notice that its gradient is 1 / tau times as large."""
    plain = movement.walk(Gates(SIZES, 7.0, tau=1.0), GAINS, 0.5, rate=0.1 / tau, steps=60, seed=1)
    cold = movement.walk(Gates(SIZES, 7.0, tau=tau), GAINS, 0.5, rate=0.1, steps=60, seed=1)
    assert cold.numpy() == pytest.approx(plain.numpy(), abs=1e-4)


def test_clipping_tells_them_apart():
    plain = movement.walk(Gates(SIZES, 7.0, tau=1.0), 9 * GAINS, 9.0, 1.0, steps=60, seed=1, clip_norm=2.0)
    cold = movement.walk(Gates(SIZES, 7.0, tau=0.1), 9 * GAINS, 9.0, 0.1, steps=60, seed=1, clip_norm=2.0)
    assert (cold - plain).abs().max() > 1e-2
