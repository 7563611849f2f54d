"""Small problems to train on: tiny random backbones, a few generated rows."""

import copy
from dataclasses import replace
from functools import cache

import pytest

from paperlib import backbones, tasks
from paperlib.tasks import diagnostics
from paperlib.tasks.splits import Splits
from paperlib.training import Problem, Settings


@cache
def _backbone(name, outputs, dropout):
    return backbones.load(name, outputs, seed=0, dropout=dropout)


@pytest.fixture
def make_problem():
    """A fresh problem: ``task`` from diagnostics in the given sizes (validation 0: none), on a tiny backbone."""

    def make(task="rte", backbone="tiny-bert", train=10, validation=0, test=6, dropout=-1.0):
        task = tasks.get(task)
        frames = diagnostics.generate(task.name, sizes={"train": train, "validation": validation or 1, "test": test})
        rows = Splits(frames["train"], frames["validation"] if validation else None, frames["test"])
        drawn = _backbone(backbone, task.outputs, dropout)
        return Problem.of(task, rows, replace(drawn, model=copy.deepcopy(drawn.model)))

    return make


@pytest.fixture
def make_settings():
    """Settings in fp32 with a rate at which tiny models move."""

    def make(**changed):
        usual = {"epochs": 2, "batch_size": 4, "learning_rate": 1e-3, "seed": 0, "precision": "fp32"}
        return Settings(**(usual | changed))

    return make
