"""Gumbel-softmax selectors, their schedule and early stop (LeTS, appendix B.1): closed forms, draws, quadrature."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.special import expit

from paperlib.errors import InputError
from paperlib.lets import gumbel
from paperlib.lets.gumbel import EarlyStop, annealed, log_probabilities, probabilities, tenth

DRAWS = 40_000
DELTAS = [-3.0, -0.4, 0.0, 1.0, 2.5]
unhurried = settings(deadline=None, max_examples=50)
logits = st.lists(st.floats(-30, 30), min_size=2, max_size=2)


def drawn(delta, temperature, seed=0):
    """P_0 of many draws of one selector with a_0 - a_1 = delta."""
    torch.manual_seed(seed)
    alpha = torch.tensor([delta, 0.0], dtype=torch.float64).expand(DRAWS, 2)
    return probabilities(alpha, gumbel.noise(alpha), temperature)[:, 0].numpy()


def moments(delta, temperature):
    """E[P_0] and Var P_0 by quadrature over the logistic noise."""
    x, step = np.linspace(-40, 40, 400_001, retstep=True)
    p, density = expit((delta + x) / temperature), expit(x) * expit(-x) * step
    mean = p @ density
    return mean, p**2 @ density - mean**2


# --- draws


@unhurried
@given(logits, logits, st.floats(0.05, 50))
def test_probabilities_are_eq_14(a, g, temperature):
    a, g = torch.tensor(a, dtype=torch.float64), torch.tensor(g, dtype=torch.float64)
    weights = [math.exp((a[t] + g[t] - max(a + g)) / temperature) for t in (0, 1)]
    expected = torch.tensor([weight / sum(weights) for weight in weights], dtype=torch.float64)
    torch.testing.assert_close(probabilities(a, g, temperature), expected, rtol=1e-12, atol=0)


@unhurried
@given(logits, logits, st.floats(0.2, 50))
def test_their_gradient_is_p0_p1_over_the_temperature(a, g, temperature):
    a = torch.tensor(a, dtype=torch.float64, requires_grad=True)
    p = probabilities(a, torch.tensor(g, dtype=torch.float64), temperature)
    (slope,) = torch.autograd.grad(p[0], a)
    by_hand = (p[0] * p[1] / temperature).detach()
    torch.testing.assert_close(slope, torch.stack([by_hand, -by_hand]), rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("temperature", [1e-300, 1e-3, 1.0, 1e300])
@pytest.mark.parametrize("gap", [0.0, 5.0, 1e4])
def test_extreme_temperatures_and_logits_stay_finite_and_so_do_gradients(temperature, gap):
    alpha = torch.tensor([[gap, 0.0], [0.0, gap]], requires_grad=True)
    g = gumbel.gumbel(torch.tensor([[0.0, 1.0], [0.5, 0.25]], dtype=torch.float64))
    p = probabilities(alpha, g, temperature)
    (p @ torch.tensor([1.0, -2.0], dtype=torch.float64)).sum().backward()
    assert g.isfinite().all() and alpha.grad.isfinite().all()
    torch.testing.assert_close(p.sum(-1), torch.ones(2, dtype=torch.float64))


def test_log_probabilities_hold_where_probabilities_have_underflowed():
    alpha, g = torch.tensor([10.0, 0.0]), torch.zeros(2, dtype=torch.float64)
    assert probabilities(alpha, g, 0.006)[1] == 0
    assert log_probabilities(alpha, g, 0.006)[1].item() == pytest.approx(-10 / 0.006)


def test_noise_is_standard_gumbel_and_repeats_with_the_seed():
    torch.manual_seed(3)
    first = gumbel.noise(torch.zeros(DRAWS, 2))
    torch.manual_seed(3)
    assert torch.equal(first, gumbel.noise(torch.zeros(DRAWS, 2)))
    assert stats.kstest(first.reshape(-1).numpy(), stats.gumbel_r.cdf).pvalue > 0.01
    difference = (first[:, 0] - first[:, 1]).numpy()
    assert stats.kstest(difference, stats.logistic.cdf).pvalue > 0.01


@pytest.mark.parametrize("temperature", [0.05, 0.5, 1.0, 4.0, 50.0])
@pytest.mark.parametrize("a", [[0.0, 0.0], [1.0, 0.0], [0.3, -1.2, 0.9]])
def test_the_argmax_of_a_draw_is_softmax_of_the_logits_at_any_temperature(a, temperature):
    """Within three standard errors; for two choices and for three."""
    torch.manual_seed(round(100 * temperature))
    alpha = torch.tensor(a, dtype=torch.float64).expand(DRAWS, len(a))
    chosen = probabilities(alpha, gumbel.noise(alpha), temperature).argmax(-1)
    share = torch.bincount(chosen, minlength=len(a)) / DRAWS
    p = torch.softmax(alpha[0], 0)
    assert ((share - p).abs() <= 3 * (p * (1 - p) / DRAWS).sqrt()).all()


def test_the_selected_choice_is_the_argmax_without_noise_and_share_where_logits_tie():
    alpha = torch.tensor([[[0.1, 0.2], [0.0, 0.0]], [[-1.0, -3.0], [5.0, 6.0]]], requires_grad=True)
    assert gumbel.selected(alpha).tolist() == [[1, 0], [0, 1]]


# --- closed forms


@pytest.mark.parametrize("delta", [0.0, 1.0, -2.0])
@pytest.mark.parametrize("temperature", [0.2, 1.0, 4.0])
def test_draws_follow_the_cdf(delta, temperature):
    sample = np.clip(drawn(delta, temperature), 1e-300, 1 - 1e-16)
    assert stats.kstest(sample, lambda p: gumbel.cdf(p, delta, temperature)).statistic < 1.63 / math.sqrt(DRAWS)
    wrong = stats.kstest(sample, lambda p: gumbel.cdf(p, delta, 1.3 * temperature))
    assert wrong.statistic > 5 / math.sqrt(DRAWS), "the test sees a wrong temperature"


@unhurried
@given(st.floats(-20, 20), st.floats(0.8, 50))
def test_half_of_the_mass_lies_below_the_median(delta, temperature):
    assert gumbel.cdf(gumbel.median(delta, temperature), delta, temperature) == pytest.approx(0.5, abs=1e-3)


@pytest.mark.parametrize("delta", DELTAS)
@pytest.mark.parametrize("temperature", [0.05, 1.0, 50.0])
def test_mass_above_one_half_does_not_depend_on_the_temperature(delta, temperature):
    assert gumbel.above_half(delta) == pytest.approx(1 - gumbel.cdf(0.5, delta, temperature), abs=1e-15)
    assert gumbel.above_half(delta) == pytest.approx(math.exp(delta) / (math.exp(delta) + 1), abs=1e-15)


@pytest.mark.parametrize("delta", [*DELTAS, 1e-9, 0.05, 0.1, -0.0999, 0.1001, 12.0])
def test_the_mean_at_temperature_one_is_its_integral(delta):
    assert gumbel.mean_at_one(delta) == pytest.approx(moments(delta, 1.0)[0], abs=1e-12)


@pytest.mark.parametrize("delta", [-5.0, -1.0, 0.5, 1.0, 6.0])
def test_the_mean_at_temperature_one_is_the_written_form(delta):
    k = math.exp(delta)
    assert gumbel.mean_at_one(delta) == pytest.approx(k * (k - 1 - delta) / (k - 1) ** 2, rel=1e-13)


def test_the_mean_of_a_soft_draw_is_not_softmax():
    assert gumbel.mean_at_one(1.0) == pytest.approx(0.6613, abs=5e-5)
    assert gumbel.above_half(1.0) == pytest.approx(0.7311, abs=5e-5)
    assert drawn(1.0, 1.0).mean() == pytest.approx(0.6613, abs=0.005)


def test_the_mean_at_temperature_one_works_on_arrays_and_far_out():
    found = gumbel.mean_at_one(np.array([-1e4, 0.0, 1e4]))
    np.testing.assert_allclose(found, [0, 0.5, 1], atol=1e-12)


@pytest.mark.parametrize("delta", DELTAS)
def test_cold_selectors_are_coins_with_softmax_probabilities(delta):
    """E[P] within O(T^2) of softmax, the variance within T times the logistic density of p (1 - p)."""
    p = gumbel.above_half(delta)
    for temperature in (0.1, 0.01):
        mean, variance = moments(delta, temperature)
        assert mean == pytest.approx(p, abs=temperature**2)
        lost = gumbel.variance_as_cold(delta) - variance
        assert lost == pytest.approx(temperature * p * (1 - p), abs=temperature**2)


@pytest.mark.parametrize("delta", DELTAS)
def test_hot_selectors_are_even_with_a_variance_that_falls_as_the_square(delta):
    mean, variance = moments(delta, 100.0)
    assert mean == pytest.approx(0.5 + delta / 400, abs=1e-4)
    assert variance == pytest.approx(gumbel.variance_as_hot(100.0), rel=2e-3)
    assert gumbel.variance_as_hot(100.0) == pytest.approx((math.pi**2 / 3) / (16 * 100.0**2))


# --- schedule


SCHEDULE = {
    0: 4.0,
    1: 3.7483,
    2: 3.5124,
    3: 3.2913,
    5: 2.8901,
    10: 2.0882,
    20: 1.0901,
    30: 0.5691,
    40: 0.2971,
    50: 0.1551,
    70: 0.0423,
    100: 0.0060,
}


@pytest.mark.parametrize(("n", "expected"), SCHEDULE.items())
def test_the_schedule_to_four_decimals(n, expected):
    assert round(annealed(n), 4) == expected


def test_the_printed_factor_is_not_exp_of_minus_0_065():
    assert annealed(1) / annealed(0) == pytest.approx(0.937067, abs=5e-7)
    assert 4 * 0.936**70 / annealed(70) == pytest.approx(1 - 0.077, abs=5e-4)


@pytest.mark.parametrize(("reached", "n"), [(1.0, 21.33), (0.5, 31.99), (0.1, 56.75)])
def test_when_a_temperature_is_reached(reached, n):
    assert annealed(math.floor(n)) > reached > annealed(math.ceil(n))


def test_tenths_of_an_epoch_count_whole_ones():
    assert [tenth(step, 20) for step in (0, 1, 2, 3, 4, 19, 20, 41)] == [0, 0, 1, 1, 2, 9, 10, 20]
    assert [tenth(step, 3) for step in range(4)] == [0, 3, 6, 10], "epochs shorter than ten steps skip tenths"


# --- early stop


def looked(stop, trace, start=1):
    """Which looks say stop; one model per tenth."""
    return [stop.look(start + i, torch.tensor(model)) for i, model in enumerate(trace)]


A, B = [0, 1, 1], [1, 1, 1]


@pytest.mark.parametrize(
    ("trace", "stops"),
    [
        ([A, A, A, A], [False, False, False, True]),
        ([A, A, A, B, A, A, A, A], [False] * 7 + [True]),
        ([A, B, A, B, A, B], [False] * 6),
        ([B, A, A, A, A], [False] * 4 + [True]),
    ],
)
def test_the_search_stops_after_three_further_tenths_with_the_same_model(trace, stops):
    assert looked(EarlyStop(), trace) == stops


def test_skipped_tenths_count_as_unchanged():
    stop = EarlyStop()
    assert [stop.look(n, torch.tensor(A)) for n in (3, 5, 6)] == [False, False, True]


def test_a_model_changed_in_place_is_a_change():
    stop, model = EarlyStop(), torch.tensor(A)
    assert not stop.look(1, model)
    model[0] = 1
    assert not stop.look(4, model)


@unhurried
@given(st.lists(st.sampled_from([A, B]), max_size=12), st.integers(0, 12), st.integers(1, 4))
def test_a_resumed_early_stop_goes_on_as_if_never_left(trace, cut, patience):
    whole, first, second = (EarlyStop(patience) for _ in range(3))
    expected = looked(whole, trace)
    before = looked(first, trace[:cut])
    second.load_state_dict(first.state_dict())
    assert before + looked(second, trace[cut:], start=1 + len(trace[:cut])) == expected


# --- bad input


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan"), float("inf")])
def test_temperatures_must_be_positive_and_finite(temperature):
    calls = [
        lambda: probabilities(torch.zeros(2), torch.zeros(2), temperature),
        lambda: gumbel.cdf(0.5, 0.0, temperature),
        lambda: gumbel.median(0.0, temperature),
        lambda: gumbel.variance_as_hot(temperature),
        lambda: annealed(1, start=temperature),
    ]
    for call in calls:
        with pytest.raises(InputError, match="temperature must be a finite number above 0"):
            call()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: annealed(-1), "may be negative"),
        (lambda: annealed(1, rate=-0.1), "may be negative"),
        (lambda: tenth(-1, 10), "step -1"),
        (lambda: tenth(1, 0), "of 0 an epoch"),
        (lambda: gumbel.cdf(1.0, 0.0, 1.0), "strictly between 0 and 1"),
        (lambda: EarlyStop(0), "patience of 0 tenths"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(InputError, match=message):
        call()
