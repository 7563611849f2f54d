"""Metrics against values worked out by hand, and runs that are degenerate."""

import math
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paperlib.tasks import TASKS, get
from paperlib.tasks.encoding import Encoded
from paperlib.tasks.metrics import evaluate, evaluate_text, predictions


def encoded(gold, **fields):
    rows = fields.pop("rows", len(gold) * fields.get("choices", 1))
    return Encoded(
        [np.array([1])] * rows,
        labels=np.zeros(rows),
        gold=gold if fields.get("candidates") else np.array(gold),
        **fields,
    )


def one_hot(classes, width=2):
    return np.eye(width)[classes]


GOLD, PREDICTED = [1, 1, 1, 0, 0, 1], [1, 1, 0, 1, 0, 1]  # tp 3, fn 1, fp 1, tn 1


def test_accuracy_and_f1():
    assert evaluate(get("mrpc"), one_hot(PREDICTED), encoded(GOLD)) == pytest.approx({"f1": 6 / 8, "accuracy": 4 / 6})


def test_the_main_metric_comes_first():
    assert list(evaluate(get("mrpc"), one_hot(PREDICTED), encoded(GOLD))) == ["f1", "accuracy"]


def test_matthews():
    expected = (3 * 1 - 1 * 1) / math.sqrt(4 * 4 * 2 * 2)
    assert evaluate(get("cola"), one_hot(PREDICTED), encoded(GOLD)) == pytest.approx({"matthews": expected})


def test_macro_f1_counts_a_class_nobody_names_as_zero():
    scores = evaluate(get("cb"), one_hot([0, 0, 1, 1], 3), encoded([0, 1, 1, 1]))
    assert scores == pytest.approx({"accuracy": 3 / 4, "macro_f1": (2 / 3 + 4 / 5 + 0) / 3})


def test_correlations():
    """x = 1, 2, 3, 4 and y = 1, 3, 2, 10: deviations' products sum to 13, squares to 5 and 50."""
    scores = evaluate(get("stsb"), np.array([[1.0], [2.0], [3.0], [4.0]]), encoded([1.0, 3.0, 2.0, 10.0]))
    assert scores == pytest.approx({"pearson": 13 / math.sqrt(5 * 50), "spearman": 1 - 6 * 2 / (4 * 15)})


def test_copa_compares_an_examples_two_rows():
    scores = np.array([[0.2], [0.9], [3.0], [-1.0], [0.0], [1.0]])
    assert predictions(get("copa"), scores).tolist() == [1, 0, 1]
    assert evaluate(get("copa"), scores, encoded([1, 1, 1], choices=2)) == pytest.approx({"accuracy": 2 / 3})


def test_multirc_f1_over_answers_and_exact_match_over_questions():
    data = encoded([1, 0, 1, 1, 0], groups=np.array([4, 4, 7, 7, 7]))
    scores = evaluate(get("multirc"), one_hot([1, 0, 1, 0, 0]), data)
    assert scores == pytest.approx({"f1": 4 / 5, "exact_match": 1 / 2})


RECORD = dict(groups=np.array([0, 0, 0, 1, 1]), candidates=["Ann Lee", "Bob", "the Ann", "Eve", "Mr. Eve"], rows=5)


def test_record_takes_the_likeliest_candidate_of_each_query():
    scores = np.array([[0, 2], [0, 1], [5, 6], [0, 0], [0, 1]])  # log-odds 2, 1, 1 | 0, 1
    data = encoded([["Ann", "A. Lee"], ["Eve"]], **RECORD)
    assert evaluate(get("record"), scores, data) == pytest.approx({"f1": 2 / 3, "exact_match": 0.0})
    data = encoded([["ann  LEE!", "Bob"], ["The mr eve"]], **RECORD)
    assert evaluate(get("record"), scores, data) == {"f1": 1.0, "exact_match": 1.0}


def test_record_ties_go_to_the_first_candidate_and_no_candidate_scores_zero():
    data = encoded([["Ann Lee"], ["Eve"], ["Zoe"]], **RECORD)
    assert evaluate(get("record"), np.zeros((5, 2)), data) == pytest.approx({"f1": 2 / 3, "exact_match": 2 / 3})


def test_outputs_and_examples_must_agree():
    with pytest.raises(ValueError, match="2 predictions for 6 examples"):
        evaluate(get("cola"), np.zeros((2, 2)), encoded(GOLD))
    with pytest.raises(ValueError, match="1 answers for 6 examples"):
        evaluate_text(get("cola"), ["1"], encoded(GOLD))


# --- degenerate runs


@pytest.mark.parametrize("constant", [0, 1])
def test_a_constant_classifier_scores(constant):
    scores = one_hot([constant] * 6)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert evaluate(get("cola"), scores, encoded(GOLD)) == {"matthews": 0.0}
        assert evaluate(get("mrpc"), scores, encoded(GOLD))["f1"] == pytest.approx([0.0, 8 / 10][constant])
        assert evaluate(get("mrpc"), one_hot([0, 0]), encoded([0, 0])) == {"f1": 0.0, "accuracy": 1.0}


@pytest.mark.parametrize("output", [0.0, 2.5, math.nan, math.inf])
def test_constant_or_diverged_scores_correlate_with_nothing(output):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert evaluate(get("stsb"), np.full((3, 1), output), encoded([1.0, 2.0, 3.0])) == {
            "pearson": 0.0,
            "spearman": 0.0,
        }


def test_diverged_logits_score():
    for name, task in TASKS.items():
        if task.kind == "classification":
            scores = evaluate(task, np.full((4, len(task.labels)), np.nan), encoded([0, 1, 0, 1]))
            assert all(0 <= value <= 1 for value in scores.values()), name


# --- text answers


def test_text_labels():
    assert evaluate_text(get("mrpc"), [" 1", "1", "0", "1 ", "0", "1"], encoded(GOLD)) == pytest.approx(
        {"f1": 6 / 8, "accuracy": 4 / 6}
    )


@given(
    gold=st.lists(st.integers(0, 1), min_size=1, max_size=12),
    text=st.sampled_from(["", "yes", "2", "-1", "01", "1.0"]),
)
def test_a_text_that_is_no_label_is_wrong(gold, text):
    assert evaluate_text(get("mrpc"), [text] * len(gold), encoded(gold)) == {"f1": 0.0, "accuracy": 0.0}


def test_text_scores():
    texts = ["1.0", "2.0", "good", "nan"]  # read as 1, 2, -1, -1
    expected = np.corrcoef([1, 2, -1, -1], [1, 2, 3, 4])[0, 1]
    assert evaluate_text(get("stsb"), texts, encoded([1.0, 2.0, 3.0, 4.0]))["pearson"] == pytest.approx(expected)


def test_text_entities():
    data = Encoded([np.array([1])] * 2, labels=[np.array([1])] * 2, gold=[["Ann Lee"], ["Bob", "Bobby"]])
    assert evaluate_text(get("record"), ["lee", "bobby"], data) == pytest.approx(
        {"f1": (2 / 3 + 1) / 2, "exact_match": 1 / 2}
    )


def test_text_multirc():
    data = encoded([1, 0, 1], groups=np.array([0, 0, 1]))
    assert evaluate_text(get("multirc"), ["1", "0", "maybe"], data) == pytest.approx(
        {"f1": 2 / 3, "exact_match": 1 / 2}
    )
