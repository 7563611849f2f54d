"""Local against global (appendix C.2, Figure 8): what the records of searches and retrainings say, by setting, gradient and seed."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Protocol

import numpy as np

from paperlib import tasks
from paperlib.s3delta import structure


class Record(Protocol):
    """Outcome of a run: which notebook made it, with which parameters."""

    notebook: str
    parameters: dict[str, Any]
    results: dict[str, Any]


@dataclass(frozen=True)
class Ablation:
    """``scores``: setting -> gradient -> seed -> main metric on the test rows. ``searches``: the same of search records.

    A setting is a task with a search space and a budget. ``metrics``: setting -> name of its main metric.
    """

    scores: dict[str, dict[str, dict[int, float]]]
    searches: dict[str, dict[str, dict[int, Record]]]
    metrics: dict[str, str]

    @classmethod
    def of(cls, records: Iterable[Record]) -> "Ablation":
        """Records of ``runs/search``, and of ``runs/delta_tuning`` with structures searched on their own task; others are left out."""
        scores, searches, metrics = {}, {}, {}
        for record in records:
            at, results = record.parameters, record.results
            if record.notebook == "runs/search":
                setting, metrics[_setting(at)] = _setting(at), next(iter(results["validation"][0]))
                searches.setdefault(setting, {}).setdefault(at["gradient"], {})[at["seed"]] = record
            elif record.notebook == "runs/delta_tuning" and at["placement"] == "searched" and not at["searched_on"]:
                setting, gradient = _setting(at), at["search"].get("gradient", "global")
                metrics[setting], score = next(iter(results["test"].items()))
                scores.setdefault(setting, {}).setdefault(gradient, {})[at["seed"]] = score
        return cls(scores, searches, metrics)

    def pairs(self, one: str = "global", other: str = "local") -> dict[str, list[tuple[float, float]]]:
        """Scores of two gradients on the same seeds, by setting; settings without a pair are left out."""
        found = {
            setting: [(by[one][seed], by[other][seed]) for seed in by.get(one, {}) if seed in by.get(other, {})]
            for setting, by in self.scores.items()
        }
        return {setting: both for setting, both in found.items() if both}

    def curves(self) -> dict[str, list[tuple[str, np.ndarray, list[float], np.ndarray]]]:
        """Of each search of a setting: gradient, and for every evaluation step, validation score, and share of the budget in the modules chosen
        in the end.
        """
        return {
            setting: [
                (gradient, *_curve(record, self.metrics[setting]))
                for gradient, by_seed in by.items()
                for record in by_seed.values()
            ]
            for setting, by in self.searches.items()
        }

    def overlaps(self, draws: int, generator: np.random.Generator) -> list[dict[str, Any]]:
        """Jaccard overlap of chosen modules: two gradients on one seed, one gradient on two seeds, and ``draws`` pairs of random structures."""
        rows = []
        for setting, by in self.searches.items():
            results = {(form, seed): record.results for form, of in by.items() for seed, record in of.items()}
            kinds = {"two random structures": _random_pairs(next(iter(results.values())), draws, generator)}
            for ((form, seed), one), ((other, another), two) in combinations(results.items(), 2):
                if kind := _kind(form, seed, other, another):
                    both = (set(one["structure"]["chosen"]), set(two["structure"]["chosen"]))
                    kinds.setdefault(kind, []).append(both)
            for kind, compared in kinds.items():
                found = [jaccard(one, two) for one, two in compared]
                ends = {"mean": float(np.mean(found)), "least": min(found), "most": max(found), "pairs": len(found)}
                rows.append({"setting": setting, "compared": kind, **ends})
        return rows


def jaccard(one: set, two: set) -> float:
    """Shared elements over all elements of two sets that are not both empty."""
    return len(one & two) / len(one | two)


def _setting(at: dict[str, Any]) -> str:
    return f"{tasks.get(at['task']).title}, {at['space']} at {at['budget']:g}"


def _kind(form: str, seed: int, other: str, another: int) -> str | None:
    if form == other:
        return f"{form}, two seeds"
    return " and ".join(sorted((form, other))) + ", same seed" if seed == another else None


def _random_pairs(results: dict[str, Any], draws: int, generator: np.random.Generator) -> list[tuple[set, set]]:
    sizes, budget = [module["size"] for module in results["modules"].values()], results["structure"]["budget"]
    filled = [set(structure.random(sizes, budget, generator)) for _ in range(2 * draws)]
    return list(zip(filled[::2], filled[1::2], strict=True))


def _curve(record: Record, metric: str) -> tuple[np.ndarray, list[float], np.ndarray]:
    results, at = record.results, record.parameters
    chosen = set(results["structure"]["chosen"])
    held = [results["modules"][name]["size"] * (name in chosen) for name in results["names"]]
    steps = at["interval"] * np.arange(1, 1 + len(results["validation"]))
    shares = np.array(results["probabilities"]) @ held / results["structure"]["budget"]
    return steps, [scored[metric] for scored in results["validation"]], shares
