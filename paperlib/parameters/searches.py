"""The searches whose structures a run of delta tuning trains."""

from typing import Any

from paperlib.parameters import recipes, resolve
from paperlib.parameters.runs import SHARED

RECIPE = "s3delta.search"


def behind(parameters: dict[str, Any]) -> list[dict[str, Any]]:
    """Parameters of every search behind a run with these resolved ``parameters`` of ``runs/delta_tuning``, one per task and seed.

    A search takes the data, backbone, space and budget of the run, then what ``search`` says, then the recipe's row for its task. No task
    or seed named: the run's own. None for placements that are not searched.
    """
    if parameters["placement"] != "searched":
        return []
    shared = {name: parameters[name] for name in SHARED}
    tasks = parameters["searched_on"] or [parameters["task"]]
    seeds = parameters["search_seeds"] or [parameters["seed"]]
    points = ({"task": task, "seed": seed, **shared, **parameters["search"]} for task in tasks for seed in seeds)
    return [resolve("runs/search", recipes.fill([RECIPE], point)).model_dump() for point in points]
