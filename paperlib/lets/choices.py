"""What searches chose: an architecture as a picture, and how far they agree."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

from paperlib.errors import InputError
from paperlib.lets.architecture import Architecture, Own

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SHARES, IDLE, OWNS = range(3)
"""A selector shares; it owns an input that nothing reads, since the attention is shared; it owns."""

ANOTHER = "another task"


def states(architecture: Architecture) -> np.ndarray:
    """SHARES, IDLE or OWNS for every layer, from bottom to top, and selector s1, s2, s3: (L, 3)."""
    found = np.where(np.array(architecture.layers), OWNS, SHARES)
    attention = found[:, 1] == OWNS
    found[~attention & (found[:, 0] == OWNS), 0] = IDLE
    return found


def draw(ax: "Axes", architecture: Architecture, colours: Sequence[str]) -> None:
    """The architecture as a picture on ``ax``, bottom layer below; ``colours``: of SHARES, IDLE and OWNS."""
    from matplotlib.colors import ListedColormap

    found = states(architecture)
    edges = np.arange(len(Own._fields) + 1) - 0.5, np.arange(len(found) + 1) + 0.5
    ax.pcolormesh(*edges, found, cmap=ListedColormap(colours), vmin=SHARES, vmax=OWNS, edgecolor="white")
    ax.set(xticks=range(len(Own._fields)), xticklabels=["$s_1$", "$s_2$", "$s_3$"])
    ax.set_yticks(range(1, len(found) + 1, max(1, len(found) // 6)))
    ax.grid(visible=False)


def agreement(one: Architecture, other: Architecture) -> float:
    """Share of all selectors that stand alike. InputError: architectures of different depth."""
    return float((_chosen(one) == _chosen(other, one)).mean())


def by_chance(one: Architecture, other: Architecture) -> float:
    """What :func:`agreement` would be on average if each had its own number of owning layers for every selector, but at random layers."""
    own, theirs = _chosen(one).mean(axis=0), _chosen(other, one).mean(axis=0)
    return float((own * theirs + (1 - own) * (1 - theirs)).mean())


def agreements(found: Mapping[tuple[str, int], Architecture]) -> dict[str, list[tuple[float, float]]]:
    """:func:`agreement` and :func:`by_chance` of all pairs of searches, by the task that both are on, and last "another task".

    ``found``: by task and seed. A task with a single search, or all searches on one task, leave their kind of pair out.
    """
    pairs: dict[str, list[tuple[float, float]]] = {}
    for (task, one), (other, another) in combinations(((task, own) for (task, _), own in found.items()), 2):
        kind = task if task == other else ANOTHER
        pairs.setdefault(kind, []).append((agreement(one, another), by_chance(one, another)))
    return dict(sorted(pairs.items(), key=lambda pair: pair[0] == ANOTHER))


def _chosen(architecture: Architecture, like: Architecture | None = None) -> np.ndarray:
    if like and len(like.layers) != len(architecture.layers):
        raise InputError(f"choices: architectures of {len(like.layers)} and {len(architecture.layers)} layers")
    return np.array(architecture.layers)
