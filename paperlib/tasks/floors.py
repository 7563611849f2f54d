"""Floors: what a task yields without reading, and without word order; and whether its splits are apart."""

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np

from paperlib.tasks import diagnostics, metrics
from paperlib.tasks.encoding import Encoded, encode
from paperlib.tasks.registry import Task

if TYPE_CHECKING:
    import pandas as pd


def of_diagnostic(task: Task, tokenizer, seed: int) -> dict[str, float]:
    """The task's main metric on its generated dev rows, for the commonest class and for a bag of words."""
    frames = diagnostics.generate(task.name, seed=seed)
    train, dev = (encode(frames[split], task, tokenizer) for split in ("train", "validation"))
    main = task.metrics[0]
    return {"majority": majority(task, train, dev)[main], "bag of words": bag_of_words(task, train, dev)[main]}


def shared_texts(task: Task, frames: "dict[str, pd.DataFrame]") -> int:
    """Number of texts that occur in more than one split, whichever of the task's text columns they stand in.

    Answers are left out: they are no sentences, and two questions may well have the same.
    """
    columns = [name for name in task.columns if name != "answer"]
    seen = Counter(text for frame in frames.values() for text in {t for name in columns for t in frame[name]})
    return sum(splits > 1 for splits in seen.values())


def majority(task: Task, train: Encoded, test: Encoded) -> dict[str, float]:
    """Metrics of always giving the commonest training class (the mean score for regression; the first choice or candidate)."""
    rows = len(test.input_ids)
    if task.kind == "regression":
        return metrics.evaluate(task, np.full((rows, 1), train.gold.mean()), test)
    if task.kind in ("choice", "cloze"):
        return metrics.evaluate(task, np.zeros((rows, task.outputs)), test)
    commonest = np.bincount(train.labels).argmax()
    return metrics.evaluate(task, np.tile(np.eye(task.outputs)[commonest], (rows, 1)), test)


def bag_of_words(task: Task, train: Encoded, test: Encoded) -> dict[str, float]:
    """Metrics of TF-IDF over tokens with logistic regression (ridge for regression): words without their order or their text."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.pipeline import make_pipeline

    reader = TfidfVectorizer(analyzer=lambda tokens: [str(token) for token in tokens])
    judge = Ridge() if task.kind == "regression" else LogisticRegression(max_iter=1000)
    model = make_pipeline(reader, judge).fit(train.input_ids, _row_labels(task, train))
    if task.kind == "regression":
        return metrics.evaluate(task, model.predict(test.input_ids)[:, None], test)
    scores = model.decision_function(test.input_ids)
    two_sided = np.stack([-scores, scores], axis=1) if scores.ndim == 1 else scores
    return metrics.evaluate(task, two_sided[:, 1:] if task.kind == "choice" else two_sided, test)


def _row_labels(task: Task, rows: Encoded) -> np.ndarray:
    if task.kind != "choice":
        return rows.labels
    right = np.zeros((len(rows), rows.choices), dtype=int)
    right[np.arange(len(rows)), rows.labels] = 1
    return right.ravel()
