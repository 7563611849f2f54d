"""Equations (10) to (13) of LeTS, appendix A.1, and total parameters."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paperlib.errors import InputError
from paperlib.lets import metrics

operations = st.floats(1, 1e12)


@given(tasks=st.lists(operations, min_size=1), overhead=operations, bert=operations)
def test_total_is_the_mean_per_task_times_tasks_plus_overhead(tasks, overhead, bert):
    per_task = metrics.new_operations_per_task(tasks, bert)
    expected = len(tasks) * per_task + metrics.new_operations(overhead, bert)
    assert metrics.total_operations(tasks, overhead, bert) == pytest.approx(expected, rel=1e-12)


@given(task=operations, overhead=operations, bert=operations, unit=st.floats(0.1, 1e9))
def test_the_unit_of_operations_does_not_matter(task, overhead, bert, unit):
    pairs = [
        (metrics.new_operations(task, bert), metrics.new_operations(task * unit, bert * unit)),
        (
            metrics.total_operations([task], overhead, bert),
            metrics.total_operations([task * unit], overhead * unit, bert * unit),
        ),
        (metrics.max_speedup(9, task, bert), metrics.max_speedup(9, task * unit, bert * unit)),
    ]
    assert all(one == pytest.approx(other, rel=1e-12) for one, other in pairs)


@pytest.mark.parametrize(("new", "total"), [(3.6, 1.32), (2.1, 1.19), (3.8, 1.34), (0.5, 1.05)])
def test_total_parameters_are_those_that_are_known_of_the_baselines(new, total):
    """As DiffPruning prints them, to two digits, for adapters, the last layer alone and itself."""
    found = metrics.total_parameters([new] * 9) / 100
    assert abs(found - total) <= 0.005 + 1e-12


def test_models_of_their_own_share_no_parameters():
    assert metrics.total_parameters([100.0] * 9, shared=0) == 900


@given(new=st.lists(st.floats(0, 100), min_size=1))
def test_total_parameters_are_counted_as_total_operations_with_the_whole_model_as_overhead(new):
    assert metrics.total_parameters(new) == pytest.approx(metrics.total_operations(new, 100, 100))


def test_the_printed_sum_of_the_freezing_example_is_not_500():
    assert metrics.total_operations([40] * 9, 50, 100) == 410


@pytest.mark.parametrize("bert", [0, -1, float("nan")])
def test_operations_of_bert_are_positive(bert):
    with pytest.raises(InputError, match="positive"):
        metrics.new_operations(1, bert)
    with pytest.raises(InputError, match="positive"):
        metrics.max_speedup(9, bert, 1)


def test_no_tasks_have_no_metrics():
    for call in (
        lambda: metrics.new_operations_per_task([], 1),
        lambda: metrics.total_operations([], 1, 1),
        lambda: metrics.max_speedup(0, 1, 1),
        lambda: metrics.total_parameters([]),
    ):
        with pytest.raises(InputError, match="at least one"):
            call()
