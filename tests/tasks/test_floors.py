"""Floors on made-up rows: the commonest class, a bag of words, and texts that splits share."""

import numpy as np
import pandas as pd
import pytest

from paperlib import backbones, tasks
from paperlib.tasks import floors
from paperlib.tasks.encoding import Encoded

GOOD, BAD, FIRST, SECOND = 7, 8, 9, 10


def encoded(rows, labels, **more):
    labels = np.asarray(labels)
    return Encoded([np.array(row) for row in rows], labels=labels, **({"gold": labels} | more))


# --- constant


def test_the_commonest_training_class_is_always_given():
    train = encoded([[1]] * 5, [1, 1, 1, 0, 0])
    test = encoded([[1]] * 4, [0, 0, 0, 1])
    assert floors.constant(tasks.get("rte"), train, test) == {"accuracy": 0.25}


def test_mrpc_all_positive_has_the_f1_of_its_prevalence():
    """Precision 2/3, recall 1."""
    train, test = encoded([[1]] * 3, [1, 1, 0]), encoded([[1]] * 3, [1, 0, 1])
    assert floors.constant(tasks.get("mrpc"), train, test)["f1"] == pytest.approx(0.8)


def test_for_f1_always_yes_beats_the_majority_class():
    train, test = encoded([[1]] * 3, [0, 0, 1]), encoded([[1]] * 4, [0, 1, 0, 0])
    assert floors.constant(tasks.get("mrpc"), train, test) == {"f1": pytest.approx(0.4), "accuracy": 0.25}


def test_a_constant_correlates_with_nothing():
    train, test = encoded([[1]] * 2, [1.0, 4.0]), encoded([[1]] * 3, [0.0, 2.0, 5.0])
    assert set(floors.constant(tasks.get("stsb"), train, test).values()) == {0.0}


def test_of_two_choices_the_first():
    rows = encoded([[1]] * 8, [0, 1, 0, 0], choices=2)
    assert floors.constant(tasks.get("copa"), rows, rows) == {"accuracy": 0.75}


def test_of_a_querys_candidates_the_first():
    rows = encoded(
        [[1]] * 4,
        [1, 0, 0, 1],
        gold=[["ann"], ["eve"]],
        groups=np.array([0, 0, 1, 1]),
        candidates=["ann", "bob", "bob", "eve"],
    )
    found = floors.constant(tasks.get("record"), rows, rows)
    assert found["f1"] == found["exact_match"] == 0.5


def test_answers_are_judged_alike():
    rows = encoded([[1]] * 3, [0, 0, 1], groups=np.array([0, 0, 1]))
    assert floors.constant(tasks.get("multirc"), rows, rows)["exact_match"] == 0.5


# --- bag of words


@pytest.mark.parametrize("task", ["rte", "mnli"])
def test_words_that_tell_the_class_are_found(task):
    outputs = tasks.get(task).outputs
    rows = encoded([[20 + label, 1, 2] for label in range(outputs)] * 10, list(range(outputs)) * 10)
    assert floors.bag_of_words(tasks.get(task), rows, rows)["accuracy"] == 1


def test_the_order_of_words_is_not_seen():
    """The class is which of two words comes first: chance is all there is."""
    rows = encoded([[FIRST, SECOND], [SECOND, FIRST]] * 20, [0, 1] * 20)
    assert floors.bag_of_words(tasks.get("rte"), rows, rows)["accuracy"] == 0.5


def test_scores_follow_words():
    amounts = list(range(1, 9))
    rows = encoded([[GOOD] * n + [BAD] * (9 - n) for n in amounts], [n / 2 for n in amounts])
    assert floors.bag_of_words(tasks.get("stsb"), rows, rows)["spearman"] == pytest.approx(1)


def test_the_better_of_two_choices():
    """Every example is a good and a bad row; which comes first is the label."""
    labels = [0, 1, 1, 0, 1] * 4
    rows = [row for label in labels for row in (([3, GOOD], [3, BAD]) if label == 0 else ([3, BAD], [3, GOOD]))]
    made = encoded(rows, labels, choices=2)
    assert floors.bag_of_words(tasks.get("copa"), made, made)["accuracy"] == 1


def test_the_best_of_a_querys_candidates():
    rows = encoded(
        [[GOOD], [BAD]] * 6,
        [1, 0] * 6,
        gold=[["ann"]] * 6,
        groups=np.repeat(np.arange(6), 2),
        candidates=["ann", "bob"] * 6,
    )
    assert floors.bag_of_words(tasks.get("record"), rows, rows)["exact_match"] == 1


# --- a diagnostic's floors, and shared texts


def test_a_diagnostics_floors_are_reproducible_fractions():
    task, tokenizer = tasks.get("cola"), backbones.tokenizer("minilm")
    found = floors.of_diagnostic(task, tokenizer, seed=1)
    assert list(found) == ["constant", "bag of words"]
    assert found["constant"] == 0  # a constant has no Matthews correlation
    assert -1 <= found["bag of words"] < 0.9
    assert found == floors.of_diagnostic(task, tokenizer, seed=1)


def pair(*rows):
    return pd.DataFrame(rows, columns=["sentence1", "sentence2", "label"])


def test_a_text_in_two_splits_is_counted_once_whichever_its_column():
    frames = {
        "train": pair(["a", "b", 0], ["a", "c", 1]),
        "validation": pair(["c", "x", 0], ["c", "a", 0]),
        "test": pair(["y", "a", 1]),
    }
    assert floors.shared_texts(tasks.get("rte"), frames) == 2


def test_repetitions_within_a_split_are_not_shared():
    frames = {"train": pair(["a", "a", 0], ["a", "b", 1]), "test": pair(["c", "d", 0])}
    assert floors.shared_texts(tasks.get("rte"), frames) == 0
