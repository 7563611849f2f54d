"""Tasks: registry, sources of rows, splits, encoding, metrics."""

from paperlib.tasks.registry import TASKS, Task, get
from paperlib.tasks.sources import inventory, load

__all__ = ["TASKS", "Task", "get", "inventory", "load"]
