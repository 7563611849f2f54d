"""Records of tuned sub-tasks, and what systems of them cost."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paperlib import tasks
from paperlib.errors import InputError
from paperlib.lets import operations, tuned, workload
from paperlib.lets.architecture import Architecture, Own
from paperlib.lets.operations import Encoder
from paperlib.lets.readout import ReadoutSizes
from paperlib.lets.tuned import Tuned

LARGE, LENGTH = Encoder(24, 1024, 4096), 128
BERT = operations.total(LARGE, LENGTH)
NAMES = [name for name, task in tasks.registry.TASKS.items() if task.suite == "glue"]
BACKBONE = 1_000_000


def sub_task(task="rte", method="full", architecture=None, kept=1.0, seed=0, **options):
    sizes = {"offsets": 10_000, "biases": 3_000, "norms": 2_000, "readout": 5_000, "bytes": 80_000}
    return Tuned(task, seed, method, 0.5, False, architecture, [kept] * 24, sizes, BACKBONE, **options)


def system(number=8, **options):
    return {name: sub_task(name, **options) for name in NAMES[:number]}


def costs(**options):
    return tuned.costs(system(**options), LARGE, LENGTH)


def parameters(**options):
    usual = {"task": "stsb", "seed": 3, "method": "lets", "architecture": "searched", "frozen_layers": 12}
    return usual | {"bottleneck": 64, "aggregation": 32, "lstm": 16} | options


def record(rows, **options):
    results = {"test": {"pearson": 0.8, "spearman": 0.7}, "degenerate": True, "architecture": rows}
    results |= {"kept": [0.1, 0.2], "sizes": {"offsets": 1}, "backbone_size": 7}
    return parameters(**options), results


# --- records


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, "LeTS"),
        ({"architecture": "all_share"}, "LeTS, all share"),
        ({"method": "full", "architecture": ""}, "fine-tuning"),
        ({"method": "freeze_bottom", "architecture": ""}, "freeze bottom 12"),
        ({"method": "adapters", "architecture": ""}, "adapters 64"),
        ({"method": "diff_pruning_structured", "architecture": ""}, "DiffPruning, structured"),
    ],
)
def test_methods_are_named(given, expected):
    assert tuned.title(parameters(**given)) == expected


def test_a_record_of_lets_is_read():
    found = Tuned.of(*record([[True, False, True], [False, True, False]]))
    assert (found.task, found.seed, found.method, found.score, found.degenerate) == ("stsb", 3, "LeTS", 0.8, True)
    assert found.architecture == Architecture((Own(True, False, True), Own(False, True, False)))
    assert (found.kept, found.backbone_size) == ([0.1, 0.2], 7)
    assert found.readout == ReadoutSizes(32, 16) and found.bottleneck is None


def test_adapters_are_no_point_of_the_space():
    found = Tuned.of(*record(None, method="adapters", architecture=""))
    assert found.architecture is None and found.readout is None and found.bottleneck == 64
    assert found.point(Encoder(2, 8, 32)) == Architecture.all_own(2)


# --- what a system costs


def test_fine_tuning_is_the_unit():
    found = costs(method=tuned.TITLES["full"], architecture=Architecture.all_own(24))
    assert found["new_operations_per_task"] == 100 and found["overhead"] == found["readout"] == 0
    assert found["total_operations"] == found["critical_path"] == 800
    assert found["max_speedup"] == found["speedup"] == 1
    assert found["total_parameters"] == pytest.approx(8 * 2), "no backbone is kept beside whole models"


def test_the_printed_example():
    """Freezing the bottom 12 of 24 layers, with eight models for nine."""
    found = costs(architecture=Architecture.freeze_bottom(24, 12))
    assert (found["new_operations_per_task"], found["overhead"]) == (50, 50)
    assert found["total_operations"] == found["critical_path"] == 450
    assert found["max_speedup"] == found["speedup"] == pytest.approx(800 / 450)
    assert found["parameters"] == pytest.approx(2) and found["bytes"] == 80_000
    assert found["total_parameters"] == pytest.approx(100 + 8 * 2)


def test_a_mask_saves_nothing_where_the_input_is_the_tasks_own():
    assert costs(architecture=Architecture.all_own(24), kept=0.005)["total_operations"] == 800


@pytest.mark.parametrize(("bottleneck", "beside"), [(64, 2.04), (256, 8.16)])
def test_adapters_come_on_top(bottleneck, beside):
    found = costs(bottleneck=bottleneck)
    assert found["new_operations_per_task"] == pytest.approx(100 + beside, abs=0.005)
    assert found["critical_path"] == pytest.approx(found["total_operations"])
    assert found["overhead"] == 0


def test_the_readout_is_part_of_what_a_task_adds():
    all_share, sizes = Architecture.all_share(24), ReadoutSizes(256, 256)
    found = costs(architecture=all_share, readout=sizes)
    assert found["new_operations_per_task"] == pytest.approx(found["readout"])
    lstm = 100 * operations.readout(24, 1024, sizes, 1)["lstm"] / BERT
    assert found["readout"] > lstm == pytest.approx(0.064, abs=0.0005)
    assert (found["overhead"], found["critical_path"]) == (100, pytest.approx(100 + 8 * found["readout"]))


architectures = st.lists(st.builds(Own, *[st.booleans()] * 3), min_size=24, max_size=24).map(
    lambda rows: Architecture(tuple(rows))
)
members = st.lists(st.tuples(architectures, st.floats(0, 1)), min_size=1, max_size=4)


@given(members=members)
def test_every_task_counts_with_its_own_architecture_and_mask(members):
    found = {
        name: sub_task(name, architecture=own, kept=kept, readout=ReadoutSizes())
        for name, (own, kept) in zip(NAMES, members, strict=False)
    }
    whole = tuned.costs(found, LARGE, LENGTH)
    overhead = operations.frozen(LARGE, LENGTH, [own for own, _ in members])
    added = [sum(each.layer_operations(LARGE, LENGTH)) + each.readout_operations(LARGE) for each in found.values()]
    assert whole["overhead"] == pytest.approx(100 * sum(sum(layer.values()) for layer in overhead) / BERT)
    assert whole["total_operations"] == pytest.approx(100 * sum(added) / BERT + whole["overhead"])
    assert whole["speedup"] == pytest.approx(100 * len(members) / whole["total_operations"])
    assert whole["max_speedup"] >= whole["speedup"] * (1 - 1e-12), "in parallel is never slower"


@given(own=architectures, kept=st.floats(0, 1))
def test_a_system_agrees_with_the_workload_it_is(own, kept):
    found = tuned.work(system(3, architecture=own, kept=kept), LARGE, LENGTH)
    plain = workload.sharing(LARGE, LENGTH, dict.fromkeys(NAMES[:3], own), workload.in_order(NAMES[:3]), kept)
    assert found.operations == pytest.approx(plain.operations) and found.waits_for == plain.waits_for


def test_no_system_has_no_costs():
    with pytest.raises(InputError, match="at least one sub-task"):
        tuned.costs({}, LARGE, LENGTH)


# --- which runs belong together


def test_of_equal_runs_the_first_counts():
    first, other = sub_task(seed=0), sub_task(seed=1)
    assert tuned.distinct([first, other, replace(first, score=0.9)]) == [first, other]


def test_a_system_has_every_task_in_one_order():
    runs = [sub_task(task, seed=seed) for seed, task in [(1, "rte"), (0, "stsb"), (1, "stsb"), (0, "rte"), (2, "rte")]]
    found = tuned.systems(runs)
    assert [*found] == [0, 1], "seed 2 lacks a task"
    assert all([*system] == ["rte", "stsb"] for system in found.values())
    assert all(each.seed == seed for seed, system in found.items() for each in system.values())


def test_nothing_done_is_no_system():
    assert tuned.systems([]) == {} and tuned.distinct([]) == []


# --- the frontier


def scored(method, architecture, scores):
    """Runs of two tasks, one score per seed."""
    return [
        replace(sub_task(task, method, architecture, kept=0.0, seed=seed), score=score + shift)
        for seed, score in enumerate(scores)
        for task, shift in (("rte", 0.1), ("stsb", -0.1))
    ]


FULL = Architecture.all_own(24)
FROZEN = Architecture.freeze_bottom(24, 12)
BETWEEN = Architecture.freeze_bottom(24, 6)  # 175 of 150 to 200 percent


def frontier(lets, freezing=(0.6, 0.6), full=(0.8, 0.9), between=BETWEEN):
    parts = (("LeTS", between, lets), ("freeze", FROZEN, freezing), ("full", FULL, full))
    return tuned.frontier(*(scored(*part) for part in parts), LARGE, LENGTH)


def test_above_is_what_no_mixture_of_the_two_reaches():
    found = frontier(lets=(0.7, 0.85))
    assert list(found.tasks) == ["rte", "stsb"]
    assert found.gains == pytest.approx([-0.2, -0.3]) and found.above == pytest.approx([0.0, 0.1])


@pytest.mark.parametrize(("frozen", "end"), [(0, 0.8), (12, 0.6), (18, 0.6)])
def test_at_and_beyond_the_ends_the_nearer_end_counts(frozen, end):
    found = frontier(lets=(0.7,), between=Architecture.freeze_bottom(24, frozen))
    assert found.above == pytest.approx([0.7 - end])


def test_only_common_seeds_count():
    assert len(frontier(lets=(0.7, 0.7, 0.7), freezing=(0.6,)).gains) == 1
    assert frontier(lets=()) == tuned.Frontier([], [], [])


def test_one_task_alone_has_no_line():
    """Frozen or not, it is computed once."""
    one = [sub_task(architecture=FROZEN)]
    assert tuned.frontier(one, one, one, LARGE, LENGTH) == tuned.Frontier(["rte"], [], [])
