"""What sharing saves, measured beside separate models (LeTS, eqs. 10 to 13): what is timed and counted is what is said."""

from statistics import median

import pytest
import torch

from paperlib import backbones
from paperlib.errors import InputError
from paperlib.lets import operations, sharing_cost
from paperlib.lets.architecture import Architecture, Own
from paperlib.lets.operations import Encoder
from paperlib.lets.readout import ReadoutSizes
from paperlib.lets.sharing_cost import Contest, Setting

SIZES = ReadoutSizes(aggregation=5, lstm=4)
DECOUPLED = Architecture((Own(False, True, False),) * 2)
HALF = Architecture.freeze_bottom(2, 1)


@pytest.fixture
def model():
    return backbones.load("tiny-bert", 2, seed=0).model


def contest(model, architecture=HALF, tasks=3, **options):
    return Contest(model, Setting(architecture, batch_size=2, length=16, sizes=SIZES, **options), tasks)


def total_bytes(module):
    return sum(each.nbytes for each in [*module.parameters(), *module.buffers()])


# --- what is compared


def test_predictions_are_the_metrics_of_the_engine_s_own_work(model):
    found = contest(model, HALF, tasks=9)
    predicted = found.predicted(found.engine(9))
    encoder = Encoder(2, 32, 64)
    bert, readout = operations.total(encoder, 16), sum(operations.readout(2, 32, SIZES, 2).values())
    total = 100 * (bert / 2 + 9 * (bert / 2 + readout)) / bert
    assert predicted["total_operations"] == pytest.approx(total)
    assert predicted["speedup"] == pytest.approx(900 / total)
    assert predicted["max_speedup"] == pytest.approx(900 / total), (
        "a chain of tasks that own their inputs: no parallel part"
    )


def test_the_share_that_is_kept_is_the_share_that_is_counted(model):
    found = contest(model, DECOUPLED, kept=0.01)
    engine = found.engine(2)
    assert engine.kept == {"task 1": [10 / 1024] * 2, "task 2": [10 / 1024] * 2}
    work = found.work(engine)
    macs = operations.layer(Encoder(2, 32, 64), 16)
    assert work.operations["task 2", 1] == pytest.approx(
        10 / 1024 * macs["qkv"] + macs["scores_and_context"] + macs["output"]
    )


def test_tasks_differ_and_are_drawn_from_the_seed(model):
    found = contest(model, DECOUPLED)
    first, again = (found.engine(2)(**found.inputs) for _ in range(2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["task 1"], first["task 2"])


def test_separate_models_have_weights_of_their_own(model):
    one, other = contest(model).separate(2)
    places = [{each.data_ptr() for each in each_model.parameters()} for each_model in (one, other, model)]
    assert not (places[0] & places[1] or places[0] & places[2])


# --- time


def test_rounds_hold_every_count(model):
    found = sharing_cost.interleaved(contest(model, tasks=4), counts=(1, 2, 4), rounds=3)
    for seconds in (found.separate, found.engine):
        assert [*seconds] == [1, 2, 4] and all(len(each) == 3 and min(each) > 0 for each in seconds.values())
    assert all(one < two < four for one, two, four in zip(*found.separate.values(), strict=True)), "sums of more models"
    assert found.speedups(2) == [a / b for a, b in zip(found.separate[2], found.engine[2], strict=True)]


def test_one_frozen_pass_for_nine_is_faster_than_nine_models(model):
    found = sharing_cost.interleaved(contest(model, Architecture.all_share(2), tasks=9), counts=(9,), rounds=5)
    assert median(found.speedups(9)) > 1.5


def test_the_critical_path_in_seconds(model):
    found = contest(model, DECOUPLED)
    engine = found.engine(3)
    measured = sharing_cost.critical_path(found, engine, rounds=3)
    assert measured.work.operations.keys() == found.work(engine).operations.keys()
    assert measured.work.waits_for == found.work(engine).waits_for
    path = sum(measured.work.operations[node] for node in measured.work.critical_path())
    assert measured.max_speedup == pytest.approx(3 * measured.whole / path)
    everything = measured.work.overhead + sum(measured.work.new_operations.values())
    assert path < everything, "layers that wait for frozen results alone are off the path"


# --- memory


@pytest.mark.parametrize("weights", ["merged", "patched"])
def test_what_is_held_is_the_weights(model, weights):
    found = contest(model, HALF, weights=weights)
    for tasks in (1, 3):
        held = sharing_cost.memory(found, tasks)
        assert held["separate"].held == pytest.approx(tasks * total_bytes(model), rel=0.01)
        engine = found.engine(tasks)
        assert held["engine"].held == pytest.approx(total_bytes(engine.frozen) + sum(engine.nbytes.values()), rel=0.01)
        assert all(each.peak > each.held for each in held.values())


def test_a_task_adds_less_when_it_is_patched(model):
    merged, patched = (
        contest(model, HALF, weights=weights).engine(1).nbytes["task 1"] for weights in ("merged", "patched")
    )
    encoder = 4 * (4 * 32 * 32 + 2 * 32 * 64)
    assert merged - patched == encoder - 8 * (4 * 5 + 2 * 10), "0.5 % of 1024 and of 2048 entries are kept"


# --- bad input


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kept": 0.0}, r"must lie in \(0, 1\]"),
        ({"kept": 1.5}, r"must lie in \(0, 1\]"),
        ({"batch_size": 0}, "batch_size must be a positive"),
        ({"length": -1}, "length must be a positive"),
    ],
)
def test_settings_are_looked_at(options, message):
    with pytest.raises(InputError, match=message):
        Setting(HALF, **({"batch_size": 2, "length": 16} | options))


def test_a_contest_needs_tasks_and_a_backbone_that_fits(model):
    with pytest.raises(InputError, match="number of tasks must be a positive"):
        contest(model, tasks=0)
    with pytest.raises(InputError, match="for 3 layers; the encoder has 2"):
        contest(model, Architecture.all_own(3))
    with pytest.raises(InputError, match="the backbone reads at most 512"):
        Contest(model, Setting(HALF, 2, 513), 1)


@pytest.mark.parametrize(
    ("counts", "rounds", "message"), [((4,), 1, "from 1 to 3"), ((), 1, "from 1 to 3"), ((1,), 0, "rounds")]
)
def test_counts_and_rounds_are_looked_at(model, counts, rounds, message):
    with pytest.raises(InputError, match=message):
        sharing_cost.interleaved(contest(model), counts, rounds)
