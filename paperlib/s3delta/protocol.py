"""The experiments' protocol, executed and audited: which rows train, select and test, and what selection costs (appendix B.1)."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from paperlib import tasks as every
from paperlib.errors import InputError
from paperlib.tasks import TASKS, Task, splits
from paperlib.tasks.encoding import encode, encode_text_to_text

if TYPE_CHECKING:
    import pandas as pd

ROW = "row"
UNCUT = 10**6


def tasks() -> list[Task]:
    """The paper's tasks: those its Table 4 gives a metric."""
    return [task for task in TASKS.values() if "s3delta" in task.paper_metrics]


def load(source: str, data_dir: str) -> "tuple[dict[str, dict[str, pd.DataFrame]], dict[str, str]]":
    """The official splits of every task that ``source`` has, by task; and of the tasks that cannot be split, what is absent."""
    frames, absent = {}, {}
    for task in tasks():
        try:
            frames[task.name] = every.load(task, source, data_dir)
            missing = [split for split in ("train", "validation") if split not in frames[task.name]]
            if missing:
                absent[task.name] = f"no {' and no '.join(missing)} split"
        except InputError as error:
            absent[task.name] = str(error).partition(";")[0]
    return frames, absent


def planned(task: Task, asked: int) -> dict[str, int]:
    """Rows of every part by arithmetic on the published sizes, passages not minded."""
    train, official = task.published["train"], task.published["validation"]
    validation = asked if task.large else official // 2
    rest = train - asked if task.large else train
    test = official if task.large else official - validation
    return {"train": rest, "delta": rest // 2, "alpha": rest // 2, "validation": validation, "test": test}


def held_out(rows: int, asked: int) -> int:
    """Training rows that a large set gives to validation: ``asked``, or a tenth of a set too small for that (none of the paper's is)."""
    return min(asked, rows // 10)


@dataclass(frozen=True)
class Parts:
    """Numbers of the rows of every part, int64 each; training rows are counted from 0, those of the official validation split go on from there."""

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    delta: np.ndarray
    alpha: np.ndarray


def execute(task: Task, frames: "dict[str, pd.DataFrame]", seed: int, asked: int) -> Parts:
    """One seed's split of the official splits ``frames``, and the search's halves of its training rows. InputError: see ``splits.s3delta``."""
    numbered = _numbered(frames)
    chosen = splits.s3delta(numbered, task, seed, held_out(len(numbered.get("train", ())), asked))
    delta, alpha = splits.halves(chosen.train, seed)
    return Parts(*(frame[ROW].to_numpy() for frame in (chosen.train, chosen.validation, chosen.test, delta, alpha)))


def _numbered(frames: "dict[str, pd.DataFrame]") -> "dict[str, pd.DataFrame]":
    starts = {"train": 0, "validation": len(frames.get("train", ()))}
    return {
        split: frames[split].assign(**{ROW: start + np.arange(len(frames[split]))})
        for split, start in starts.items()
        if split in frames
    }


@dataclass(frozen=True)
class Audit:
    """One task's splits over several seeds. Truth values hold for every seed, sizes are those of the first.

    ``apart``: D_train, D_val and D_test share no row. ``complete``: together they are all official rows. ``as_printed``: D_test is the original
    validation split of a large set, which gave ``held_out`` training rows; of others D_val and D_test are its halves, to within one row or one
    passage, and D_train is the training split. ``whole``: no passage lies in both parts of the split divided (None: rows have none).
    ``equal_halves``: D_delta and D_alpha are of one size, share no row, and leave out one row of D_train at most. ``distinct``: no two seeds have the
    same D_val. ``common``: share of D_val's rows that two seeds have in common, on average, and ``by_chance`` what is expected of it.
    ``shares``: per part (lowest, highest) share of the commonest class; None where labels are no classes. ``across_halves``: share of training
    passages with rows in both halves (None as above).
    """

    task: str
    seeds: int
    sizes: dict[str, int]
    official: dict[str, int]
    apart: bool
    complete: bool
    as_printed: bool
    whole: bool | None
    equal_halves: bool
    distinct: bool
    common: float
    by_chance: float
    shares: dict[str, tuple[float, float]] | None
    across_halves: float | None


def audit(task: Task, frames: "dict[str, pd.DataFrame]", seeds: Sequence[int], asked: int) -> Audit:
    """The protocol executed for every seed, and looked at. InputError: an absent split, or too few rows."""
    found = [execute(task, frames, seed, asked) for seed in seeds]
    first, train, official = found[0], len(frames["train"]), len(frames["validation"])
    everything = np.arange(train + official)
    groups = _groups(task, frames)
    pairs = [np.intersect1d(a.validation, b.validation).size for a, b in itertools.combinations(found, 2)]
    return Audit(
        task=task.name,
        seeds=len(seeds),
        sizes={name: len(rows) for name, rows in vars(first).items()},
        official={"train": train, "validation": official},
        apart=all(_disjoint(parts.train, parts.validation, parts.test) for parts in found),
        complete=all(
            np.array_equal(_together(parts.train, parts.validation, parts.test), everything) for parts in found
        ),
        as_printed=all(_as_printed(task, parts, train, official, asked, _largest(groups)) for parts in found),
        whole=None if groups is None else all(_whole(groups, parts, task.large) for parts in found),
        equal_halves=all(_halved(parts) for parts in found),
        distinct=all(not np.array_equal(a.validation, b.validation) for a, b in itertools.combinations(found, 2)),
        common=float(np.mean(pairs)) / len(first.validation),
        by_chance=len(first.validation) / (train if task.large else official),
        shares=_shares(task, frames, found),
        across_halves=None if groups is None else _across(groups, first),
    )


def _disjoint(*parts: np.ndarray) -> bool:
    return sum(map(len, parts)) == len(np.unique(np.concatenate(parts)))


def _together(*parts: np.ndarray) -> np.ndarray:
    return np.sort(np.concatenate(parts))


def _as_printed(task: Task, parts: Parts, train: int, official: int, asked: int, slack: int) -> bool:
    first, second = np.arange(train), train + np.arange(official)
    if task.large:
        given = held_out(train, asked)
        return np.array_equal(parts.test, second) and given - slack < len(parts.validation) <= given
    halves = abs(len(parts.test) - len(parts.validation)) < 2 * slack
    return (
        halves
        and np.array_equal(_together(parts.validation, parts.test), second)
        and np.array_equal(parts.train, first)
    )


def _halved(parts: Parts) -> bool:
    equal = len(parts.delta) == len(parts.alpha) == len(parts.train) // 2
    return (
        equal
        and _disjoint(parts.delta, parts.alpha)
        and not np.setdiff1d(_together(parts.delta, parts.alpha), parts.train).size
    )


def _groups(task: Task, frames: "dict[str, pd.DataFrame]") -> np.ndarray | None:
    """Passage of every row; those of the two official splits are different ones whatever their numbers."""
    if task.group is None:
        return None
    train = frames["train"][task.group].to_numpy()
    return np.concatenate([train, train.max() + 1 + frames["validation"][task.group].to_numpy()])


def _largest(groups: np.ndarray | None) -> int:
    """Rows of the largest passage: by so many a part may be short. 1 where every row stands alone."""
    return 1 if groups is None else int(np.unique(groups, return_counts=True)[1].max())


def _whole(groups: np.ndarray, parts: Parts, large: bool) -> bool:
    return not np.intersect1d(groups[parts.validation], groups[parts.train if large else parts.test]).size


def _across(groups: np.ndarray, parts: Parts) -> float:
    both = np.intersect1d(groups[parts.delta], groups[parts.alpha]).size
    return both / np.unique(groups[parts.train]).size


def _shares(task: Task, frames: "dict[str, pd.DataFrame]", found: list[Parts]) -> dict[str, tuple[float, float]] | None:
    if not task.labels:
        return None
    labels = np.concatenate([frames[split]["label"].to_numpy() for split in ("train", "validation")])
    commonest = np.bincount(frames["validation"]["label"]).argmax()
    of = {name: [float((labels[getattr(p, name)] == commonest).mean()) for p in found] for name in vars(found[0])}
    return {name: (min(shares), max(shares)) for name, shares in of.items()}


def lengths(task: Task, frames: "dict[str, pd.DataFrame]", backbone: Any, rows: int) -> np.ndarray:
    """Tokens of at most ``rows`` training and ``rows`` validation rows of each kind, int64 (n,), before any is cut.

    ``backbone``: a :class:`paperlib.backbones.Backbone` with a tokenizer; its own form of reading, text-to-text or not.
    """
    encoder = encode_text_to_text if backbone.text_to_text else encode
    chosen = [splits.cut(frame, rows, seed=0) for split, frame in frames.items() if split in ("train", "validation")]
    return np.concatenate([encoder(frame, task, backbone.tokenizer, UNCUT).lengths for frame in chosen])


def familiar(task: Task, frames: "dict[str, pd.DataFrame]", seed: int, asked: int) -> dict[str, float]:
    """Share of the rows of D_val and of D_test whose every text stands, word for word, within some text of D_train."""
    parts = execute(task, frames, seed, asked)
    columns = [name for name in task.columns if name != "answer"]
    texts = {
        name: [text for split in ("train", "validation") for text in frames[split][name].astype(str)]
        for name in columns
    }
    known = {name: "\n".join(dict.fromkeys(texts[name][row] for row in parts.train)) for name in columns}

    @cache
    def stands(name: str, text: str) -> bool:
        return text.strip() in known[name]

    return {
        part: float(np.mean([all(stands(name, texts[name][row]) for name in columns) for row in getattr(parts, part)]))
        for part in ("validation", "test")
    }


def optimism(rows: int, accuracy: float, evaluations: int) -> float:
    """By how much the best of ``evaluations`` accuracies on ``rows`` rows exceeds the true ``accuracy`` on average, if all models were equally good.

    Independent evaluations are assumed; those of one training run are correlated, so this is an upper bound. InputError: nothing to evaluate.
    """
    from scipy.stats import binom

    if rows < 1 or evaluations < 1:
        raise InputError(f"{evaluations} evaluations on {rows} rows select nothing; both must be at least 1")
    # E[max] of counts is the sum over x >= 0 of P(max > x).
    below = binom.cdf(np.arange(rows), rows, accuracy)
    return float((1 - below**evaluations).sum() / rows - accuracy)
