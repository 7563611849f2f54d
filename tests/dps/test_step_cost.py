"""Timing: kinds of steps, turns, ratios; the selection's memory."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from paperlib import backbones
from paperlib.dps import step_cost
from paperlib.dps.footprint import Setting
from paperlib.dps.step_cost import Contestant, Cycle


def cycle(one, selection, two, us):
    return Cycle([one] * us + [selection] + [two] * (us - 1))


def test_the_three_kinds_of_steps_of_a_cycle():
    found = Cycle([1.0, 3.0, 9.0, 5.0])
    assert (found.stage_one, found.selection, found.stage_two, found.mean) == (2.0, 9.0, 5.0, 4.5)


@given(st.floats(0.1, 10), st.floats(0.1, 10), st.floats(0.1, 10), st.integers(2, 30), st.integers(2, 30))
def test_a_cycle_of_another_length_is_put_together_from_its_kinds(one, selection, two, us, other):
    assert cycle(one, selection, two, us).mean_at(other) == pytest.approx(cycle(one, selection, two, other).mean)


class Recorded(Contestant):
    """A contestant that trains nothing and says when its turn was."""

    def step(self) -> float:
        self.loop.append(self)
        return float(len(self.loop))


def test_contestants_take_turns_step_by_step():
    turns = []
    found = {name: Recorded(turns) for name in ("vanilla", "other")}
    step_cost.interleaved(found, stage_steps=2, rounds=2)
    assert turns == [found["vanilla"], found["other"]] * 8
    assert [each.seconds for each in found["vanilla"].cycles] == [[1, 3, 5, 7], [9, 11, 13, 15]]


def test_ratios_are_taken_within_a_round():
    vanilla = Contestant(None, cycles=[cycle(1, 1, 1, 2), cycle(2, 2, 2, 2)])
    slower = Contestant(None, cycles=[cycle(1, 3, 2, 2), cycle(2, 2, 2, 2)])
    found = step_cost.ratios({"vanilla": vanilla, "slower": slower}, stage_steps=4)
    assert found["vanilla"] == {kind: [1.0, 1.0] for kind in ("mean", "at us", "selection")}
    assert found["slower"] == {"mean": [7 / 4, 1.0], "at us": [(4 + 3 + 6) / 8, 1.0], "selection": [3.0, 1.0]}


def test_every_method_trains_whole_cycles():
    backbone = backbones.load("tiny-bert", 2, seed=0)
    setting = Setting(batch_size=2, length=8, precision="fp32", seed=0)
    found = step_cost.contestants(backbone, step_cost.METHODS, setting, stage_steps=2, rounds=1)
    step_cost.interleaved(found, stage_steps=2, rounds=1)
    assert tuple(found) == step_cost.METHODS
    for name, contestant in found.items():
        assert (
            contestant.loop.state["step"] == contestant.loop.total_steps == 8 and contestant.loop.state["skipped"] == 0
        )
        assert len(contestant.cycles) == 1 and len(contestant.cycles[0].seconds) == 4
        assert contestant.peak >= found["vanilla"].peak, name


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU's allocator rounds sizes up")
def test_a_selection_of_many_matrices_needs_the_room_of_one():
    """A sort would take 12 bytes a value beside the matrix: a copy and its indices."""
    few, many = (step_cost.selection([(1024, 4096)] * n, 0.7, seed=0) for n in (1, 3))
    assert many.values == 3 * few.values == 3 * math.prod((1024, 4096)) and many.matrix == few.matrix == 4 * few.values
    assert few.values <= many.extra == few.extra < 12 * few.values
    assert many.seconds > 0
