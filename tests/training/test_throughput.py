"""Throughput: real tokens per second of comparable contestants, in turn."""

import itertools
import math
from dataclasses import replace
from functools import partial

import pytest

from paperlib import backbones, measure, tasks
from paperlib.errors import InputError
from paperlib.tasks import diagnostics
from paperlib.tasks.encoding import encode
from paperlib.tasks.splits import dps
from paperlib.training import throughput
from paperlib.training.throughput import Pace, RowFlops


@pytest.fixture(scope="module")
def rows():
    return dps(diagnostics.generate("rte", sizes={"train": 40, "validation": 2, "test": 2}), tasks.get("rte"))


def test_contestants_take_turns_and_the_first_round_is_not_counted():
    order = []

    def stretch(name):
        return lambda: order.append(name) or float(len(order))

    rates = throughput.interleaved({name: stretch(name) for name in "abc"}, repeats=2)
    assert "".join(order) == "abc" * 3
    assert rates == {"a": [4, 7], "b": [5, 8], "c": [6, 9]}


def test_tasks_that_trainer_cannot_score_as_they_stand_are_refused(rows):
    with pytest.raises(InputError, match="plain classification tasks; STS-B is not one"):
        throughput.contestants(tasks.get("stsb"), rows, "tiny-bert", 4, "fp32", 0, 2)


def test_our_loop_and_two_trainers_train(rows):
    """Each gives a rate, more than once: a stretch goes on from where the last one ended."""
    found = throughput.contestants(tasks.get("rte"), rows, "tiny-bert", 8, "fp32", 0, steps=3)
    assert list(found) == ["paperlib", "Trainer, defaults", "Trainer, grouped by length"]
    for paces in throughput.interleaved(found, repeats=1).values():
        assert len(paces) == 1 and 0 < paces[0].tokens_per_second < math.inf
        assert len(paces[0].lengths) == 24


def counts(found, monkeypatch):
    """What each contestant counts in a stretch: its rate by a clock that says 0 once and then 1."""
    for stretch in found.values():
        monkeypatch.setattr(measure, "now", partial(next, itertools.chain([0.0], itertools.repeat(1.0))))
        yield stretch().tokens_per_second


def lengths(rows):
    return [len(ids) for ids in encode(rows.train, tasks.get("rte"), backbones.tokenizer("minilm")).input_ids]


def test_padding_is_not_counted(rows, monkeypatch):
    """5 steps of 8 rows are an epoch of 40."""
    found = throughput.contestants(tasks.get("rte"), rows, "tiny-bert", 8, "fp32", 0, steps=5)
    assert list(counts(found, monkeypatch)) == [sum(lengths(rows))] * 3


def test_batches_fetched_ahead_are_not_counted(rows, monkeypatch):
    """3 steps of an epoch of 5, over rows that are all alike."""
    alike = replace(rows, train=rows.train.iloc[[0] * 40].reset_index(drop=True))
    found = throughput.contestants(tasks.get("rte"), alike, "tiny-bert", 8, "fp32", 0, steps=3)
    assert list(counts(found, monkeypatch)) == [3 * 8 * lengths(alike)[0]] * 3


def test_a_pace():
    assert Pace([3, 5], seconds=4.0, joules=None).tokens_per_second == 2.0


def test_joules_are_those_of_the_stretch(rows, monkeypatch):
    """Every contestant reads the counter when its steps begin and when they have ended."""
    readings = itertools.count(1000, 2000)
    monkeypatch.setattr(measure, "_millijoules", partial(next, readings))
    found = throughput.contestants(tasks.get("rte"), rows, "tiny-bert", 8, "fp32", 0, steps=2)
    assert [stretch().joules for stretch in found.values()] == [2.0] * 3


@pytest.fixture(scope="module")
def model():
    return backbones.load("tiny-bert", 2, seed=0).model


@pytest.mark.parametrize("length", [1, 4, 50])
def test_flop_of_a_row_of_any_length_are_those_that_are_counted(model, length):
    assert RowFlops.of(model)([length]) == throughput.counted_flops(model, length)


def test_flop_of_bert_by_hand(model):
    """Forward twice a multiplication and addition for each weight and token; backward twice that, but nothing for token embeddings."""
    h, wide, layers, heads_and_pooler = (
        model.config.hidden_size,
        model.config.intermediate_size,
        model.config.num_hidden_layers,
        model.config.hidden_size**2 + 2 * model.config.hidden_size,
    )
    n = 7
    expected = 6 * layers * (n * (4 * h * h + 2 * h * wide) + 2 * n * n * h) + 6 * heads_and_pooler
    assert RowFlops.of(model)([n]) == expected
    assert RowFlops.of(model)([n, n, 3]) == 2 * expected + RowFlops.of(model)([3])


def test_counting_leaves_the_model_alone(model):
    before = {name: each.clone() for name, each in model.state_dict().items()}
    RowFlops.of(model)
    assert all(each.equal(before[name]) for name, each in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
