"""Label mapping (appendix E): answers over entailment, neutral and contradiction, read as labels of another inference task."""

from collections.abc import Callable

import numpy as np

from paperlib.errors import InputError
from paperlib.tasks import Task

ENTAILMENT, NEUTRAL, CONTRADICTION = CLASSES = ("entailment", "neutral", "contradiction")

# What tasks call the three classes, and what they call "not the first".
_SPELLED = {"entails": ENTAILMENT}
_NEITHER = {NEUTRAL, "not_entailment"}


def merging(source: Task, target: Task) -> np.ndarray:
    """Index of the target's label that each of the source's three labels becomes, int64 (3,).

    A target with three labels has them by name. One with two has entailment, and one label ("neutral" or "not_entailment") that stands for
    neutral and contradiction both. InputError where names fit neither, and for a source without the three.
    """
    theirs = _names(source)
    if sorted(theirs) != sorted(CLASSES):
        raise InputError(
            f"{source.title} has the labels {', '.join(source.labels) or 'none'}; "
            f"label mapping starts from a task with {', '.join(CLASSES)}"
        )
    place = {name: index for index, name in enumerate(_names(target))}
    if len(place) == 2 and (rest := place.keys() - {ENTAILMENT}) <= _NEITHER and ENTAILMENT in place:
        merged = place[rest.pop()]
        place |= {NEUTRAL: merged, CONTRADICTION: merged}
    if not place.keys() >= set(CLASSES):
        raise InputError(
            f"labels of {target.title} ({', '.join(target.labels) or 'none'}) cannot be mapped: they must be "
            f"{', '.join(CLASSES)}, or {ENTAILMENT} and one of {', '.join(sorted(_NEITHER))}"
        )
    return np.array([place[name] for name in theirs])


def argmax_then_merge(scores: np.ndarray, into: np.ndarray) -> np.ndarray:
    """The published script's rule: target labels (rows,) of the likeliest of three classes. ``scores``: logits (rows, 3); ``into``: (3,)."""
    return into[np.argmax(scores, axis=1)]


def sum_of_probabilities(scores: np.ndarray, into: np.ndarray) -> np.ndarray:
    """The likeliest target label (rows,), where the probability of a merged label is the sum of its classes'.

    Of two labels it differs from :func:`argmax_then_merge` exactly where entailment is likelier than each of the others and less likely than
    both together (p < 1/2); so it finds less entailment, never more. Of three labels it is the same.
    """
    labels = range(into.max() + 1)
    # The softmax's denominator is common to all, so sums of exponentials compare as sums of probabilities do.
    merged = [np.logaddexp.reduce(scores[:, into == label].astype(np.float64), axis=1) for label in labels]
    return np.argmax(merged, axis=0)


RULES: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "argmax_then_merge": argmax_then_merge,
    "sum_of_probabilities": sum_of_probabilities,
}


def _names(task: Task) -> list[str]:
    return [_SPELLED.get(name, name) for name in task.labels]
