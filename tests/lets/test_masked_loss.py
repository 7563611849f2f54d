"""The loss as a function of the mask: against the model's own loss, autograd, and every single deletion by hand."""

import numpy as np
import pytest
import torch

from paperlib.lets import pruning
from paperlib.lets.architecture import Architecture, Own
from paperlib.lets.masked_loss import MaskedLoss
from paperlib.lets.masked_tuning import WarmUp, owned
from paperlib.lets.problem import TaskProblem
from paperlib.lets.readout import ReadoutSizes

MIXED = Architecture((Own(False, True, False), Own(True, True, True)))
ROWS = np.arange(4)


@pytest.fixture(params=[Architecture.all_own(2), MIXED, Architecture.freeze_bottom(2, 1)], ids=["own", "mixed", "top"])
def problem(request, make_problem):
    """A warm sub-task in float64, with dropout that evaluation must silence."""
    plain = make_problem(dropout=0.2)
    warm = TaskProblem(plain, request.param, ReadoutSizes(5, 4))
    for _ in WarmUp(steps=4, batch_size=4, learning_rate=1e-2, precision="fp32").walk(warm):
        pass
    plain.backbone.model.double()
    warm.model.double()
    return warm


@pytest.fixture
def loss(problem):
    return MaskedLoss(problem, problem.train, ROWS)


def ones(loss, **options):
    return {name: torch.ones_like(each, **options) for name, each in loss.offsets.items()}


def test_a_mask_of_ones_or_none_at_all_is_the_model_s_own_loss(problem, loss):
    batch = problem.batch(problem.train, ROWS)
    expected = problem.loss(problem.logits(batch), batch).item()
    assert loss(ones(loss)).item() == loss({}).item() == pytest.approx(expected, rel=1e-12)


def test_a_mask_of_zeros_is_the_frozen_matrices_under_the_task_s_biases(problem, loss):
    found = loss({name: torch.zeros_like(each, dtype=torch.bool) for name, each in loss.offsets.items()}).item()
    assert found != loss({}).item()
    for own in owned(problem.model).values():
        own.offset.weight.detach().zero_()
    assert loss({}).item() == pytest.approx(found, rel=1e-12)


def test_its_slope_in_the_mask_is_the_offset_times_the_slope_of_the_weight(problem, loss):
    c = ones(loss, requires_grad=True)
    g = dict(zip(c, torch.autograd.grad(loss(c), [*c.values()]), strict=True))
    weights = {name: own.offset.weight for name, own in owned(problem.model).items()}
    expected = pruning.mask_gradients(loss({}), weights, loss.offsets)
    for name, slope in g.items():
        torch.testing.assert_close(slope, expected[name], rtol=1e-12, atol=1e-18)


def test_dropping_one_offset_is_a_mask_with_one_zero(loss):
    for name in loss.offsets:
        places = np.array([0, 7, loss.offsets[name].numel() - 1])
        for place, found in zip(places, loss.dropped(name, places), strict=True):
            c = ones(loss)
            c[name].view(-1)[place] = 0
            assert found == pytest.approx(loss({}).item() - loss(c).item(), abs=1e-14)


def test_dropping_leaves_no_trace(problem, loss):
    before = {name: each.clone() for name, each in problem.model.state_dict().items()}
    for name in loss.offsets:
        loss.dropped(name, np.array([1, 2]))
    assert all(torch.equal(before[name], each) for name, each in problem.model.state_dict().items())
