"""R-Drop against values worked out in numpy from the dropout masks drawn."""

import numpy as np
import pytest
import torch
from scipy.special import log_softmax, rel_entr, softmax
from torch.nn import functional

from paperlib.dps.r_dropout import RDropout
from paperlib.errors import InputError
from paperlib.training import Loop, Method

IDS = torch.tensor([[1, 2, 3], [4, 4, 0], [10, 5, 2], [7, 8, 9]])
MIXED, ALIKE = torch.tensor([0, 2, 1, 1]), torch.tensor([2, 2, 2, 2])
TEXTS = torch.tensor([[1, 0, -100], [2, -100, -100], [0, 1, 2], [2, 2, -100]])


def both_ways(scores, others):
    p, q = softmax(scores, -1), softmax(others, -1)
    return (rel_entr(p, q) + rel_entr(q, p)).sum(-1)


def two_passes(problem):
    """Scores of both passes, by numpy, from the masks that seed 1 draws for twice the batch."""
    table, weight, bias = (each.detach().numpy() for each in problem.model.parameters())
    words = table[torch.cat([IDS, IDS]).numpy()]
    pooled = words if problem.backbone.text_to_text else words.mean(1)
    torch.manual_seed(1)
    mask = functional.dropout(torch.ones(pooled.shape, dtype=torch.float64), problem.model.dropout.p).numpy()
    return np.split((pooled * mask) @ weight.T + bias, 2)


def entropy(scores, labels):
    counted = labels.numpy() != -100
    picked = np.take_along_axis(log_softmax(scores, -1), np.where(counted, labels.numpy(), 0)[..., None], -1)[..., 0]
    return -picked[counted].mean()


def loss(method, problem, labels):
    torch.manual_seed(1)
    return method.loss(problem, {"input_ids": IDS, "labels": labels}).item()


@pytest.mark.parametrize("reduction, rows", [("batch_sum", 1), ("batch_mean", 4)])
@pytest.mark.parametrize("labels", [MIXED, ALIKE, TEXTS], ids=["classes", "one class", "texts"])
def test_loss_by_hand(by_hand, reduction, rows, labels):
    """CE1 + CE2 + alpha / 2 * (KL + KL), the KL summed over the rows or averaged; one class in the whole batch is no special case."""
    problem = by_hand(text_to_text=labels is TEXTS, dropout=0.4)
    first, second = two_passes(problem)
    counted = 1 if labels.ndim == 1 else labels.numpy() != -100
    apart = (both_ways(first, second) * counted).sum()
    expected = entropy(first, labels) + entropy(second, labels) + 3.0 * apart / 2 / rows
    assert apart > 1e-3
    assert loss(RDropout(3.0, reduction), problem, labels) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("alpha", [0.1, 5.0])
def test_regression_by_hand_is_without_alpha(by_hand, alpha):
    problem = by_hand("regression", outputs=1, dropout=0.4)
    labels = torch.tensor([0.5, 4.0, 2.0, 5.0])
    first, second = (scores[:, 0] for scores in two_passes(problem))
    gold = labels.numpy()
    expected = ((first - gold) ** 2).mean() + ((second - gold) ** 2).mean() + ((first - second) ** 2).mean()
    assert loss(RDropout(alpha, "batch_sum"), problem, labels) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("reduction", ["batch_sum", "batch_mean"])
def test_without_strength_it_is_the_sum_of_two_vanilla_losses(by_hand, reduction):
    problem = by_hand(dropout=0.4)
    first, second = two_passes(problem)
    expected = entropy(first, MIXED) + entropy(second, MIXED)
    assert loss(RDropout(0.0, reduction), problem, MIXED) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    "task, backbone", [("rte", "tiny-bert"), ("copa", "tiny-bert"), ("stsb", "tiny-bert"), ("rte", "tiny-t5")]
)
def test_without_dropout_both_passes_agree(make_problem, task, backbone):
    """Twice the vanilla loss and no divergence, whatever its weight: the rows of a choice stay together."""
    problem = make_problem(task, backbone, dropout=0.0)
    batch = problem.batch(problem.train, np.arange(5))
    expected = 2 * Method().loss(problem, batch).item()
    assert RDropout(1.0, "batch_sum").loss(problem, batch).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("task, backbone", [("rte", "tiny-bert"), ("copa", "tiny-bert"), ("rte", "tiny-t5")])
def test_with_dropout_they_differ_and_alpha_weighs_it(make_problem, task, backbone):
    problem = make_problem(task, backbone, dropout=0.5)
    problem.model.train()
    batch = problem.batch(problem.train, np.arange(5))

    def at(alpha, reduction):
        torch.manual_seed(0)
        return RDropout(alpha, reduction).loss(problem, batch).item()

    penalty = at(1e4, "batch_sum") - at(0.0, "batch_sum")
    assert penalty > 1
    assert at(2e4, "batch_sum") - at(0.0, "batch_sum") == pytest.approx(2 * penalty, rel=1e-5)
    assert at(1e4, "batch_mean") - at(0.0, "batch_mean") == pytest.approx(penalty / 5, rel=1e-5)


def test_both_halves_carry_gradient(by_hand):
    """Against autograd on the two passes written out."""
    problem = by_hand(dropout=0.4)
    torch.manual_seed(1)
    RDropout(2.0, "batch_mean").loss(problem, {"input_ids": IDS, "labels": MIXED}).backward()
    table, weight, bias = (each.detach().clone().requires_grad_() for each in problem.model.parameters())
    torch.manual_seed(1)
    first, second = functional.dropout(torch.ones(8, 5, dtype=torch.float64), 0.4).chunk(2)
    one, other = ((table[IDS].mean(1) * mask) @ weight.T + bias for mask in (first, second))
    log_p, log_q = one.log_softmax(-1), other.log_softmax(-1)
    apart = (log_p.exp() * (log_p - log_q) + log_q.exp() * (log_q - log_p)).sum()
    (functional.cross_entropy(one, MIXED) + functional.cross_entropy(other, MIXED) + apart / 4).backward()
    for ours, expected in zip(problem.model.parameters(), (table, weight, bias), strict=True):
        torch.testing.assert_close(ours.grad, expected.grad, rtol=1e-12, atol=1e-15)


def test_training_is_a_function_of_the_seed(make_problem, make_settings):
    losses = [Loop(make_problem(), RDropout(1.0, "batch_sum"), make_settings(epochs=1)).run().losses for _ in range(2)]
    assert losses[0] == losses[1] and np.isfinite(losses[0]).all()


@pytest.mark.parametrize(
    "given, message",
    [
        ((-1.0, "batch_sum"), "strength must be a number from 0 up, got -1"),
        ((float("nan"), "batch_sum"), "strength must be"),
        ((1.0, "mean"), "unknown kl_reduction 'mean'; known: batch_sum, batch_mean"),
    ],
)
def test_impossible_values_are_refused(given, message):
    with pytest.raises(InputError, match=message):
        RDropout(*given)
