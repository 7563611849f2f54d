"""A problem: encoded rows, loss, scores, for every kind of task and both kinds of backbone."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from paperlib import backbones, tasks
from paperlib.errors import InputError
from paperlib.tasks import diagnostics
from paperlib.tasks.splits import dps
from paperlib.training import Problem

KINDS = ["rte", "stsb", "copa", "multirc", "record"]


def test_a_backbone_without_tokenizer_is_refused():
    with torch.device("meta"):
        backbone = backbones.load("bert-base-config", 2, seed=0)
    frames = diagnostics.generate("rte", sizes={"train": 2, "validation": 2, "test": 2})
    with pytest.raises(InputError, match="'bert-base-config' is a configuration without weights or tokenizer"):
        Problem.of(tasks.get("rte"), dps(frames, tasks.get("rte")), backbone)


def test_without_validation_rows_there_are_none(make_problem):
    assert make_problem().validation is None
    assert len(make_problem(validation=5).validation) == 5


@pytest.mark.parametrize("task, shape", [("rte", (3, 2)), ("mnli", (3, 3)), ("stsb", (3, 1)), ("copa", (3, 2))])
def test_logits_have_a_row_per_example(make_problem, task, shape):
    """COPA's two rows become one example's two choices."""
    problem = make_problem(task)
    logits = problem.logits(problem.batch(problem.train, np.arange(3)))
    assert logits.shape == shape and logits.dtype == torch.float32


def test_text_to_text_logits_have_a_row_per_label_token(make_problem):
    problem = make_problem("rte", "tiny-t5")
    batch = problem.batch(problem.train, np.arange(3))
    assert problem.logits(batch).shape == (*batch["labels"].shape, 30522)


def test_cross_entropy_over_classes(make_problem):
    problem = make_problem("rte")
    logits, labels = torch.tensor([[2.0, -1.0], [0.0, 0.5]]), torch.tensor([0, 0])
    by_hand = -(np.log(np.exp(2) / (np.exp(2) + np.exp(-1))) + np.log(1 / (1 + np.exp(0.5)))) / 2
    assert problem.loss(logits, {"labels": labels}).item() == pytest.approx(by_hand, rel=1e-6)


def test_squared_error_for_scores(make_problem):
    loss = make_problem("stsb").loss(torch.tensor([[1.0], [4.0]]), {"labels": torch.tensor([3.0, 4.5])})
    assert loss.item() == pytest.approx((2**2 + 0.5**2) / 2)


def test_cross_entropy_over_label_tokens_skips_padding(make_problem):
    problem = make_problem("rte", "tiny-t5")
    logits, labels = torch.randn(2, 3, 7), torch.tensor([[1, 2, -100], [3, -100, -100]])
    tokens = torch.stack([logits[0, 0], logits[0, 1], logits[1, 0]])
    expected = functional.cross_entropy(tokens, torch.tensor([1, 2, 3]))
    assert problem.loss(logits, {"labels": labels}).item() == pytest.approx(expected.item(), rel=1e-6)


@pytest.mark.parametrize("task", KINDS)
@pytest.mark.parametrize("backbone", ["tiny-bert", "tiny-t5"])
def test_the_loss_is_a_mean_over_as_many_terms_as_told(make_problem, task, backbone):
    """So that the parts of a batch, weighted by their terms, make up the whole."""
    problem = make_problem(task, backbone, dropout=0.0, train=9)
    parts = [np.arange(4), np.arange(4, 9), np.arange(9)]

    def loss(indices):
        batch = problem.batch(problem.train, indices)
        return problem.loss(problem.logits(batch), batch).item()

    first, second, whole = (problem.averaged(problem.train, part) for part in parts)
    assert whole == first + second
    expected = (first * loss(parts[0]) + second * loss(parts[1])) / whole
    assert loss(parts[2]) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("task", ["rte", "copa", "record"])
def test_scores_stand_in_the_order_of_the_rows_whatever_the_batches(make_problem, task):
    problem = make_problem(task, test=11)
    one_by_one = problem.scores(problem.test, 1)
    np.testing.assert_allclose(problem.scores(problem.test, 4), one_by_one, atol=1e-6)
    last = problem.batch(problem.test, np.array([len(problem.test) - 1]))
    problem.model.eval()
    np.testing.assert_allclose(problem.logits(last)[0].detach(), one_by_one[-1], atol=1e-6)


def test_generated_texts_stand_in_the_order_of_the_rows(make_problem, monkeypatch):
    """With a model that says what it was told."""
    problem = make_problem("rte", "tiny-t5", test=7)
    monkeypatch.setattr(problem.model, "generate", lambda input_ids, attention_mask, **how: input_ids)
    decode = problem.backbone.tokenizer.decode
    expected = [decode(ids, skip_special_tokens=True) for ids in problem.test.input_ids]
    assert len(set(expected)) == 7
    assert problem.scores(problem.test, 3) == expected


def test_scoring_is_without_dropout_and_gives_training_mode_back(make_problem):
    problem = make_problem(dropout=0.5)
    problem.model.train()
    first = problem.scores(problem.test, 4)
    np.testing.assert_array_equal(problem.scores(problem.test, 4), first)
    assert problem.model.training


@pytest.mark.parametrize("task", KINDS)
def test_classes_where_there_are_any(make_problem, task):
    problem = make_problem(task)
    classes = problem.classes(problem.scores(problem.test, 4))
    if task in ("stsb", "record"):
        assert classes is None
    else:
        assert len(classes) == len(problem.test) and set(classes) <= {0, 1}
    assert make_problem(task, "tiny-t5").classes(["0"]) is None
