"""Multi-task workloads and their critical paths (LeTS, appendix A.1)."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paperlib.errors import InputError
from paperlib.lets import metrics, operations
from paperlib.lets.architecture import Architecture, Own
from paperlib.lets.operations import Encoder
from paperlib.lets.workload import FROZEN, READOUT, Workload, freeze_bottom, frozen_node, in_order, sharing

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


# --- sub-tasks of the reconstructed space


def shared(architecture, waits_for=None, kept=0.005, **options):
    waits_for = waits_for or in_order(NINE)
    return sharing(LARGE, 128, dict.fromkeys(waits_for, architecture), waits_for, kept, **options)


@given(frozen=st.integers(0, 24), tasks=st.integers(1, 9), together=st.booleans())
def test_freezing_the_bottom_is_a_point_of_the_space(frozen, tasks, together):
    waits_for = {str(i): [] for i in range(tasks)} if together else in_order([str(i) for i in range(tasks)])
    point = shared(Architecture.freeze_bottom(24, frozen), waits_for)
    assert metrics.summary(point, BERT) == metrics.summary(freeze_bottom(LARGE, 128, frozen, waits_for), BERT)


def test_decoupled_layers_leave_the_critical_path():
    """Every sub-task owns attention on frozen inputs: 10.3 % new, of which one layer and the frozen pass are on the path."""
    work = shared(Architecture((Own(False, True, False),) * 24))
    found = {name: round(value, 2) for name, value in metrics.summary(work, BERT).items()}
    assert found == {
        "new_operations_per_task": 10.33,
        "overhead": 96.85,
        "total_operations": 189.79,
        "critical_path": 100.73,
        "max_speedup": 8.94,
    }
    layer, qkv = BERT / 24, operations.layer(LARGE, 128)["qkv"]
    one = 0.1033 * layer
    assert work.critical_operations == pytest.approx(23 * layer + qkv + 9 * one, rel=1e-4)


def test_a_chain_of_owned_inputs_stays_on_the_path():
    decoupled, chained = Own(False, True, True), Own(True, True, True)
    paths = [
        metrics.summary(shared(Architecture((decoupled,) * (24 - n) + (chained,) * n)), BERT)["max_speedup"]
        for n in (0, 6, 12, 24)
    ]
    assert paths == sorted(paths, reverse=True) and paths[-1] == 1


def test_layers_wait_for_the_frozen_results_they_use():
    rows = (Own(False, True, False), Own(True, True, True), Own(False, False, True), Own(False, False, False))
    encoder = Encoder(4, 32, 64)
    work = sharing(encoder, 8, {"a": Architecture(rows)}, {"a": []}, 0.1, readout=7)
    assert {node: others for node, others in work.waits_for.items() if node[0] == "a"} == {
        ("a", 1): {frozen_node(1, "qkv")},
        ("a", 2): {("a", 1)},
        ("a", 3): {frozen_node(3, "attention")},
        ("a", READOUT): {("a", 1), ("a", 2), ("a", 3), frozen_node(4, "feed_forward")},
    }
    assert work.operations["a", READOUT] == 7
    assert work.overhead == operations.total(encoder, 8)


def test_an_owned_input_above_shared_layers_waits_for_the_frozen_ones():
    rows = (Own(False, False, False), Own(True, True, True))
    work = sharing(Encoder(2, 32, 64), 8, {"a": Architecture(rows)}, {"a": []}, 0.1)
    assert work.waits_for["a", 2] == {frozen_node(1, "feed_forward")}
    assert frozen_node(2, "qkv") not in work.operations


def test_serial_tasks_start_when_the_one_before_has_ended():
    work = shared(Architecture((Own(False, True, True),) * 24), in_order(["one", "two"]), readout=5)
    assert all(("one", READOUT) in work.waits_for["two", j] for j in range(1, 25))
    assert ("one", READOUT) not in work.waits_for[frozen_node(24, "qkv")]


def test_the_convention_of_the_worked_example():
    """Frozen layers of 100/24 %, task layers of 39.39/24 % that wait for the frozen layer below, a readout of 0.5 %.

    Where 0, 11 and all other layers wait for the task's own layer below: 7.8, 3.5 and 2.16.
    """

    def critical(chained):
        macs = {(FROZEN, j): 100 / 24 for j in range(1, 25)}
        edges = {(FROZEN, j): {(FROZEN, j - 1)} if j > 1 else set() for j in range(1, 25)}
        for i, task in enumerate(NINE):
            start = {(NINE[i - 1], READOUT)} if i else set()
            for j in range(1, 25):
                macs[task, j] = 39.39 / 24
                edges[task, j] = start | ({(FROZEN, j - 1)} if j > 1 else set())
                if 1 < j <= chained + 1:
                    edges[task, j] |= {(task, j - 1)}
            macs[task, READOUT] = 0.5
            edges[task, READOUT] = {(task, j) for j in range(1, 25)}
        return Workload(macs, edges).critical_operations

    assert [round(critical(chained), 1) for chained in (0, 11, 23)] == [115.1, 259.5, 417.1]
    assert [round(900 / critical(chained), 2) for chained in (0, 11, 23)] == [7.82, 3.47, 2.16]


@pytest.mark.parametrize("names", [["a"], ["a", "b", "c"]])
def test_every_task_has_an_architecture_and_an_order(names):
    with pytest.raises(InputError, match="give every sub-task an architecture"):
        sharing(LARGE, 128, dict.fromkeys(names, Architecture.all_own(24)), in_order(["a", "b"]), 0.005)


def test_sub_tasks_may_keep_different_shares():
    names, architecture = ["a", "b"], Architecture((Own(False, True, False),) * 24)
    both = sharing(LARGE, 128, dict.fromkeys(names, architecture), in_order(names), {"a": 0.005, "b": [0.01] * 24})
    alone = {
        name: sharing(LARGE, 128, {name: architecture}, {name: []}, share).new_operations[name]
        for name, share in {"a": 0.005, "b": 0.01}.items()
    }
    assert both.new_operations == alone and alone["a"] < alone["b"]
    with pytest.raises(InputError, match="give every sub-task an architecture, a kept share"):
        sharing(LARGE, 128, dict.fromkeys(names, architecture), in_order(names), {"a": 0.005})


def test_the_order_is_looked_at_and_so_is_the_depth():
    with pytest.raises(InputError, match="wait for each other"):
        shared(Architecture.all_own(24), {"a": ["b"], "b": ["a"]})
    with pytest.raises(InputError, match="for 12 layers; the encoder has 24"):
        shared(Architecture.all_own(12))
