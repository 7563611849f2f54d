"""Structures on other tasks than those they were searched on, and what reusing them saves (appendix E)."""

import math
from collections.abc import Mapping
from typing import Any

from paperlib import tasks

TITLES = {
    "random": "random",
    "fine_tuning": "fine-tuning",
    "adapter": "Adapter",
    "lora_r8": "LoRA r=8",
    "lora_r1": "LoRA r=1",
    "bitfit": "BitFit",
    "lnfit": "LNFiT",
    "lra": "LRA",
}
"""Placements without a search, as tables name them."""


PAPER = {"gradient": "global", "order": "second", "hard": False, "tau": 1.0, "beta": 1.0}
"""How the paper searches, as parameters of ``runs/search``."""


def variant(parameters: Mapping[str, Any]) -> str:
    """What the parameters of a search, or those a trained structure's search was given, change about the paper's way; empty for nothing."""
    searched = parameters.get("search", parameters)
    return ", ".join(f"{name} {searched[name]}" for name, usual in PAPER.items() if searched.get(name, usual) != usual)


COLUMNS = (
    "notebook",
    "variant",
    "kind",
    "title",
    "task",
    "seed",
    "space",
    "budget",
    "test",
    "energy_joules",
    "core_seconds",
)
"""What a table of searches and of runs of ``runs/delta_tuning`` is grouped and compared by, whichever of them there are."""


def described(parameters: Mapping[str, Any]) -> dict[str, str]:
    """:func:`variant` of a search; of a trained structure or placement :func:`kind` and :func:`title` too."""
    found = {"variant": variant(parameters)}
    return found | ({"kind": kind(parameters), "title": title(parameters)} if "placement" in parameters else {})


def kind(parameters: Mapping[str, Any]) -> str:
    """Where the places of a run of ``runs/delta_tuning`` come from.

    A search on the task itself with the run's seed ("own"), on another task ("transferred"), on several others ("group"), or several with its own
    task among them ("joint"), with the :func:`variant` if it has one; else the name of the placement.
    """
    if parameters["placement"] != "searched":
        return parameters["placement"]
    searched = set(parameters["searched_on"]) or {parameters["task"]}
    seeds = set(parameters["search_seeds"]) or {parameters["seed"]}
    if parameters["task"] in searched:
        found = "own" if len(searched) == 1 and seeds == {parameters["seed"]} else "joint"
    else:
        found = "transferred" if len(searched) == 1 else "group"
    return ", ".join(filter(None, (found, variant(parameters))))


def title(parameters: Mapping[str, Any]) -> str:
    """The same in words that tell the tasks, and how many seeds are averaged if there are several."""
    if parameters["placement"] != "searched":
        return TITLES[parameters["placement"]]
    on, seeds = parameters["searched_on"], len(parameters["search_seeds"])
    names = " + ".join(tasks.get(name).title for name in on) if len(on) < 4 else f"{len(on)} tasks"
    found = "own" if on in ([], [parameters["task"]]) else f"from {names}"
    return ", ".join(filter(None, (found, f"{seeds} seeds" if seeds > 1 else "", variant(parameters))))


def break_even(search: float, each: float, other: float) -> float:
    """Tasks T from which one search and ``each`` for every task cost less than ``other`` for every task: the smallest with
    search + T each < T other; infinite where each task saves nothing.
    """
    return math.floor(search / (other - each)) + 1 if other > each else math.inf
