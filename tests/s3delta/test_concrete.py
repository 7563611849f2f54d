"""The binary concrete distribution (S3Delta, appendix C.1) against exact values, quadrature and its own definition."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from scipy.integrate import quad
from scipy.special import expit, logit

from paperlib.errors import InputError
from paperlib.s3delta import concrete

inside = st.floats(1e-6, 1 - 1e-6)
probabilities = st.floats(1e-4, 1 - 1e-4)
temperatures = st.floats(0.01, 10)


def double(value):
    return torch.as_tensor(value, dtype=torch.float64)


# eq. 23: the definition -----------------------------------------------------------------------------------------------


@given(u=st.floats(0.01, 0.99), p=st.floats(0.01, 0.99), beta=st.floats(0.2, 5))
def test_a_draw_is_the_printed_formula(u, p, beta):
    log_odds = np.log(u * p / ((1 - u) * (1 - p))) / beta
    assert concrete.sample(double(p), beta, double(u)).item() == pytest.approx(1 / (1 + np.exp(-log_odds)), abs=1e-12)


@given(e=inside, p=probabilities, beta=temperatures)
def test_the_cdf_inverts_the_sampler(e, p, beta):
    u = concrete.cdf(e, p, beta)
    if 1e-9 < u < 1 - 1e-9:
        assert concrete.sample(double(p), beta, double(u)).item() == pytest.approx(
            e, abs=1e-6 * e * (1 - e) / beta + 1e-12
        )


@pytest.mark.parametrize("beta", [0.1, 0.5, 1, 2])
@pytest.mark.parametrize("p", [0.0545, 0.3, 0.9])
def test_draws_follow_the_cdf(p, beta):
    u = torch.rand(20_000, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    z = concrete.sample(double(p), beta, u).numpy()
    edges = np.array([0.01, 0.1, 0.5, 0.9, 0.99])
    counts, _ = np.histogram(z, [0, *edges, 1])
    expected = 20_000 * np.diff([0, *concrete.cdf(edges, p, beta), 1])
    assert stats.chisquare(counts, expected).pvalue > 1e-4


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("beta", [1e-30, 1e-6, 1.0, 1e6])
def test_extreme_draws_and_probabilities_stay_finite_and_so_do_their_gradients(dtype, beta):
    p = torch.tensor([0.0, 1e-30, 0.5, 1 - 1e-7, 1.0], dtype=dtype, requires_grad=True)
    u = torch.tensor([0.0, 1e-30, 0.5, 1 - 1e-7, 1.0], dtype=dtype)[:, None]
    z = concrete.sample(p, beta, u)
    z.sum().backward()
    assert z.isfinite().all() and (z >= 0).all() and (z <= 1).all()
    assert p.grad.isfinite().all()


def test_a_temperature_too_small_for_the_float_type_is_a_hard_coin():
    u = torch.tensor([0.2, 0.5, 0.8])
    assert concrete.sample(torch.tensor(0.5), 1e-300, u).tolist() == [0, 0.5, 1]


@given(u=st.floats(0.01, 0.99), p=st.floats(0.01, 0.99), beta=st.floats(0.2, 5))
def test_the_gradient_in_p_has_its_closed_form(u, p, beta):
    leaf = double(p).requires_grad_()
    z = concrete.sample(leaf, beta, double(u))
    z.backward()
    # z (1 - z), also where z rounds to 1.
    x = (logit(u) + logit(p)) / beta
    assert leaf.grad.item() == pytest.approx(expit(x) * expit(-x) / (beta * p * (1 - p)), rel=1e-10)


# eqs. 24 to 26: threshold and limits ----------------------------------------------------------------------------------


@given(p=probabilities, beta=st.floats(1e-6, 1e6))
def test_more_than_one_half_has_probability_p_at_every_temperature(p, beta):
    assert 1 - concrete.cdf(0.5, p, beta) == pytest.approx(p, abs=1e-15)


GOLDEN = {
    1.0: (7 / 34, 1 / 22),
    0.5: (0.4375, 0.125),
    0.1: (0.6519394890, 0.2559701501),
    0.01: (0.6953656494, 0.2954062004),
}


@pytest.mark.parametrize(("beta", "below", "above"), [(beta, *values) for beta, values in GOLDEN.items()])
def test_tails_at_p_3_tenths_and_epsilon_1_tenth(beta, below, above):
    assert concrete.cdf(0.1, 0.3, beta) == pytest.approx(below, abs=1e-10)
    assert concrete.upper_tail(0.1, 0.3, beta) == pytest.approx(above, abs=1e-10)


@given(e=inside, p=probabilities, beta=temperatures)
def test_tails_mirror_each_other(e, p, beta):
    assert concrete.upper_tail(e, p, beta) == pytest.approx(concrete.cdf(e, 1 - p, beta), abs=1e-12)
    if e < 0.5:
        assert concrete.upper_tail(e, p, beta) == pytest.approx(1 - concrete.cdf(1 - e, p, beta), abs=1e-9)


@given(e=inside, p=probabilities, beta=st.floats(1e-12, 1))
def test_both_limits_are_reached_within_the_lipschitz_bound(e, p, beta):
    bound = beta * abs(np.log(e / (1 - e))) / 4 + 1e-15
    assert abs(concrete.cdf(e, p, beta) - (1 - p)) <= bound
    assert abs(concrete.upper_tail(e, p, beta) - p) <= bound


@given(e=inside, p=probabilities, beta=st.floats(1e-6, 0.1))
def test_the_linear_error_leaves_only_second_order(e, p, beta):
    second_order = (beta * np.log(e / (1 - e))) ** 2 * np.sqrt(3) / 36 + 1e-15  # max |sigmoid''| = sqrt(3)/18
    error = concrete.limit_error(e, p, beta)
    assert abs(concrete.cdf(e, p, beta) - (1 - p) - error) <= second_order
    assert abs(concrete.upper_tail(e, p, beta) - p - error) <= second_order


def test_convergence_is_not_uniform_in_epsilon():
    assert abs(concrete.cdf(1e-300, 0.3, 0.01) - 0.7) > 0.69


# density and moments --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("beta", [0.1, 0.5, 1, 2, 5])
@pytest.mark.parametrize("p", [0.0545, 0.3, 0.5, 0.9])
def test_the_density_integrates_to_the_cdf(p, beta):
    mass, _ = quad(concrete.pdf, 0.1, 0.9, args=(p, beta), epsabs=1e-13, epsrel=1e-13)
    assert mass == pytest.approx(concrete.cdf(0.9, p, beta) - concrete.cdf(0.1, p, beta), abs=1e-12)


@pytest.mark.parametrize("p", [1e-3, 0.0545, 0.34, 0.36, 0.499999, 0.5, 0.64, 0.66, 0.9])
def test_moments_at_temperature_one_equal_quadrature(p):
    exact = [quad(lambda z, k=k: z**k * concrete.pdf(z, p, 1.0), 0, 1, epsabs=1e-13, limit=200)[0] for k in (1, 2)]
    assert concrete.moments(p) == pytest.approx(exact, abs=1e-11)


def test_moments_have_their_textbook_form_and_limit():
    p, q = 0.3, 0.7
    c, log_odds = p - q, np.log(p / q)
    mean, second = concrete.moments(p)
    assert mean == pytest.approx(p / c * (1 - q / c * log_odds), abs=1e-14)
    assert second == pytest.approx(p / c**2 - 2 * p**2 * q * log_odds / c**3, abs=1e-14)
    assert concrete.moments(0.5) == pytest.approx((1 / 2, 1 / 3), abs=1e-15)


@given(p=inside)
def test_moments_are_those_of_a_number_between_0_and_1_and_mirror_with_p(p):
    mean, second = concrete.moments(p)
    assert mean**2 <= second <= mean
    assert concrete.moments(1 - p)[0] == pytest.approx(1 - mean, abs=1e-10)


# Monte Carlo ----------------------------------------------------------------------------------------------------------


def test_frequencies_lie_within_five_standard_errors_and_repeat():
    n = 100_000
    seen = concrete.frequencies(0.3, 0.5, 0.1, n, torch.Generator().manual_seed(0))
    for name, exact in (("below", 0.4375), ("above", 0.125), ("half", 0.3)):
        assert abs(seen[name] - exact) < 5 * np.sqrt(exact * (1 - exact) / n)
    assert seen == concrete.frequencies(0.3, 0.5, 0.1, n, torch.Generator().manual_seed(0))


def test_the_mean_and_spread_of_draws_are_the_moments():
    n = 100_000
    z = concrete.draw(0.3, 1.0, n, torch.Generator().manual_seed(1))
    mean, second = concrete.moments(0.3)
    assert abs(z.mean() - mean) < 5 * np.sqrt((second - mean**2) / n)
    assert z.var() == pytest.approx(second - mean**2, rel=0.02)


# bad input ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("beta", [0.0, -1.0, float("inf"), float("nan")])
def test_a_temperature_must_be_positive_and_finite(beta):
    with pytest.raises(InputError, match="temperature"):
        concrete.cdf(0.1, 0.3, beta)
    with pytest.raises(InputError, match="temperature"):
        concrete.sample(double(0.3), beta, double(0.5))


@pytest.mark.parametrize("bad", [0.0, 1.0, -0.1, 1.1, float("nan")])
def test_closed_forms_need_values_strictly_inside_the_unit_interval(bad):
    for call in (concrete.cdf, concrete.upper_tail, concrete.pdf, concrete.limit_error):
        with pytest.raises(InputError, match="p must lie"):
            call(0.1, bad, 1.0)
        with pytest.raises(InputError, match="(epsilon|z) must lie"):
            call(bad, 0.3, 1.0)
    with pytest.raises(InputError, match="p must lie"):
        concrete.moments(bad)


@pytest.mark.parametrize("bad", [-0.1, 1.1, float("nan")])
def test_a_sample_needs_probabilities(bad):
    with pytest.raises(InputError, match="p must lie"):
        concrete.sample(double([0.5, bad]), 1.0, double(0.5))
    with pytest.raises(InputError, match="u must lie"):
        concrete.sample(double(0.5), 1.0, double([0.5, bad]))


def test_frequencies_need_a_draw_and_a_tail():
    with pytest.raises(InputError, match="at least 1"):
        concrete.frequencies(0.3, 1.0, 0.1, 0, torch.Generator())
    with pytest.raises(InputError, match="epsilon must lie"):
        concrete.frequencies(0.3, 1.0, 0.0, 10, torch.Generator())
