"""Tasks from the dataset hub: parquet-backed repositories only, no remote code."""

import pandas as pd

from paperlib.errors import InputError
from paperlib.hub import cache_alone_if_unreachable
from paperlib.tasks.registry import Task
from paperlib.tasks.sources.labels import first_answer

SPLITS = ("train", "validation", "validation_mismatched", "test")


def load(task: Task) -> dict[str, pd.DataFrame]:
    """Labelled splits of the task's hub dataset.

    Frames with ``task.frame_columns``. Rows without an agreed label (-1) are dropped.

    Uses the local cache alone where HF_HUB_OFFLINE is set or the hub does not answer within 5 seconds.
    Raises InputError where the dataset can then not be had, or is not of the expected schema.
    """
    found = _dataset(task)
    splits = {split: task.hub.splits.get(split, split) for split in SPLITS if task.labelled(split)}
    frames = {ours: _frame(task, found[theirs].to_pandas()) for ours, theirs in splits.items() if theirs in found}
    frames = {split: frame for split, frame in frames.items() if len(frame)}
    if not frames:
        raise InputError(f"hub dataset {_name(task)} has no labelled split; found {', '.join(found) or 'nothing'}")
    return frames


def _dataset(task: Task):
    import datasets

    try:
        with cache_alone_if_unreachable(datasets.config):
            return datasets.load_dataset(task.hub.path, task.hub.name, revision=task.hub.revision)
    except Exception as error:  # network, disk, format: to the user it is one thing, with two ways out
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"hub dataset {_name(task)} cannot be loaded ({type(error).__name__}: {reason}); "
            "without the hub use --source directory --data DIR or --source diagnostics"
        ) from error


def _name(task: Task) -> str:
    return " ".join(filter(None, (task.hub.path, task.hub.name)))


def _frame(task: Task, theirs: pd.DataFrame) -> pd.DataFrame:
    columns = {"multirc": _multirc, "record": _record}.get(task.files.format, _flat)(task, theirs)
    frame = pd.DataFrame(columns)[task.frame_columns]
    if task.kind == "cloze":
        return frame
    return frame[frame["label"] >= 0].reset_index(drop=True)


def _flat(task: Task, theirs: pd.DataFrame) -> dict[str, pd.Series]:
    ours = {name: _column(task, theirs, task.hub.columns.get(name, name)) for name in (*task.columns, *task.extra)}
    return ours | {"label": _label(task, theirs)}


def _multirc(task: Task, theirs: pd.DataFrame) -> dict[str, pd.Series]:
    idx = _column(task, theirs, "idx")
    return {name: _column(task, theirs, name) for name in task.columns} | {
        "paragraph_idx": _numbered(idx.map(lambda i: i["paragraph"])),
        "question_idx": _numbered(idx.map(lambda i: (i["paragraph"], i["question"]))),
        "label": _label(task, theirs),
    }


def _record(task: Task, theirs: pd.DataFrame) -> dict[str, pd.Series]:
    entities, answers = (_column(task, theirs, name).map(list) for name in ("entities", "answers"))
    return {name: _column(task, theirs, name) for name in task.columns} | {
        "entities": entities,
        "answers": answers,
        "passage_idx": _numbered(_column(task, theirs, "idx").map(lambda i: i["passage"])),
        "label": pd.Series(map(first_answer, entities, answers), dtype="int64"),
    }


def _label(task: Task, theirs: pd.DataFrame) -> pd.Series:
    label = _column(task, theirs, task.hub.label)
    if task.hub.values:
        known = label.isin(task.hub.values)
        if not known.all():
            raise InputError(
                f"hub dataset {_name(task)}: {task.hub.label!r} is {label[~known].iloc[0]!r}, "
                f"expected one of {', '.join(task.hub.values)}"
            )
        label = label.map(task.hub.values)
    return label.astype("float64" if task.kind == "regression" else "int64")


def _column(task: Task, theirs: pd.DataFrame, name: str) -> pd.Series:
    if name not in theirs:
        raise InputError(f"hub dataset {_name(task)} has no column {name!r}; found {', '.join(theirs.columns)}")
    return theirs[name]


def _numbered(keys: pd.Series) -> pd.Series:
    """Equal keys -> equal integers, counted from 0 in order of appearance."""
    return pd.Series(pd.factorize(keys)[0], index=keys.index)
