"""Where a task's rows come from.

The dataset hub, official files in a directory, or the embedded diagnostics.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from paperlib.errors import InputError
from paperlib.tasks.registry import Task

if TYPE_CHECKING:
    import pandas as pd

SOURCES = ("hub", "directory", "diagnostics")


def load(task: Task, source: str, data_dir: str | Path | None = None, seed: int = 0) -> "dict[str, pd.DataFrame]":
    """Labelled splits of a task.

    "train", "validation", "test" (MNLI also "validation_mismatched"), whichever the source has.

    Every frame has exactly ``task.frame_columns``. ``data_dir`` is for source "directory" alone, ``seed``
    for "diagnostics" alone. Raises InputError for an unknown source, absent or malformed files, or a hub
    that cannot be reached.
    """
    if source == "directory":
        from paperlib.tasks.sources import directory

        return directory.load(task, data_dir)
    if source == "hub":
        from paperlib.tasks.sources import hub

        return hub.load(task)
    if source == "diagnostics":
        from paperlib.tasks import diagnostics

        return diagnostics.generate(task.name, seed=seed)
    raise InputError(f"unknown source {source!r}; known: {', '.join(SOURCES)}")


def inventory(task: Task, source: str, data_dir: str | Path | None = None) -> dict[str, int]:
    """Rows the source really holds in each split, labelled or not; a split it lacks is left out.

    Generated diagnostics are no rows of the task itself, so there the answer is empty. Raises InputError as ``load`` does.
    """
    if source == "directory":
        from paperlib.tasks.sources import directory

        return directory.inventory(task, data_dir)
    if source == "hub":
        return {split: len(frame) for split, frame in load(task, source).items()}
    return {}
