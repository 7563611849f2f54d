"""A task's problem under the reconstructed architecture: what is trained, what is shared, and what scores look like."""

import numpy as np
import pytest
import torch
from torch import nn

from paperlib import backbones
from paperlib.errors import InputError
from paperlib.lets.architecture import Architecture, Own
from paperlib.lets.problem import TaskProblem
from paperlib.lets.readout import ReadoutSizes
from paperlib.training import Loop, Method
from paperlib.training.random_rows import RandomRows

L, SIZES = 2, ReadoutSizes(aggregation=5, lstm=4)
SHARED_INPUTS = Architecture((Own(False, True, True),) * L)
ROWS = np.arange(3)


@pytest.fixture
def make(make_problem):
    """``make(architecture, ...)``: the sub-task of a tiny problem; None: the super-network."""

    def made(architecture=None, task="rte", backbone="tiny-bert", seed=0, **options):
        problem = make_problem(task, backbone, **options)
        return TaskProblem(problem, architecture or Architecture.all_own(L), SIZES, seed)

    return made


def first(problem):
    return problem.batch(problem.train, ROWS)


def values(module):
    return {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


# --- scores


@pytest.mark.parametrize("task, shape", [("rte", (3, 2)), ("mnli", (3, 3)), ("stsb", (3, 1)), ("copa", (3, 2))])
def test_logits_have_a_row_per_example(make, task, shape):
    problem = make(task=task)
    batch = first(problem)
    logits = problem.logits(batch)
    assert logits.shape == shape and logits.dtype == torch.float32
    assert problem.loss(logits, batch).ndim == 0


@pytest.mark.parametrize("backbone", ["tiny-bert", "tiny-roberta", "tiny-electra"])
def test_sharing_everything_scores_the_backbone_s_own_states(make, backbone):
    problem = make(Architecture.all_share(L), backbone=backbone)
    batch = first(problem)
    inputs = {name: tensor for name, tensor in batch.items() if name != "labels"}
    problem.model.eval()
    body = problem.backbone.model.base_model
    states = body(**inputs, output_hidden_states=True).hidden_states[1:]
    assert torch.equal(problem.logits(batch), problem.model.readout(torch.stack(states)[:, :, 0]))


def test_a_known_frozen_pass_is_not_computed_again(make):
    problem = make(SHARED_INPUTS, dropout=0.0)
    calls = []
    for module in problem.frozen.modules():
        if isinstance(module, nn.Linear):
            module.register_forward_hook(lambda *_: calls.append(1))
    batch = first(problem)
    shared = problem.shared(batch)
    scores = [problem.logits(batch, shared) for _ in range(3)]
    once = len(calls)
    assert torch.equal(scores[0], problem.logits(batch)) and torch.equal(scores[0], scores[2])
    assert once == 6 + 3, "all of layer 1, q, k and v of layer 2; again only without the pass"
    assert len(calls) == 2 * once


def test_selectors_are_passed_on(make):
    problem = make(dropout=0.0)
    batch = first(problem)
    half = torch.full((L, 3), 0.5)
    shared = problem.shared(batch)
    assert torch.equal(problem.logits(batch, shared, half), problem.model(shared, half))
    assert not torch.equal(problem.logits(batch, shared, Architecture.all_share(L)), problem.logits(batch, own=half))


def test_scores_are_at_least_fp32(make):
    problem = make()
    with torch.autocast("cpu", torch.bfloat16):
        assert problem.logits(first(problem)).dtype == torch.float32
    problem.backbone.model.double()
    assert problem.fresh().logits(first(problem)).dtype == torch.float64


# --- what is trained


def test_the_model_is_the_sub_task_alone(make):
    problem = make(Architecture.freeze_bottom(L, 1))
    assert all(parameter.requires_grad for parameter in problem.model.parameters())
    frozen = {id(parameter) for parameter in problem.backbone.model.base_model.parameters()}
    assert frozen and not frozen & {id(parameter) for parameter in problem.model.parameters()}
    assert problem.model.layers[0].attention is None and problem.model.layers[1].attention is not None


def test_the_loop_trains_it_and_leaves_the_backbone_as_it_is(make, make_settings):
    problem = make()
    before, started = values(problem.backbone.model.base_model), values(problem.model)
    outcome = Loop(problem, Method(), make_settings(epochs=1)).run()
    assert same(values(problem.backbone.model.base_model), before)
    moved = [name for name, tensor in values(problem.model).items() if not torch.equal(tensor, started[name])]
    assert len(moved) > 0.9 * len(started)
    assert outcome.skipped_steps == 0 and set(outcome.test) == {"accuracy"}


def test_it_learns(make, make_settings):
    problem = make(train=8, dropout=0.0)
    outcome = Loop(problem, Method(), make_settings(epochs=60, batch_size=8, learning_rate=1e-2)).run()
    assert outcome.losses[-1] < 0.5 * outcome.losses[0]


def test_rows_of_random_tokens_serve_too():
    drawn = RandomRows.draw(backbones.load("tiny-bert", 2, seed=0), rows=4, length=6, seed=0)
    problem = TaskProblem.whole(drawn, SIZES)
    assert problem.logits(first(problem)).shape == (3, 2)


# --- draws and copies


def test_the_readout_comes_from_the_seed_alone(make):
    states = []
    for noise, seed in ((0, 0), (5, 0), (0, 1)):
        torch.rand(noise)
        problem, before = make(seed=seed), torch.get_rng_state()
        states.append(values(problem.model))
        assert torch.equal(torch.get_rng_state(), before)
    assert same(states[0], states[1]) and not same(states[0], states[2])


def test_nothing_is_drawn_until_it_is_asked_for(make):
    problem = make()
    assert "model" not in vars(problem)
    assert problem.model is problem.model


def test_a_fresh_one_has_the_same_frozen_weights_and_nothing_learned(make):
    problem = make()
    untouched = values(problem.model)
    with torch.no_grad():
        for parameter in problem.model.parameters():
            parameter += 1
    fresh, other = problem.fresh(), problem.fresh(Architecture.all_share(L), seed=3)
    assert same(values(fresh.model), untouched)
    assert fresh.frozen.body is problem.frozen.body and fresh.train is problem.train
    assert other.architecture == Architecture.all_share(L) and other.seed == 3 and other.sizes == SIZES
    assert problem.fresh(seed=0).seed == 0


def test_the_whole_owns_everything(make_problem):
    assert TaskProblem.whole(make_problem()).architecture == Architecture.all_own(L)


# --- bad input


def test_other_backbones_are_refused(make_problem):
    with pytest.raises(InputError, match="BERT type .*, not a t5"):
        TaskProblem(make_problem("rte", "tiny-t5"), Architecture.all_own(L))


def test_an_architecture_fits_its_encoder(make):
    problem = make(Architecture.all_own(3))
    with pytest.raises(InputError, match="an architecture for 3 layers; the encoder has 2"):
        problem.logits(first(problem))
