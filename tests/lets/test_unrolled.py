"""Exact derivatives through steps of the weights (LeTS, appendix B), and what mistakes cost: closed forms, torch's Adam, differences."""

import pytest
import torch

from paperlib.lets import unrolled
from paperlib.lets.bilevel import RADIUS, exact_mixed_product, mixed_product
from paperlib.lets.relaxed import Relaxed, SuperNetwork, Toy
from paperlib.lets.unrolled import Adam, Descent, along, apart, total_derivative

XI = Toy.XI


class Quadratic(Relaxed):
    """L = (W - a alpha)^2 / 2 on "train", (W - b)^2 / 2 on "search"."""

    A, B = 1.7, -0.4

    def __init__(self):
        self.alpha = torch.tensor([0.8], dtype=torch.float64, requires_grad=True)
        self.weights = [torch.tensor([2.5], dtype=torch.float64, requires_grad=True)]

    def loss(self, batch, weights=None, noise=0, masks=None):
        (weight,) = weights or self.weights
        return ((weight - (self.A * self.alpha if batch == "train" else self.B)) ** 2).sum() / 2


@pytest.fixture(scope="module")
def toy():
    model = Toy("L1")
    return model, model.batch(2), model.batch(1)


@pytest.mark.parametrize("k", [1, 3, 60])
def test_behind_k_steps_the_quadratic_has_its_closed_form(k):
    """W_k = (1 - xi)^k W + (1 - (1 - xi)^k) a alpha; for many steps W_a = a alpha."""
    model = Quadratic()
    found = along(model, "search", ["train"] * k, Descent(XI), [k])[k]
    left = (1 - XI) ** k
    ahead = left * 2.5 + (1 - left) * model.A * 0.8
    assert found.value.item() == pytest.approx((ahead - model.B) ** 2 / 2)
    assert found.total.item() == pytest.approx((1 - left) * model.A * (ahead - model.B))
    assert found.v[0].item() == pytest.approx(ahead - model.B)


def test_each_horizon_is_that_of_a_path_that_ends_there(toy):
    model, search, train = toy
    batches = [train, model.batch(3), train, model.batch(4)]
    together = along(model, search, batches, Descent(XI), [1, 4])
    assert sorted(together) == [1, 4]
    for k, found in together.items():
        alone = along(model, search, batches[:k], Descent(XI), [k])[k]
        assert torch.equal(found.total, alone.total) and found.value == alone.value


@pytest.mark.parametrize("step", [Descent, Adam])
def test_the_total_derivative_is_that_of_training_again(toy, step):
    """A central difference in alpha of the loss behind three steps."""
    model, search, train = toy
    exact, found = along(model, search, [train] * 3, step(0.02), [3])[3].total, torch.zeros(2, 2, dtype=torch.float64)
    for place in ((0, 0), (0, 1), (1, 0), (1, 1)):
        for sign in (1, -1):
            with torch.no_grad():
                model.alpha[place] += sign * 1e-5
            found[place] += sign * along(model, search, [train] * 3, step(0.02), [3])[3].value / 2e-5
            with torch.no_grad():
                model.alpha[place] -= sign * 1e-5
    assert apart(found, exact) < 1e-6


def test_adam_moves_as_torchs_does():
    model, twin = Toy(), Toy()
    batches = [model.batch(seed) for seed in range(4)]
    ahead, step = model.weights, Adam(0.01)
    # The last weight is in no loss.
    optimizer = torch.optim.Adam(twin.weights[:3], lr=0.01, eps=1e-6)
    for batch in batches:
        ahead = step(ahead, torch.autograd.grad(model.loss(batch, ahead), ahead, materialize_grads=True))
        optimizer.zero_grad()
        twin.loss(batch).backward(inputs=twin.weights[:3])
        optimizer.step()
    for ours, theirs in zip(ahead, twin.weights, strict=True):
        torch.testing.assert_close(ours.detach(), theirs.detach(), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("masks", [None, 3])
def test_eq_16_is_eq_15_and_the_search_comes_within_the_difference(toy, masks):
    model, search, train = toy
    _, total, v = total_derivative(model, search, train, XI, masks)
    found = unrolled.slope(model, search, train, XI, masks)
    if masks is None:
        assert apart(unrolled.eq_16(model, found.first, v, train, XI), total) < 1e-14
    assert apart(found.total, total) < 1e-4 * apart(unrolled.slope(model, search, train, 0.0, masks).total, total)


def test_so_it_is_on_a_super_network(make_problem):
    """tiny-bert in float64, with dropout 0.1 held: through attention, layer norms and the Bi-LSTM."""
    model = SuperNetwork.of(make_problem(dropout=0.1), torch.float64)
    search, train = model.batch([0, 1, 2]), model.batch([3, 4, 5, 6])
    _, total, v = total_derivative(model, search, train, 0.5)
    found = unrolled.slope(model, search, train, 0.5)
    assert apart(unrolled.eq_16(model, found.first, v, train, 0.5), total) < 1e-14
    for masks in (None, 1):
        total = total_derivative(model, search, train, 0.5, masks).total
        first = apart(unrolled.slope(model, search, train, 0.0, masks).total, total)
        assert apart(unrolled.slope(model, search, train, 0.5, masks).total, total) < 1e-3 * first


# --- differences


def test_differences_are_those_of_the_search_and_their_kinds_fall_as_they_should(toy):
    model, search, train = toy
    v = total_derivative(model, search, train, XI).v
    exact = exact_mixed_product(model.loss, model.alpha, model.weights, v, train)
    radii = [1e-1, 1e-2, 1e-3]
    central = unrolled.differences(model, v, train, radii)
    assert torch.equal(central[1], mixed_product(model.loss, model.alpha, model.weights, v, train, RADIUS))
    errors = [apart(each, exact) for each in central]
    assert errors[0] / errors[1] == pytest.approx(100, rel=0.1) and errors[1] / errors[2] == pytest.approx(100, rel=0.1)
    one_sided = [apart(each, exact) for each in unrolled.differences(model, v, train, radii, one_sided=True)]
    assert one_sided[1] / one_sided[2] == pytest.approx(10, rel=0.2)


@pytest.mark.parametrize("kind", [{"autocast": True}, {"stored": torch.bfloat16}])
def test_bf16_loses_what_float32_keeps(toy, kind):
    model, search, train = toy
    v, coarse = total_derivative(model, search, train, XI).v, Toy("L1", torch.float32)
    exact = exact_mixed_product(model.loss, model.alpha, model.weights, v, train)
    (kept,) = unrolled.differences(coarse, v, coarse.batch(1), [RADIUS])
    (lost,) = unrolled.differences(coarse, v, coarse.batch(1), [RADIUS], **kind)
    assert kept.dtype == torch.float64 and apart(kept, exact) < 1e-4 < 1e-2 < apart(lost, exact)


def test_distance_and_cosine():
    one, other = torch.tensor([[3.0, 0.0]]), torch.tensor([[0.0, 4.0]])
    assert apart(one, other) == pytest.approx(1.25)
    assert unrolled.cosine(one, other) == 0 and unrolled.cosine(one, 2 * one) == pytest.approx(1)


# --- mistakes


def test_every_mistake_is_the_one_it_is_named_after(toy):
    model, search, train = toy
    masks = 4
    found, before = unrolled.mistakes(model, search, train, XI, masks), [w.detach().clone() for w in model.weights]
    right = unrolled.slope(model, search, train, XI, masks)
    assert torch.equal(found[unrolled.FIRST_ORDER], unrolled.slope(model, search, train, 0.0, masks).total)
    assert torch.equal(found["second term left out"], right.first)
    torch.testing.assert_close(right.first - found["factor ξ forgotten"], right.correction / XI)
    torch.testing.assert_close(found["sign of the second term"] + right.total, 2 * right.first)
    # W⁻ that begins at W⁺ ends at W: half a one-sided difference, half the term.
    torch.testing.assert_close(right.first - found["W not restored before W⁻"], right.correction / 2, rtol=0.05, atol=0)
    assert all(torch.equal(*pair) for pair in zip(model.weights, before, strict=True))


def test_what_each_costs_on_the_toy(toy):
    """In errors of the first order: draws that are not shared drown everything."""
    model, search, train = toy
    total = total_derivative(model, search, train, XI, 0).total
    found = unrolled.mistakes(model, search, train, XI)
    unit = apart(found[unrolled.FIRST_ORDER], total)
    costs = {name: apart(G, total) / unit for name, G in found.items()}
    assert apart(unrolled.slope(model, search, train, XI, 0).total, total) < 1e-4 * unit
    assert min(costs.values()) > 0.01
    assert costs["other Gumbel noise in W⁻"] > 100 and costs["other dropout in W⁻"] > 5
    assert costs["on D2, not D1"] > 1 and costs["sign of the second term"] > 1
