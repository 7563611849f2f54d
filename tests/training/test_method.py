"""The base method is vanilla fine-tuning: no moment has an effect."""

import numpy as np
import torch

from paperlib.training import Method


def test_every_moment_leaves_everything_as_it_was(make_problem):
    problem, method = make_problem(dropout=0.0), Method()
    before = {name: parameter.clone() for name, parameter in problem.model.named_parameters()}
    optimizer = torch.optim.SGD(problem.model.parameters())
    method.attach(problem.model, 10)
    method.prepare(problem)
    with method.forward_weights(1):
        loss = method.loss(problem, problem.batch(problem.train, np.arange(4)))
    loss.backward()
    gradients = {name: parameter.grad.clone() for name, parameter in problem.model.named_parameters()}
    method.after_backward(1)
    method.after_clipping(1, optimizer)
    method.after_step(1, optimizer)
    for name, parameter in problem.model.named_parameters():
        assert torch.equal(parameter, before[name]) and torch.equal(parameter.grad, gradients[name])
    assert method.state_dict() == {}


def test_its_loss_is_the_problems(make_problem):
    problem = make_problem(dropout=0.0)
    batch = problem.batch(problem.train, np.arange(4))
    assert torch.equal(Method().loss(problem, batch), problem.loss(problem.logits(batch), batch))
