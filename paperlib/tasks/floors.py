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
    """The task's main metric on its generated dev rows, for the best constant answer and for a bag of words."""
    frames = diagnostics.generate(task.name, seed=seed)
    train, dev = (encode(frames[split], task, tokenizer) for split in ("train", "validation"))
    main = task.metrics[0]
    return {"constant": constant(task, train, dev)[main], "bag of words": bag_of_words(task, train, dev)[main]}


def shared_texts(task: Task, frames: "dict[str, pd.DataFrame]") -> int:
    """Number of texts that occur in more than one split, whichever of the task's text columns they stand in.

    Answers are left out: they are no sentences, and two questions may well have the same.
    """
    columns = [name for name in task.columns if name != "answer"]
    seen = Counter(text for frame in frames.values() for text in {t for name in columns for t in frame[name]})
    return sum(splits > 1 for splits in seen.values())


def constant(task: Task, train: Encoded, test: Encoded) -> dict[str, float]:
    """Metrics of the best constant answer: the class with the highest main metric on the training rows.

    That is the majority class for accuracy and "yes" for F1; the mean score for regression, the first choice or candidate for choices.
    """
    if task.kind == "regression":
        return metrics.evaluate(task, np.full((len(test.input_ids), 1), train.gold.mean()), test)
    if task.kind in ("choice", "cloze"):
        return metrics.evaluate(task, np.zeros((len(test.input_ids), task.outputs)), test)

    def always(label: int, rows: Encoded) -> dict[str, float]:
        return metrics.evaluate(task, np.tile(np.eye(task.outputs)[label], (len(rows.input_ids), 1)), rows)

    # Where the metric cannot tell (a correlation is 0 for all of them), the commonest class.
    seen = np.bincount(train.labels, minlength=task.outputs)
    best = max(range(task.outputs), key=lambda label: (always(label, train)[task.metrics[0]], seen[label]))
    return always(best, test)


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
