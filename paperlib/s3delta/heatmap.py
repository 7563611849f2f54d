"""Heat maps of p_i over the candidate modules (appendix D.2, Figure 9), and how far searches agree.

A map is a vector p (K,): one number per candidate module, in the order of :attr:`Grid.names`. What is compared with chance is compared with
the draws of this module, which come from a seed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from paperlib.errors import InputError
from paperlib.s3delta.positions import ROWS
from paperlib.s3delta.structure import random

SIDES = ("encoder", "decoder")

PUBLISHED_TYPES = {
    "all tasks": {"bitfit": 46, "lora": 11, "lra": 8, "lnfit": 4},
    "SST-2": {"bitfit": 38, "lora": 12, "lra": 4, "lnfit": 4},
    "MNLI": {"bitfit": 33, "lora": 17, "lra": 5, "lnfit": 2},
    "MRPC": {"bitfit": 45, "lora": 14, "lra": 7, "lnfit": 5},
}
"""Modules by type in the structures that come with the published code: T5-large, S3Delta-M, 1.389 per ten thousand."""

PUBLISHED_MEAN = {
    "CrossAttn.LN BitFit": {"decoder": range(1, 24)},
    "SelfAttn.LN BitFit": {"encoder": (16, 21, 22, 23), "decoder": range(7, 24)},
    "Final_LN BitFit": {"encoder": (23,), "decoder": (23,)},
    "Q LoRA": {"encoder": (21, 22, 23), "decoder": (12, 17, 19, 20, 21, 22, 23)},
    "W1 LoRA": {"decoder": (20,)},
    "SelfAttn LRA": {"encoder": (23,)},
    "FFN LRA": {"encoder": (23,), "decoder": (3, 4, 5, 6, 21, 22)},
    "SelfAttn.LN LNFiT": {"encoder": (22, 23)},
    "Final_LN LNFiT": {"encoder": (23,), "decoder": (23,)},
}
"""The first of them, averaged over all tasks: row -> side -> layers."""


@dataclass(frozen=True)
class Grid:
    """The cells of a heat map. ``names``: its modules, row by row; ``cells``: (row, column) of each.

    ``rows``: those of Figure 9 that have a module, in its order. ``columns``: (side, layer), the encoder's layers before the decoder's.
    """

    names: tuple[str, ...]
    cells: tuple[tuple[int, int], ...]
    rows: tuple[str, ...]
    columns: tuple[tuple[str, int], ...]

    @classmethod
    def of(cls, modules: Mapping[str, Mapping[str, Any]]) -> "Grid":
        """``modules``: name -> ``row``, ``side`` and ``layer``, as a search's record tells them.

        InputError: no modules, a row that Figure 9 has not, two modules in one cell.
        """
        if unknown := sorted({module["row"] for module in modules.values()} - set(ROWS)):
            raise InputError(f"the heat map has no row {unknown[0]!r}; its rows: {', '.join(ROWS)}")
        keys = {name: (module["row"], (module["side"], module["layer"])) for name, module in modules.items()}
        if not keys or len(set(keys.values())) < len(keys):
            raise InputError(f"a heat map needs modules, one to a cell; {len(keys)} were given")
        rows = tuple(row for row in ROWS if row in {row for row, _ in keys.values()})
        columns = tuple(sorted({column for _, column in keys.values()}, key=lambda c: (SIDES.index(c[0]), c[1])))
        cells = {name: (rows.index(row), columns.index(column)) for name, (row, column) in keys.items()}
        names = tuple(sorted(cells, key=cells.get))
        return cls(names, tuple(cells[name] for name in names), rows, columns)

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.rows), len(self.columns)

    @property
    def row_of(self) -> np.ndarray:
        """Number of every module's row, (K,)."""
        return np.array(self.cells)[:, 0]

    @property
    def upper(self) -> np.ndarray:
        """Bool (K,): in the upper half of its stack."""
        depth = {side: 1 + max(layer for s, layer in self.columns if s == side) for side, _ in self.columns}
        return np.array([2 * layer >= depth[side] for side, layer in (self.columns[c] for _, c in self.cells)])

    @property
    def candidates(self) -> np.ndarray:
        """Bool, rows x columns: where there is a module."""
        return self.matrix(np.ones(len(self.names))) > 0

    @property
    def labels(self) -> list[str]:
        """Of the columns: E.0, E.1, ..., D.0, ..."""
        return [f"{side[0].upper()}.{layer}" for side, layer in self.columns]

    def vector(self, p: Mapping[str, float]) -> np.ndarray:
        """(K,) of values by name. InputError if they are of other modules."""
        if p.keys() != set(self.names):
            raise InputError(f"values of {len(p)} modules are not those of this heat map's {len(self.names)}")
        return np.array([p[name] for name in self.names], dtype=float)

    def paths(self, probabilities: Sequence[Sequence[float]], names: Sequence[str]) -> np.ndarray:
        """(V, K): probabilities at V validations, brought into this order from that of ``names``."""
        column = {name: number for number, name in enumerate(names)}
        return np.asarray(probabilities, dtype=float)[:, [column[name] for name in self.names]]

    def matrix(self, p: np.ndarray) -> np.ndarray:
        """Rows x columns, 0 where there is no module; ``p``: (K,)."""
        found = np.zeros(self.shape)
        found[tuple(np.array(self.cells).T)] = p
        return found

    def chosen(self, names: Sequence[str]) -> np.ndarray:
        """Bool (K,): the modules named."""
        return np.isin(self.names, names)


def draw(ax, grid: Grid, p: np.ndarray, line: float, highest: float, cmap: str = "Greens"):
    """Figure 9's picture of p (K,) on ``ax``: a number where p >= ``line``, hatching where there is no module; returns the mappable.

    ``line``: the smallest p of a chosen module. ``highest``: p of the darkest colour.
    """
    matrix = np.ma.masked_where(~grid.candidates, grid.matrix(p))
    wide = len(grid.columns) > 16
    ax.patch.set(facecolor="#F4F4F4", hatch="//////", edgecolor="#D0D0D0")
    image = ax.imshow(matrix, cmap=cmap, vmin=0, vmax=highest, aspect="auto", interpolation="none")
    for row, column in np.argwhere(matrix.filled(-np.inf) >= line):
        value = matrix[row, column]
        ax.text(
            *(column, row, f"{value:.2f}".lstrip("0")),
            **{"ha": "center", "va": "center", "fontsize": 5 if wide else 7.5, "rotation": 90 if wide else 0},
            color="white" if value > 0.6 * highest else "black",
        )
    ax.set_xticks(range(len(grid.columns)), grid.labels, fontsize=6 if wide else 8, rotation=90 if wide else 0)
    ax.set_yticks(range(len(grid.rows)), grid.rows, fontsize=7.5)
    ax.grid(visible=False)
    return image


def rank_correlations(p: np.ndarray) -> np.ndarray:
    """(S, S): Spearman's correlation of any two of S maps (S, K), ties at their mean rank; NaN with a map that is constant."""
    from scipy.stats import rankdata

    ranks = rankdata(p, axis=1)
    ranks -= ranks.mean(axis=1, keepdims=True)
    norms = np.linalg.norm(ranks, axis=1)
    with np.errstate(invalid="ignore"):
        return ranks @ ranks.T / np.outer(norms, norms)


def correlations_by_row_alone(p: np.ndarray, row_of: np.ndarray, draws: int = 200, seed: int = 0) -> np.ndarray:
    """(S, S): mean rank correlation once every map's values are shuffled among the layers of each row.

    What maps would have in common if the kind of module decided p and the layer were chance. ``row_of``: (K,), the row of every module.
    """
    rng = np.random.default_rng(seed)
    total = np.zeros((len(p), len(p)))
    in_rows = np.argsort(row_of, kind="stable")
    for _ in range(draws):
        shuffled = np.empty_like(p)
        for source, target in zip(p, shuffled, strict=True):
            target[in_rows] = source[np.lexsort((rng.random(len(row_of)), row_of))]
        total += rank_correlations(shuffled)
    return total / draws


def jaccards(chosen: np.ndarray) -> np.ndarray:
    """(S, S): modules two structures share over modules that either has; ``chosen``: bool (S, K), none of them empty."""
    sets = chosen.astype(float)
    shared, sizes = sets @ sets.T, sets.sum(axis=1)
    return shared / (sizes[:, None] + sizes - shared)


def random_structures(sizes: Sequence[int], budget: float, draws: int = 200, seed: int = 0) -> np.ndarray:
    """Bool (draws, K): structures filled at random under the budget, see :func:`paperlib.s3delta.structure.random`."""
    rng = np.random.default_rng(seed)
    found = np.zeros((draws, len(sizes)), dtype=bool)
    for row in found:
        row[random(sizes, budget, rng)] = True
    return found


def within_and_between(similarity: np.ndarray, labels: Sequence[str]) -> tuple[float, float]:
    """Mean similarity of pairs with the same label, and of pairs with different ones; NaN where there is no such pair."""
    same, pairs = np.equal.outer(labels, labels), ~np.eye(len(labels), dtype=bool)
    kinds = (similarity[same & pairs], similarity[~same])
    return tuple(float(values.mean()) if values.size else float("nan") for values in kinds)


def label_permutation(similarity: np.ndarray, labels: Sequence[str], draws: int = 9999, seed: int = 0) -> float:
    """p-value of same-labelled pairs being no more alike than others, with the labels dealt out anew; NaN where no label repeats."""
    rng = np.random.default_rng(seed)
    labels = np.asarray(labels)
    ours = np.subtract(*within_and_between(similarity, labels))
    if np.isnan(ours):
        return float("nan")
    dealt = (np.subtract(*within_and_between(similarity, rng.permutation(labels))) for _ in range(draws))
    return (1 + sum(each >= ours - 1e-12 for each in dealt)) / (1 + draws)


def apart(similarity: np.ndarray, labels: Sequence[str]) -> dict[str, tuple[float, float]]:
    """By label: mean similarity with everything labelled otherwise, and among everything labelled otherwise.

    How much a task deviates is the second minus the first: the others' likeness is taken without the task. Needs three labels.
    """
    labels = np.asarray(labels)
    found = {}
    for label in dict.fromkeys(labels.tolist()):
        ours = labels == label
        others = similarity[np.ix_(~ours, ~ours)]
        found[label] = (float(similarity[np.ix_(ours, ~ours)].mean()), within_and_between(others, labels[~ours])[1])
    return found
