"""What sharing saves, measured beside separate models (LeTS, eqs. 10 to 13): what is timed and counted is what is said."""

from functools import partial
from statistics import median
from typing import get_args

import pytest
import torch

from paperlib import backbones
from paperlib.errors import InputError
from paperlib.lets import operations, sharing_cost
from paperlib.lets.architecture import Architecture, Own
from paperlib.lets.operations import Encoder
from paperlib.lets.readout import ReadoutSizes
from paperlib.lets.sharing_cost import Contest, Setting, SubTask
from paperlib.measure import Allocations
from paperlib.parameters.performance import SubTaskKind
from paperlib.training.launches import counted

SIZES = ReadoutSizes(aggregation=5, lstm=4)
DECOUPLED = Architecture((Own(False, True, False),) * 2)
HALF = Architecture.freeze_bottom(2, 1)


@pytest.fixture
def model():
    return backbones.load("tiny-bert", 2, seed=0).model


def contest(model, architecture=HALF, tasks=3, kept=0.005, **options):
    sub_tasks = {f"task {i}": SubTask(architecture, kept) for i in range(1, tasks + 1)}
    return Contest(model, sub_tasks, Setting(batch_size=2, length=16, sizes=SIZES, **options))


# --- what is compared


def test_predictions_are_the_metrics_of_the_engine_s_own_work(model):
    found = contest(model, HALF, tasks=9)
    predicted = found.predicted(found.engine())
    encoder = Encoder(2, 32, 64)
    bert, readout = operations.total(encoder, 16), sum(operations.readout(2, 32, SIZES, 2).values())
    total = 100 * (bert / 2 + 9 * (bert / 2 + readout)) / bert
    assert predicted["total_operations"] == pytest.approx(total)
    assert predicted["speedup"] == pytest.approx(900 / total)
    assert predicted["max_speedup"] == pytest.approx(900 / total), (
        "a chain of tasks that own their inputs: no parallel part"
    )


def test_the_share_that_is_kept_is_the_share_that_is_counted(model):
    found = contest(model, DECOUPLED, tasks=2, kept=0.01)
    engine = found.engine()
    assert engine.kept == {"task 1": [10 / 1024] * 2, "task 2": [10 / 1024] * 2}
    work = found.work(engine)
    macs = operations.layer(Encoder(2, 32, 64), 16)
    assert work.operations["task 2", 1] == pytest.approx(
        10 / 1024 * macs["qkv"] + macs["scores_and_context"] + macs["output"]
    )


def test_sub_tasks_may_differ_in_architecture_and_in_the_share_kept_of_each_layer(model):
    mixed = {"a": SubTask(DECOUPLED, [0.01, 0.0]), "b": SubTask(HALF), "c": SubTask(DECOUPLED, 0.003)}
    found = Contest(model, mixed, Setting(batch_size=2, length=16, sizes=SIZES))
    engine = found.engine()
    assert engine.kept == {"a": [10 / 1024, 0], "b": [0, 1], "c": [3 / 1024] * 2}, "dense is whole"
    work, macs = found.work(engine), operations.layer(Encoder(2, 32, 64), 16)
    attention = macs["scores_and_context"] + macs["output"]
    expected = {("a", 1): 10 / 1024, ("a", 2): 0, ("c", 1): 3 / 1024, ("c", 2): 3 / 1024}
    assert {node: work.operations[node] for node in expected} == pytest.approx(
        {node: share * macs["qkv"] + attention for node, share in expected.items()}
    )
    assert work.operations["b", 2] == sum(macs.values()) and ("b", 1) not in work.operations
    assert engine(**found.inputs).keys() == mixed.keys()


def test_the_first_sub_tasks_are_those_of_the_whole_contest(model):
    found = contest(model, DECOUPLED, tasks=3)
    first, whole = found.first(2), found.engine()
    assert [*first.tasks] == ["task 1", "task 2"] and len(first.separate()) == 2
    answers = first.engine()(**found.inputs)
    assert all(torch.equal(answers[name], whole(**found.inputs)[name]) for name in answers)


def test_tasks_differ_and_are_drawn_from_the_seed(model):
    found = contest(model, DECOUPLED)
    first, again = (found.engine()(**found.inputs) for _ in range(2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["task 1"], first["task 2"])


def test_separate_models_have_weights_of_their_own(model):
    one, other = contest(model, tasks=2).separate()
    places = [{each.data_ptr() for each in each_model.parameters()} for each_model in (one, other, model)]
    assert not (places[0] & places[1] or places[0] & places[2])


@pytest.mark.parametrize("kind", sharing_cost.KINDS)
def test_every_kind_of_sub_task_answers(kind):
    model = backbones.load("tiny-bert", 2, seed=0).model
    found = Contest(model, sharing_cost.sub_tasks(kind, 2, 2), Setting(batch_size=2, length=16, sizes=SIZES))
    assert [*found.engine()(**found.inputs)] == ["task 1", "task 2"]


def test_kinds_are_what_their_names_say():
    chosen = {
        kind: [task.architecture.layers for task in sharing_cost.sub_tasks(kind, 4, 2).values()]
        for kind in sharing_cost.KINDS
    }
    share, attention, own = (Own(*row) for row in ((False,) * 3, (False, True, False), (True,) * 3))
    half, decoupled = (share, share, own, own), (attention,) * 4
    assert chosen == {
        "freeze_bottom_half": [half] * 2,
        "decoupled": [decoupled] * 2,
        "mixed": [(attention, attention, own, own)] * 2,
        "alternating": [decoupled, half],
        "all_own": [(own,) * 4] * 2,
    }
    with pytest.raises(InputError, match="unknown kind 'half'; known: freeze_bottom_half, decoupled"):
        sharing_cost.sub_tasks("half", 4, 2)


def test_the_notebook_s_parameter_knows_every_kind():
    assert get_args(SubTaskKind) == (*sharing_cost.KINDS,)


def test_sub_tasks_that_run_together_take_fewer_launches_than_models(model):
    counts = {}
    for together in (False, True):
        found = contest(model, DECOUPLED, tasks=9, together=together)
        counts[together] = counted(partial(found.engine(), **found.inputs)).total
    models = 9 * counted(partial(model, **found.inputs)).total
    assert counts[True] < models / 2 and counts[True] < counts[False] / 2


# --- time


def timed(contest, counts, rounds):
    return sharing_cost.interleaved(contest, contest.engine(), counts, rounds)


def test_rounds_hold_every_count(model):
    found = timed(contest(model, tasks=4), counts=(1, 2, 4), rounds=3)
    for seconds in (found.separate, found.engine):
        assert [*seconds] == [1, 2, 4] and all(len(each) == 3 and min(each) > 0 for each in seconds.values())
    assert all(one < two < four for one, two, four in zip(*found.separate.values(), strict=True)), "sums of more models"
    assert found.speedups(2) == [a / b for a, b in zip(found.separate[2], found.engine[2], strict=True)]


def test_one_frozen_pass_for_nine_is_faster_than_nine_models(model):
    found = timed(contest(model, Architecture.all_share(2), tasks=9), counts=(9,), rounds=5)
    assert median(found.speedups(9)) > 1.5


@pytest.mark.parametrize("architecture", [HALF, DECOUPLED, Architecture.all_own(2)])
@pytest.mark.parametrize("only_read", [False, True])
def test_where_every_operation_costs_the_same_rates_predict_what_operations_do(model, architecture, only_read):
    found = contest(model, architecture, tasks=5, only_read=only_read)
    engine = found.engine()
    even = sharing_cost.Rates(dict.fromkeys(operations.layer(Encoder(2, 32, 64), 16), 3e-9))
    assert even.speedup(found, engine) == pytest.approx(found.predicted(engine)["speedup"])


def test_dear_attention_makes_sharing_all_but_attention_worth_less(model):
    found = contest(model, DECOUPLED, tasks=5)
    engine = found.engine()
    dear = {"qkv": 1.0, "scores_and_context": 2.0, "output": 2.0, "feed_forward": 1.0}
    assert sharing_cost.Rates(dear).speedup(found, engine) < found.predicted(engine)["speedup"]


def test_rates_are_seconds_of_every_sub_module(model):
    found = sharing_cost.rates(contest(model, DECOUPLED), rounds=2).seconds
    assert found.keys() == operations.layer(Encoder(2, 32, 64), 16).keys() and min(found.values()) > 0
    assert found["scores_and_context"] == found["output"], "timed together"


def test_the_critical_path_in_seconds(model):
    found = contest(model, DECOUPLED)
    engine = found.engine()
    measured = sharing_cost.critical_path(found, engine, rounds=3)
    assert measured.work.operations.keys() == found.work(engine).operations.keys()
    assert measured.work.waits_for == found.work(engine).waits_for
    path = sum(measured.work.operations[node] for node in measured.work.critical_path())
    assert measured.max_speedup == pytest.approx(3 * measured.whole / path)
    everything = measured.work.overhead + sum(measured.work.new_operations.values())
    assert path < everything, "layers that wait for frozen results alone are off the path"


# --- memory


@pytest.mark.parametrize("weights", ["merged", "patched"])
@pytest.mark.parametrize(("architecture", "together"), [(HALF, False), (DECOUPLED, True)])
def test_what_is_held_is_the_weights(model, weights, architecture, together):
    """As torch's allocator sees them when they are made: what runs together is no second copy."""
    found = contest(model, architecture, weights=weights, together=together)
    held = {
        "separate": sharing_cost.separate_memory(found, (1, 3)),
        "engine": sharing_cost.engine_memory(found, found.engine(), (1, 3)),
    }
    for tasks in (1, 3):
        part = found.first(tasks)
        for name, build in {"separate": part.separate, "engine": part.engine}.items():
            with Allocations() as allocations:
                built = build()
                allocations.mark("built")
                del built
            assert held[name][tasks].held == pytest.approx(allocations.held["built"], rel=0.01)
            assert held[name][tasks].peak > held[name][tasks].held


def test_models_that_answer_in_turn_need_the_memory_of_one_beside_their_weights(model):
    found = sharing_cost.separate_memory(contest(model, HALF), (1, 3))
    rises = [each.peak - each.held for each in found.values()]
    assert rises[1] == pytest.approx(rises[0], rel=0.05)
    with pytest.raises(InputError, match="4 of 3 sub-tasks"):
        sharing_cost.separate_memory(contest(model, HALF), (4,))


def test_a_task_adds_less_when_it_is_patched(model):
    merged, patched = (
        contest(model, HALF, weights=weights).engine().nbytes["task 1"] for weights in ("merged", "patched")
    )
    encoder = 4 * (4 * 32 * 32 + 2 * 32 * 64)
    assert merged - patched == encoder - 8 * (4 * 5 + 2 * 10), "0.5 % of 1024 and of 2048 entries are kept"


# --- bad input


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size must be a positive"),
        ({"length": -1}, "length must be a positive"),
        ({"outputs": 0}, "outputs must be a positive"),
    ],
)
def test_settings_are_looked_at(options, message):
    with pytest.raises(InputError, match=message):
        Setting(**({"batch_size": 2, "length": 16} | options))


def test_a_contest_needs_tasks_and_a_backbone_that_fits(model):
    with pytest.raises(InputError, match="number of tasks must be a positive"):
        contest(model, tasks=0)
    with pytest.raises(InputError, match="for 3 layers; the encoder has 2"):
        contest(model, Architecture.all_own(3))
    with pytest.raises(InputError, match="the backbone reads at most 512"):
        Contest(model, {"a": SubTask(HALF)}, Setting(2, 513))


@pytest.mark.parametrize(
    ("kept", "message"),
    [
        (-0.1, r"must lie in \[0, 1\]"),
        ([0.5, 1.5], r"must lie in \[0, 1\]"),
        ([0.5], "kept shares of 1 layers; the encoder has 2"),
    ],
)
def test_kept_shares_are_looked_at(model, kept, message):
    with pytest.raises(InputError, match=message):
        contest(model, kept=kept)


@pytest.mark.parametrize(
    ("counts", "rounds", "message"),
    [((4,), 1, "from 1 to 3"), ((0, 2), 1, "from 1 to 3"), ((), 1, "from 1 to 3"), ((1,), 0, "rounds")],
)
def test_counts_and_rounds_are_looked_at(model, counts, rounds, message):
    with pytest.raises(InputError, match=message):
        timed(contest(model), counts, rounds)
