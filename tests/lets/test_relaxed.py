"""Networks whose loss is a function of weights handed in (LeTS, appendix B): the super-network against the search, and what draws are held."""

import pytest
import torch

from paperlib.lets import gumbel
from paperlib.lets.problem import TaskProblem
from paperlib.lets.readout import ReadoutSizes
from paperlib.lets.relaxed import SuperNetwork, Toy
from paperlib.lets.search import Search, Settings

ROWS = [0, 1, 2, 3]


@pytest.fixture
def network(make_problem):
    """``network(dtype)``: a super-network on ten diagnostic rows."""

    def make(dtype=torch.float64, operations=True):
        return SuperNetwork.of(make_problem(dropout=0.3), dtype, operations)

    return make


@pytest.fixture
def models(network):
    return {"toy": (Toy("L1"), 1), "super-network": (network(), ROWS)}


def moved(model):
    return [weight.detach() + 0.1 for weight in model.weights]


@pytest.mark.parametrize("operations", [True, False])
def test_the_super_network_has_the_loss_of_its_search(make_problem, monkeypatch, operations):
    """In float64 without dropout, the noise given; without operations the cross-entropy is left."""
    problem = make_problem(dropout=0.0)
    problem.backbone.model.double()
    searching = Search(TaskProblem.whole(problem, ReadoutSizes(5, 4)), Settings(epochs=1))
    model = SuperNetwork(searching, operations)
    monkeypatch.setattr(gumbel, "noise", lambda _: model._gumbel(3))
    rows = searching._rows(ROWS)
    expected, cost = searching._loss_and_operations(rows)
    if not operations:
        expected = expected / (0.5 * torch.log1p(cost / 1e9) ** 0.5)
    assert model.loss(model.batch(ROWS), noise=3).item() == pytest.approx(expected.item(), rel=1e-12)


@pytest.mark.parametrize("name", ["toy", "super-network"])
def test_weights_handed_in_are_as_good_as_the_models_own(models, name):
    model, key = models[name]
    batch = model.batch(key)
    before, handed_in = model.loss(batch).item(), model.loss(batch, moved(model)).item()
    assert model.loss(batch).item() == before != handed_in
    with torch.no_grad():
        for weight, there in zip(model.weights, moved(model), strict=True):
            weight.copy_(there)
    assert model.loss(batch).item() == handed_in


@pytest.mark.parametrize("name", ["toy", "super-network"])
def test_draws_are_those_of_their_numbers_and_leave_the_generator_alone(models, name):
    model, key = models[name]
    batch, state = model.batch(key), torch.get_rng_state()
    draws = [{}, {"noise": 1}, {"masks": 0}, {"masks": 1}]
    first, again = ([model.loss(batch, **draw).item() for draw in draws] for _ in range(2))
    assert first == again and len(set(first)) == len(draws)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("name", ["toy", "super-network"])
def test_derivatives_handed_in_reach_back(models, name):
    """The derivative at W + t u in t is the one at W along u; with dropout too, and in two orders."""
    model, key = models[name]
    batch, t = model.batch(key), torch.zeros((), dtype=torch.float64, requires_grad=True)
    value = model.loss(batch, [weight + t for weight in model.weights], masks=2)
    (along,) = torch.autograd.grad(value, t, create_graph=True)
    slopes = torch.autograd.grad(model.loss(batch, masks=2), model.weights, materialize_grads=True)
    assert along.item() == pytest.approx(sum(slope.sum() for slope in slopes).item(), rel=1e-9)
    assert torch.autograd.grad(along, model.alpha)[0].isfinite().all()


def test_a_network_takes_what_another_learned_in_its_own_precision(network):
    coarse, fine = network(torch.float32), network()
    losses = coarse.learn([coarse.batch(ROWS)] * 8, rate=3e-3)
    assert len(losses) == 8 and coarse.loss(coarse.batch(ROWS)).item() < fine.loss(fine.batch(ROWS)).item()
    fine.take(coarse)
    assert {weight.dtype for weight in fine.weights} == {torch.float64}
    assert all(torch.equal(*pair) for pair in zip(coarse.weights, (w.float() for w in fine.weights), strict=True))
    assert fine.loss(fine.batch(ROWS)).item() == pytest.approx(coarse.loss(coarse.batch(ROWS)).item(), rel=1e-4)
    assert all(weight.grad is None for weight in coarse.weights)
