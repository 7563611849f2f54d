"""Reuse of structures: how runs are named by where their places come from, and when a shared search pays."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paperlib.parameters import resolve
from paperlib.parameters.runs import PLACEMENTS
from paperlib.s3delta import reuse


def run(placement="searched", on=(), seeds=(), **search):
    return {
        "task": "rte",
        "seed": 4,
        "placement": placement,
        "searched_on": [*on],
        "search_seeds": [*seeds],
        "search": search,
    }


@pytest.mark.parametrize(
    "parameters, kind, title",
    [
        (run(), "own", "own"),
        (run(on=["rte"]), "own", "own"),
        (run(seeds=[0, 1, 4]), "joint", "own, 3 seeds"),
        (run(seeds=[4]), "own", "own"),
        (run(gradient="local", steps=60), "own, gradient local", "own, gradient local"),
        (run(gradient="global"), "own", "own"),
        (run(on=["stsb"]), "transferred", "from STS-B"),
        (run(on=["stsb", "cola"], seeds=[0, 1]), "group", "from STS-B + CoLA, 2 seeds"),
        (run(on=["stsb", "rte"]), "joint", "from STS-B + RTE"),
        (run(on=["stsb", "cola", "mrpc", "cb"]), "group", "from 4 tasks"),
        (run("lora_r1"), "lora_r1", "LoRA r=1"),
    ],
)
def test_a_run_is_named_by_where_its_places_come_from(parameters, kind, title):
    assert (reuse.kind(parameters), reuse.title(parameters)) == (kind, title)


def test_a_search_and_what_was_trained_after_it_name_the_same_variant():
    search = resolve("runs/search", {"order": "first", "tau": 0.3, "steps": 60})
    assert reuse.variant(search.model_dump()) == "order first, tau 0.3"
    assert reuse.variant(run(order="first", tau=0.3, epochs=2)) == "order first, tau 0.3"
    assert reuse.variant(resolve("runs/search", {}).model_dump()) == reuse.variant(run()) == ""


def test_a_search_has_no_title():
    assert reuse.described(resolve("runs/search", {}).model_dump()) == {"variant": ""}
    assert reuse.described(run(on=["stsb"])) == {"variant": "", "kind": "transferred", "title": "from STS-B"}
    assert {"variant", "kind", "title"} <= set(reuse.COLUMNS)


def test_every_placement_without_a_search_has_a_title():
    assert {"searched", *reuse.TITLES} == set(PLACEMENTS)


@given(st.integers(1, 1000), st.integers(1, 50), st.integers(1, 100))
def test_break_even_is_the_first_number_of_tasks_that_pays(search, each, other):
    first = reuse.break_even(search, each, other)
    pays = [count for count in range(1, 1002) if search + count * each < count * other]
    assert first == (pays[0] if pays else math.inf)


def test_against_a_search_for_every_task_the_second_task_pays():
    assert reuse.break_even(search=60, each=20, other=60 + 20) == 2
