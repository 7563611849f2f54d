"""The base method is vanilla fine-tuning: no moment has an effect; several methods act as one."""

import itertools
from contextlib import contextmanager

import numpy as np
import pytest
import torch

from paperlib.dps.child_tuning import ChildTuningD, ChildTuningF
from paperlib.dps.mix import DPSMix
from paperlib.dps.r_dropout import RDropout
from paperlib.errors import InputError
from paperlib.training import Loop, Method, Together
from paperlib.training.update import Extra


def test_every_moment_leaves_everything_as_it_was(make_problem):
    problem, method = make_problem(dropout=0.0), Method()
    before = {name: parameter.clone() for name, parameter in problem.model.named_parameters()}
    optimizer = torch.optim.SGD(problem.model.parameters())
    method.attach(problem.model, 10)
    method.prepare(problem, [])
    with method.forward_weights(1):
        loss = method.loss(problem, problem.batch(problem.train, np.arange(4)))
    loss.backward()
    gradients = {name: parameter.grad.clone() for name, parameter in problem.model.named_parameters()}
    method.after_backward(1)
    assert method.extra(1) is None and not method.needs_clipped
    method.after_clipping(1, optimizer)
    method.after_step(1, optimizer)
    for name, parameter in problem.model.named_parameters():
        assert torch.equal(parameter, before[name]) and torch.equal(parameter.grad, gradients[name])
    assert method.state_dict() == {}


def test_its_loss_is_the_problems(make_problem):
    problem = make_problem(dropout=0.0)
    batch = problem.batch(problem.train, np.arange(4))
    assert torch.equal(Method().loss(problem, batch), problem.loss(problem.logits(batch), batch))


# --- several methods as one


class Noting(Method):
    """Writes every moment down under its name, and answers as told."""

    def __init__(self, name, log, changes=False):
        self.name, self.log, self.changes, self.memory = name, log, changes, {}

    def attach(self, model, total_steps):
        self.log.append((self.name, "attach", total_steps))

    def prepare(self, problem, batches):
        self.log.append((self.name, "prepare", batches))

    @contextmanager
    def forward_weights(self, step):
        self.log.append((self.name, "in", step))
        yield
        self.log.append((self.name, "out", step))

    def after_backward(self, step):
        self.log.append((self.name, "after_backward", step))
        return self.changes

    def after_clipping(self, step, optimizer):
        self.log.append((self.name, "after_clipping", step))

    def after_step(self, step, optimizer):
        self.log.append((self.name, "after_step", step))

    def state_dict(self):
        return {f"{self.name}.memory": torch.ones(1)}

    def load_state_dict(self, state):
        self.memory = state


class Judging(Noting):
    """Has a loss of its own."""

    def loss(self, problem, batch):
        self.log.append((self.name, "loss", batch))
        return torch.tensor(7.0)


def test_moments_pass_through_all_in_order():
    log = []
    together = Together(Noting("a", log), Judging("b", log), Noting("c", log))
    together.attach(None, 9)
    together.prepare(None, ["rows"])
    with together.forward_weights(1):
        assert together.loss(None, "batch") == 7
    together.after_backward(1)
    together.after_clipping(1, None)
    together.after_step(1, None)
    assert log == [
        *((name, "attach", 9) for name in "abc"),
        *((name, "prepare", ["rows"]) for name in "abc"),
        *((name, "in", 1) for name in "abc"),
        ("b", "loss", "batch"),
        *((name, "out", 1) for name in "cba"),
        *((name, moment, 1) for moment in ("after_backward", "after_clipping", "after_step") for name in "abc"),
    ]


def test_without_a_loss_of_their_own_the_loss_is_the_problems(make_problem):
    problem = make_problem(dropout=0.0)
    batch = problem.batch(problem.train, np.arange(4))
    together = Together(Noting("a", []), Noting("b", []))
    assert torch.equal(together.loss(problem, batch), problem.loss(problem.logits(batch), batch))


@pytest.mark.parametrize("answers", list(itertools.product([False, True], repeat=3)))
def test_gradients_are_changed_if_any_changed_them_and_all_see_them(answers):
    log = []
    together = Together(*(Noting(name, log, changes) for name, changes in zip("abc", answers, strict=True)))
    assert together.after_backward(2) is any(answers)
    assert log == [(name, "after_backward", 2) for name in "abc"]


def test_state_is_the_union_and_each_is_given_all_of_it():
    methods = [Noting(name, []) for name in "abc"]
    state = Together(*methods).state_dict()
    assert state.keys() == {"a.memory", "b.memory", "c.memory"}
    Together(*methods).load_state_dict(state)
    assert all(method.memory is state for method in methods)


class Masking(Method):
    """Adds to what the optimizer does, always the same."""

    def __init__(self):
        self.mine = Extra()

    def extra(self, step):
        return self.mine


def test_what_one_of_them_adds_to_the_optimizer_is_what_all_add():
    masking = Masking()
    assert Together(Method(), masking, RDropout(1.0, "batch_mean")).extra(1) is masking.mine
    assert Together(Method(), Method()).extra(1) is None


def test_two_that_add_to_the_optimizer_are_refused(make_problem, make_settings):
    loop = Loop(make_problem(), Together(ChildTuningD(0.5), DPSMix(0.5, 0.34, "grad_zero")), make_settings())
    with pytest.raises(InputError, match="of ChildTuningD, DPSMix more than one masks gradients"):
        loop.step([np.arange(4)])


def test_clipped_gradients_are_needed_where_one_of_them_looks_at_them():
    looks, does_not = ChildTuningF(0.5), Masking()
    assert looks.needs_clipped and not does_not.needs_clipped
    assert Together(does_not, looks).needs_clipped and not Together(does_not, Method()).needs_clipped
    does_not.after_clipping = print
    assert does_not.needs_clipped, "given to one object alone"


@pytest.mark.parametrize("step", [1, 2, 3, 4, 5])
def test_state_of_dps_survives_beside_others(make_problem, make_settings, step):
    """Taken after any step, in both stages, and loaded into methods just attached."""

    def made():
        return Together(Noting("a", []), DPSMix(0.5, 0.34, "grad_zero"))

    problem = make_problem(dropout=0.0)
    loop = Loop(problem, made(), make_settings(steps=6))
    for _ in range(step):
        loop.step([np.arange(4)])
    state = loop.method.state_dict()
    other = made()
    other.attach(problem.model, 6)
    other.load_state_dict({name: tensor.clone() for name, tensor in state.items()})
    again = other.state_dict()
    assert state.keys() == again.keys() and all(torch.equal(again[name], state[name]) for name in state)
