"""The architecture's gradient (LeTS, appendix B, eqs. 15 to 17): against autograd through the step, against epsilon, and what must not be done."""

import pytest
import torch

from paperlib.errors import InputError
from paperlib.lets.bilevel import (
    RADIUS,
    architecture_gradient,
    exact_mixed_product,
    mixed_product,
    replaying,
)
from paperlib.lets.relaxed import Toy
from paperlib.lets.unrolled import apart, total_derivative

XI = Toy.XI
FORMS = ["CE", "L1", "L2", "L3"]


class Small(Toy):
    """The toy with draws that are not held."""

    def noisy(self, batch):
        """With Gumbel noise of its own in every call."""
        return self.loss(batch, noise=drawn())

    def dropping(self, batch):
        """With a dropout mask of its own in every call."""
        return self.loss(batch, masks=drawn())

    def direction(self, seed=5):
        generator = torch.Generator().manual_seed(seed)
        normal = (torch.randn(weight.shape, dtype=torch.float64, generator=generator) for weight in self.weights)
        return [each.to(weight.dtype) for each, weight in zip(normal, self.weights, strict=True)]


def drawn():
    """A number of a draw, from torch's generator."""
    return int(torch.randint(2**31, ()))


def batch(seed, dtype=torch.float64):
    return Toy(dtype=dtype).batch(seed)


TRAIN, SEARCH = batch(1), batch(2)


def unrolled(model, xi=XI):
    """L_D2(W'), eq. (15) and v, by autograd through the weights' step."""
    value, total, v = total_derivative(model, SEARCH, TRAIN, xi)
    return value.item(), total, v


def found(model, xi=XI):
    return architecture_gradient(model.loss, model.alpha, model.weights, SEARCH, TRAIN, xi)


# --- against autograd


@pytest.mark.parametrize("form", FORMS)
def test_eq_16_is_eq_15_exactly(form):
    """The first term is the partial derivative at W', and the mixed derivative is taken at W on D1."""
    model = Small(form)
    value, total, v = unrolled(model)
    slope = found(model)
    eq_16 = slope.first - XI * exact_mixed_product(model.loss, model.alpha, model.weights, v, TRAIN)
    assert slope.value.item() == pytest.approx(value, rel=1e-14)
    torch.testing.assert_close(eq_16, total, rtol=0, atol=1e-14)
    assert slope.correction.norm() > 0.01 * slope.first.norm(), "the second term counts"


@pytest.mark.parametrize("form", FORMS)
def test_the_gradient_is_that_of_the_unrolled_loss_up_to_the_finite_difference(form):
    model = Small(form)
    _, total, _ = unrolled(model)
    slope = found(model)
    assert (slope.total - total).norm() < 1e-4 * slope.correction.norm()


def test_the_quadratic_has_its_closed_form():
    """L_D1 = (W - a alpha)^2 / 2, L_D2 = (W - b)^2 / 2: dL_D2(W')/d alpha = xi a (W' - b), and the difference is exact."""
    a, b, alpha = 1.7, -0.4, torch.tensor([0.8], dtype=torch.float64, requires_grad=True)
    weight = torch.tensor([2.5], dtype=torch.float64, requires_grad=True)

    def loss(name):
        return ((weight - (a * alpha if name == "train" else b)) ** 2).sum() / 2

    slope = architecture_gradient(loss, alpha, [weight], "search", "train", XI)
    ahead = 2.5 - XI * (2.5 - a * 0.8)
    assert slope.value.item() == pytest.approx((ahead - b) ** 2 / 2, rel=1e-14)
    assert slope.first.item() == 0
    assert slope.total.item() == pytest.approx(XI * a * (ahead - b), rel=1e-11)


def test_the_wrong_sign_doubles_the_error_of_the_first_order():
    model = Small()
    _, total, _ = unrolled(model)
    slope = found(model)
    first_order = (slope.first - total).norm().item()
    assert first_order > 0.01 * total.norm()
    assert (slope.total - total).norm() < 1e-3 * first_order
    assert (slope.first + slope.correction - total).norm().item() == pytest.approx(2 * first_order, rel=1e-3)


def test_added_operations_drop_out_of_the_mixed_derivative_and_a_factor_does_not():
    products = {}
    for form in FORMS:
        model = Small(form)
        products[form] = exact_mixed_product(model.loss, model.alpha, model.weights, model.direction(), TRAIN)
    torch.testing.assert_close(products["L2"], products["CE"], rtol=1e-13, atol=1e-15)
    torch.testing.assert_close(products["L3"], products["CE"], rtol=1e-13, atol=1e-15)
    assert apart(products["L1"], products["CE"]) > 0.05


# --- epsilon


def error(radius, dtype=torch.float64, one_sided=False):
    """Relative error of eq. (17) at eps = radius / ||v||, against the exact product in double precision."""
    model, exact = Small(dtype=dtype), Small()
    v = model.direction()
    truth = exact_mixed_product(exact.loss, exact.alpha, exact.weights, [each.double() for each in v], TRAIN)
    train = batch(1, dtype=dtype)
    if not one_sided:
        return apart(mixed_product(model.loss, model.alpha, model.weights, v, train, radius).double(), truth)
    eps = radius / torch.cat([each.flatten() for each in v]).norm()
    moved = [weight + eps * each for weight, each in zip(model.weights, v, strict=True)]
    here, there = (torch.autograd.grad(model.loss(train, at), model.alpha)[0] for at in (model.weights, moved))
    return apart((there - here) / eps, truth)


def test_the_central_difference_is_of_second_order():
    errors = [error(radius) for radius in (1e-1, 1e-2, 1e-3, 1e-4)]
    for larger, smaller in zip(errors, errors[1:], strict=False):
        assert larger / smaller == pytest.approx(100, rel=0.05)
    assert errors[1] < 1e-3, "at the radius in use"


def test_a_one_sided_difference_is_only_of_first_order():
    errors = [error(radius, one_sided=True) for radius in (1e-1, 1e-2, 1e-3, 1e-4)]
    for larger, smaller in zip(errors[1:], errors[2:], strict=False):
        assert larger / smaller == pytest.approx(10, rel=0.1)
    assert errors[1] > 50 * error(RADIUS)


def test_below_the_best_radius_rounding_grows_as_one_over_eps():
    """float64: best near 5e-6."""
    best = error(5e-6)
    assert best < 1e-8
    assert error(1e-2) > 100 * best and error(1e-9) > 100 * best
    assert 3 < error(1e-10) / error(1e-9) < 30


def test_in_float32_the_radius_in_use_is_near_the_best():
    errors = {radius: error(radius, torch.float32) for radius in (1e-1, 1e-2, 1e-3, 1e-4, 1e-5)}
    assert errors[RADIUS] < 1e-3
    assert errors[RADIUS] < errors[1e-1] and errors[RADIUS] < errors[1e-4] / 5 and errors[1e-4] < errors[1e-5]


# --- what must not be done


def test_around_the_unrolled_weights_it_is_another_derivative():
    model = Small()
    v = unrolled(model)[2]
    truth = exact_mixed_product(model.loss, model.alpha, model.weights, v, TRAIN)
    around_w = mixed_product(model.loss, model.alpha, model.weights, v, TRAIN)
    slopes = torch.autograd.grad(model.loss(TRAIN), model.weights, materialize_grads=True)
    with torch.no_grad():
        for weight, slope in zip(model.weights, slopes, strict=True):
            weight -= XI * slope
    around_w_ahead = mixed_product(model.loss, model.alpha, model.weights, v, TRAIN)
    assert apart(around_w, truth) < 1e-3
    assert apart(around_w_ahead, truth) > 0.05
    assert apart(XI * around_w, found(Small()).correction) < 1e-12, "the gradient perturbs around W"


def test_on_the_search_data_it_is_another_derivative():
    model = Small()
    v = unrolled(model)[2]
    truth = exact_mixed_product(model.loss, model.alpha, model.weights, v, TRAIN)
    assert apart(mixed_product(model.loss, model.alpha, model.weights, v, SEARCH), truth) > 0.5
    assert apart(found(model).correction, XI * truth) < 1e-3, "the gradient takes it on D1"


@pytest.mark.parametrize("kind", ["noisy", "dropping"])
def test_draws_of_their_own_on_each_side_drown_the_derivative_and_replayed_ones_do_not(kind):
    model = Small()
    loss, v = getattr(model, kind), model.direction()
    torch.manual_seed(7)
    replayed = replaying(loss, model.weights)
    truth = exact_mixed_product(replayed, model.alpha, model.weights, v, TRAIN)
    assert apart(mixed_product(replayed, model.alpha, model.weights, v, TRAIN), truth) < 1e-3
    assert apart(mixed_product(loss, model.alpha, model.weights, v, TRAIN), truth) > 5


def test_all_four_passes_see_the_same_draws():
    model, seen = Small(), []

    def loss(batch):
        number = drawn()
        seen.append((number, batch is TRAIN))
        return model.loss(batch, noise=number, masks=number)

    replayed = replaying(loss, model.weights)
    architecture_gradient(replayed, model.alpha, model.weights, SEARCH, TRAIN, XI)
    assert [on_train for _, on_train in seen] == [True, False, True, True]
    assert len({number for number, _ in seen}) == 1


# --- replays


def test_a_replay_leaves_the_generator_alone_and_differs_from_the_next():
    model = Small()
    torch.manual_seed(0)
    one, two = replaying(model.noisy, model.weights), replaying(model.noisy, model.weights)
    state = torch.get_rng_state()
    values = [loss(TRAIN).item() for loss in (one, two, one, two)]
    assert torch.equal(torch.get_rng_state(), state)
    assert values[:2] == values[2:] and values[0] != values[1]


def test_replays_repeat_with_the_state_of_the_generator():
    model = Small()
    torch.manual_seed(0)
    state = torch.get_rng_state()
    first = replaying(model.noisy, model.weights)(TRAIN)
    torch.set_rng_state(state)
    assert torch.equal(replaying(model.noisy, model.weights)(TRAIN), first)


# --- what is left behind


def test_the_weights_are_left_bit_for_bit_and_no_gradient_is_stored():
    model = Small(dtype=torch.float32)
    with torch.no_grad():
        model.weights[0][0, :3] = torch.tensor([-0.0, 1e-40, 3e38])
    before = [weight.detach().clone() for weight in model.weights]
    train, search = batch(1, dtype=torch.float32), batch(2, dtype=torch.float32)
    architecture_gradient(model.loss, model.alpha, model.weights, search, train, XI)
    mixed_product(model.loss, model.alpha, model.weights, model.direction(), train)
    for weight, old in zip(model.weights, before, strict=True):
        assert torch.equal(weight.detach().view(torch.int32), old.view(torch.int32))
    assert all(each.grad is None for each in [*model.weights, model.alpha])


@pytest.mark.parametrize("failing", [1, 2, 3, 4])
def test_they_are_put_back_whichever_pass_fails(failing):
    model, calls = Small(), []

    def loss(batch):
        calls.append(batch)
        if len(calls) == failing:
            raise RuntimeError("out of memory")
        return model.loss(batch)

    before = [weight.detach().clone() for weight in model.weights]
    with pytest.raises(RuntimeError, match="out of memory"):
        architecture_gradient(loss, model.alpha, model.weights, SEARCH, TRAIN, XI)
    assert all(torch.equal(weight, old) for weight, old in zip(model.weights, before, strict=True))


def test_the_first_order_is_one_pass_and_the_gradient_at_the_weights_as_they_are():
    model, calls = Small("L1"), []

    def loss(batch):
        calls.append(batch)
        return model.loss(batch)

    slope = architecture_gradient(loss, model.alpha, model.weights, SEARCH, TRAIN, 0.0)
    assert len(calls) == 1 and calls[0] is SEARCH
    assert torch.equal(slope.total, torch.autograd.grad(model.loss(SEARCH), model.alpha)[0])
    assert (slope.correction == 0).all()


def test_a_small_step_approaches_the_first_order():
    model = Small()
    first = found(model, 0.0).total
    distances = [(found(model, xi).total - first).norm() for xi in (1e-2, 1e-3)]
    assert distances[0] / distances[1] == pytest.approx(10, rel=0.1)


def test_a_direction_of_zero_gives_zero():
    for dtype in (torch.float32, torch.float64):
        model = Small(dtype=dtype)
        v = [torch.zeros_like(weight) for weight in model.weights]
        train = batch(1, dtype=dtype)
        assert (mixed_product(model.loss, model.alpha, model.weights, v, train) == 0).all()


# --- bad input


@pytest.mark.parametrize("radius", [0.0, -0.01, float("nan"), float("inf")])
def test_epsilon_must_be_positive(radius):
    model = Small()
    with pytest.raises(InputError, match="must be a finite number above 0"):
        mixed_product(model.loss, model.alpha, model.weights, model.direction(), TRAIN, radius)


@pytest.mark.parametrize("xi", [-1e-3, float("nan"), float("inf")])
def test_the_unrolled_step_must_not_be_negative(xi):
    with pytest.raises(InputError, match="xi must be a finite number from 0"):
        found(Small(), xi)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_refused(dtype):
    with pytest.raises(InputError, match="needs float32 or float64"):
        found(Small(dtype=dtype))
