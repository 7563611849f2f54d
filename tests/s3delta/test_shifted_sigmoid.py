"""The global shifted sigmoid by hand (S3Delta, appendix C.2) against finite differences, autograd through the print, and the search's own gates."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from paperlib.errors import InputError
from paperlib.s3delta import shifted_sigmoid as by_hand
from paperlib.s3delta.gates import Gates, budget_shift

SIZES = np.array([3, 5, 2, 7, 5, 11, 2, 4])
CASES = [(seed, tau, budget) for seed in range(3) for tau, budget in ((1.0, 9.0), (0.3, 2.0), (2.0, 30.0))]
every_case = pytest.mark.parametrize(("seed", "tau", "budget"), CASES)

unhurried = settings(deadline=None)


def drawn(seed, count=8):
    """(alpha, dL/dp)."""
    generator = np.random.default_rng(seed)
    return generator.standard_normal(count), generator.standard_normal(count)


def differences(function, at, step=1e-6):
    """Central differences of ``function`` in every entry of ``at``, along a new last axis."""
    moves = step * np.eye(len(at))
    return np.stack([(function(at + move) - function(at - move)) / (2 * step) for move in moves], axis=-1)


# --- the budget shift


@unhurried
@given(
    st.lists(st.tuples(st.floats(-50, 50), st.integers(1, 5000)), min_size=1, max_size=12),
    st.floats(1e-4, 1 - 1e-4),
    st.floats(0.1, 5),
)
def test_the_shift_spends_the_budget_and_is_the_one_of_the_search(modules, share, tau):
    alpha, sizes = (np.array(column, dtype=float) for column in zip(*modules, strict=True))
    budget = share * sizes.sum()
    zeta = by_hand.shift(alpha, sizes, budget, tau)
    p = by_hand.probabilities(alpha, sizes, budget, tau)
    assert sizes @ p == pytest.approx(budget, rel=1e-9)
    theirs = budget_shift(torch.from_numpy(alpha), torch.from_numpy(sizes), budget, tau).item()
    slope = sizes @ by_hand.slope(p, tau)
    # On a plateau, where nothing is spent by moving zeta, any point of it is a root.
    assert abs(zeta - theirs) * slope <= 1e-9 * budget


def test_the_published_solver_finds_the_root_where_it_can_see_it():
    alpha, _ = drawn(0)
    found = by_hand.published_shift(alpha, SIZES, 9.0, 1.0, start=0.0)
    assert found == pytest.approx(by_hand.shift(alpha, SIZES, 9.0 * (1 - 1e-7)), abs=1e-9)


def test_the_published_solver_stays_where_every_gate_is_saturated():
    alpha, budget = np.where(np.arange(8) < 2, 40.0, -40.0), 15.0
    assert by_hand.published_shift(alpha, SIZES, budget, 0.1, start=0.0) == pytest.approx(0.0, abs=1e-6)
    assert SIZES @ (alpha > 0) == 8, "so it spends 8 of 15"
    assert SIZES @ by_hand.probabilities(alpha, SIZES, budget, 0.1) == pytest.approx(budget, rel=1e-9)


# --- eqs. 29 to 34


@every_case
def test_eq_29_is_the_slope_with_zeta_held(seed, tau, budget):
    alpha, g = drawn(seed)
    zeta = by_hand.shift(alpha, SIZES, budget, tau)
    loss = differences(lambda a: g @ (1 / (1 + np.exp(-(a - zeta) / tau))), alpha)
    p = by_hand.probabilities(alpha, SIZES, budget, tau)
    np.testing.assert_allclose(by_hand.local_gradient(g, p, tau=tau), loss, rtol=0, atol=1e-8)


@every_case
def test_eqs_31_and_32_are_derivatives_of_27_and_28(seed, tau, budget):
    alpha, _ = drawn(seed)
    p = by_hand.probabilities(alpha, SIZES, budget, tau)
    held = p.sum()
    np.testing.assert_allclose(by_hand.factor_slope(p), differences(lambda q: held / q.sum(), p), rtol=0, atol=1e-8)
    np.testing.assert_allclose(by_hand.jacobian(p), differences(lambda q: held / q.sum() * q, p), rtol=0, atol=1e-8)


@every_case
def test_the_chain_rule_of_eq_30_ends_in_eq_33(seed, tau, budget):
    alpha, g = drawn(seed)
    p = by_hand.probabilities(alpha, SIZES, budget, tau)
    found = by_hand.global_gradient(g, p, tau=tau)
    np.testing.assert_allclose(by_hand.chained(g, p, tau), found, rtol=0, atol=1e-14)
    extra = found - by_hand.local_gradient(g, p, tau=tau)
    np.testing.assert_allclose(extra, by_hand.adjustment(g, p) * by_hand.slope(p, tau), rtol=0, atol=1e-14)


@every_case
@pytest.mark.parametrize("form", by_hand.GRADIENTS)
def test_every_gradient_is_the_one_the_search_takes(seed, tau, budget, form):
    alpha, g = drawn(seed)
    leaf = torch.from_numpy(alpha).requires_grad_()
    (Gates(torch.from_numpy(SIZES), budget, tau=tau, gradient=form).p(leaf) @ torch.from_numpy(g)).backward()
    p = by_hand.probabilities(alpha, SIZES, budget, tau)
    np.testing.assert_allclose(by_hand.GRADIENTS[form](g, p, SIZES, tau), leaf.grad, rtol=0, atol=1e-13)


@every_case
def test_implicit_is_the_gradient_of_the_whole_function(seed, tau, budget):
    alpha, g = drawn(seed)
    whole = differences(lambda a: g @ by_hand.probabilities(a, SIZES, budget, tau), alpha)
    p = by_hand.probabilities(alpha, SIZES, budget, tau)
    np.testing.assert_allclose(by_hand.implicit_gradient(g, p, SIZES, tau), whole, rtol=0, atol=1e-7)


@every_case
def test_what_adds_up_to_zero(seed, tau, budget):
    alpha, g = drawn(seed)
    p = by_hand.probabilities(alpha, SIZES, budget, tau)
    found = {form: gradient(g, p, SIZES, tau) for form, gradient in by_hand.GRADIENTS.items()}
    assert abs((found["global"] / (1 - p)).sum()) < 1e-13 and abs(found["implicit"].sum()) < 1e-13
    assert abs(found["local"].sum()) > 1e-3 and abs((found["local"] / (1 - p)).sum()) > 1e-3


def test_equal_gradients_stop_global_and_those_in_proportion_to_size_stop_implicit():
    p = by_hand.probabilities(drawn(0)[0], SIZES, 9.0)
    assert abs(by_hand.global_gradient(np.full(8, 2.5), p)).max() < 1e-15
    assert abs(by_hand.implicit_gradient(2.5 * SIZES, p, SIZES)).max() < 1e-14
    assert abs(by_hand.implicit_gradient(np.full(8, 2.5), p, SIZES)).max() > 0.1


# --- optimisation


def test_global_ends_where_gradients_are_equal_and_implicit_at_the_least_loss():
    targets, budget = np.random.default_rng(0).uniform(0.4, 0.6, 8), 0.3 * SIZES.sum()
    ends = {form: by_hand.descend(form, targets, SIZES, budget, 1500, 5.0)[-1] for form in by_hand.GRADIENTS}
    p = {form: by_hand.probabilities(alpha, SIZES, budget) for form, alpha in ends.items()}
    np.testing.assert_allclose(p["implicit"], by_hand.cheapest(targets, SIZES, budget), rtol=0, atol=1e-6)
    assert np.ptp(p["global"] - targets) < 1e-9 < 0.01 < np.ptp(p["implicit"] - targets)
    assert ends["local"].mean() > 100 > 1e-9 > abs(ends["implicit"].mean())


def test_adam_steps_of_one_sign_move_all_logits_alike_and_so_no_probability():
    targets, budget = np.random.default_rng(0).uniform(0.4, 0.6, 8), 0.3 * SIZES.sum()
    path = by_hand.descend("local", targets, SIZES, budget, 50, 0.1, adam=True)
    assert np.ptp(path[-1]) < 1e-5 and path[-1].mean() == pytest.approx(0.1 * (50 + 1) / 2, rel=1e-4)
    assert np.ptp(by_hand.descend("global", targets, SIZES, budget, 50, 0.1, adam=True)[-1]) > 0.1


def test_noise_repeats_with_its_seed():
    one, two, other = (
        by_hand.descend("global", np.full(8, 0.5), SIZES, 9.0, 5, 0.1, noise=1.0, seed=seed) for seed in (1, 1, 2)
    )
    assert (one == two).all() and (one != other)[1:].any()


def test_the_least_loss_under_a_budget_is_refused_where_it_has_no_closed_form():
    targets = np.full(8, 0.5)
    cheapest = by_hand.cheapest(targets, SIZES, 15.0)
    assert SIZES @ cheapest == pytest.approx(15.0)
    assert np.ptp((cheapest - targets) / SIZES) < 1e-15, "dL/dp in proportion to n"
    with pytest.raises(InputError, match=r"outside \[0, 1\]"):
        by_hand.cheapest(targets, SIZES, 2.0)


@pytest.mark.parametrize("offset", [0.0, 1.0, 4.0])
def test_the_angle_between_global_and_implicit_where_all_p_are_equal(offset):
    generator = np.random.default_rng(0)
    sizes, g = generator.choice([1, 2, 5], 200_000), generator.standard_normal(200_000) - offset
    p = np.full(len(sizes), 0.05)
    one, two = by_hand.global_gradient(g, p), by_hand.implicit_gradient(g, p, sizes)
    cosine = one @ two / (np.linalg.norm(one) * np.linalg.norm(two))
    assert cosine == pytest.approx(float(by_hand.expected_cosine(sizes, offset)), abs=0.01)
