"""Gates (S3Delta, eqs. 23 and 27 to 34): the budget to rounding, gradients against autograd, hand formulas and differences, and the spend."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from paperlib.errors import InputError
from paperlib.s3delta import concrete
from paperlib.s3delta.gates import Gates, budget_shift, relaxed

# S3Delta-M on T5-large: LoRA on q, k, v, o and on wi, wo; BitFit on widths d and d_ff; norms and LNFiT; low-rank adapters.
T5_LARGE_M = torch.tensor([2048] * 192 + [5120] * 96 + [1024] * 240 + [4096] * 48 + [1024] * 244 + [3168] * 96)
T5_LARGE_L = torch.tensor([2048] * 192 + [5120] * 96)
BUDGET = 1.389e-4 * 737_639_424
SMALL_BUDGET = 0.348e-4 * 737_639_424

SIZES = torch.tensor([3, 5, 2, 7, 5, 11, 2, 4])
EPS = torch.finfo(torch.float64).eps

unhurried = settings(deadline=None)


def normal(count, seed=0, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(count, dtype=torch.float64, generator=generator)


def spent(alpha, sizes, budget, tau):
    zeta = budget_shift(alpha, sizes, budget, tau)
    return zeta, (sizes * torch.sigmoid((alpha - zeta) / tau)).sum().item()


@st.composite
def problems(draw, spread=5.0):
    """(alpha, sizes, budget, tau) with 0 < B < N."""
    count = draw(st.integers(2, 12))
    sizes = torch.tensor(draw(st.lists(st.integers(1, 5000), min_size=count, max_size=count)))
    logits = st.floats(-spread, spread)
    alpha = torch.tensor(draw(st.lists(logits, min_size=count, max_size=count)), dtype=torch.float64)
    share = draw(st.floats(1e-6, 1 - 1e-6))
    return alpha, sizes, share * sizes.sum().item(), draw(st.floats(0.1, 5))


# --- the budget shift


@unhurried
@given(problems())
def test_probabilities_spend_the_budget_to_rounding(problem):
    alpha, sizes, budget, tau = problem
    assert spent(*problem)[1] == pytest.approx(budget, rel=1e-13)


@pytest.mark.parametrize("tau", [0.1, 0.3, 1.0, 5.0])
@pytest.mark.parametrize("scale", [0.0, 1e-9, 0.1, 1.0, 10.0, 100.0])
@pytest.mark.parametrize("budget", [1024, BUDGET, 940_544, 1_881_087])
def test_the_budget_of_a_large_super_net_is_spent_to_rounding(budget, scale, tau):
    assert spent(normal(916, scale=scale), T5_LARGE_M, budget, tau)[1] == pytest.approx(budget, rel=1e-13)


@unhurried
@given(problems(spread=1e3))
def test_the_bracket_holds_the_root(problem):
    alpha, sizes, budget, tau = problem
    c = tau * math.log(budget / (sizes.sum().item() - budget))
    zeta = spent(*problem)[0].item()
    slack = 8 * EPS * (abs(c) + alpha.abs().max().item())
    assert alpha.min().item() - c - slack <= zeta <= alpha.max().item() - c + slack


@unhurried
@given(problems(spread=1e3))
def test_logits_far_apart_lose_no_more_than_the_rounding_of_zeta(problem):
    """On plateaus of saturated gates too: zeta cannot be nearer than a few roundings, each worth sum n s / tau of the budget."""
    alpha, sizes, budget, tau = problem
    zeta, sum_ = spent(*problem)
    p = torch.sigmoid((alpha - zeta) / tau)
    slope = (sizes * p * (1 - p)).sum().item() / tau
    rounding = (
        4 * EPS * (zeta.abs().item() + alpha.abs().max().item() + tau * abs(math.log(budget / sizes.sum().item())))
    )
    assert abs(sum_ - budget) <= 1e-13 * budget + rounding * slope


@pytest.mark.parametrize("on", [1, 3, 5, 7])
@pytest.mark.parametrize("tau", [0.1, 1.0])
def test_a_plateau_splits_the_saturated_from_the_empty(on, tau):
    """``on`` of eight equal modules at +1000, the rest at -1000, and a budget for exactly those."""
    alpha = torch.where(torch.arange(8) < on, 1e3, -1e3).double()
    p = Gates(torch.full((8,), 6), 6.0 * on, tau=tau).p(alpha)
    torch.testing.assert_close(p, (alpha > 0).double(), rtol=0, atol=1e-13)


def test_a_plateau_with_half_a_module_to_spare_shares_it():
    alpha = torch.tensor([1e3, 1e3, -1e3, -1e3], dtype=torch.float64)
    p = Gates(torch.tensor([6, 6, 6, 6]), 15.0).p(alpha)
    torch.testing.assert_close(p, torch.tensor([1, 1, 0.25, 0.25], dtype=torch.float64), rtol=1e-12, atol=0)


@unhurried
@given(st.floats(-50, 50), st.floats(2, 39 - 1e-6), st.floats(0.1, 5))
def test_equal_logits_have_the_closed_form(alpha, budget, tau):
    logits = torch.full((8,), alpha, dtype=torch.float64)
    zeta = budget_shift(logits, SIZES, budget, tau).item()
    assert zeta == pytest.approx(alpha - tau * math.log(budget / (39 - budget)), rel=1e-12, abs=1e-12)
    p = Gates(SIZES, budget, tau=tau).p(logits)
    torch.testing.assert_close(p, torch.full_like(p, budget / 39), rtol=1e-12, atol=0)


@pytest.mark.parametrize(
    ("sizes", "budget", "p", "zeta"),
    [
        (T5_LARGE_M, BUDGET, 0.0544675, 2.854145),
        (T5_LARGE_M, SMALL_BUDGET, 0.0136463, 4.280548),
        (T5_LARGE_L, BUDGET, 0.1158064, 2.032756),
    ],
)
def test_where_a_search_on_t5_large_starts(sizes, budget, p, zeta):
    alpha = torch.zeros(len(sizes))
    assert budget_shift(alpha, sizes, budget, 1.0).item() == pytest.approx(zeta, abs=1e-6)
    assert Gates(sizes, budget).p(alpha).mean().item() == pytest.approx(p, abs=1e-7)


@unhurried
@given(problems(), st.floats(-100, 100))
def test_a_constant_added_to_all_logits_changes_nothing(problem, constant):
    alpha, sizes, budget, tau = problem
    gates = Gates(sizes, max(budget, float(sizes.min())), tau=tau)
    torch.testing.assert_close(gates.p(alpha + constant), gates.p(alpha), rtol=1e-10, atol=1e-14)


@unhurried
@given(problems())
def test_zeta_falls_as_the_budget_rises(problem):
    alpha, sizes, budget, tau = problem
    more = (budget + sizes.sum().item()) / 2
    assert budget_shift(alpha, sizes, more, tau) < budget_shift(alpha, sizes, budget, tau)


def test_float32_logits_are_solved_in_double():
    alpha = normal(916).float()
    zeta, sum_ = spent(alpha.double(), T5_LARGE_M, BUDGET, 1.0)
    assert torch.equal(budget_shift(alpha, T5_LARGE_M, BUDGET, 1.0), zeta) and sum_ == pytest.approx(BUDGET, rel=1e-13)


class Asked(TorchDispatchMode):
    """Counts the times a value leaves its tensor, as ``item``, ``bool`` or data-dependent shapes make it."""

    LEAVES = ("_local_scalar_dense", "is_nonzero", "nonzero", "equal", "masked_select")

    count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += function.overloadpacket.__name__ in self.LEAVES
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("gradient", ["local", "global", "implicit"])
@pytest.mark.parametrize("hard", [False, True])
def test_the_device_is_never_asked_for_a_value(gradient, hard):
    alpha = normal(8).requires_grad_()
    gates = Gates(SIZES, 9.0, gradient=gradient, hard=hard)
    with Asked() as asked:
        gates.draw(alpha).sum().backward()
        gates.p(alpha).sum().backward()
        assert asked.count == 0
        alpha.sum().item(), bool(alpha.sum() > 0), torch.nonzero(alpha)
    assert asked.count == 3, "what the test looks for is seen where it is"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("gradient", ["local", "global", "implicit"])
def test_a_gpu_is_not_waited_for(gradient):
    alpha = normal(8).cuda().requires_grad_()
    gates = Gates(SIZES.cuda(), 9.0, gradient=gradient, hard=True)
    torch.cuda.set_sync_debug_mode("error")
    try:
        gates.draw(alpha).sum().backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    torch.testing.assert_close(gates.p(alpha).cpu(), Gates(SIZES, 9.0).p(alpha.cpu()), rtol=1e-12, atol=0)


def test_one_graph_holds_the_whole_draw():
    """Tracing it whole is possible only where no value decides what is computed."""
    torch._dynamo.reset()
    gates, u = Gates(SIZES, 9.0, hard=True), torch.full((8,), 0.9, dtype=torch.float64)
    traced = torch.compile(lambda alpha: gates.sample(alpha, u), fullgraph=True, backend="eager")
    assert torch.equal(traced(normal(8)), gates.sample(normal(8), u))


# --- dzeta / dalpha


def zeta_slope(alpha, sizes, budget, tau):
    """n_k s_k / sum_j n_j s_j."""
    p = torch.sigmoid((alpha - budget_shift(alpha, sizes, budget, tau)) / tau)
    weighted = sizes * p * (1 - p)
    return weighted / weighted.sum()


def differences(function, alpha, step=1e-5):
    """Central differences of a scalar ``function`` in every logit."""
    moves = step * torch.eye(len(alpha), dtype=torch.float64)
    return torch.stack([(function(alpha + move) - function(alpha - move)) / (2 * step) for move in moves])


@pytest.mark.parametrize("tau", [0.3, 1.0, 2.0])
@pytest.mark.parametrize("budget", [2.0, 9.0, 30.0])
def test_zeta_moves_with_the_weighted_mean_of_the_logits(budget, tau):
    alpha = normal(8, seed=1)
    slope = zeta_slope(alpha, SIZES, budget, tau)
    numeric = differences(lambda a: budget_shift(a, SIZES, budget, tau), alpha)
    torch.testing.assert_close(slope, numeric, rtol=0, atol=1e-8)
    assert slope.sum().item() == pytest.approx(1, abs=1e-14) and (slope > 0).all()


# --- gradients: G = dL/dp arbitrary, L = sum G_i p_i


def by_gates(gradient, alpha, weights, tau=1.0, budget=9.0):
    leaf = alpha.clone().requires_grad_()
    p = Gates(SIZES, budget, tau=tau, gradient=gradient).p(leaf)
    (p @ weights).backward()
    return leaf.grad, p.detach()


def printed_global(alpha, weights, tau, budget):
    """Eqs. 27 and 28 as printed, by autograd, zeta held."""
    leaf = alpha.clone().requires_grad_()
    local = torch.sigmoid((leaf - budget_shift(leaf, SIZES, budget, tau)) / tau)
    ((local.sum().detach() / local.sum() * local) @ weights).backward()
    return leaf.grad


CASES = [(seed, tau, budget) for seed in range(4) for tau, budget in ((1.0, 9.0), (0.3, 2.0), (2.0, 30.0))]


@pytest.mark.parametrize(("seed", "tau", "budget"), CASES)
def test_the_local_gradient_is_eq_29(seed, tau, budget):
    alpha, weights = normal(8, seed), normal(8, seed + 100)
    found, p = by_gates("local", alpha, weights, tau, budget)
    torch.testing.assert_close(found, weights * p * (1 - p) / tau, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize(("seed", "tau", "budget"), CASES)
def test_the_global_gradient_is_eq_33_and_autograd_through_27_and_28(seed, tau, budget):
    alpha, weights = normal(8, seed), normal(8, seed + 100)
    found, p = by_gates("global", alpha, weights, tau, budget)
    by_hand = (weights - (p / p.sum()) @ weights) * p * (1 - p) / tau
    torch.testing.assert_close(found, by_hand, rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(found, printed_global(alpha, weights, tau, budget), rtol=1e-13, atol=1e-13)
    assert (found / (1 - p)).sum().abs() < 1e-13


def test_eq_32_is_the_matrix_of_derivatives():
    """dp_j/dp~_i = 1[i = j] - p~_j / sum p~, times s_i = p~_i (1 - p~_i) / tau."""
    alpha, tau = normal(8, 5), 0.7
    jacobian = torch.autograd.functional.jacobian(Gates(SIZES, 9.0, tau=tau).p, alpha)
    p = Gates(SIZES, 9.0, tau=tau).p(alpha)
    by_hand = (torch.eye(8, dtype=torch.float64) - p[:, None] / p.sum()) * (p * (1 - p) / tau)
    torch.testing.assert_close(jacobian, by_hand, rtol=0, atol=1e-13)


@pytest.mark.parametrize(("seed", "tau", "budget"), CASES)
def test_the_implicit_gradient_is_that_of_the_whole_function(seed, tau, budget):
    alpha, weights = normal(8, seed), normal(8, seed + 100)
    found, p = by_gates("implicit", alpha, weights, tau, budget)
    s = p * (1 - p) / tau
    n = SIZES.double()
    by_hand = s * (weights - n * (weights @ s) / (n @ s))
    torch.testing.assert_close(found, by_hand, rtol=1e-13, atol=1e-13)
    gates = Gates(SIZES, budget, tau=tau)
    torch.testing.assert_close(found, differences(lambda a: gates.p(a) @ weights, alpha), rtol=0, atol=1e-7)
    assert found.sum().abs() < 1e-13


@pytest.mark.parametrize("gradient", ["local", "global", "implicit"])
@pytest.mark.parametrize(("far", "budget"), [(1e3, 12.0), (200.0, 15.0)])
def test_saturated_logits_pass_finite_gradients(gradient, far, budget):
    """All p within rounding of 0 or 1; or some 1 - p so small, exp(-399), that its square is 0."""
    leaf = torch.tensor([far, far, -far, -far], dtype=torch.float64, requires_grad=True)
    gates = Gates(torch.tensor([6, 6, 6, 6]), budget, gradient=gradient)
    (gates.p(leaf) @ normal(4)).backward()
    assert leaf.grad.isfinite().all()
    gates.sample(leaf, torch.tensor([0.0, 0.5, 0.5, 1.0], dtype=torch.float64)).sum().backward()
    assert leaf.grad.isfinite().all()


def test_p_is_the_same_whatever_its_gradient():
    p = [Gates(SIZES, 9.0, gradient=gradient).p(normal(8)) for gradient in ("local", "global", "implicit")]
    assert torch.equal(p[0], p[1]) and torch.equal(p[0], p[2])


def test_equal_gradients_of_p_move_nothing_under_global_but_do_under_local():
    equal = torch.full((8,), 2.5, dtype=torch.float64)
    assert by_gates("global", normal(8), equal)[0].abs().max() < 1e-14
    assert by_gates("local", normal(8), equal)[0].abs().min() > 1e-3


def test_gradients_in_proportion_to_size_move_nothing_under_implicit_but_do_under_global():
    """There the budget makes every exchange of modules worth the same."""
    proportional = 0.3 * SIZES.double()
    assert by_gates("implicit", normal(8), proportional)[0].abs().max() < 1e-14
    assert by_gates("global", normal(8), proportional)[0].abs().max() > 1e-2


def test_equal_sizes_make_global_and_implicit_agree_as_p_gets_small():
    """Eq. 33 weighs with p, the implicit form with p (1 - p): apart by the order of p."""
    alpha, weights = normal(1000, scale=0.1), normal(1000, 1)

    def apart(share):
        found = []
        for gradient in ("global", "implicit"):
            leaf = alpha.clone().requires_grad_()
            (Gates(torch.full((1000,), 7), 7000 * share, gradient=gradient).p(leaf) @ weights).backward()
            found.append(leaf.grad)
        return ((found[0] - found[1]).abs().max() / found[1].abs().max()).item()

    distances = [apart(share) for share in (0.2, 0.02, 0.002)]
    assert distances[1] < distances[0] / 5 and distances[2] < distances[1] / 5


# --- draws


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("beta", [1e-30, 0.1, 1.0, 1e6])
def test_extreme_odds_and_draws_stay_finite_and_so_do_their_gradients(dtype, beta):
    """p from 0 to 1 as far as log-odds of 1000 go, u from exactly 0 to exactly 1."""
    log_odds = torch.tensor([-1e3, -88.0, -16.0, 0.0, 16.0, 88.0, 1e3], dtype=dtype, requires_grad=True)
    u = torch.tensor([0.0, 1e-40, 1e-7, 0.5, 1 - 6e-8, 1.0], dtype=dtype)[:, None]
    z = relaxed(log_odds, beta, u)
    z.sum().backward()
    assert z.isfinite().all() and (z >= 0).all() and (z <= 1).all() and log_odds.grad.isfinite().all()


def test_in_float32_p_beyond_the_last_number_below_one_still_counts():
    """logit p = 30 is p = 1 - 1e-13, which float32 cannot hold: z is that of the odds all the same."""
    u = torch.tensor(1e-6)
    z = relaxed(torch.tensor(30.0), 1.0, u)
    assert z.item() == pytest.approx(1 / (1 + math.exp(-30) * 1e6), rel=1e-6)
    assert (1 - relaxed(torch.tensor(30.0), 4.0, u)).item() == pytest.approx(math.exp(-30 / 4) * 1e6**0.25, rel=0.02)


@unhurried
@given(st.floats(0.01, 0.99), st.floats(0.01, 0.99), st.floats(0.2, 5))
def test_a_draw_is_that_of_the_distribution(p, u, beta):
    p, u = (torch.tensor(value, dtype=torch.float64) for value in (p, u))
    torch.testing.assert_close(relaxed(torch.logit(p), beta, u), concrete.sample(p, beta, u), rtol=1e-13, atol=0)


@pytest.mark.parametrize("beta", [0.1, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("p", [0.0545, 0.3, 0.9])
def test_gates_follow_the_distribution(p, beta):
    """Shares below 0.1, above 0.9 and above one half, within five standard errors."""
    draws = 40_000
    gates = Gates(torch.ones(draws, dtype=torch.int64), p * draws, beta=beta)
    torch.manual_seed(0)
    z = gates.draw(torch.zeros(draws)).numpy()
    exact = {"below": concrete.cdf(0.1, p, beta), "above": concrete.upper_tail(0.1, p, beta), "half": p}
    seen = {"below": (z < 0.1).mean(), "above": (z > 0.9).mean(), "half": (z > 0.5).mean()}
    for name, share in exact.items():
        assert abs(seen[name] - share) <= 5 * math.sqrt(share * (1 - share) / draws), name


@pytest.mark.parametrize(("beta", "tau"), [(1.0, 1.0), (0.5, 1.0), (2.0, 0.3)])
@pytest.mark.parametrize("hard", [False, True])
def test_the_gradient_of_a_gate_is_z_one_minus_z_over_beta_tau(beta, tau, hard):
    """Local form, where p cancels; of a hard gate only where it is on."""
    alpha = normal(8, 2).requires_grad_()
    u = torch.linspace(0.05, 0.95, 8, dtype=torch.float64)
    gates = Gates(SIZES, 20.0, tau=tau, beta=beta, gradient="local", hard=hard)
    z = gates.sample(alpha, u)
    soft = relaxed(gates.log_odds(alpha), beta, u).detach()
    z.sum().backward()
    slope = soft * (1 - soft) / (beta * tau)
    on = soft >= 0.5
    assert 0 < on.sum() < 8, "the case has gates on and off"
    torch.testing.assert_close(alpha.grad, torch.where(on, slope, 0.0) if hard else slope, rtol=1e-12, atol=1e-14)


@unhurried
@given(st.integers(0, 10**6), st.floats(0.05, 3.0), st.floats(2.0, 38.0))
def test_hard_gates_are_exactly_0_or_1_and_never_all_off(seed, beta, budget):
    torch.manual_seed(seed)
    z = Gates(SIZES, budget, beta=beta, hard=True).draw(normal(8, seed))
    assert ((z == 0) | (z == 1)).all() and z.sum() >= 1


def test_hard_gates_show_the_soft_ones_rounded():
    """Whether the likeliest is among those that are on or not."""
    alpha, likeliest_on = normal(916), 0
    torch.manual_seed(0)
    for u in torch.rand(20, 916, dtype=torch.float64):
        hard, soft = (Gates(T5_LARGE_M, BUDGET, hard=hard).sample(alpha, u) for hard in (True, False))
        assert torch.equal(hard, (soft >= 0.5).double()) and hard.sum() > 10
        likeliest_on += hard[alpha.argmax()].item()
    assert 0 < likeliest_on < 20, "the case has both"


@pytest.mark.parametrize("hard", [False, True])
def test_where_all_gates_would_be_off_the_likeliest_is_on(hard):
    """Hard: unlucky draws. Soft: a temperature at which z~ rounds to 0."""
    alpha = torch.tensor([0.0, 0.1, 0.7, -0.3, 0.2, 0.0, 0.1, 0.3], dtype=torch.float64, requires_grad=True)
    gates = Gates(SIZES, 4.0, beta=1.0 if hard else 1e-3, hard=hard, gradient="local")
    z = gates.sample(alpha, torch.full((8,), 0.01, dtype=torch.float64))
    assert z.tolist() == [0, 0, 1, 0, 0, 0, 0, 0]
    z.sum().backward()
    others = torch.arange(8) != 2
    assert (alpha.grad[others] == 0).all()
    assert (alpha.grad[2] > 0) == hard


def test_an_inactive_hard_gate_hears_of_the_others_under_global_alone():
    """It gets -s_k sum over the active of p_j G_j / sum p, with G_j the gradient of p_j."""
    alpha, u = normal(8, 2), torch.linspace(0.05, 0.95, 8, dtype=torch.float64)
    weights, found = normal(8, 9), {}
    for gradient in ("local", "global"):
        leaf = alpha.clone().requires_grad_()
        gates = Gates(SIZES, 20.0, gradient=gradient, hard=True)
        (gates.sample(leaf, u) @ weights).backward()
        found[gradient] = leaf.grad
    p = gates.p(alpha)
    soft = relaxed(gates.log_odds(alpha), 1.0, u)
    on = soft >= 0.5
    of_p = torch.where(on, weights * soft * (1 - soft) / (p * (1 - p)), 0.0)
    assert (found["local"][~on] == 0).all()
    expected = p * (1 - p) * (of_p - p @ of_p / p.sum())
    torch.testing.assert_close(found["global"], expected, rtol=1e-12, atol=1e-14)


# --- what gates spend


def test_hard_gates_spend_the_budget_on_average_and_soft_ones_more():
    """Over many draws of the whole super-net: mean B and variance sum n_i^2 p_i (1 - p_i); soft ones sum n_i E[z_i]."""
    draws, alpha = 2_000, normal(916, 3)
    hard, soft = (Gates(T5_LARGE_M, BUDGET, hard=hard) for hard in (True, False))
    torch.manual_seed(1)
    u = torch.rand(draws, 916, dtype=torch.float64)
    p, n = hard.p(alpha), T5_LARGE_M.double()
    spend = (relaxed(hard.log_odds(alpha), 1.0, u) >= 0.5).double() @ n
    deviation = (n**2 @ (p * (1 - p))).sqrt().item()
    assert abs(spend.mean().item() - BUDGET) <= 5 * deviation / math.sqrt(draws)
    assert spend.std().item() == pytest.approx(deviation, rel=0.1)
    z = torch.stack([soft.sample(alpha, row) for row in u[:200]])
    mean, second = concrete.moments(p.numpy())
    spread = math.sqrt(float(n.numpy() ** 2 @ (second - mean**2)))
    assert abs((z @ n).mean().item() - float(n.numpy() @ mean)) <= 5 * spread / math.sqrt(200)


@pytest.mark.parametrize(("p", "factor"), [(0.0136463, 3.43), (0.0544675, 2.28), (0.1158064, 1.74)])
def test_soft_gates_overspend_at_temperature_one(p, factor):
    """E[z] / p where a search starts: 3.43, 2.28 and 1.74 times the budget."""
    count = 200_000
    gates = Gates(torch.ones(count, dtype=torch.int64), p * count)
    torch.manual_seed(0)
    mean, second = concrete.moments(p)
    assert mean / p == pytest.approx(factor, abs=0.005)
    standard_error = math.sqrt((second - mean**2) / count)
    assert abs(gates.draw(torch.zeros(count)).mean().item() - mean) <= 5 * standard_error


def test_draws_repeat_with_the_seed_and_change_from_call_to_call():
    gates, alpha = Gates(SIZES, 9.0), normal(8)
    torch.manual_seed(4)
    one, two = gates.draw(alpha), gates.draw(alpha)
    torch.manual_seed(4)
    assert torch.equal(one, gates.draw(alpha)) and not torch.equal(one, two)


# --- bad input


@pytest.mark.parametrize("budget", [0.0, -1.0, 1.9, 39.0, 1e9, float("nan")])
def test_a_budget_must_buy_a_module_and_not_all(budget):
    with pytest.raises(InputError, match="at least 2, the smallest module, and less than 39"):
        Gates(SIZES, budget)


@pytest.mark.parametrize("name", ["tau", "beta"])
@pytest.mark.parametrize("value", [0.0, -1.0, float("inf"), float("nan")])
def test_temperatures_must_be_positive_and_finite(name, value):
    with pytest.raises(InputError, match=f"temperature {name}"):
        Gates(SIZES, 9.0, **{name: value})


def test_an_unknown_gradient_is_refused():
    with pytest.raises(InputError, match="unknown structural gradient 'sideways'; known: local, global, implicit"):
        Gates(SIZES, 9.0, gradient="sideways")
