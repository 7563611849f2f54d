"""Contestants take turns, and ratios are taken round by round."""

import pytest
import torch

from paperlib.training.timing import Timing, interleaved


def test_turns_are_interleaved_and_the_first_round_is_not_counted():
    order = []
    turns = {name: lambda n=name: order.append(n) for name in "ab"}
    seconds = interleaved(turns, rounds=2, cover=lambda: None)
    assert "".join(order) == "ab" * 3
    assert {name: len(each) for name, each in seconds.items()} == {"a": 2, "b": 2}


@pytest.mark.skipif(torch.cuda.is_available(), reason="on a GPU several cover the host's share")
def test_before_every_turn_the_same_is_done():
    order = []
    interleaved({name: lambda n=name: order.append(n) for name in "ab"}, rounds=1, cover=lambda: order.append("-"))
    assert "".join(order) == "-a-b" * 2


def test_ratios_are_taken_round_by_round():
    """A machine that is ten times slower in one round changes nothing."""
    copy, step = Timing(8, [1.0, 10.0, 1.0]), Timing(36, [3.0, 30.0, 3.0])
    assert (step.median, step.over(copy), step.reach(copy)) == (3.0, 3.0, 1.5)


def test_a_place_under_the_roof():
    found = Timing(bytes=8, seconds=[2.0, 4.0, 2.0], flops=6)
    assert (found.intensity, found.rate) == (pytest.approx(0.75), 3.0)
