"""Timing: kinds of steps, turns, ratios; the selection's memory."""

import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from paperlib import backbones, measure
from paperlib.dps import step_cost
from paperlib.dps.footprint import Setting
from paperlib.dps.step_cost import LARGE, SMALL, TARGETS, Contestant, Cycle, Scale
from paperlib.training import update
from paperlib.training.in_turn import InTurn
from paperlib.training.one_pass import OnePass

SETTING = Setting(batch_size=2, length=8, precision="fp32", seed=0)


def backbone():
    return backbones.load("tiny-bert", 2, seed=0)


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
    found = step_cost.contestants(backbone(), step_cost.METHODS, SETTING, stage_steps=2, rounds=1)
    step_cost.interleaved(found, stage_steps=2, rounds=1)
    assert tuple(name for name in found if name != step_cost.ONE_PASS) == step_cost.METHODS
    for name, contestant in found.items():
        assert contestant.loop.state["step"] == 8 and contestant.loop.state["skipped"] == 0
        assert contestant.loop.total_steps == 12, "a cycle more for the energy"
        assert len(contestant.cycles) == 1 and len(contestant.cycles[0].seconds) == 4
        assert contestant.peak >= found["vanilla"].peak, name


@pytest.mark.skipif(torch.cuda.is_available(), reason="there all methods but one take one pass")
def test_where_no_pass_moves_the_weights_vanilla_is_there_once():
    assert not step_cost.one_pass_here()
    found = step_cost.contestants(backbone(), ["dps_dense", "vanilla"], SETTING, stage_steps=2, rounds=1)
    assert list(found) == ["vanilla", "dps_dense"]


def test_where_one_pass_moves_the_weights_vanilla_is_torchs_own_and_comes_twice(monkeypatch):
    """Through the same decision that methods and the optimizer ask."""
    monkeypatch.setattr(update, "taken_by", lambda tensor: True)
    found = step_cost.contestants(backbone(), ["vanilla", "dps_dense"], SETTING, stage_steps=2, rounds=1)
    assert {name: type(each.loop.optimizer) for name, each in found.items()} == {
        "vanilla": InTurn,
        "vanilla, one pass": OnePass,
        "dps_dense": OnePass,
    }
    assert {mask.dtype for mask in found["dps_dense"].loop.method.mask.values()} == {torch.uint8}


class Drawn:
    """A driver's counter that moves by 3 J with every step that is taken, or tells nothing."""

    def __init__(self, turns, told=True):
        self.turns, self.told = turns, told

    def __call__(self):
        begun = len(self.turns)
        return SimpleNamespace(joules=lambda: 3.0 * (len(self.turns) - begun) if self.told else None)


def test_joules_of_a_step_are_of_one_contestant_alone(monkeypatch):
    turns = []
    found = {name: Recorded(turns) for name in ("vanilla", "other")}
    monkeypatch.setattr(measure, "Energy", Drawn(turns))
    step_cost.count_joules(found, stage_steps=2, rounds=3)
    assert turns == [found["vanilla"]] * 12 + [found["other"]] * 12
    assert [each.joules for each in found.values()] == [3.0, 3.0]


def test_where_nothing_tells_joules_no_step_is_taken_for_them(monkeypatch):
    turns = []
    found = {"vanilla": Recorded(turns)}
    monkeypatch.setattr(measure, "Energy", Drawn(turns, told=False))
    step_cost.count_joules(found, stage_steps=2, rounds=3)
    assert turns == [] and found["vanilla"].joules is None


MEASURED = {"time": {"dps_dense": 1.03, "dps_mix": 1.2}, "GiB": {"dps_dense": 1.6}}


def verdicts(run):
    return {(each.method, each.what, each.scale): each.judged(run, MEASURED)[1] for each in TARGETS}


def test_targets_are_judged_at_their_own_scale_and_for_what_was_run():
    at_large = verdicts(LARGE)
    assert at_large["dps_dense", "time", LARGE] == "yes" and at_large["dps_dense", "GiB", LARGE] == "no"
    assert at_large["dps_mix", "time", LARGE] == "no" and at_large["dps_mix", "GiB", LARGE] == "not run"
    assert {found for (_, _, scale), found in at_large.items() if scale == SMALL} == {"not run"}
    small = replace(SMALL, precision="fp32")
    assert verdicts(small)["dps_dense", "time", SMALL] == "yes" and verdicts(small)["dps_mix", "time", SMALL] == "no"


@pytest.mark.parametrize(
    "other", [{"batch_size": 32}, {"length": 64}, {"device": "cpu"}, {"precision": "fp32"}, {"backbone": "minilm"}]
)
def test_at_any_other_scale_nothing_is_judged(other):
    assert set(verdicts(replace(LARGE, **other)).values()) == {"not run"}


def test_the_targets_of_the_large_scale():
    large = {(each.method, each.what): each.bound for each in TARGETS if each.scale == LARGE}
    assert large == {
        **{("dps_dense", "time"): 1.03, ("dps_mix", "time"): 1.06},
        **{("mixout", "time"): 1.05, ("child_tuning_d", "time"): 1.01},
        **{("dps_dense", "GiB"): 1.5, ("dps_mix", "GiB"): 3.9, ("mixout", "GiB"): 1.3, ("child_tuning_d", "GiB"): 0.1},
    }


def test_the_scale_of_a_run():
    found = step_cost.scale("tiny-bert", SETTING)
    assert found == Scale("tiny-bert", measure.device().type, "fp32", 2, 8)
    assert str(found) == f"tiny-bert, batch 2, length 8, fp32 precision, {measure.device().type}"


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU's allocator rounds sizes up")
def test_a_selection_of_many_matrices_needs_the_room_of_one():
    """A sort would take 12 bytes a value beside the matrix: a copy and its indices."""
    few, many = (step_cost.selection([(1024, 4096)] * n, 0.7, seed=0) for n in (1, 3))
    assert many.values == 3 * few.values == 3 * math.prod((1024, 4096)) and many.matrix == few.matrix == 4 * few.values
    assert few.values <= many.extra == few.extra < 12 * few.values
    assert many.seconds > 0
