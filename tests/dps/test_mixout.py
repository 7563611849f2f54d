"""Mixout's closed form, expectation and gradients."""

import math

import pytest
import torch

from paperlib.dps.mixing import Draws
from paperlib.dps.mixout import Mixout
from paperlib.errors import InputError
from paperlib.kernels.philox import words
from paperlib.training import Loop, Method, update


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(3)
        self.embedding = torch.nn.Embedding(5, 6)
        self.dense = torch.nn.Linear(6, 4)

    def forward(self, ids):
        return self.dense(self.embedding(ids))


def trained_a_little(p, **variant):
    """A net whose weight has left the start it was attached at, and the method."""
    net, method = Net().double(), Mixout(p, **{"true_gradient": False, **variant})
    method.attach(net, 10)
    with torch.no_grad():
        net.dense.weight += torch.randn_like(net.dense.weight)
    return net, method


def seen(net, method):
    """The weight a forward pass computes with: the layer's outputs on unit inputs."""
    with method.forward_weights(1):
        return (net.dense(torch.eye(6, dtype=torch.float64)) - net.dense.bias).T


def test_each_column_is_the_start_or_pushed_beyond_the_weight():
    """xi = 0 -> u; xi = 1 -> u + (W - u) / (1 - p)."""
    net, method = trained_a_little(0.4)
    u, w = method.start["dense.weight"], net.dense.weight.detach()
    pushed = u + (w - u) / 0.6
    for _ in range(10):
        for column in range(6):
            now = seen(net, method)[:, column]
            assert torch.allclose(now, u[:, column]) or torch.allclose(now, pushed[:, column])


def test_the_weight_seen_is_the_weight_on_average():
    """Within five standard errors in every entry; each column's spread is that of a Bernoulli draw."""
    net, method = trained_a_little(0.3)
    torch.manual_seed(0)
    with torch.no_grad(), torch.enable_grad():
        draws = torch.stack([seen(net, method).detach() for _ in range(4000)])
    u, w = method.start["dense.weight"], net.dense.weight.detach()
    error = (w - u).abs() * math.sqrt(0.3 / 0.7) / math.sqrt(len(draws))
    assert ((draws.mean(0) - w).abs() <= 5 * error + 1e-12).all()


@pytest.mark.parametrize("true_gradient, factor", [(False, 1.0), (True, 1 / 0.6)])
def test_the_gradient_reaches_active_columns_with_the_stated_factor(true_gradient, factor):
    net, method = trained_a_little(0.4, true_gradient=true_gradient)
    x = torch.randn(7, 6, dtype=torch.float64)
    torch.manual_seed(11)
    with method.forward_weights(1):
        net.dense(x).sum().backward()
    torch.manual_seed(11)
    xi = torch.rand(6) >= 0.4
    assert 0 < xi.sum() < 6
    plain = torch.ones(7, 4, dtype=torch.float64).T @ x
    torch.testing.assert_close(net.dense.weight.grad, plain * xi * factor)


def test_every_forward_pass_draws_anew_and_evaluation_sees_the_weight():
    net, method = trained_a_little(0.5)
    assert len({seen(net, method).detach().numpy().tobytes() for _ in range(8)}) > 4
    with torch.no_grad():
        assert torch.equal(seen(net, method), net.dense(torch.eye(6).double()).T - net.dense.bias[:, None])


def test_at_the_start_and_at_p_zero_it_is_plain_training(make_problem, make_settings):
    plain = Loop(make_problem(dropout=0.0), Method(), make_settings()).run()
    mixed = Loop(make_problem(dropout=0.0), Mixout(0.0, true_gradient=True), make_settings()).run()
    assert mixed.losses == pytest.approx(plain.losses, rel=1e-4)
    first = Loop(make_problem(dropout=0.0), Mixout(0.5, true_gradient=False), make_settings()).run().losses[0]
    assert first == pytest.approx(plain.losses[0], rel=1e-5), "W = u: nothing to mix yet"


def test_biases_and_embeddings_are_left_alone():
    net, method = trained_a_little(0.5)
    assert set(method.start) == {"dense.weight"}


def test_the_published_mask_changes_memory_alone():
    outcomes = []
    for wide in (False, True):
        net, method = trained_a_little(0.4, reference_dtypes=wide)
        torch.manual_seed(5)
        with method.forward_weights(1):
            net.dense(torch.eye(6, dtype=torch.float64)).square().sum().backward()
        outcomes.append(net.dense.weight.grad)
    assert torch.equal(*outcomes)


@pytest.mark.parametrize("p", [-0.1, 1.0, 1.5, float("nan")])
def test_impossible_probabilities_are_refused(p):
    with pytest.raises(InputError, match="p must lie in"):
        Mixout(p, true_gradient=False)


def test_a_model_without_linear_weights_is_refused():
    with pytest.raises(InputError, match="no trainable Linear weight"):
        Mixout(0.5, true_gradient=False).attach(torch.nn.LayerNorm(3), 10)


# --- numbered draws, where one pass moves the weights


def test_each_column_of_each_weight_has_a_word_of_its_own():
    """Over weights whose widths are no multiples of 4, two turns and two steps: no word is used twice."""
    weights = {"a": torch.empty(2, 6), "b": torch.empty(3, 4), "c": torch.empty(1, 9)}
    draws, used = Draws(weights, 0.4), []
    for step in (1, 2):
        for turn in (0, 1):
            for name, weight in weights.items():
                draw = draws.of(name, step, turn)
                assert draw.first % 4 == 0
                stream = words(draws.seed, step, draw.first, weight.shape[1]).tolist()
                assert draw.gate(weight.shape[1]).tolist() == [word >= round(0.4 * 2**32) for word in stream]
                used += [(step, draw.first + column) for column in range(weight.shape[1])]
    assert len(used) == len(set(used))


def test_the_draw_of_all_weights_is_the_first_of_each():
    weights = {"a": torch.empty(2, 6), "b": torch.empty(3, 4), "c": torch.empty(1, 9)}
    draws = Draws(weights, 0.4)
    everything = draws.of_all(7).gate(draws.words)
    for name, weight in weights.items():
        assert torch.equal(everything[draws.span[name]], draws.of(name, 7).gate(weight.shape[1]))


def numbered(monkeypatch, p):
    monkeypatch.setattr(update, "taken_by", lambda tensor: True)
    net, method = Net(), Mixout(p, true_gradient=False)
    torch.manual_seed(2)
    method.attach(net, 10)
    with torch.no_grad():
        net.dense.weight += 1
    return net, method


def drawn(net, method, step):
    with method.forward_weights(step):
        return (net.dense(torch.eye(6)) - net.dense.bias).T.detach().numpy().tobytes()


def test_passes_of_a_step_and_steps_draw_anew_and_a_resumed_run_the_same(monkeypatch):
    """Nothing but the seed, which attaching draws, is needed to go on at any step."""
    net, method = numbered(monkeypatch, 0.5)
    passes = {step: [drawn(net, method, step) for _ in range(3)] for step in (1, 2, 3)}
    assert len({each for step in passes.values() for each in step}) > 6
    resumed = numbered(monkeypatch, 0.5)
    assert [drawn(*resumed, 3) for _ in range(3)] == passes[3]
