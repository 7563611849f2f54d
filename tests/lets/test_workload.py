"""Multi-task workloads and their critical paths (LeTS, appendix A.1)."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paperlib.errors import InputError
from paperlib.lets import metrics, operations
from paperlib.lets.operations import Encoder
from paperlib.lets.workload import FROZEN, READOUT, Workload, freeze_bottom, in_order

LARGE = Encoder(24, 1024, 4096)
BERT = operations.total(LARGE, 128)
NINE = [f"task {i}" for i in range(1, 10)]


def paths_from(node, work):
    after = [later for later, earlier in work.waits_for.items() if node in earlier]
    if not after:
        yield [node]
    for later in after:
        for rest in paths_from(later, work):
            yield [node, *rest]


@st.composite
def workloads(draw):
    nodes = [("task", i) for i in range(draw(st.integers(1, 7)))]
    weights = {node: draw(st.integers(0, 100)) for node in nodes}
    edges = {node: set(draw(st.lists(st.sampled_from(nodes[:i]))) if i else []) for i, node in enumerate(nodes)}
    return Workload(weights, edges)


@given(workloads())
def test_the_critical_path_is_the_heaviest_of_all_paths(work):
    everything = [path for node in work.operations for path in paths_from(node, work)]
    heaviest = max(sum(work.operations[node] for node in path) for path in everything)
    assert work.critical_operations == heaviest == sum(work.operations[node] for node in work.critical_path())
    assert all(earlier in work.waits_for[later] for earlier, later in pairwise(work.critical_path()))


def test_full_fine_tuning_of_nine_dependent_tasks_has_no_speedup():
    work = freeze_bottom(LARGE, 128, 0, in_order(NINE))
    assert metrics.summary(work, BERT) == {
        "new_operations_per_task": 100,
        "overhead": 0,
        "total_operations": 900,
        "critical_path": 900,
        "max_speedup": 1,
    }


def test_freezing_the_bottom_12_layers_gives_500_percent_and_1_point_8():
    work = freeze_bottom(LARGE, 128, 12, in_order(NINE))
    assert metrics.summary(work, BERT) == {
        "new_operations_per_task": 50,
        "overhead": 50,
        "total_operations": 500,
        "critical_path": 500,
        "max_speedup": 1.8,
    }
    owners = [owner for owner, _ in work.critical_path()]
    assert list(dict.fromkeys(owners)) == [FROZEN, *NINE]


@given(frozen=st.integers(0, 24), tasks=st.integers(1, 12), length=st.integers(1, 512))
def test_frozen_layers_count_once_in_the_total_and_on_the_critical_path(frozen, tasks, length):
    work = freeze_bottom(LARGE, length, frozen, in_order([str(i) for i in range(tasks)]))
    layer = sum(operations.layer(LARGE, length).values())
    assert work.critical_operations == work.overhead + sum(work.new_operations.values())
    assert work.critical_operations == layer * (frozen + tasks * (24 - frozen))


@given(frozen=st.integers(0, 24), tasks=st.integers(1, 12))
def test_independent_tasks_take_as_long_as_one(frozen, tasks):
    work = freeze_bottom(LARGE, 128, frozen, {str(i): [] for i in range(tasks)})
    assert work.critical_operations == BERT


def test_tasks_may_wait_for_several_others():
    work = freeze_bottom(LARGE, 128, 12, {"parse": [], "tag": [], "answer": ["parse", "tag"]})
    assert metrics.new_operations(work.critical_operations, BERT) == 150
    assert work.waits_for["answer", 13] == {(FROZEN, 12), ("parse", READOUT), ("tag", READOUT)}


def test_in_order_chains_the_tasks():
    assert in_order(["a", "b", "c"]) == {"a": [], "b": ["a"], "c": ["b"]}


def test_a_cycle_among_tasks_is_refused():
    with pytest.raises(InputError, match="wait for each other: .*a.*b"):
        freeze_bottom(LARGE, 128, 12, {"a": ["b"], "b": ["a"]})


def test_an_unknown_task_is_refused():
    with pytest.raises(InputError, match="unknown ones: c"):
        freeze_bottom(LARGE, 128, 12, {"a": ["c"]})


@pytest.mark.parametrize("tasks", [{}, {FROZEN: []}])
def test_sub_tasks_are_needed_and_none_takes_the_frozen_parts_name(tasks):
    with pytest.raises(InputError, match="at least one sub-task"):
        freeze_bottom(LARGE, 128, 12, tasks)


@pytest.mark.parametrize("frozen", [-1, 25, 0.5])
def test_no_more_layers_can_be_frozen_than_there_are(frozen):
    with pytest.raises(InputError, match="the encoder has 24"):
        freeze_bottom(LARGE, 128, frozen, in_order(NINE))
