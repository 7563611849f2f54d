"""The stage clock against the table of the specification, and as a partition of the steps."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paperlib.dps.clock import StageClock
from paperlib.errors import InputError

# T of the tasks at batch 16 and three epochs (one epoch for the sub-samples), and us = int(T * ur) for ur .05, .1, .2.
TABLE = {
    "RTE": (468, 23, 46, 93),
    "MRPC": (690, 34, 69, 138),
    "STS-B": (1080, 54, 108, 216),
    "CoLA": (1605, 80, 160, 321),
    "out of domain": (1500, 75, 150, 300),
    "500 samples": (32, 1, 3, 6),
    "1000 samples": (63, 3, 6, 12),
}


@pytest.mark.parametrize("total, expected", [(row[0], row[1:]) for row in TABLE.values()], ids=TABLE)
def test_steps_per_stage(total, expected):
    assert tuple(StageClock(total, ratio).stage_steps for ratio in (0.05, 0.1, 0.2)) == expected


def clocks():
    @st.composite
    def draw(draw):
        total = draw(st.integers(1, 500))
        return StageClock(total, draw(st.floats(min(1.0, 1.001 / total), 1)))

    return draw()


@given(clock=clocks())
def test_stages_alternate_and_every_cycle_begins_with_stage_one(clock):
    """Cycle k covers steps 2 k us + 1 .. 2 (k + 1) us: us steps of stage I, then us of stage II; the last may be cut short."""
    us = clock.stage_steps
    cycle = [(1, i) for i in range(1, us + 1)] + [(2, i) for i in range(1, us + 1)]
    told = [clock.stage(step) for step in range(1, clock.total_steps + 1)]
    assert told == (cycle * (clock.total_steps // (2 * us) + 1))[: clock.total_steps]


def test_rte_ends_in_the_eighth_step_of_a_twenty_first_stage():
    """The 21st stage is odd: a stage I."""
    clock = StageClock(468, 0.05)
    assert clock.stage(460) == (2, 23) and clock.stage(461) == (1, 1) and clock.stage(468) == (1, 8)


def test_at_a_ratio_of_a_fifth_stage_one_has_three_of_five_stages():
    clock = StageClock(1500, 0.2)
    assert sum(clock.stage(step)[0] == 1 for step in range(1, 1501)) == 900


def test_one_step_per_stage():
    assert [StageClock(5, 0.2).stage(step) for step in range(1, 6)] == [(1, 1), (2, 1), (1, 1), (2, 1), (1, 1)]


@given(total=st.integers(1, 10_000), share=st.floats(-2, 0.999))
def test_a_stage_of_no_step_is_refused_and_the_advice_helps(total, share):
    with pytest.raises(InputError, match=f"of {total} steps is less than one step; raise it to at least") as error:
        StageClock(total, share / total)
    advised = float(str(error.value).split("at least ")[1].split(" or")[0])
    assert StageClock(total, advised).stage_steps >= 1
