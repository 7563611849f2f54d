"""Labels as files and hub write them -> labels as frames hold them."""

import math

from paperlib.tasks.registry import Task


def score(raw) -> float | None:
    """A similarity score in [0, 5], or None where ``raw`` is not one."""
    try:
        value = float(raw)
    except (TypeError, ValueError):
        return None
    return value if math.isfinite(value) and 0 <= value <= 5 else None


def first_answer(entities: list[str], answers: list[str]) -> int:
    """Index of the first entity that is a gold answer.

    -1 where none is (such a query has no positive candidate).
    """
    return next((i for i, entity in enumerate(entities) if entity in answers), -1)


def expected(task: Task) -> str:
    """What a label of this task looks like in the files, for error messages."""
    return "a number from 0 to 5" if task.kind == "regression" else "one of " + ", ".join(map(repr, task.files.values))
