"""Parameters of ``runs/sharing_search`` and ``runs/sharing``, and the search whose architecture a sub-task has."""

import pytest

from paperlib import parameters
from paperlib.errors import InputError
from paperlib.lets.methods import COMPARISONS, LETS
from paperlib.parameters import recipes, searches
from paperlib.parameters.runs import OF_THE_SUB_TASK, SHARING

SEARCH, RUN = "runs/sharing_search", "runs/sharing"


def refusal(notebook: str, **values) -> str:
    with pytest.raises(InputError) as error:
        parameters.resolve(notebook, values)
    message = str(error.value)
    assert "\n" not in message and message.startswith(notebook)
    return message


def behind(**values) -> list[tuple[str, dict]]:
    return searches.behind(RUN, parameters.resolve(RUN, values).model_dump())


def test_parameters_and_science_know_the_same_methods():
    assert SHARING == (LETS, *COMPARISONS)


@pytest.mark.parametrize(
    "notebook, name, value",
    [
        *[
            (notebook, name, value)
            for notebook in (SEARCH, RUN)
            for name, value in (("aggregation", 0), ("interval", -1))
        ],
        *[(SEARCH, name, 0.0) for name in ("density", "temperature", "anneal", "alpha", "beta", "alpha_learning_rate")],
        *[(SEARCH, name, value) for name, value in (("xi", -1e-5), ("form", "L4"), ("patience", 0), ("epochs", 0))],
        *[(RUN, name, value) for name, value in (("k", 0.0), ("k", 1.1), ("start", "cold"), ("mask_steps", 0))],
        *[(RUN, name, value) for name, value in (("frozen_layers", -1), ("architecture", "own"), ("penalty", -1.0))],
    ],
)
def test_what_cannot_be_is_refused(notebook, name, value):
    assert f"{name}: " in refusal(notebook, **{name: value})


def test_a_method_is_a_known_one():
    assert "unknown method 'adapter' (did you mean 'adapters'?)" in refusal(RUN, method="adapter")


def test_a_searched_architecture_reads_the_search_on_its_task_and_seed():
    run = {
        "method": "lets",
        "architecture": "searched",
        "task": "stsb",
        "seed": 3,
        "k": 0.02,
        "train_rows": 99,
        "lstm": 7,
    }
    ((notebook, found),) = behind(**run, search={"xi": 0.0, "learning_rate": 1e-3})
    assert notebook == SEARCH
    resolved = parameters.resolve(RUN, run).model_dump()
    assert all(found[name] == resolved[name] for name in ("task", "seed", *OF_THE_SUB_TASK))
    assert (found["density"], found["xi"], found["learning_rate"]) == (0.02, 0.0, 1e-3)
    recipe = recipes.fill(["lets.search"], {"task": "stsb"})
    assert all(found[name] == value for name, value in recipe.items() if name not in ("xi", "learning_rate", "density"))


@pytest.mark.parametrize("values", [{"method": "full"}, {"method": "lets", "architecture": "all_own"}])
def test_nothing_else_reads_a_search(values):
    assert behind(**values) == []
    assert "only method lets with architecture searched reads a search" in refusal(RUN, **values, search={"xi": 0.0})


@pytest.mark.parametrize(
    "name, value", [("task", "rte"), ("seed", 1), ("density", 0.1), ("lstm", 2), ("backbone", "x")]
)
def test_what_a_search_shares_with_the_run_is_given_once(name, value):
    assert f"search: {name} of a search are those of this run" in refusal(
        RUN, method="lets", architecture="searched", search={name: value}
    )
