"""One bi-level step (S3Delta, appendix B.1): against exact derivatives, against a plain replay on copies, and what it leaves untouched."""

import copy

import pytest
import torch
from torch.nn import functional

from paperlib.errors import InputError
from paperlib.s3delta import bilevel
from paperlib.s3delta.bilevel import ORDERS, Bilevel, first_order, second_order
from paperlib.s3delta.gates import Gates

PASSES = {"second": 5, "first": 2, "one-level": 1}


class Small(torch.nn.Module):
    """A frozen map with five gated additions of different sizes, in double precision."""

    WIDTHS = (1, 3, 2, 4, 1)

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.frozen = torch.nn.Linear(6, 5).double().requires_grad_(False)
        self.inner = torch.nn.ParameterList(torch.randn(6, width).double() for width in self.WIDTHS)
        self.outer = torch.nn.ParameterList(torch.randn(width, 5).double() for width in self.WIDTHS)
        self.unused = torch.nn.Parameter(torch.ones(2).double())

    @property
    def weights(self):
        return [*self.inner, *self.outer, self.unused]

    @property
    def sizes(self):
        return torch.tensor([11 * width for width in self.WIDTHS])

    def loss(self, z, batch, weights=None):
        weights = weights or self.weights
        x, labels = batch
        added = [
            gate * torch.tanh(x @ inner) @ outer
            for gate, inner, outer in zip(z, weights[:5], weights[5:10], strict=True)
        ]
        return functional.cross_entropy(self.frozen(x) + sum(added), labels)


def batch(seed, rows=8):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, 6, dtype=torch.float64, generator=generator)
    return x, torch.randint(0, 5, (rows,), generator=generator)


def optimizer_of(kind, weights, alpha, rate=0.05):
    groups = [{"params": weights, "lr": rate}, {"params": [alpha], "lr": 0.1}]
    return (
        torch.optim.SGD(groups, fused=True)
        if kind == "sgd"
        else torch.optim.AdamW(groups, weight_decay=0.0, fused=True)
    )


def prepared(kind, steps=3):
    """A model some steps on, so that moments are not empty, with gates and batches."""
    model, alpha = Small(), torch.nn.Parameter(torch.zeros(5, dtype=torch.float64))
    optimizer = optimizer_of(kind, model.weights, alpha)
    z = torch.tensor([0.3, 0.9, 0.1, 0.6, 0.5], dtype=torch.float64)
    for seed in range(steps):
        model.loss(z, batch(seed)).backward()
        optimizer.step()
        optimizer.zero_grad()
    return model, optimizer, z, batch(10), batch(11)


# --- the gradient of the structure


def test_the_quadratic_has_its_closed_form():
    """L_tr = (w - a z)^2 / 2, L_val = (w - b)^2 / 2: dL_val(w')/dz = xi a (w' - b), and the finite difference is exact."""
    a, b, xi, z = 1.7, -0.4, 0.3, torch.tensor([0.8], dtype=torch.float64)
    weight = torch.nn.Parameter(torch.tensor([2.5], dtype=torch.float64))

    def loss(z, name):
        return ((weight - (a * z if name == "delta" else b)) ** 2).sum() / 2

    value, slope = second_order(loss, z, [weight], torch.optim.SGD([weight], lr=xi), "delta", "alpha")
    ahead = 2.5 - xi * (2.5 - a * 0.8)
    assert value.item() == pytest.approx((ahead - b) ** 2 / 2, rel=1e-14)
    assert slope.item() == pytest.approx(xi * a * (ahead - b), rel=1e-12)


def test_adamw_is_treated_as_plain_descent():
    """Its first step is +-xi whatever z is, so the true derivative is next to nothing; what is computed is xi a (w' - b)."""
    a, b, xi, z = 1.7, -0.4, 0.3, torch.tensor([0.8], dtype=torch.float64)
    weight = torch.nn.Parameter(torch.tensor([2.5], dtype=torch.float64))

    def loss(z, name):
        return ((weight - (a * z if name == "delta" else b)) ** 2).sum() / 2

    optimizer = torch.optim.AdamW([weight], lr=xi, weight_decay=0.0)
    _, slope = second_order(loss, z, [weight], optimizer, "delta", "alpha")
    assert slope.item() == pytest.approx(xi * a * (2.5 - xi - b), rel=1e-7)


def exact(model, z, delta_batch, alpha_batch, rate):
    """dL(w - xi grad L(w, z; D_delta), z; D_alpha) / dz by autograd through the step."""
    z = z.clone().requires_grad_()
    weights = [weight.detach().clone().requires_grad_() for weight in model.weights]
    slopes = torch.autograd.grad(
        model.loss(z, delta_batch, weights), weights, create_graph=True, materialize_grads=True
    )
    ahead = [weight - rate * slope for weight, slope in zip(weights, slopes, strict=True)]
    value = model.loss(z, alpha_batch, ahead)
    return value.item(), torch.autograd.grad(value, z)[0]


def as_coded(model, optimizer, z, delta_batch, alpha_batch):
    """g1 - xi d/dz [v . grad_w L(w, z; D_delta)], exactly, at the w' that a copy's real step reaches."""
    z = z.clone().requires_grad_()
    twin = copy.deepcopy((model, optimizer))
    twin_model, twin_optimizer = twin
    slopes = torch.autograd.grad(twin_model.loss(z, delta_batch), twin_model.weights, materialize_grads=True)
    for weight, slope in zip(twin_model.weights, slopes, strict=True):
        weight.grad = slope
    twin_optimizer.step()
    value = twin_model.loss(z, alpha_batch)
    g1, *v = torch.autograd.grad(value, [z, *twin_model.weights], materialize_grads=True)
    slopes = torch.autograd.grad(model.loss(z, delta_batch), model.weights, create_graph=True, materialize_grads=True)
    along = sum((slope * direction).sum() for slope, direction in zip(slopes, v, strict=True))
    return value.item(), g1 - optimizer.param_groups[0]["lr"] * torch.autograd.grad(along, z)[0]


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_the_finite_difference_tends_to_the_exact_derivative_as_its_square(monkeypatch, kind):
    """SGD: the derivative through the step itself. AdamW: the coded form with an exact Hessian product. What is left at radius 0.01
    is O(radius^2): a tenth of the radius leaves a hundredth, and what extrapolation from both leaves is rounding."""
    model, optimizer, z, delta_batch, alpha_batch = prepared(kind)
    loss_value, truth = as_coded(model, optimizer, z, delta_batch, alpha_batch)
    if kind == "sgd":
        through, by_unrolling = exact(model, z, delta_batch, alpha_batch, 0.05)
        assert through == pytest.approx(loss_value, rel=1e-14)
        torch.testing.assert_close(truth, by_unrolling, rtol=1e-12, atol=1e-15)
    found = {}
    for radius in (0.1, 0.01):
        monkeypatch.setattr(bilevel, "RADIUS", radius)
        value, found[radius] = second_order(model.loss, z, model.weights, optimizer, delta_batch, alpha_batch)
        assert value.item() == pytest.approx(loss_value, rel=1e-14)
    wide, narrow = ((found[radius] - truth).norm() for radius in (0.1, 0.01))
    assert narrow < 1e-4 * truth.norm() and wide / narrow == pytest.approx(100, rel=0.05)
    torch.testing.assert_close((100 * found[0.01] - found[0.1]) / 99, truth, rtol=1e-6, atol=0)
    plain = first_order(model.loss, z, alpha_batch)[1]
    assert (plain - truth).norm() > 100 * narrow, "the case tells orders apart"


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
@pytest.mark.parametrize("steps", [0, 3])
def test_the_virtual_step_leaves_weights_and_moments_bit_for_bit(kind, steps):
    model, optimizer, z, delta_batch, alpha_batch = prepared(kind, steps)
    before, moments = copy.deepcopy((model.state_dict(), optimizer.state_dict()))
    second_order(model.loss, z, model.weights, optimizer, delta_batch, alpha_batch)
    assert all(torch.equal(model.state_dict()[name], value) for name, value in before.items())
    after = optimizer.state_dict()
    assert after["state"].keys() == moments["state"].keys()
    for number, state in moments["state"].items():
        assert all(torch.equal(after["state"][number][name], value) for name, value in state.items())
    assert all(weight.grad is None for weight in model.weights)


@pytest.mark.parametrize("dies_in", [1, 2, 3, 4])
def test_weights_are_put_back_even_if_a_pass_fails(dies_in):
    model, optimizer, z, delta_batch, alpha_batch = prepared("adamw")
    before, calls = copy.deepcopy(model.state_dict()), []

    def loss(z, batch):
        calls.append(batch)
        if len(calls) == dies_in:
            raise KeyboardInterrupt
        return model.loss(z, batch)

    with pytest.raises(KeyboardInterrupt):
        second_order(loss, z, model.weights, optimizer, delta_batch, alpha_batch)
    assert all(torch.equal(model.state_dict()[name], value) for name, value in before.items())


# --- a whole step


class Watched:
    """A search on the small model that notes every pass: batch, gates, weights, and whether it went backward."""

    def __init__(self, order, kind="adamw", hard=False, clip_norm=2.0, rates=(0.05, 0.1)):
        self.model, self.alpha = Small(), torch.nn.Parameter(torch.zeros(5, dtype=torch.float64))
        self.gates = Gates(self.model.sizes, 50.0, hard=hard)
        self.optimizer = optimizer_of(kind, self.model.weights, self.alpha, rates[0])
        self.optimizer.param_groups[1]["lr"] = rates[1]
        self.bilevel = Bilevel(self.loss, self.model.weights, self.alpha, self.gates, self.optimizer, order, clip_norm)
        self.passes, self.backward = [], 0

    def loss(self, z, batch):
        weights = [weight.detach().clone() for weight in self.model.weights]
        self.passes.append((batch, z.detach().clone(), weights, self.alpha.detach().clone()))
        value = self.model.loss(z, batch)
        value.register_hook(self._count)
        return value

    def _count(self, slope):
        self.backward += 1

    def steps(self, count, seed=0):
        torch.manual_seed(seed)
        return [self.bilevel.step(batch(100 + number), batch(200 + number)) for number in range(count)]


def distance(one, other):
    return torch.cat([(a - b).flatten() for a, b in zip(one, other, strict=True)]).norm().item()


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("order", ORDERS)
def test_passes_forward_and_backward_per_step(order):
    watched = Watched(order)
    watched.steps(3)
    assert len(watched.passes) == watched.backward == 3 * PASSES[order]


def test_a_second_order_step_in_its_order():
    """D_delta at w; D_alpha at w'; D_delta at w + eps v and w - eps v, all on the same gates; then w on gates drawn anew from the new alpha."""
    watched = Watched("second")
    watched.steps(1)
    names = {id(part): name for name, part in (("delta", watched.passes[0][0]), ("alpha", watched.passes[1][0]))}
    assert [names[id(part)] for part, *_ in watched.passes] == ["delta", "alpha", "delta", "delta", "delta"]
    z = [z for _, z, _, _ in watched.passes]
    assert same(z[1:4], [z[0]] * 3)
    alphas = [alpha for *_, alpha in watched.passes]
    assert same(alphas[1:4], [alphas[0]] * 3) and not torch.equal(alphas[4], alphas[0])
    torch.manual_seed(0)
    assert torch.equal(z[0], watched.gates.draw(alphas[0])) and torch.equal(z[4], watched.gates.draw(alphas[4]))
    at, ahead, plus, minus, again = (weights for _, _, weights, _ in watched.passes)
    assert same(at, again), "w is restored bit for bit before its own step"
    assert distance(ahead, at) > 0.01
    radius = bilevel.RADIUS
    assert distance(plus, at) == pytest.approx(radius, rel=1e-3) == distance(minus, at)
    assert distance(plus, minus) == pytest.approx(2 * radius, rel=1e-3)
    assert distance(watched.model.weights, at) > 0.01


def test_a_first_order_step_takes_the_structure_at_the_weights_as_they_are():
    watched = Watched("first")
    watched.steps(1)
    (first, z, at, alpha), (second, other, again, moved) = watched.passes
    assert torch.equal(first[0], batch(200)[0]) and torch.equal(second[0], batch(100)[0])
    assert same(at, again) and not torch.equal(z, other) and not torch.equal(alpha, moved)


def test_one_level_looks_at_one_batch():
    watched = Watched("one-level")
    found = watched.steps(1)
    assert torch.equal(watched.passes[0][0][0], batch(100)[0]) and found[0]["delta"] == found[0]["alpha"]
    assert not torch.equal(watched.alpha, watched.passes[0][3])


def clipped(slopes, bound):
    norm = torch.cat([slope.flatten() for slope in slopes]).norm()
    return [slope * min(1.0, bound / (norm.item() + 1e-6)) for slope in slopes]


def adamw(parameters, slopes, moments, t, rate):
    for parameter, slope, (m, v) in zip(parameters, slopes, moments, strict=True):
        m.mul_(0.9).add_(slope, alpha=0.1)
        v.mul_(0.999).addcmul_(slope, slope, value=0.001)
        parameter.data.sub_(rate * (m / (1 - 0.9**t)) / ((v / (1 - 0.999**t)).sqrt() + 1e-8))


def replay(order, steps, clip_norm):
    """The same search the published way: a second copy of the model, alpha in every graph, AdamW by hand."""
    model, alpha = Small(), torch.zeros(5, dtype=torch.float64, requires_grad=True)
    gates = Gates(model.sizes, 50.0)
    of_weights, of_alpha = (
        [[torch.zeros_like(each), torch.zeros_like(each)] for each in group] for group in (model.weights, [alpha])
    )
    torch.manual_seed(0)
    for number in range(steps):
        t, delta_batch, alpha_batch = number + 1, batch(100 + number), batch(200 + number)
        u = torch.rand(5, dtype=torch.float64)

        def slopes(weights, rows, inputs, u=u, model=model):
            value = model.loss(gates.sample(alpha, u), rows, weights)
            return [
                torch.zeros_like(each) if slope is None else slope
                for each, slope in zip(inputs, torch.autograd.grad(value, inputs, allow_unused=True), strict=True)
            ]

        if order == "one-level":
            of_both = slopes(model.weights, delta_batch, [alpha, *model.weights])
            adamw([alpha], clipped(of_both[:1], clip_norm), of_alpha, t, 0.1)
            adamw(model.weights, clipped(of_both[1:], clip_norm), of_weights, t, 0.05)
            continue
        if order == "first":
            of_structure = slopes(model.weights, alpha_batch, [alpha])
        else:
            other, moments = copy.deepcopy((model, of_weights))
            adamw(other.weights, slopes(model.weights, delta_batch, model.weights), moments, t, 0.05)
            g1, *v = slopes(other.weights, alpha_batch, [alpha, *other.weights])
            eps = 0.01 / (torch.cat([each.flatten() for each in v]).norm() + 1e-6)
            h = [
                slopes(
                    [w.detach() + sign * eps * d for w, d in zip(model.weights, v, strict=True)], delta_batch, [alpha]
                )[0]
                for sign in (1, -1)
            ]
            of_structure = [g1 - 0.05 * (h[0] - h[1]) / (2 * eps)]
        adamw([alpha], clipped(of_structure, clip_norm), of_alpha, t, 0.1)
        u = torch.rand(5, dtype=torch.float64)
        adamw(
            model.weights, clipped(slopes(model.weights, delta_batch, model.weights, u), clip_norm), of_weights, t, 0.05
        )
    return alpha.detach(), [weight.detach() for weight in model.weights]


@pytest.mark.parametrize("clip_norm", [2.0, 0.01])
@pytest.mark.parametrize("order", ORDERS)
def test_steps_equal_a_plain_replay_on_copies(order, clip_norm):
    watched = Watched(order, clip_norm=clip_norm)
    watched.steps(6)
    alpha, weights = replay(order, 6, clip_norm)
    torch.testing.assert_close(watched.alpha.detach(), alpha, rtol=0, atol=1e-9)
    for one, other in zip(watched.model.weights, weights, strict=True):
        torch.testing.assert_close(one.detach(), other, rtol=0, atol=1e-9)
    assert alpha.abs().max() > 0.2


@pytest.mark.parametrize("kind", ["weights", "alpha"])
def test_each_gradient_is_clipped_by_itself(kind):
    """Plain descent at rate 1 moves by the gradient: by the bound, where that is below it."""
    bound = 1e-3
    watched = Watched("second", "sgd", clip_norm=bound, rates=(1.0, 1.0))
    start = [weight.detach().clone() for weight in watched.model.weights]
    watched.steps(1)
    moved = distance(watched.model.weights, start) if kind == "weights" else watched.alpha.detach().norm().item()
    assert moved == pytest.approx(bound, rel=2e-3)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("bad", ["delta", "alpha"])
def test_what_is_not_finite_is_skipped_and_counted(order, bad):
    watched = Watched(order)
    watched.steps(1)
    broken = batch(0)[0] * float("nan"), batch(0)[1]
    alpha, weights = watched.alpha.detach().clone(), [weight.detach().clone() for weight in watched.model.weights]
    found = watched.bilevel.step(*(broken if bad == name else batch(1) for name in ("delta", "alpha")))
    # A broken D_delta batch breaks alpha's gradient too wherever that looks at it.
    alpha_stays = {"second": True, "first": bad == "alpha", "one-level": bad == "delta"}[order]
    weights_stay = bad == "delta"
    assert torch.equal(alpha, watched.alpha) == alpha_stays
    assert same(weights, watched.model.weights) == weights_stay
    assert found["skipped"] == alpha_stays + weights_stay


def test_hard_gates_search_too():
    watched = Watched("second", hard=True)
    assert all(found["skipped"] == 0 for found in watched.steps(4))
    assert all(((z == 0) | (z == 1)).all() for _, z, _, _ in watched.passes)
    assert watched.alpha.abs().max() > 0


def test_steps_repeat_with_the_seed_and_no_other():
    found = []
    for seed in (0, 0, 1):
        watched = Watched("second")
        watched.steps(3, seed)
        found.append(watched.alpha.detach())
    assert torch.equal(found[0], found[1]) and not torch.equal(found[0], found[2])


@pytest.mark.parametrize("hard", [False, True])
@pytest.mark.parametrize("gradient", ["local", "global", "implicit"])
@pytest.mark.parametrize("order", ORDERS)
def test_the_one_module_that_helps_is_found(order, gradient, hard):
    """Module k adds z_k x_k w_k; the target is 2 x_3, so that four of five modules are of no use: it takes most of the budget."""
    weight, alpha = (torch.nn.Parameter(torch.zeros(5, dtype=torch.float64)) for _ in range(2))
    gates = Gates(torch.tensor([4, 4, 4, 4, 4]), 5.0, gradient=gradient, hard=hard)

    def loss(z, x):
        return ((x @ (z * weight) - 2 * x[:, 3]) ** 2).mean()

    search = Bilevel(loss, [weight], alpha, gates, optimizer_of("adamw", [weight], alpha), order)
    torch.manual_seed(0)
    for _ in range(60):
        search.step(*torch.randn(2, 32, 5, dtype=torch.float64))
    p = gates.p(alpha).detach()
    assert p.argmax() == 3 and p[3] > p.sum() / 2 and p.sum().item() == pytest.approx(5 / 4)


def test_an_unknown_order_is_refused():
    with pytest.raises(InputError, match="unknown search order 'third'; known: second, first, one-level"):
        Watched("third")
