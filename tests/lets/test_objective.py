"""Expected operations and the search's loss (LeTS, appendix B): enumeration, closed forms, the guard."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from paperlib.errors import InputError
from paperlib.lets import operations
from paperlib.lets.gumbel import probabilities
from paperlib.lets.objective import ATTENTION, FEED_FORWARD, INPUT, OWN, SHARE, Cost, Objective, reconstruction
from paperlib.lets.operations import Encoder

BASE, LARGE, SMALL = Encoder(12, 768, 3072), Encoder(24, 1024, 4096), Encoder(2, 8, 20)
RHO = 0.005
unhurried = settings(deadline=None, max_examples=40)


def one_hot(choices):
    return torch.nn.functional.one_hot(torch.as_tensor(choices), 2).double()


def draws(layers, seed=0):
    p = torch.rand(layers, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return torch.stack([p, 1 - p], -1)


# --- the cost of one architecture


@pytest.mark.parametrize(("encoder", "length"), [*itertools.product([BASE, LARGE], [128, 512])])
def test_full_fine_tuning_costs_the_whole_encoder_and_bottom_half_frozen_half(encoder, length):
    cost = reconstruction(encoder, length, RHO)
    everything = torch.full((encoder.layers, 3), OWN)
    top = everything.clone()
    top[: encoder.layers // 2] = SHARE
    d, layers = encoder.hidden, encoder.layers
    assert cost.discrete(everything) == layers * (12 * length * d**2 + 2 * length**2 * d)
    assert cost.expected(one_hot(everything)).item() == operations.total(encoder, length)
    assert cost.discrete(top) == operations.total(encoder, length) / 2
    assert cost.discrete(torch.full((layers, 3), SHARE)) == 0


def test_percentages_of_one_layer_of_bert_large():
    """0.122 % for q, k and v on the frozen input, 10.33 more with scores, context and output, 34.69 on an own one, 75.63 with the feed-forward."""
    cost, layer = reconstruction(Encoder(1, 1024, 4096), 128, RHO), 1_644_167_168

    def percent(*choices):
        return 100 * cost.discrete(torch.tensor(choices)) / layer

    attention_shared = percent(SHARE, OWN, SHARE)
    assert attention_shared == pytest.approx(0.122 + 10.204, abs=2e-3)
    assert percent(OWN, OWN, SHARE) == pytest.approx(34.69, abs=5e-3)
    assert percent(SHARE, OWN, OWN) == pytest.approx(75.63, abs=5e-3)
    assert percent(OWN, OWN, OWN) == 100


def test_expected_at_one_hot_is_the_discrete_cost_of_every_architecture():
    cost = reconstruction(SMALL, 5, RHO, overhead=17.0)
    for choices in itertools.product((SHARE, OWN), repeat=6):
        assert cost.expected(one_hot(choices)).item() == pytest.approx(cost.discrete(torch.tensor(choices)), rel=1e-15)


# --- the expectation


@unhurried
@given(st.lists(st.floats(0, 1), min_size=6, max_size=6))
def test_the_expectation_is_the_mean_over_all_architectures(own):
    cost = reconstruction(SMALL, 5, RHO, overhead=3.0)
    p = torch.tensor([[1 - each, each] for each in own], dtype=torch.float64)
    mean = sum(
        math.prod(p[i, choice].item() for i, choice in enumerate(choices)) * cost.discrete(torch.tensor(choices))
        for choices in itertools.product((SHARE, OWN), repeat=6)
    )
    assert cost.expected(p).item() == pytest.approx(mean, rel=1e-12)


def test_the_expectation_is_the_written_formula():
    """E[cost_j] = P(s2 = own) [P(s1 = share) C_sh + P(s1 = own) C_own] + P(s3 = own) C_ffn."""
    d, p = LARGE.hidden, draws(LARGE.layers)
    linear, quadratic = 128 * d**2, 128**2 * d
    shared, own, ffn = (3 * RHO + 1) * linear + 2 * quadratic, 4 * linear + 2 * quadratic, 8 * linear
    expected = (
        p[:, ATTENTION, OWN] * (p[:, INPUT, SHARE] * shared + p[:, INPUT, OWN] * own) + p[:, FEED_FORWARD, OWN] * ffn
    )
    found = reconstruction(LARGE, 128, RHO).expected(p)
    assert found.dtype == torch.float64
    assert found.item() == pytest.approx(expected.sum().item(), rel=1e-14)


@unhurried
@given(st.integers(0, 5), st.integers(0, 1000), st.floats(0, 1))
def test_it_is_linear_in_each_selector_alone(selector, seed, t):
    cost, p = reconstruction(SMALL, 5, RHO), draws(2, seed).reshape(6, 2)

    def at(share):
        moved = p.clone()
        moved[selector] = torch.tensor([share, 1 - share], dtype=torch.float64)
        return cost.expected(moved).item()

    assert at(t) == pytest.approx(t * at(1.0) + (1 - t) * at(0.0), rel=1e-12)


def test_it_is_not_linear_in_all():
    """Halfway between all-share and all-own attention costs less than half of full fine-tuning: the input may be shared."""
    cost = reconstruction(LARGE, 128, RHO)
    half = torch.full((24, 3, 2), 0.5)
    ends = [cost.expected(one_hot(torch.full((24, 3), choice))) for choice in (SHARE, OWN)]
    assert cost.expected(half) < 0.95 * sum(ends) / 2


@unhurried
@given(st.floats(-3, 3), st.floats(-3, 3), st.floats(0.2, 10))
def test_the_gradient_of_a_selector_by_itself(a, noise, temperature):
    """dE/da_0 = P_0 P_1 / T (C_0 - C_1) = -dE/da_1."""
    c0, c1 = 3.0e9, 11.0e9
    cost = Cost({frozenset({(0, SHARE)}): c0, frozenset({(0, OWN)}): c1}, 1)
    alpha = torch.tensor([[a, 0.0]], dtype=torch.float64, requires_grad=True)
    p = probabilities(alpha, torch.tensor([[noise, 0.0]], dtype=torch.float64), temperature)
    (slope,) = torch.autograd.grad(cost.expected(p), alpha)
    by_hand = (p[0, 0] * p[0, 1] / temperature * (c0 - c1)).item()
    # Subtracting two terms near 1e10 leaves some 1e-15 of them.
    torch.testing.assert_close(slope[0].tolist(), [by_hand, -by_hand], rtol=1e-13, atol=1e-5)


def test_gradients_at_one_hot_are_those_of_the_formula():
    """Where other factors are 0 the derivative of the product is what the others leave: attention's input
    does not matter where attention is shared."""
    p = one_hot(torch.tensor([[SHARE, SHARE, SHARE]])).requires_grad_()
    macs = operations.layer(Encoder(1, 8, 20), 5)
    (slope,) = torch.autograd.grad(reconstruction(Encoder(1, 8, 20), 5, RHO).expected(p), p)
    attention = RHO * macs["qkv"] + macs["scores_and_context"] + macs["output"]
    torch.testing.assert_close(
        slope[0].tolist(), [[0.0, 0.0], [0.0, attention], [0.0, float(macs["feed_forward"])]], rtol=1e-12, atol=0
    )


def test_a_cost_without_terms_is_nothing_and_a_constant_is_itself():
    p = draws(1).requires_grad_()
    assert Cost({}, 3).expected(p).item() == 0
    assert Cost({frozenset(): 5.0}, 3).expected(p).item() == 5 == Cost({frozenset(): 5.0}, 3).discrete(torch.zeros(3))


# --- the loss


def loss_of(form, ce, billions, **constants):
    return Objective(form, **constants)(torch.tensor(ce), torch.tensor(billions * 1e9, dtype=torch.float64)).item()


@unhurried
@given(st.floats(0.01, 5), st.floats(0.01, 100), st.floats(0.1, 2), st.floats(0.1, 2))
def test_the_three_forms(ce, e, alpha, beta):
    constants = {"alpha": alpha, "beta": beta}
    ce = torch.tensor(ce).item()
    assert loss_of("L1", ce, e, **constants) == pytest.approx(ce * alpha * math.log(1 + e) ** beta, rel=1e-6)
    assert loss_of("L2", ce, e, **constants) == pytest.approx(ce + alpha * e**beta, rel=1e-6)
    assert loss_of("L3", ce, e, **constants) == pytest.approx(ce + alpha * math.log(1 + e) ** beta, rel=1e-6)


@pytest.mark.parametrize(
    ("encoder", "factor", "in_flops", "added"), [(LARGE, 0.959, 1.045, 3.14), (BASE, 0.777, 0.881, 1.67)]
)
def test_magnitudes_for_bert_at_length_128(encoder, factor, in_flops, added):
    """The printed constants make L1's factor about 1; the guard moves it by 0.4 % for large and 2 % for base."""
    e = operations.total(encoder, 128) / 1e9
    assert 0.5 * math.log(e) ** 0.5 == pytest.approx(factor, abs=5e-4)
    assert 0.5 * math.log(2 * e) ** 0.5 == pytest.approx(in_flops, abs=5e-4)
    assert loss_of("L1", 1.0, e) == pytest.approx(factor, rel=0.0035 if encoder is LARGE else 0.018)
    assert loss_of("L2", 0.0, e) == pytest.approx(added, abs=5e-3)


def test_without_the_guard_the_root_of_the_logarithm_fails_at_and_below_a_billion():
    e = torch.tensor([0.5, 1.0], dtype=torch.float64, requires_grad=True)
    root = e.log() ** 0.5
    (slope,) = torch.autograd.grad(root.sum(), e)
    assert root[0].isnan() and slope[1].isinf()


@pytest.mark.parametrize("form", ["L1", "L2", "L3"])
@pytest.mark.parametrize("temperature", [4.0, 0.006])
@pytest.mark.parametrize("logits", [(30.0, 0.0), (0.0, 0.0), (0.0, 30.0)])
def test_losses_and_gradients_are_finite_from_all_share_to_all_own(form, temperature, logits):
    """At T = 0.006 the shared architecture's probabilities of own are exactly 0, and so are its operations."""
    encoder = Encoder(6, 384, 1536)
    alpha = torch.tensor(logits, dtype=torch.float64).expand(6, 3, 2).clone().requires_grad_()
    p = probabilities(alpha, torch.zeros(6, 3, 2), temperature)
    ce = torch.tensor(0.7, requires_grad=True)
    value = Objective(form)(ce, reconstruction(encoder, 128, RHO).expected(p))
    slopes = torch.autograd.grad(value, [alpha, ce])
    assert value.isfinite() and value > 0 and all(slope.isfinite().all() for slope in slopes)


@pytest.mark.parametrize("form", ["L1", "L2", "L3"])
def test_more_operations_cost_more_but_below_the_floor(form):
    e = torch.tensor([0.0, 5e5, 2e6, 5e8, 1e9, 4e10], dtype=torch.float64, requires_grad=True)
    values = torch.stack([Objective(form)(torch.tensor(0.7), each) for each in e])
    (slope,) = torch.autograd.grad(values.sum(), e)
    assert (slope[:2] == 0).all() and (slope[2:] > 0).all() and slope.isfinite().all()
    assert values[0] == values[1] < values[2] < values[3] < values[4] < values[5]


# --- bad input


@pytest.mark.parametrize("density", [0.0, -0.1, 1.5, float("nan")])
def test_the_kept_share_must_lie_in_0_1(density):
    with pytest.raises(InputError, match=r"must lie in \(0, 1\]"):
        reconstruction(SMALL, 5, density)


@pytest.mark.parametrize("term", [{(0, SHARE), (0, OWN)}, {(3, OWN)}, {(-1, OWN)}, {(0, 2)}])
def test_a_term_names_each_selector_at_most_once(term):
    with pytest.raises(InputError, match=r"selectors 0\.\.2 at most once"):
        Cost({frozenset(term): 1.0}, 3)


def test_probabilities_must_fit_the_selectors():
    with pytest.raises(InputError, match="for 6 two-way selectors"):
        reconstruction(SMALL, 5, RHO).expected(torch.full((3, 3, 2), 0.5))


@pytest.mark.parametrize("value", [0.0, -0.5, float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["alpha", "beta"])
def test_constants_must_be_positive(name, value):
    with pytest.raises(InputError, match=f"{name} must be a finite number above 0"):
        Objective("L1", **{name: value})


def test_an_unknown_form_is_refused():
    with pytest.raises(InputError, match="unknown objective 'L4'; known: L1, L2, L3"):
        Objective("L4")
