"""Pre-experiments: which of the values tried is the best on validation rows, and by how much more than chance (appendix B.2)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from paperlib import tasks

if TYPE_CHECKING:
    import pandas as pd

REPEATS = ["task", "seed"]


def frame(records: Sequence[Any]) -> "pd.DataFrame":
    """One row a run, listed twice or not: its parameters, and ``score``, the best of its validations by the task's main metric.

    ``records``: of ``runs/search`` or ``runs/delta_tuning``.
    """
    import pandas as pd

    once = {str(record.parameters): record for record in records}.values()
    rows = [{**record.parameters, "score": _best(record)} for record in once]
    return pd.DataFrame(rows, columns=None if rows else [*REPEATS, "score"])


def _best(record: Any) -> float:
    main = tasks.get(record.parameters["task"]).metrics[0]
    return max(metrics[main] for metrics in record.results["validation"])


def varied(runs: "pd.DataFrame", name: str, values: Sequence[float], usual: dict[str, float]) -> "pd.DataFrame":
    """Scores by task and seed (rows) and by the value of ``name`` (columns), where everything else in ``usual`` is as usual.

    Only tasks and seeds on which every value was tried: the others compare nothing. Empty where there are none. ValueError: two such runs differ
    in something else.
    """
    import pandas as pd

    found = runs
    for other, value in usual.items():
        if other != name and other in found:
            found = found[found[other] == value]
    if found.empty or name not in found:
        return pd.DataFrame(columns=list(values))
    table = found.pivot(index=REPEATS, columns=name, values="score")
    return table.reindex(columns=list(values)).dropna()


@dataclass(frozen=True)
class Choice:
    """What a pre-experiment says of the value that was chosen.

    ``best``: the value of the highest mean score, every task counting alike. ``rival``: ``chosen``, or the next best where that is ``best``.
    ``margins``: how far ``best`` is ahead of ``rival``, by task and seed.
    """

    chosen: float
    best: float
    rival: float
    margins: list[float]

    def holds(self, low: float) -> bool | None:
        """Whether the chosen value is the best, ``low`` being the lower end of an interval for the mean margin.

        False where another is ahead beyond chance, None where it is ahead within it.
        """
        if self.best == self.chosen:
            return True
        return False if low > 0 else None


def choose(scores: "pd.DataFrame", chosen: float) -> Choice:
    """The best column of :func:`varied`'s scores, two at least, ties going to ``chosen``, then to the first. ValueError: no scores."""
    if scores.empty:
        raise ValueError("no run to choose by")
    means = scores.groupby("task").mean().mean()
    best = chosen if means[chosen] == means.max() else float(means.idxmax())
    rival = float(means.drop(chosen).idxmax()) if best == chosen else chosen
    return Choice(chosen, best, rival, (scores[best] - scores[rival]).tolist())


def apart(one: dict[str, Any], other: dict[str, Any]) -> dict[str, float | int]:
    """How far two searches of the same modules part: the largest difference in p at any validation, and the modules both or either chose.

    ``one``, ``other``: results of ``runs/search``. ValueError: another number of validations or of modules.
    """
    paths = [np.array(each["probabilities"]) for each in (one, other)]
    if paths[0].shape != paths[1].shape:
        raise ValueError("the searches have different numbers of validations or of modules")
    chosen = [set(each["structure"]["chosen"]) for each in (one, other)]
    return {
        "largest difference in $p$": float(np.abs(paths[0] - paths[1]).max()),
        "largest $p$": float(max(path.max() for path in paths)),
        "chosen by both": len(chosen[0] & chosen[1]),
        "by either": len(chosen[0] | chosen[1]),
    }
