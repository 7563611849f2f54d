"""The searches that a run trains the outcome of."""

from typing import Any

from paperlib.parameters import recipes, resolve
from paperlib.parameters.runs import OF_THE_SUB_TASK, SHARED

Values = dict[str, Any]


def behind(notebook: str, parameters: Values) -> list[tuple[str, Values]]:
    """Notebook and resolved parameters of every search behind a run of ``notebook`` with these resolved ``parameters``; none behind others."""
    find = _READERS.get(notebook)
    return find(parameters) if find else []


def _placements(parameters: Values) -> list[tuple[str, Values]]:
    """Of ``runs/delta_tuning``, one per task and seed.

    A search takes the data, backbone, space and budget of the run, then what ``search`` says, then the recipe's row for its task. No task
    or seed named: the run's own.
    """
    if parameters["placement"] != "searched":
        return []
    shared = {name: parameters[name] for name in SHARED}
    tasks = parameters["searched_on"] or [parameters["task"]]
    seeds = parameters["search_seeds"] or [parameters["seed"]]
    points = ({"task": task, "seed": seed, **shared, **parameters["search"]} for task in tasks for seed in seeds)
    return [_resolved("runs/search", "s3delta.search", point) for point in points]


def _architectures(parameters: Values) -> list[tuple[str, Values]]:
    """Of ``runs/sharing``, the one on its own task and seed.

    It takes the rows, backbone and readout of the run and its kept share, then what ``search`` says, then the recipe.
    """
    if (parameters["method"], parameters["architecture"]) != ("lets", "searched"):
        return []
    shared = {name: parameters[name] for name in ("task", "seed", *OF_THE_SUB_TASK)}
    point = {**shared, "density": parameters["k"], **parameters["search"]}
    return [_resolved("runs/sharing_search", "lets.search", point)]


def _resolved(notebook: str, recipe: str, point: Values) -> tuple[str, Values]:
    return notebook, resolve(notebook, recipes.fill([recipe], point)).model_dump()


_READERS = {"runs/delta_tuning": _placements, "runs/sharing": _architectures}
