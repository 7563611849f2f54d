"""The tasks of the papers.

What a row holds, what is predicted, how it is scored (``parameters/tasks.yaml``).
"""

from dataclasses import dataclass, field

import yaml

from paperlib.errors import InputError
from paperlib.paths import PARAMETERS


@dataclass(frozen=True)
class Hub:
    """Where a task lies on the dataset hub: ``datasets.load_dataset(path, name, revision=revision)``."""

    path: str
    name: str | None = None
    revision: str | None = None
    splits: dict[str, str] = field(default_factory=dict)
    columns: dict[str, str] = field(default_factory=dict)
    label: str = "label"
    values: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Files:
    """Official file layout of a task below the data directory.

    ``values`` are the labels as the files write them, in label order; a row whose label is in
    ``no_label`` is dropped; ``short_rows="drop"`` drops rows that lack columns (otherwise they are an
    error).
    """

    folder: str
    format: str
    splits: dict[str, str]
    columns: dict[str, str] = field(default_factory=dict)
    label: str = "label"
    names: tuple[str, ...] = ()
    values: tuple = ()
    no_label: tuple = ()
    short_rows: str = "error"


@dataclass(frozen=True)
class Task:
    """One task. A frame of it has the columns ``columns``, then ``extra``, then ``label``.

    ``label`` is an index into ``labels``; the score (float, 0 to 5) for kind "regression"; the index in
    the row's ``entities`` of the first one that is a gold answer for kind "cloze". ``metrics[0]`` is the
    main metric; ``paper_metrics[paper]`` the one that paper prints.
    """

    name: str
    title: str
    suite: str
    kind: str
    columns: tuple[str, ...]
    labels: tuple[str, ...]
    metrics: tuple[str, ...]
    max_length: int
    hub: Hub
    files: Files
    published: dict[str, int]
    paper_metrics: dict[str, str]
    extra: tuple[str, ...] = ()
    prompt: tuple[str, ...] = ()
    large: bool = False

    @property
    def frame_columns(self) -> list[str]:
        """All columns of a frame, in order."""
        return [*self.columns, *self.extra, "label"]

    @property
    def outputs(self) -> int:
        """Width of an encoder's head.

        One score per class; 1 for regression and for choices (one score per row); 2 for answers and
        candidates (not this one, this one).
        """
        return {"regression": 1, "choice": 1, "cloze": 2}.get(self.kind, len(self.labels))

    def labelled(self, split: str) -> bool:
        """Whether the split's labels are public: the test splits of GLUE and SuperGLUE have none."""
        return self.suite == "nli" or not split.startswith("test")

    @property
    def group(self) -> str | None:
        """Column whose equal values must stay in one split (rows that share a passage)."""
        return {"answers": "paragraph_idx", "cloze": "passage_idx"}.get(self.kind)


def get(name: str) -> Task:
    """The task called ``name``; raises InputError, listing the known names, for any other."""
    try:
        return TASKS[name]
    except (KeyError, TypeError):
        raise InputError(f"unknown task {name!r}; known: {', '.join(TASKS)}") from None


def _tuples(entry: dict) -> dict:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in entry.items()}


def _task(name: str, entry: dict) -> Task:
    entry = _tuples(entry)
    entry["hub"] = Hub(**_tuples(entry["hub"]))
    entry["files"] = Files(**_tuples(entry["files"]))
    entry.setdefault("prompt", entry["columns"])
    return Task(name=name, **entry)


def _read() -> dict[str, Task]:
    entries = yaml.safe_load((PARAMETERS / "tasks.yaml").read_text(encoding="utf-8"))
    return {name: _task(name, entry) for name, entry in entries.items()}


TASKS: dict[str, Task] = _read()
