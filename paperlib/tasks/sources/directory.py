"""Official files of GLUE, SuperGLUE and the NLI sets, as their authors lay them out."""

from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from paperlib.errors import InputError
from paperlib.tasks.registry import Task
from paperlib.tasks.sources import labels, nested, rows


def load(task: Task, data_dir: str | Path | None) -> dict[str, pd.DataFrame]:
    """Labelled splits that are present below ``data_dir``; frames with ``task.frame_columns``.

    Test splits of GLUE and SuperGLUE have no public labels and are left out. Raises InputError where the
    folder, the task's folder or every labelled split is absent, and for a malformed row (with file, line
    and what was expected).
    """
    paths = {split: path for split, path in _present(task, data_dir).items() if task.labelled(split)}
    if not paths:
        wanted = ", ".join(file for split, file in task.files.splits.items() if task.labelled(split))
        raise InputError(f"no labelled split of {task.title} in {_folder(task, data_dir)}; expected one of {wanted}")
    return {split: _frame(task, path) for split, path in paths.items()}


def inventory(task: Task, data_dir: str | Path | None) -> dict[str, int]:
    """Usable rows in each split that is present, labelled or not (MultiRC: answers; ReCoRD: queries); none of an absent task.

    Raises InputError where the data folder itself is absent, and for malformed rows.
    """
    present = _files(task, _folder(task, data_dir))
    return {split: sum(1 for _ in _rows(task, path, task.labelled(split))) for split, path in present.items()}


def _folder(task: Task, data_dir: str | Path | None) -> Path:
    if data_dir is None:
        raise InputError("source 'directory' needs the folder of the official files: give --data DIR")
    if not Path(data_dir).is_dir():
        raise InputError(
            f"data folder {data_dir} does not exist; "
            "give --data DIR with the official files, or use --source diagnostics"
        )
    return Path(data_dir) / task.files.folder


def _present(task: Task, data_dir: str | Path | None) -> dict[str, Path]:
    folder = _folder(task, data_dir)
    if not folder.is_dir():
        raise InputError(
            f"no folder {folder} for {task.title}; "
            f"expected the official files there: {', '.join(task.files.splits.values())}"
        )
    present = _files(task, folder)
    if not present:
        raise InputError(f"no file of {task.title} in {folder}; expected {', '.join(task.files.splits.values())}")
    return present


def _files(task: Task, folder: Path) -> dict[str, Path]:
    paths = {split: folder / file for split, file in task.files.splits.items()}
    return {split: path for split, path in paths.items() if path.is_file()}


def _frame(task: Task, path: Path) -> pd.DataFrame:
    frame = pd.DataFrame([row for _, row in _rows(task, path, labelled=True)], columns=task.frame_columns)
    if frame.empty:
        raise InputError(f"{path} holds no labelled row of {task.title}")
    return frame


def _rows(task: Task, path: Path, labelled: bool) -> Iterator[rows.Row]:
    """Rows with the frame's columns.

    The label, where ``labelled``, already as frames hold it; rows without an agreed label dropped.
    """
    for line, row in _raw(task, path, labelled):
        if labelled and row.get("label") in task.files.no_label:
            continue
        yield line, row | ({"label": _label(task, path, line, row)} if labelled else {})


def _label(task: Task, path: Path, line: int, row: dict) -> int | float:
    if task.kind == "cloze":
        return labels.first_answer(row["entities"], row["answers"])
    raw = row["label"]
    if task.kind == "regression":
        value = labels.score(raw)
    else:
        value = next((i for i, known in enumerate(task.files.values) if raw == known), None)
    if value is None:
        raise rows.malformed(path, line, f"{task.files.label!r} is {raw!r:.60}, expected {labels.expected(task)}")
    return value


def _raw(task: Task, path: Path, labelled: bool) -> Iterator[rows.Row]:
    files = task.files
    if files.format == "multirc":
        return nested.multirc(path, labelled)
    if files.format == "record":
        return nested.record(path, labelled)
    theirs = {column: files.columns.get(column, column) for column in (*task.columns, *task.extra)}
    if labelled:
        theirs["label"] = files.label
    return _renamed(theirs, _flat(task, path, list(theirs.values()), labelled))


def _flat(task: Task, path: Path, columns: list[str], labelled: bool) -> Iterator[rows.Row]:
    files = task.files
    if files.format == "tsv":
        return rows.tsv(path, columns, files.names if labelled else (), drop_short=files.short_rows == "drop")
    if files.format == "csv":
        return rows.quoted_csv(path, columns)
    return _with_keys(path, columns, files.label)


def _with_keys(path: Path, columns: list[str], label: str) -> Iterator[rows.Row]:
    for line, row in rows.jsonl(path):
        for column in columns:
            if column not in row:
                raise rows.malformed(path, line, f"no key {column!r}; found {', '.join(map(repr, row)) or 'nothing'}")
            if column != label and not isinstance(row[column], str):
                raise rows.malformed(path, line, f"{column!r} is {row[column]!r:.60}, expected text")
        yield line, row


def _renamed(theirs: dict[str, str], source: Iterator[rows.Row]) -> Iterator[rows.Row]:
    for line, row in source:
        yield line, {ours: row[name] for ours, name in theirs.items()}
