"""Parameters of ``runs/search`` and ``runs/delta_tuning``, and the searches that a searched placement reads."""

import pytest

from paperlib import parameters
from paperlib.errors import InputError
from paperlib.parameters import recipes, searches
from paperlib.parameters.runs import PLACEMENTS, SHARED

SEARCH, RUN = "runs/search", "runs/delta_tuning"


def refusal(notebook: str, **values) -> str:
    with pytest.raises(InputError) as error:
        parameters.resolve(notebook, values)
    message = str(error.value)
    assert "\n" not in message and message.startswith(notebook)
    return message


def behind(**values) -> list[dict]:
    found = searches.behind(RUN, parameters.resolve(RUN, values).model_dump())
    assert {notebook for notebook, _ in found} <= {SEARCH}
    return [each for _, each in found]


@pytest.mark.parametrize("notebook", [SEARCH, RUN])
@pytest.mark.parametrize(
    "name, value",
    [
        ("budget", 0.0),
        ("budget", 10_000.0),
        ("space", "S"),
        ("interval", 0),
        ("seed", -1),
        ("train_rows", -1),
        ("steps", -1),
    ],
)
def test_what_cannot_be_is_refused(notebook, name, value):
    assert f"{name}: " in refusal(notebook, **{name: value})


@pytest.mark.parametrize(
    "name, value",
    [("tau", 0.0), ("beta", -1.0), ("alpha_learning_rate", 0.0), ("gradient", "none"), ("order", "third")],
)
def test_a_search_has_positive_temperatures_and_known_gradients(name, value):
    assert f"{name}: " in refusal(SEARCH, **{name: value})


def test_a_placement_is_a_known_one():
    assert "unknown placement 'bitfi' (did you mean 'bitfit'?)" in refusal(RUN, placement="bitfi")


@pytest.mark.parametrize("placement", [name for name in PLACEMENTS if name != "searched"])
@pytest.mark.parametrize("named", [{"searched_on": ["cb"]}, {"search_seeds": [1]}, {"search": {"tau": 0.3}}])
def test_only_searched_placements_read_searches(placement, named):
    assert behind(placement=placement) == []
    assert f"placement {placement!r} reads no search" in refusal(RUN, placement=placement, **named)


def test_a_search_is_on_the_own_task_and_seed_unless_told_otherwise():
    (own,) = behind(placement="searched", task="cb", seed=3)
    assert (own["task"], own["seed"]) == ("cb", 3)
    found = behind(placement="searched", task="cb", seed=3, searched_on=["rte", "copa"], search_seeds=[0, 1])
    assert [(each["task"], each["seed"]) for each in found] == [("rte", 0), ("rte", 1), ("copa", 0), ("copa", 1)]


def test_a_search_has_the_data_and_budget_of_the_run():
    asked = {"backbone": "tiny-t5", "space": "L", "budget": 5.556, "source": "diagnostics", "data_dir": ""}
    assert sorted(asked) == sorted(SHARED)
    (found,) = behind(placement="searched", **asked)
    assert {name: found[name] for name in asked} == asked
    for name, value in asked.items():
        assert f"search: {name} of a search" in refusal(RUN, placement="searched", search={name: value})


@pytest.mark.parametrize("task", ["cb", "stsb"])
def test_a_search_follows_the_recipe_of_its_task_where_nothing_is_said(task):
    printed = recipes.load("s3delta").tables["search"].rows[task].values
    (found,) = behind(placement="searched", task=task)
    assert {name: found[name] for name in printed} == printed
    (told,) = behind(placement="searched", task=task, search={"epochs": 2, "gradient": "local"})
    assert (told["epochs"], told["gradient"], told["interval"]) == (2, "local", printed["interval"])


def test_mistakes_in_what_is_said_of_a_search_are_told():
    for wrong, told in (({"tua": 1.0}, "unknown parameter 'tua'"), ({"tau": -1.0}, "tau: ")):
        with pytest.raises(InputError, match=told):
            behind(placement="searched", search=wrong)
