"""How long a training takes until its validation scores are nearly as good as they get."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paperlib.errors import InputError
from paperlib.lets.convergence import Curve


def curve(*scores, steps=None, rows=160, batch_size=16, interval=0):
    losses = [0.0] * (10 * len(scores) if steps is None else steps)
    results = {"validation": [{"f1": score} for score in scores], "losses": losses, "train_rows": rows}
    return Curve.of(results, "f1", batch_size, interval)


def test_one_validation_per_epoch_is_at_its_end():
    found = curve(0.1, 0.2, 0.3, steps=30, rows=155)
    assert found.steps == [10, 20, 30] and found.epochs == [1, 2, 3] and found.scores == [0.1, 0.2, 0.3]


def test_validations_in_between_and_one_after_the_last_step():
    assert curve(0.1, 0.2, 0.3, 0.4, steps=35, interval=10).epochs == [1.0, 2.0, 3.0, 3.5]
    assert curve(0.1, 0.2, steps=8, interval=4).epochs == [0.4, 0.8]


@pytest.mark.parametrize(
    "scores, first",
    [([0.5, 0.9, 0.891, 0.8], 1), ([0.892, 0.9], 0), ([0.89, 0.9], 1), ([-0.5, -0.1, -0.3], 1), ([0.0, 0.0], 0)],
)
def test_the_first_score_within_a_hundredth_of_the_best(scores, first):
    assert curve(*scores).nearly_best() == first


def test_of_equal_scores_the_last_is_kept_as_the_loop_does():
    assert curve(0.5, 0.9, 0.9, 0.8).best == 2


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=20), st.floats(0, 1))
def test_nearly_best_is_no_later_than_the_first_best_and_no_earlier_than_with_a_smaller_share(scores, share):
    found = curve(*scores)
    assert found.nearly_best(share / 2) <= found.nearly_best(share) <= scores.index(max(scores)) <= found.best


@pytest.mark.parametrize(
    "scores, steps, told",
    [
        ([0.1] * 5, 35, "5 validations, one every 10 steps, do not fit 35 steps"),
        ([], 0, "0 validations"),
        ([0.5, math.nan], 20, "not finite"),
    ],
)
def test_what_makes_no_curve_is_refused(scores, steps, told):
    with pytest.raises(InputError, match=told):
        curve(*scores, steps=steps)
