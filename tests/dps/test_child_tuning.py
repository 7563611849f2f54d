"""CHILD-TUNING against explicit loops: the Fisher pass, the one threshold, masks after clipping, unbiased draws."""

import math
import weakref

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from paperlib.dps import child_tuning
from paperlib.dps.child_tuning import ChildTuningD, ChildTuningF
from paperlib.errors import InputError
from paperlib.kernels.dropout import FastDropout
from paperlib.training import Loop, Method, Settings
from paperlib.training.optimizer import adamw

RATE, DECAY, CLIP = 0.1, 0.1, 1.0


@pytest.fixture
def fisher_seen(monkeypatch):
    """What the threshold is computed from, as ``(values, q)``, one entry per call."""
    seen, percentile = [], child_tuning.percentile

    def spy(values, q):
        seen.append(([each.clone() for each in values], q))
        return percentile(values, q)

    monkeypatch.setattr(child_tuning, "percentile", spy)
    return seen


def prepared(problem, p, batches):
    method = ChildTuningD(p)
    method.attach(problem.model.train(), 10)
    method.prepare(problem, batches)
    return method


BATCHES = [np.array([3, 1, 7, 0]), np.array([2, 9, 4, 5]), np.array([8, 6])]


# --- the child network of CHILD-TUNING_D


def test_scope_on_bert(make_problem):
    """Weights, biases and layer norms inside the layers; "LayerNorm" in the embeddings is spelled otherwise."""
    parts = [f"attention.self.{name}" for name in ("query", "key", "value")]
    parts += [
        "attention.output.dense",
        "attention.output.LayerNorm",
        "intermediate.dense",
        "output.dense",
        "output.LayerNorm",
    ]
    expected = {
        f"bert.encoder.layer.{i}.{part}.{kind}" for i in (0, 1) for part in parts for kind in ("weight", "bias")
    }
    method = ChildTuningD(0.3)
    method.attach(make_problem().model, 10)
    assert set(method.scope) == expected


def test_scope_in_every_family(make_model, family):
    model = make_model(family)
    method = ChildTuningD(0.3)
    method.attach(model, 10)
    assert set(method.scope) == {name for name, _ in model.named_parameters() if "layer" in name}
    assert not any("word_embeddings" in name or name.startswith(("classifier", "shared")) for name in method.scope)


def test_frozen_parameters_are_out_of_scope(make_model):
    model = make_model("bert")
    model.bert.encoder.layer[0].requires_grad_(False)
    method = ChildTuningD(0.3)
    method.attach(model, 10)
    assert all(".layer.0." not in name for name in method.scope) and len(method.scope) == 32


def test_fisher_against_an_explicit_loop(make_problem, fisher_seen):
    """Mean over batches of the squared gradient of the mean loss, after each tensor's own norm is clipped to 1, in numpy."""
    problem = make_problem(dropout=0.0)
    with torch.no_grad():  # a head that makes some gradients' norms exceed 1 and leaves others below
        problem.model.classifier.weight.mul_(200)
    method = prepared(problem, 0.3, BATCHES)
    expected = {name: np.zeros(parameter.shape) for name, parameter in method.scope.items()}
    clipped = 0
    for rows in BATCHES:
        batch = problem.batch(problem.train, rows)
        loss = problem.loss(problem.logits(batch), batch)
        gradients = torch.autograd.grad(loss, list(method.scope.values()))
        for name, gradient in zip(expected, gradients, strict=True):
            gradient = gradient.double().numpy()
            norm = math.sqrt((gradient**2).sum())
            clipped += norm > 1
            expected[name] += (gradient / max(norm, 1.0)) ** 2 / len(BATCHES)
    assert 0 < clipped < len(BATCHES) * len(expected)
    for found, (name, loop) in zip(fisher_seen[0][0], expected.items(), strict=True):
        np.testing.assert_allclose(found.numpy(), loop, rtol=1e-3, atol=1e-6 * loop.max(), err_msg=name)


@pytest.mark.parametrize("p", [0.1, 0.3, 0.77, 1.0])
def test_the_threshold_is_numpys_percentile_of_all_tensors_together(make_problem, fisher_seen, p):
    method = prepared(make_problem(dropout=0.0), p, BATCHES)
    [(fisher, q)] = fisher_seen
    assert q == 100 * (1 - p)
    everything = np.concatenate([each.numpy().ravel() for each in fisher]).astype(np.float64)
    threshold = np.percentile(everything, q)
    for mask, each in zip(method.mask.values(), fisher, strict=True):
        assert mask.dtype == torch.bool
        np.testing.assert_array_equal(mask.numpy(), each.numpy() >= threshold)
    kept = [mask.float().mean().item() for mask in method.mask.values()]
    if p < 1:
        assert max(kept) > 2 * min(kept), "one threshold for all: tensors differ in what they keep"


def test_all_of_the_layers_is_vanilla(make_problem, make_settings):
    """Without dropout the Fisher pass leaves no trace, and a mask that keeps all none either."""
    losses = [
        Loop(make_problem(dropout=0.0), each, make_settings()).run().losses for each in (ChildTuningD(1.0), Method())
    ]
    assert losses[0] == losses[1]


def test_the_fisher_pass_in_the_loop(make_problem, make_settings, monkeypatch):
    """One epoch in shuffled batches of the training size, with dropout on, in full precision; no gradient stays behind."""
    problem, seen = make_problem(dropout=0.1), []
    logits = problem.logits

    def spy(batch):
        seen.append((len(batch["labels"]), problem.model.training, torch.is_autocast_enabled("cpu")))
        return logits(batch)

    monkeypatch.setattr(problem, "logits", spy)
    Loop(problem, ChildTuningD(0.3), make_settings(precision="bf16"))
    assert sorted(seen) == [(2, True, False), (4, True, False), (4, True, False)]
    assert all(parameter.grad is None for parameter in problem.model.parameters())


def test_fisher_is_gone_before_the_first_step_and_a_byte_per_entry_stays(make_problem, monkeypatch):
    values, percentile = [], child_tuning.percentile

    def spy(given, q):
        values.extend(weakref.ref(each) for each in given)
        return percentile(given, q)

    monkeypatch.setattr(child_tuning, "percentile", spy)
    method = prepared(make_problem(), 0.3, BATCHES)
    assert len(values) == 32 and all(each() is None for each in values)
    entries = sum(parameter.numel() for parameter in method.scope.values())
    assert sum(each.untyped_storage().nbytes() for each in method.state_dict().values()) == entries


def test_state_goes_on_the_same(make_problem):
    problem = make_problem()
    method, resumed = prepared(problem, 0.3, BATCHES), ChildTuningD(0.3)
    resumed.attach(problem.model, 10)
    resumed.load_state_dict(method.state_dict())
    assert resumed.mask.keys() == method.mask.keys()
    assert all(torch.equal(resumed.mask[name], mask) for name, mask in method.mask.items())


# --- its steps


class Net(torch.nn.Module):
    """One tensor in scope, one outside."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer = torch.nn.Linear(4, 3, bias=False, dtype=torch.float64)
        self.head = torch.nn.Linear(3, 2, bias=False, dtype=torch.float64)


MASK = torch.tensor([[1, 0, 1, 0], [0, 0, 1, 1], [1, 1, 0, 0]], dtype=torch.bool)


class Driven:
    """The method with a given mask between an optimizer and given gradients."""

    def __init__(self):
        self.net, self.method = Net(), ChildTuningD(0.5)
        self.method.attach(self.net, 10)
        self.method.load_state_dict({"child.layer.weight": MASK})
        self.optimizer = adamw(
            self.net, Settings(epochs=1, batch_size=1, learning_rate=RATE, seed=0, weight_decay=DECAY)
        )

    def step(self, layer, head):
        self.net.layer.weight.grad, self.net.head.weight.grad = layer.clone(), head.clone()
        self.optimizer.update(self.method, 1, CLIP, norm=None)


def gradients(seed):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, dtype=torch.float64, generator=generator) for shape in ((3, 4), (2, 3))]


@given(seed=st.integers(0, 99))
@settings(deadline=None, max_examples=20)
def test_the_clip_norm_counts_masked_gradients(seed):
    """What the optimizer reads is g / |g| on the mask with the norm of all of g; DPS takes the norm of what the mask leaves."""
    driven, (layer, head) = Driven(), gradients(seed)
    driven.step(layer, head)
    norm = math.sqrt(layer.square().sum() + head.square().sum())
    assert norm > CLIP
    torch.testing.assert_close(driven.net.layer.weight.grad, layer * MASK / (norm + 1e-6), rtol=1e-12, atol=0)
    torch.testing.assert_close(driven.net.head.weight.grad, head / (norm + 1e-6), rtol=1e-12, atol=0)


def test_a_loud_masked_gradient_silences_the_others():
    driven, (layer, head) = Driven(), gradients(0)
    driven.step(torch.where(MASK, layer, 1e6), head)
    assert driven.net.layer.weight.grad[~MASK].eq(0).all() and driven.net.layer.weight.grad.abs().max() < 1e-5


def test_masked_entries_never_get_moments_and_only_decay_moves_them():
    driven, start = Driven(), Net().layer.weight.detach()
    for t in range(1, 6):
        driven.step(*gradients(t))
        weight, moments = driven.net.layer.weight, driven.optimizer.state[driven.net.layer.weight]
        assert not moments["exp_avg"][~MASK].any() and not moments["exp_avg_sq"][~MASK].any()
        assert moments["exp_avg"][MASK].all() and driven.optimizer.state[driven.net.head.weight]["exp_avg"].all()
        expected = start[~MASK] * (1 - RATE * DECAY) ** t
        torch.testing.assert_close(weight.detach()[~MASK], expected, rtol=1e-14, atol=0)
        assert (weight[MASK] != start[MASK] * (1 - RATE * DECAY) ** t).all()


def test_a_run_moves_masked_biases_not_at_all(make_problem, make_settings):
    """Biases and layer norms are masked too, and nothing decays them."""
    problem, method = make_problem(), ChildTuningD(0.1)
    loop = Loop(problem, method, make_settings())
    before = {name: parameter.detach().clone() for name, parameter in problem.model.named_parameters()}
    loop.run()
    undecayed = [name for name in method.scope if name.endswith("bias") or "LayerNorm" in name]
    for name in undecayed:
        moved = problem.model.get_parameter(name) != before[name]
        assert not (moved & ~method.mask[name]).any(), name
    assert any(method.mask[name].any() for name in undecayed)
    for name in set(before) - set(method.scope):
        assert (problem.model.get_parameter(name) != before[name]).any(), name


# --- CHILD-TUNING_F


@pytest.mark.parametrize("fast", [False, True])
@pytest.mark.parametrize("p", [0.1, 0.3, 0.9])
def test_draws_are_unbiased_and_kept_entries_are_divided_by_p(p, fast):
    """Mean and share over n = 400,000 draws within five standard errors, sqrt((1 - p) / p / n) and sqrt(p (1 - p) / n)."""
    net = torch.nn.Linear(1000, 4, bias=False)
    method, n = ChildTuningF(p), 100 * 4000
    method.attach(net, 10)
    torch.manual_seed(0)
    generator, drawn = np.random.Generator(np.random.SFC64(0)), []
    for _ in range(100):
        net.weight.grad = torch.full((4, 1000), 2.0)
        if fast:
            with FastDropout(generator):
                method.after_clipping(1, None)
        else:
            method.after_clipping(1, None)
        drawn.append(net.weight.grad)
    drawn = torch.stack(drawn).double()
    kept = drawn != 0
    rounded = round(p * 65536) / 65536 if fast else p
    torch.testing.assert_close(drawn[kept], torch.full_like(drawn[kept], 2 / rounded), rtol=1e-6, atol=0)
    assert abs(kept.double().mean().item() - p) < 5 * math.sqrt(p * (1 - p) / n)
    assert abs(drawn.mean().item() / 2 - 1) < 5 * math.sqrt((1 - p) / p / n)


def test_every_tensor_with_a_gradient_is_masked_anew_at_every_step(make_model, family):
    model, method = make_model(family), ChildTuningF(0.5)
    method.attach(model, 10)
    frozen = next(name for name, _ in model.named_parameters())
    masks = []
    for _ in range(2):
        for name, parameter in model.named_parameters():
            parameter.grad = None if name == frozen else torch.ones_like(parameter)
        method.after_clipping(1, None)
        masks.append({name: each.grad for name, each in model.named_parameters() if name != frozen})
    assert model.get_parameter(frozen).grad is None
    for name, gradient in masks[0].items():
        assert set(gradient.unique().tolist()) <= {0.0, 2.0}, name
        if gradient.numel() >= 32:
            assert 0 < gradient.mean() < 2 and not torch.equal(gradient, masks[1][name]), name


def test_moments_see_the_masked_gradient(make_problem, make_settings):
    problem, method = make_problem(), ChildTuningF(0.5)
    loop = Loop(problem, method, make_settings(epochs=1))
    loop.step([np.arange(4)])
    for name, parameter in problem.model.named_parameters():
        if parameter.numel() >= 1000 and "embeddings" not in name:
            silent = (loop.optimizer.state[parameter]["exp_avg"] == 0).double().mean().item()
            assert abs(silent - 0.5) < 5 * 0.5 / math.sqrt(parameter.numel()), name
    assert method.state_dict() == {}


def test_keeping_everything_is_vanilla(make_problem, make_settings):
    losses = [Loop(make_problem(), each, make_settings()).run().losses for each in (ChildTuningF(1.0), Method())]
    assert losses[0] == losses[1]


@pytest.mark.parametrize("method", [lambda: ChildTuningD(0.3), lambda: ChildTuningF(0.3)], ids=["D", "F"])
def test_training_is_a_function_of_the_seed(make_problem, make_settings, method):
    losses = [Loop(make_problem(), method(), make_settings()).run().losses for _ in range(2)]
    assert losses[0] == losses[1] and np.isfinite(losses[0]).all()


# --- bad input


@pytest.mark.parametrize("variant", [ChildTuningD, ChildTuningF])
@pytest.mark.parametrize("p", [-0.1, 0.0, 1.1, float("nan")])
def test_impossible_shares_are_refused(variant, p):
    with pytest.raises(InputError, match=r"must lie in \(0, 1\]"):
        variant(p)


def test_a_model_without_layers_is_refused():
    with pytest.raises(InputError, match="the model has none"):
        ChildTuningD(0.3).attach(torch.nn.Linear(2, 2), 10)


def test_weights_that_give_no_finite_loss_are_refused(make_problem):
    problem = make_problem()
    with torch.no_grad():
        problem.model.classifier.weight.fill_(float("nan"))
    with pytest.raises(InputError, match="not finite before training"):
        prepared(problem, 0.3, BATCHES)
