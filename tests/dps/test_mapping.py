"""Three labels read as the labels of another inference task."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from paperlib import tasks
from paperlib.dps.mapping import RULES, argmax_then_merge, merging, sum_of_probabilities
from paperlib.errors import InputError

SNLI = tasks.get("snli")
TWO = ("scitail", "rte", "superglue_rte", "qnli")
THREE = ("snli", "mnli", "sick", "cb")
INTO = {name: merging(SNLI, tasks.get(name)) for name in (*TWO, *THREE)}

counts = st.lists(st.integers(1, 1000), min_size=3, max_size=3)
logits = hnp.arrays(np.float32, (7, 3), elements=st.floats(-1000, 1000, width=32))


def becomes(name: str) -> dict[str, str]:
    """Source label -> target label."""
    return {label: tasks.get(name).labels[index] for label, index in zip(SNLI.labels, INTO[name], strict=True)}


@pytest.mark.parametrize(
    "name, expected",
    [
        ("scitail", {"entailment": "entails", "neutral": "neutral", "contradiction": "neutral"}),
        ("rte", {"entailment": "entailment", "neutral": "not_entailment", "contradiction": "not_entailment"}),
        *[(name, {label: label for label in SNLI.labels}) for name in THREE],
    ],
)
def test_labels_become_labels_of_the_same_meaning(name, expected):
    assert becomes(name) == expected


def test_names_decide_and_not_positions():
    rte = tasks.get("rte")
    assert merging(SNLI, replace(rte, labels=("not_entailment", "entailment"))).tolist() == [1, 0, 0]
    assert merging(tasks.get("cb"), rte).tolist() == [0, 1, 1]
    assert merging(tasks.get("cb"), SNLI).tolist() == [0, 2, 1]
    assert merging(replace(SNLI, labels=("neutral", "contradiction", "entailment")), rte).tolist() == [1, 1, 0]


@pytest.mark.parametrize("name", sorted(set(tasks.TASKS) - set(INTO)))
def test_labels_of_other_tasks_cannot_be_mapped(name):
    with pytest.raises(
        InputError, match="cannot be mapped: they must be entailment, neutral, contradiction, or"
    ) as error:
        merging(SNLI, tasks.get(name))
    assert tasks.get(name).title in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    "labels",
    [
        ("entailment", "contradiction"),
        ("neutral", "not_entailment"),
        ("entailment", "entails"),
        ("entailment",),
        ("entailment", "neutral", "not_entailment"),
    ],
)
def test_two_labels_are_entailment_and_one_that_stands_for_the_others(labels):
    with pytest.raises(InputError, match="cannot be mapped"):
        merging(SNLI, replace(SNLI, labels=labels))


@pytest.mark.parametrize("name", ["rte", "scitail", "cola", "stsb"])
def test_a_source_has_the_three_labels(name):
    with pytest.raises(InputError, match="label mapping starts from a task with entailment, neutral, contradiction"):
        merging(tasks.get(name), SNLI)


@pytest.mark.parametrize(
    "probabilities, first, second",
    [
        ([0.4, 0.3, 0.3], 0, 1),  # the likeliest single class, and less likely than the others together
        ([0.6, 0.2, 0.2], 0, 0),
        ([0.3, 0.4, 0.3], 1, 1),
        ([0.3, 0.3, 0.4], 1, 1),
        ([0.1, 0.1, 0.8], 1, 1),
    ],
)
def test_by_hand(probabilities, first, second):
    scores = np.log([probabilities])
    assert argmax_then_merge(scores, INTO["rte"]).tolist() == [first]
    assert sum_of_probabilities(scores, INTO["rte"]).tolist() == [second]


@given(numbers=counts, shift=st.floats(-50, 50))
@pytest.mark.parametrize("name", TWO)
def test_the_rules_differ_exactly_where_entailment_is_the_likeliest_but_below_one_half(name, numbers, shift):
    entailment, neutral, contradiction = numbers
    p = Fraction(entailment, sum(numbers))
    if p == Fraction(1, 2):
        return  # a tie in exact arithmetic; floating point may say either
    scores = np.log([numbers]) + shift
    first, second = (rule(scores, INTO[name])[0] for rule in RULES.values())
    assert (first != second) == (entailment >= max(neutral, contradiction) and p < Fraction(1, 2))


@given(scores=logits)
@pytest.mark.parametrize("name", TWO)
def test_the_sum_finds_no_entailment_that_the_argmax_does_not(name, scores):
    """p(entailment) >= p(neutral) + p(contradiction) is at least either of them."""
    first, second = (rule(scores, INTO[name]) for rule in RULES.values())
    assert (first[second == 0] == 0).all()


@given(scores=logits)
@pytest.mark.parametrize("name", THREE)
def test_on_three_labels_both_rules_are_the_renamed_argmax(name, scores):
    theirs = scores[:, np.argsort(INTO[name])]
    for rule in RULES.values():
        said = rule(scores, INTO[name])
        # Where classes tie, either is the likeliest.
        np.testing.assert_array_equal(theirs[np.arange(len(theirs)), said], theirs.max(axis=1))


def test_scores_far_from_zero_do_not_overflow():
    scores = np.array([[30000.0, 0.0, -30000.0], [-30000.0, 29999.0, 30000.0]], dtype=np.float16)
    for rule in RULES.values():
        assert rule(scores, INTO["rte"]).tolist() == [0, 1]
