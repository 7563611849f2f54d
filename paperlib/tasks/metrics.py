"""Scores of a model's outputs.

Every metric is a fraction (correlations: -1 to 1); a degenerate run scores, it does not crash.

Where a metric is undefined it is 0: Matthews' coefficient and the correlations of constant (or not finite)
predictions, F1 without positives.
"""

import re
import string
from collections import Counter

import numpy as np

from paperlib.tasks.encoding import Encoded
from paperlib.tasks.registry import Task


def predictions(task: Task, scores: np.ndarray) -> np.ndarray:
    """What the head's outputs say, per example.

    Classes: (n, classes) -> index of the highest. Regression: (n,) or (n, 1) -> the score. Choices: one
    score per row, (2n,) or (2n, 1) -> index of the better row. ReCoRD: (rows, 2) -> log-odds of each
    row's candidate being the answer.
    """
    scores = np.asarray(scores, dtype=np.float64)
    if task.kind == "regression":
        return scores.reshape(-1)
    if task.kind == "choice":
        return scores.reshape(-1, len(task.labels)).argmax(axis=1)
    if task.kind == "cloze":
        return scores[:, 1] - scores[:, 0]
    return scores.argmax(axis=1)


def evaluate(task: Task, scores: np.ndarray, encoded: Encoded) -> dict[str, float]:
    """``task.metrics``, in that order, of an encoder's outputs over all of ``encoded`` (shapes.

    ``predictions``).
    """
    predicted = predictions(task, scores)
    if len(predicted) != len(encoded):
        raise ValueError(f"{len(predicted)} predictions for {len(encoded)} examples")
    if task.kind == "cloze":
        return _of_texts(task, _best_candidates(predicted, encoded), encoded.gold)
    return _of_labels(task, predicted, encoded)


def evaluate_text(task: Task, decoded: list[str], encoded: Encoded) -> dict[str, float]:
    """``task.metrics``, in that order, of a text-to-text model's decoded answers, one per example.

    A text that is no label counts as wrong, whatever the metric: as another class than the gold one; for
    STS-B as the score -1.
    """
    if len(decoded) != len(encoded):
        raise ValueError(f"{len(decoded)} answers for {len(encoded)} examples")
    if task.kind == "cloze":
        return _of_texts(task, decoded, encoded.gold)
    if task.kind == "regression":
        return _of_labels(task, np.array([_number(text) for text in decoded]), encoded)
    known = {str(index): index for index in range(len(task.labels))}
    wrong = (encoded.gold + 1) % len(task.labels)
    predicted = [known.get(text.strip(), other) for text, other in zip(decoded, wrong, strict=True)]
    return _of_labels(task, np.array(predicted), encoded)


def _of_labels(task: Task, predicted: np.ndarray, encoded: Encoded) -> dict[str, float]:
    return {name: float(_OF_LABELS[name](task, encoded, predicted)) for name in task.metrics}


def _accuracy(task: Task, encoded: Encoded, predicted: np.ndarray) -> float:
    return np.mean(predicted == encoded.gold)


def _f1(task: Task, encoded: Encoded, predicted: np.ndarray) -> float:
    from sklearn.metrics import f1_score

    return f1_score(encoded.gold, predicted, pos_label=1, zero_division=0)


def _macro_f1(task: Task, encoded: Encoded, predicted: np.ndarray) -> float:
    from sklearn.metrics import f1_score

    return f1_score(encoded.gold, predicted, labels=range(len(task.labels)), average="macro", zero_division=0)


def _matthews(task: Task, encoded: Encoded, predicted: np.ndarray) -> float:
    from sklearn.metrics import matthews_corrcoef

    return matthews_corrcoef(encoded.gold, predicted)


def _pearson(task: Task, encoded: Encoded, predicted: np.ndarray) -> float:
    from scipy.stats import pearsonr

    return _correlation(pearsonr, encoded.gold, predicted)


def _spearman(task: Task, encoded: Encoded, predicted: np.ndarray) -> float:
    from scipy.stats import spearmanr

    return _correlation(spearmanr, encoded.gold, predicted)


def _correlation(statistic, gold: np.ndarray, predicted: np.ndarray) -> float:
    if not np.isfinite(predicted).all() or np.ptp(predicted) == 0 or np.ptp(gold) == 0:
        return 0.0
    value = statistic(gold, predicted).statistic
    return value if np.isfinite(value) else 0.0  # a spread so small that its square underflows


def _exact_match(task: Task, encoded: Encoded, predicted: np.ndarray) -> float:
    """MultiRC: fraction of questions with every answer judged right."""
    _, question = np.unique(encoded.groups, return_inverse=True)
    return np.mean(np.bincount(question, weights=predicted != encoded.gold) == 0)


_OF_LABELS = {
    "accuracy": _accuracy,
    "f1": _f1,
    "macro_f1": _macro_f1,
    "matthews": _matthews,
    "pearson": _pearson,
    "spearman": _spearman,
    "exact_match": _exact_match,
}


def _best_candidates(log_odds: np.ndarray, encoded: Encoded) -> list[str]:
    """The likeliest candidate of each query; of equals the first; "" for a query without candidates."""
    order = np.argsort(-log_odds, kind="stable")
    queries, first = np.unique(encoded.groups[order], return_index=True)
    best = dict(zip(queries, order[first], strict=True))
    return [encoded.candidates[best[query]] if query in best else "" for query in range(len(encoded.gold))]


def _of_texts(task: Task, texts: list[str], gold: list[list[str]]) -> dict[str, float]:
    """ReCoRD: SQuAD's token F1 and exact match, best over a query's gold answers, mean over queries."""
    return {
        name: float(
            np.mean(
                [
                    max((_OF_TEXTS[name](text, answer) for answer in answers), default=0.0)
                    for text, answers in zip(texts, gold, strict=True)
                ]
            )
        )
        for name in task.metrics
    }


def _normalised(text: str) -> str:
    """SQuAD's: lower case, no punctuation, no articles, single spaces."""
    bare = "".join(character for character in text.lower() if character not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", bare).split())


def _text_equal(text: str, answer: str) -> float:
    return float(_normalised(text) == _normalised(answer))


def _text_f1(text: str, answer: str) -> float:
    ours, gold = _normalised(text).split(), _normalised(answer).split()
    common = sum((Counter(ours) & Counter(gold)).values())
    return 2 * common / (len(ours) + len(gold)) if common else 0.0


_OF_TEXTS = {"f1": _text_f1, "exact_match": _text_equal}


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        return -1.0
    return value if np.isfinite(value) else -1.0
