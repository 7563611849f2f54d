"""Which rows train, select and test: the papers' protocols, and reproducible sub-samples.

Every draw is a permutation by a generator of its own, seeded with (seed, purpose); rows keep their source
order in what comes out.
"""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from paperlib.errors import InputError
from paperlib.tasks.registry import Task

if TYPE_CHECKING:
    import pandas as pd

HELD_OUT = 2000  # S3Delta, appendix B: rows of a large training set that become validation
SHARE, MOST = 0.1, 1000  # LeTS: training rows that become validation


@dataclass(frozen=True)
class Splits:
    """Frames for training, for selection (None where a protocol has none) and for the one final test."""

    train: "pd.DataFrame"
    validation: "pd.DataFrame | None"
    test: "pd.DataFrame"


def s3delta(frames: "dict[str, pd.DataFrame]", task: Task, seed: int, held_out: int = HELD_OUT) -> Splits:
    """S3Delta's protocol (appendix B).

    Large sets give ``held_out`` training rows to validation and test on the official validation split;
    the others halve the official validation split into validation (the smaller half) and test.

    Rows that share a passage (``task.group``) stay together; a part then has at most the asked rows,
    short by less than one passage's. Raises InputError where a split is absent or too small to leave a
    row on both sides.
    """
    train, official = _split(frames, task, "train", "S3Delta"), _split(frames, task, "validation", "S3Delta")
    if not task.large:
        validation, test = _part(official, task, len(official) // 2, seed, "validation")
        return Splits(train, validation, test)
    validation, rest = _part(train, task, held_out, seed, "train")
    return Splits(rest, validation, official)


def dps(frames: "dict[str, pd.DataFrame]", task: Task) -> Splits:
    """DPS's protocol (appendices B, C).

    Train on train, report the last evaluation on dev; nothing is selected, so no validation.
    """
    return Splits(_split(frames, task, "train", "DPS"), None, _split(frames, task, "validation", "DPS"))


def lets(frames: "dict[str, pd.DataFrame]", task: Task, seed: int) -> Splits:
    """LeTS (appendix A.2) selects on dev and reports on GLUE's test rows, whose labels are not public. Inferred, so that what selects does not
    report: a tenth of the training rows, at most 1,000, becomes validation, and dev is the test. InputError: as :func:`s3delta`.
    """
    train, official = _split(frames, task, "train", "LeTS"), _split(frames, task, "validation", "LeTS")
    validation, rest = _part(train, task, min(round(SHARE * len(train)), MOST), seed, "train")
    return Splits(rest, validation, official)


def of_protocol(name: str, frames: "dict[str, pd.DataFrame]", task: Task, seed: int, train_rows: int = 0) -> Splits:
    """The splits of protocol ``"dps"``, ``"s3delta"`` or ``"lets"``, training rows cut to ``train_rows`` (0: all).

    The cut does not depend on ``seed``: restarts share their rows. LeTS takes its validation rows from the cut.
    """
    if name == "lets":
        given = {
            split: cut(frame, train_rows, seed=0) if split == "train" else frame for split, frame in frames.items()
        }
        return lets(given, task, seed)
    if name not in ("dps", "s3delta"):
        raise InputError(f"unknown protocol {name!r}; known: dps, s3delta, lets")
    chosen = dps(frames, task) if name == "dps" else s3delta(frames, task, seed)
    return replace(chosen, train=cut(chosen.train, train_rows, seed=0))


def halves(frame: "pd.DataFrame", seed: int) -> "tuple[pd.DataFrame, pd.DataFrame]":
    """Two equal random halves, one row dropped where the count is odd.

    S3Delta's search trains module weights on the one and the structure on the other (appendix C).
    Raises InputError for fewer than two rows.
    """
    order, half = _generator(seed, "halves").permutation(len(frame)), len(frame) // 2
    if not half:
        raise InputError(f"{len(frame)} training rows cannot be halved; give at least 2")
    return _rows(frame, order[:half]), _rows(frame, order[half : 2 * half])


def cut(frame: "pd.DataFrame", rows: int, seed: int) -> "pd.DataFrame":
    """A stratified sub-sample of ``rows`` rows.

    The whole frame for 0 or for at least as many rows as there are.

    Systematic sampling of the shuffled rows sorted by label: every row is equally likely, each class gets
    its share to within one row, and scores (regression) are drawn evenly over their quantiles. Answers of
    one question (MultiRC) are kept or dropped together, so there the sample has at most ``rows`` rows.
    Raises InputError for negative ``rows``, or too few for a single question.
    """
    if rows < 0:
        raise InputError(f"cannot cut to {rows} rows; give 0 for all of them, or a positive number")
    if rows == 0 or rows >= len(frame):
        return frame
    generator = _generator(seed, "cut")
    if "question_idx" in frame:
        taken = _whole_groups(frame["question_idx"].to_numpy(), rows, generator)
        if not len(taken):
            raise InputError(f"cannot cut to {rows} rows: no question has so few answers; give more rows")
        return _rows(frame, taken)
    order = generator.permutation(len(frame))
    order = order[np.argsort(frame["label"].to_numpy()[order], kind="stable")]
    return _rows(frame, order[np.floor((np.arange(rows) + generator.random()) * len(frame) / rows).astype(int)])


def _split(frames: "dict[str, pd.DataFrame]", task: Task, split: str, paper: str) -> "pd.DataFrame":
    if split not in frames:
        raise InputError(
            f"{paper} needs the {split} split of {task.title}; this source has {', '.join(frames) or 'none'}"
        )
    return frames[split]


def _part(frame: "pd.DataFrame", task: Task, rows: int, seed: int, split: str) -> "tuple[pd.DataFrame, pd.DataFrame]":
    keys = frame[task.group].to_numpy() if task.group else np.arange(len(frame))
    taken = _whole_groups(keys, rows, _generator(seed, "part"))
    if not 0 < len(taken) < len(frame):
        raise InputError(
            f"the {split} split of {task.title} has {len(frame)} rows, too few to take {rows} of them and leave some"
        )
    return _rows(frame, taken), _rows(frame, np.setdiff1d(np.arange(len(frame)), taken))


def _whole_groups(keys: np.ndarray, rows: int, generator: np.random.Generator) -> np.ndarray:
    """Row positions of whole groups, drawn at random until the next would make more than ``rows`` rows."""
    _, group, sizes = np.unique(keys, return_inverse=True, return_counts=True)
    order = generator.permutation(len(sizes))
    chosen = order[np.cumsum(sizes[order]) <= rows]
    return np.flatnonzero(np.isin(group, chosen))


def _rows(frame: "pd.DataFrame", positions: np.ndarray) -> "pd.DataFrame":
    return frame.iloc[np.sort(positions)].reset_index(drop=True)


def _generator(seed: int, purpose: str) -> np.random.Generator:
    return np.random.default_rng([seed, *purpose.encode()])
