"""How alike two weight masks are, against chance: Figure 7 and its ablation of how W^d is initialized (appendix C).

The figure shows masks of q, k and v of the middle layer, from the offset of a whole fine-tuning, from one of 100 steps, and from a random one.
Inferred, in no source:

1.  The middle layer is number L/2, the 12th of 24. Scores are ranked over all matrices of all layers, as Algorithm 2's one sum has it; the
    figure's three are cut out afterwards, so that they need not keep 0.5 % of their own weights.
2.  Masks of the whole fine-tuning are made with the scores of Algorithm 2 and by magnitude: the appendix does not say, and near
    convergence the gradient in the score is little but noise.
3.  The random offset is normal with the mean square of the accumulated one at the last look, under a fresh readout. Its score still
    holds the true gradient, so it agrees with the others beyond chance; a mask drawn uniformly is the zero line.
4.  The ceiling is what two whole fine-tunings of different seeds (readout, batches, dropout) have in common.
5.  The warm-up is the beginning of the whole fine-tuning: same rows, same constant rate.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from paperlib.errors import InputError
from paperlib.lets import pruning
from paperlib.lets.masked_tuning import WarmUp, owned
from paperlib.lets.problem import TaskProblem

MATRICES = ("query", "key", "value")
FINAL, MAGNITUDE, OTHER_SEED, RANDOM, UNIFORM = "final", "final, magnitude", "final, other seed", "random", "uniform"

Masks = dict[str, torch.Tensor]
"""By name of the linear map."""


@dataclass(frozen=True)
class Overlap:
    """Two masks of the same ``entries`` n that keep ``kept`` K_a and K_b, ``shared`` of them both.

    Of two masks drawn uniformly, ``expected`` K_a K_b / n are shared, with deviation ``sd`` (hypergeometric). ``z``: (shared - expected) / sd,
    None where chance has no choice. ``fraction``: shared / min(K_a, K_b); ``iou``: shared / those in either; ``enrichment``: shared / expected;
    None where nothing is kept.
    """

    entries: int
    kept: tuple[int, int]
    shared: int
    expected: float
    sd: float
    z: float | None
    fraction: float | None
    iou: float | None
    enrichment: float | None

    @classmethod
    def of(cls, one: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]) -> "Overlap":
        """Of boolean masks by name, all entries together. InputError: not the same names and shapes, or nothing to compare."""
        _require_alike(one, other)
        n = sum(mask.numel() for mask in one.values())
        a, b = (sum(int(mask.sum()) for mask in masks.values()) for masks in (one, other))
        shared = sum(int((mask & other[name]).sum()) for name, mask in one.items())
        expected = a * b / n
        sd = (expected * (1 - a / n) * (n - b) / (n - 1)) ** 0.5 if n > 1 else 0.0
        return cls(
            entries=n,
            kept=(a, b),
            shared=shared,
            expected=expected,
            sd=sd,
            z=(shared - expected) / sd if sd else None,
            fraction=shared / min(a, b) if min(a, b) else None,
            iou=shared / (a + b - shared) if a + b else None,
            enrichment=shared / expected if expected else None,
        )


def concentration(mask: torch.Tensor) -> dict[str, float | None]:
    """How kept entries of a matrix crowd into ``rows`` and ``columns``: the variance of their counts over that of a uniform draw; 1: chance.

    None where chance has no choice. InputError: not a boolean matrix.
    """
    if mask.ndim != 2 or mask.dtype != torch.bool:
        raise InputError(f"overlap: a {mask.dtype} mask of shape {tuple(mask.shape)}; give a boolean matrix")
    n, kept = mask.numel(), int(mask.sum())
    found = {}
    for name, dim in (("rows", 1), ("columns", 0)):
        counts = mask.sum(dim).double()
        share = 1 / len(counts)
        chance = kept * share * (1 - share) * (n - kept) / max(n - 1, 1)
        found[name] = (counts - kept * share).square().mean().item() / chance if chance else None
    return found


def rank_correlation(one: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]) -> float | None:
    """Spearman's rho of two scores by name, all entries together; None where all of one are equal. InputError: as :meth:`Overlap.of`."""
    from scipy.stats import rankdata

    _require_alike(one, other)
    flat = (np.concatenate([scores[name].detach().flatten().cpu().numpy() for name in one]) for scores in (one, other))
    a, b = (ranks - ranks.mean() for ranks in map(rankdata, flat))
    norm = np.sqrt((a @ a) * (b @ b))
    return float(a @ b / norm) if norm else None


def uniform(like: Mapping[str, torch.Tensor], seed: int) -> dict[str, torch.Tensor]:
    """Scores by chance: their largest k m entries are as likely to be these as any others. float64, on the CPU."""
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.rand(each.shape, generator=generator, dtype=torch.float64) for name, each in like.items()}


def middle(layers: int) -> int:
    """Index, from 0, of layer L/2, which is the 12th of 24. InputError: fewer than two layers."""
    if layers < 2:
        raise InputError(f"overlap: an encoder of {layers} layers has no middle one; give at least 2")
    return layers // 2 - 1


def watched(layers: int) -> list[str]:
    """Names of the linear maps that Figure 7 shows: q, k and v of the middle layer."""
    return [f"layers.{middle(layers)}.attention.{matrix}" for matrix in MATRICES]


@dataclass(frozen=True)
class Look:
    """One kind of mask: ``masks`` and ``scores`` of Figure 7's matrices, on the CPU, and how many entries every matrix of the model has ``kept``."""

    masks: Masks
    scores: dict[str, torch.Tensor]
    kept: dict[str, int]


@dataclass(frozen=True)
class Study:
    """Figure 7: a whole fine-tuning of ``warm_up`` (its ``steps`` are those of the whole), with masks of share ``k`` after each of
    ``accumulated`` steps; ``other_seed``: of the second one. InputError: steps that are not within the whole."""

    warm_up: WarmUp
    other_seed: int
    accumulated: Sequence[int] = (100,)
    k: float = 0.005
    per_matrix: bool = False

    def __post_init__(self):
        if not self.accumulated or not all(1 <= step <= self.warm_up.steps for step in self.accumulated):
            raise InputError(
                f"overlap: looks after {list(self.accumulated)} of {self.warm_up.steps} steps; give steps from 1 to the whole's"
            )
        if self.other_seed == self.warm_up.seed:
            raise InputError(f"overlap: seed {self.other_seed} twice; the ceiling needs two seeds")

    def looks(self, problem: TaskProblem) -> dict[str, Look]:
        """By kind: the number of steps as a string, "final", "final, magnitude", "final, other seed", "random" and "uniform".

        ``problem``: of full fine-tuning for the figure, :meth:`TaskProblem.whole`; its model is not touched. InputError: an architecture that
        does not own the figure's matrices.
        """
        if missing := sorted({*watched(problem.layers)} - {*owned(problem.fresh().model)}):
            raise InputError(f"overlap: the architecture does not own {missing[0]}; give TaskProblem.whole")
        found = self._walked(problem.fresh(seed=self.warm_up.seed), self.warm_up, self.accumulated)
        other = replace(self.warm_up, seed=self.other_seed)
        found[OTHER_SEED] = self._walked(problem.fresh(seed=self.other_seed), other, ())[FINAL]
        return found

    def _walked(self, problem: TaskProblem, warm_up: WarmUp, looks: Sequence[int]) -> dict[str, Look]:
        found = {}
        with tqdm(total=warm_up.steps, unit="step", mininterval=1.0) as bar:
            for step in warm_up.walk(problem):
                bar.update()
                if step in looks:
                    found[str(step)] = self._scored(problem, warm_up)
                if step == max(looks, default=0):
                    found[RANDOM] = self._random(problem.fresh(), warm_up, _root_mean_square(_offsets(problem)))
        found[FINAL] = self._scored(problem, warm_up)
        delta = _offsets(problem)
        found[MAGNITUDE] = self._cut(pruning.magnitudes(delta), problem)
        found[UNIFORM] = self._cut(uniform(delta, warm_up.seed), problem)
        return found

    def _random(self, problem: TaskProblem, warm_up: WarmUp, scale: float) -> Look:
        """Of a sub-task that nothing has trained, under a normal offset."""
        generator = torch.Generator().manual_seed(warm_up.seed)
        with torch.no_grad():
            for weight in _offsets(problem).values():
                weight.copy_(scale * torch.randn(weight.shape, generator=generator, dtype=weight.dtype))
        return self._scored(problem, warm_up)

    def _scored(self, problem: TaskProblem, warm_up: WarmUp) -> Look:
        return self._cut(pruning.scores(warm_up.mask_gradients(problem)), problem)

    def _cut(self, scores: Mapping[str, torch.Tensor], problem: TaskProblem) -> Look:
        masks, shown = pruning.masks(scores, self.k, self.per_matrix), watched(problem.layers)
        return Look(
            masks={name: masks[name].cpu() for name in shown},
            scores={name: scores[name].detach().cpu().clone() for name in shown},
            kept={name: int(mask.sum()) for name, mask in masks.items()},
        )


def table(looks: Mapping[str, Look], against: str = FINAL) -> list[dict[str, Any]]:
    """Every other kind compared with ``against``, for each matrix and for ``all`` together: :class:`Overlap` and ``spearman``; plain JSON."""
    rows = []
    for kind, look in looks.items():
        if kind == against:
            continue
        for part, names in {"all": [*look.masks], **{_matrix(name): [name] for name in look.masks}}.items():
            masks, scores = (
                [{name: getattr(each, field)[name] for name in names} for each in (looks[against], look)]
                for field in ("masks", "scores")
            )
            compared = asdict(Overlap.of(*masks)) | {"spearman": rank_correlation(*scores)}
            rows.append({"mask": kind, "matrix": part} | compared | {"kept": list(compared["kept"])})
    return rows


def _matrix(name: str) -> str:
    return name.rpartition(".")[2]


def _offsets(problem: TaskProblem) -> dict[str, torch.Tensor]:
    """W^d of every linear map, as they are: a step of the walk changes them."""
    return {name: own.offset.weight.detach() for name, own in owned(problem.model).items()}


def _root_mean_square(offsets: Mapping[str, torch.Tensor]) -> float:
    entries = sum(each.numel() for each in offsets.values())
    return (sum(each.double().square().sum().item() for each in offsets.values()) / entries) ** 0.5


def _require_alike(one: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]) -> None:
    shapes = [{name: tuple(each.shape) for name, each in masks.items()} for masks in (one, other)]
    if shapes[0] != shapes[1] or not sum(each.numel() for each in one.values()):
        raise InputError(f"overlap: masks of {shapes[0]} and {shapes[1]}; give the same weights, at least one entry")
