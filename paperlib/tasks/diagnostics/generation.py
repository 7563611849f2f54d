"""From grammars to data frames: distinct rows, disjoint splits, one stream of chance per task and split."""

from zlib import crc32

import numpy as np
import pandas as pd

from paperlib.errors import InputError
from paperlib.tasks.diagnostics.drawing import Draw
from paperlib.tasks.diagnostics.grammars import GRAMMARS
from paperlib.tasks.registry import TASKS, Task

SPLITS = ("train", "validation", "test")
SIZES = {"train": 1000, "validation": 300, "test": 300}
PATIENCE = 2000  # families refused in a row before a grammar counts as exhausted
# Group columns and the text whose equal values make a group; numbered here, not by the rules.
GROUPS = {
    "paragraph_idx": ["paragraph"],
    "question_idx": ["paragraph", "question"],
    "passage_idx": ["passage", "query"],
}
SHORT = ("answer",)  # a text column of names and places, not of sentences: the splits may share its values


def generate(task_name: str, seed: int = 0, sizes: dict[str, int] | None = None) -> dict[str, pd.DataFrame]:
    """Write the train, validation and test rows of a task.

    The splits share no sentence, no row occurs twice, and labels are balanced as far as the task's rules
    are. The same arguments give the same frames in every process; validation and test do not depend on the
    size of train.

    Args:
        task_name: a key of `GRAMMARS`.
        seed: an integer of at least 0; another seed gives another draw from the same grammar.
        sizes: rows per split; splits left out have the sizes of `SIZES`.

    Returns:
        split name -> frame with the columns `TASKS[task_name].frame_columns`.

    Raises:
        InputError: unknown task, a seed or a size that is no such integer, or sizes beyond what the
            grammar can say.
    """
    if task_name not in GRAMMARS:
        raise InputError(f"diagnostics: no task {task_name!r}; choose one of {', '.join(GRAMMARS)}")
    if not _is_integer(seed) or seed < 0:
        raise InputError(f"diagnostics: seed {seed!r} must be an integer of at least 0")
    task, sizes = TASKS[task_name], SIZES | _checked(sizes or {})
    home: dict[str, str] = {}  # sentence -> the split that owns it
    frames = {}
    for split in ("test", "validation", "train"):
        rng = np.random.default_rng([seed, crc32(task_name.encode()), SPLITS.index(split)])
        rows = _rows(task, Draw(rng), split, sizes[split], home)
        frames[split] = _frame(task, [rows[i] for i in rng.permutation(len(rows))])
    return {split: frames[split] for split in SPLITS}


def _rows(task: Task, draw: Draw, split: str, size: int, home: dict[str, str]) -> list[dict]:
    """Families of each rule in turn until there are `size` rows; `home` learns their sentences."""
    rules, rows, seen, turn, refused = GRAMMARS[task.name], [], set(), 0, 0
    while len(rows) < size:
        family = [_row(task, values) for values in rules[turn % len(rules)](draw)]
        texts = [tuple(row[column] for column in task.columns + _words(task)) for row in family]
        sentences = {row[column] for row in family for column in task.columns if column not in SHORT}
        if (
            len(set(texts)) < len(texts)
            or seen & set(texts)
            or any(home.get(text, split) != split for text in sentences)
        ):
            refused += 1
            if refused > PATIENCE:
                raise InputError(f"diagnostics: {task.name} cannot say {size} distinct rows for {split}; ask for fewer")
            continue
        turn, refused = turn + 1, 0
        rows += family
        seen.update(texts)
        home.update((text, split) for text in sentences)
    return rows[:size]


def _row(task: Task, values: tuple) -> dict:
    columns = [column for column in task.frame_columns if column not in GROUPS]
    row = dict(zip(columns, values, strict=True))
    if task.labels:
        row["label"] = task.labels.index(row["label"])
    return row


def _words(task: Task) -> tuple[str, ...]:
    """Extra columns that tell rows of equal text apart (the word of WiC, the question of COPA)."""
    return tuple(column for column in task.extra if column in ("word", "question"))


def _frame(task: Task, rows: list[dict]) -> pd.DataFrame:
    frame = pd.DataFrame(rows)
    for column in task.extra:
        if column in GROUPS:
            frame[column] = frame.groupby(GROUPS[column], sort=False).ngroup()
    return frame[task.frame_columns]


def _checked(sizes: dict[str, int]) -> dict[str, int]:
    for split, size in sizes.items():
        if split not in SPLITS:
            raise InputError(f"diagnostics: no split {split!r} in sizes; the splits are {', '.join(SPLITS)}")
        if not _is_integer(size) or size < 1:
            raise InputError(f"diagnostics: size {size!r} of {split} must be an integer of at least 1")
    return sizes


def _is_integer(value: object) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)
