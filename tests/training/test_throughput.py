"""Throughput: real tokens per second of comparable contestants, in turn."""

import itertools
import math
from dataclasses import replace
from functools import partial

import pytest

from paperlib import backbones, tasks
from paperlib.errors import InputError
from paperlib.tasks import diagnostics
from paperlib.tasks.encoding import encode
from paperlib.tasks.splits import dps
from paperlib.training import throughput


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
    for rates in throughput.interleaved(found, repeats=1).values():
        assert len(rates) == 1 and 0 < rates[0] < math.inf


def counts(found, monkeypatch):
    """What each contestant counts in a stretch: its rate by a clock that says 0 once and then 1."""
    for stretch in found.values():
        monkeypatch.setattr(throughput, "_now", partial(next, itertools.chain([0.0], itertools.repeat(1.0))))
        yield stretch()


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
