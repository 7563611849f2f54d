"""Transfer (appendix E): one model trained on an inference task and scored on the rows of others."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, chain
from typing import TYPE_CHECKING, Any

import numpy as np

from paperlib import tasks
from paperlib.backbones import Backbone
from paperlib.dps.mapping import RULES, merging
from paperlib.errors import InputError
from paperlib.tasks import Task
from paperlib.tasks.encoding import Encoded, encode
from paperlib.training import Problem

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Rows:
    """A labelled split of a task, called "task:split"."""

    task: Task
    split: str
    frame: "pd.DataFrame"

    @property
    def name(self) -> str:
        """As in "snli:test"."""
        return f"{self.task.name}:{self.split}"


def load(name: str, source: str, data_dir: str = "") -> Rows:
    """The rows called ``name`` ("rte:validation"). InputError: an unknown task, or a source without that split."""
    task, _, split = name.partition(":")
    found = tasks.load(tasks.get(task), source, data_dir or None)
    if split not in found:
        raise InputError(f"source {source} has no rows {name!r}; of {task} it has: {', '.join(found)}")
    return Rows(tasks.get(task), split, found[split])


def label_counts(task: Task, source: str, data_dir: str = "") -> dict[str, int]:
    """Rows of each label over all labelled splits; empty where the source has no rows of the task itself, as the diagnostics never do."""
    if not any(task.labelled(split) for split in tasks.inventory(task, source, data_dir or None)):
        return {}
    labels = np.concatenate([frame["label"] for frame in tasks.load(task, source, data_dir or None).values()])
    return {name: int(np.sum(labels == index)) for index, name in enumerate(task.labels)}


def problem(train: Rows, targets: Sequence[Rows], backbone: Backbone) -> Problem:
    """Train on ``train``; its test rows are those of all targets, one after the other, so that they are scored once.

    Every row is cut to the training task's ``max_length``. InputError: a target whose labels cannot be mapped, and a backbone that writes text.
    """
    if backbone.text_to_text or backbone.tokenizer is None:
        raise InputError(
            f"backbone {backbone.name!r} gives no scores over three labels of text; label mapping needs them"
        )
    for target in targets:
        merging(train.task, target.task)
    length = train.task.max_length
    test = [encode(each.frame, each.task, backbone.tokenizer, length) for each in targets]
    return Problem(
        train.task, backbone, encode(train.frame, train.task, backbone.tokenizer, length), None, _joined(test)
    )


def results(source: Task, targets: Sequence[Rows], scores: np.ndarray) -> dict[str, dict[str, Any]]:
    """What a record keeps of every target, by name; ``scores`` (rows of all targets, 3) as :func:`problem` ordered them."""
    ends = list(accumulate(len(target.frame) for target in targets))
    parts = np.split(scores, ends[:-1])
    return {target.name: _result(source, target, part) for target, part in zip(targets, parts, strict=True)}


def _result(source: Task, target: Rows, scores: np.ndarray) -> dict[str, Any]:
    """``confusion``: gold label -> class said -> rows. ``correct``: by rule, 1 or 0 per row. ``degenerate``: one label for all (by the first rule).

    ``majority``: share of the commonest gold label. ``differing``: rows that the two rules label differently.
    """
    gold, into = target.frame["label"].to_numpy(), merging(source, target.task)
    said = {name: rule(scores, into) for name, rule in RULES.items()}
    reference, other = said.values()
    return {
        "rows": len(gold),
        "accuracy": {name: float(np.mean(labels == gold)) for name, labels in said.items()},
        "correct": {name: [int(right) for right in labels == gold] for name, labels in said.items()},
        "differing": int(np.sum(reference != other)),
        "confusion": _confusion(source, target.task, gold, scores.argmax(axis=1)),
        "majority": float(np.bincount(gold).max() / len(gold)),
        "degenerate": len(np.unique(reference)) == 1,
    }


def _confusion(source: Task, target: Task, gold: np.ndarray, said: np.ndarray) -> dict[str, dict[str, int]]:
    return {
        name: {word: int(np.sum((gold == label) & (said == index))) for index, word in enumerate(source.labels)}
        for label, name in enumerate(target.labels)
    }


def _joined(parts: Sequence[Encoded]) -> Encoded:
    types = [part.token_type_ids for part in parts]
    return Encoded(
        list(chain.from_iterable(part.input_ids for part in parts)),
        labels=np.concatenate([part.labels for part in parts]),
        gold=np.concatenate([part.gold for part in parts]),
        token_type_ids=None if None in types else list(chain.from_iterable(types)),
    )
