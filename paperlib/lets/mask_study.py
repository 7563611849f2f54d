"""The masks of Figure 7 and its ablation of how W^d is initialized (appendix C): of a whole fine-tuning, of few steps, of a random offset.

Inferred, in no source:

1.  The middle layer is number L/2, the 12th of 24. Scores are ranked over all matrices of all layers, as Algorithm 2's one sum has it; the
    figure's three are cut out afterwards, so that they need not keep 0.5 % of their own weights.
2.  Masks are made with the scores of Algorithm 2 and, of the final and the last accumulated offset, by magnitude: the appendix does not
    say, and near convergence the gradient in the score is little but noise.
3.  Algorithm 2 scores on one mini-batch. All masks of one fine-tuning use the same, but for one, of the final offset: against that no mask
    is similar because it has seen the same rows.
4.  The random offset is normal with the mean square of the accumulated one at the last look, under a fresh readout. Its score still
    holds the true gradient; by magnitude its mask would be a uniform one, which is the zero line.
5.  The ceiling is what two whole fine-tunings of different seeds (readout, batches, dropout) have in common.
6.  The warm-up is the beginning of the whole fine-tuning: same rows, same constant rate.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from paperlib.errors import InputError
from paperlib.lets import pruning
from paperlib.lets.masked_tuning import WarmUp, owned
from paperlib.lets.overlap import Overlap, column_chance, concentration, matrix, rank_correlation, uniform
from paperlib.lets.problem import TaskProblem
from paperlib.training import checkpoint

MATRICES = ("query", "key", "value")
FINAL, OTHER_BATCH, MAGNITUDE = "final", "final, other batch", "final, magnitude"
OTHER_SEED, RANDOM, UNIFORM = "final, other seed", "random", "uniform"
REFERENCES = (FINAL, OTHER_BATCH, MAGNITUDE)


def middle(layers: int) -> int:
    """Index, from 0, of layer L/2, which is the 12th of 24. InputError: fewer than two layers."""
    if layers < 2:
        raise InputError(f"masks: an encoder of {layers} layers has no middle one; give at least 2")
    return layers // 2 - 1


def watched(layers: int) -> list[str]:
    """Names of the linear maps that Figure 7 shows: q, k and v of the middle layer."""
    return [f"layers.{middle(layers)}.attention.{name}" for name in MATRICES]


def by_magnitude(step: int) -> str:
    """The kind of a mask that is made by magnitude after this many steps."""
    return f"{step}, magnitude"


@dataclass(frozen=True)
class Look:
    """One kind of mask, on the CPU, by name of the linear map.

    ``places``: flat indices of what is kept, and ``shapes``, of every matrix; ``scores``: of Figure 7's.
    """

    places: dict[str, torch.Tensor]
    shapes: dict[str, tuple[int, int]]
    scores: dict[str, torch.Tensor]

    @property
    def kept(self) -> dict[str, int]:
        """How many entries of every matrix are kept."""
        return {name: len(each) for name, each in self.places.items()}

    @cached_property
    def columns(self) -> dict[str, torch.Tensor]:
        """How many entries of every column are kept."""
        return {
            name: torch.bincount(each % self.shapes[name][1], minlength=self.shapes[name][1])
            for name, each in self.places.items()
        }

    def mask(self, name: str) -> torch.Tensor:
        """A boolean matrix."""
        return matrix(self.places[name], self.shapes[name])


@dataclass(frozen=True)
class Outcome:
    """What a study found: a :class:`Look` of every kind, and the training ``losses`` of its two fine-tunings."""

    looks: dict[str, Look]
    losses: list[list[float]]

    def results(self) -> dict[str, Any]:
        """Plain JSON: by kind, of Figure 7's matrices the kept places and how these crowd, and the kept entries of every matrix; the overlaps."""
        final = self.looks[FINAL]
        return {
            "shapes": {_short(name): list(final.shapes[name]) for name in final.scores},
            "entries": {name: prod(shape) for name, shape in final.shapes.items()},
            "places": {
                kind: {_short(name): look.places[name].tolist() for name in look.scores}
                for kind, look in self.looks.items()
            },
            "concentration": {
                kind: {_short(name): concentration(look.mask(name)) for name in look.scores}
                for kind, look in self.looks.items()
            },
            "kept": {kind: look.kept for kind, look in self.looks.items()},
            "overlaps": [row for reference in REFERENCES for row in table(self.looks, reference)],
            "losses": self.losses,
        }


@dataclass(frozen=True)
class Study:
    """Figure 7: a whole fine-tuning of ``warm_up`` (its ``steps`` are those of the whole), with masks of share ``k`` after each of
    ``accumulated`` steps; ``other_seed``: of the second one. InputError: steps that are not within the whole."""

    warm_up: WarmUp
    other_seed: int
    accumulated: Sequence[int] = (100,)
    k: float = 0.005
    per_matrix: bool = False
    checkpoint_seconds: float = 30.0

    def __post_init__(self):
        if not self.accumulated or not all(1 <= step <= self.warm_up.steps for step in self.accumulated):
            raise InputError(
                f"masks: looks after {list(self.accumulated)} of {self.warm_up.steps} steps; give steps from 1 to the whole's"
            )
        if self.other_seed == self.warm_up.seed:
            raise InputError(f"masks: seed {self.other_seed} twice; the ceiling needs two seeds")

    def run(self, problem: TaskProblem, folder: Path | None = None) -> Outcome:
        """Looks by kind: the number of steps as a string, of the last also "..., magnitude", "random", "final", "final, other batch",
        "final, magnitude", "final, other seed", "uniform".

        ``problem``: of full fine-tuning for the figure, :meth:`TaskProblem.whole`; its model is not touched. ``folder`` holds the checkpoint,
        from which a killed study goes on exactly; None: none. InputError: an architecture that does not own the figure's matrices, a share
        that keeps nothing, a fine-tuning that diverges.
        """
        return _Walks(self, problem, folder).run()


class _Walks:
    """The two fine-tunings of a study, one after the other, and the masks seen so far."""

    def __init__(self, study: Study, problem: TaskProblem, folder: Path | None):
        self.study, self.plain, self.folder = study, problem, folder
        self.written = time.monotonic()
        # Checkpoints hold one; nothing is drawn from it.
        self.generator = np.random.Generator(np.random.SFC64(0))
        self.found: dict[str, Look] = {}
        self.state: dict[str, Any] = {"losses": [[], []]}
        self._begin(0)
        self.shapes = {name: tuple(offset.shape) for name, offset in _offsets(self.problem).items()}
        self.shown = watched(problem.layers)
        if missing := sorted({*self.shown} - {*self.shapes}):
            raise InputError(f"masks: the architecture does not own {missing[0]}; give TaskProblem.whole")
        pruning.kept(study.k, sum(map(prod, self.shapes.values())))
        self.resumed = folder is not None and self._load()

    @property
    def warm_up(self) -> WarmUp:
        """The present fine-tuning."""
        return replace(self.study.warm_up, seed=(self.study.warm_up.seed, self.study.other_seed)[self.state["walk"]])

    def run(self) -> Outcome:
        """Whatever is left to do."""
        whole = self.study.warm_up.steps
        with tqdm(total=2 * whole, initial=self._done, unit="step", mininterval=1.0) as bar:
            if self.state["walk"] == 0:
                self._walk(bar, self.study.accumulated)
                self._look_at_the_end()
                self._begin(1)
            self._walk(bar, ())
        self.found[OTHER_SEED] = self._scored(self.problem)
        looks = self.study.accumulated
        kinds = (*map(str, looks), by_magnitude(max(looks)), RANDOM, FINAL, OTHER_BATCH, MAGNITUDE, OTHER_SEED, UNIFORM)
        return Outcome({kind: self.found[kind] for kind in kinds}, self.state["losses"])

    @property
    def _done(self) -> int:
        return self.state["walk"] * self.study.warm_up.steps + self.state["step"]

    def _begin(self, walk: int) -> None:
        self.state |= {"walk": walk, "step": 0}
        self.problem = self.plain.fresh(seed=self.warm_up.seed)
        self.optimizer = self.warm_up.optimizing(self.problem.model)

    def _walk(self, bar: tqdm, looks: Sequence[int]) -> None:
        for step, loss in self.warm_up.walk(self.problem, self.optimizer, self.state["step"]):
            self.state["losses"][self.state["walk"]].append(loss.item())
            self.state["step"] = step
            bar.update()
            if step in looks:
                self.found[str(step)] = self._scored(self.problem)
            if step == max(looks, default=0):
                delta = _offsets(self.problem)
                self.found[by_magnitude(step)] = self._cut(pruning.magnitudes(delta))
                self.found[RANDOM] = self._random(_root_mean_square(delta))
            if self.folder and time.monotonic() - self.written > self.study.checkpoint_seconds:
                self._save()

    def _look_at_the_end(self) -> None:
        delta = _offsets(self.problem)
        self.found[FINAL] = self._scored(self.problem)
        self.found[OTHER_BATCH] = self._scored(self.problem, look=1)
        self.found[MAGNITUDE] = self._cut(pruning.magnitudes(delta))
        self.found[UNIFORM] = self._cut(uniform(delta, self.warm_up.seed))

    def _random(self, scale: float) -> Look:
        """Of a sub-task that nothing has trained, under a normal offset."""
        problem = self.plain.fresh(seed=self.warm_up.seed)
        generator = torch.Generator().manual_seed(self.warm_up.seed)
        with torch.no_grad():
            for weight in _offsets(problem).values():
                weight.copy_(scale * torch.randn(weight.shape, generator=generator, dtype=weight.dtype))
        return self._scored(problem)

    def _scored(self, problem: TaskProblem, look: int = 0) -> Look:
        return self._cut(pruning.scores(self.warm_up.mask_gradients(problem, look)))

    def _cut(self, scores: Mapping[str, torch.Tensor]) -> Look:
        masks = pruning.masks(scores, self.study.k, self.study.per_matrix)
        return Look(
            places={name: mask.flatten().nonzero()[:, 0].int().cpu() for name, mask in masks.items()},
            shapes=self.shapes,
            scores={name: scores[name].detach().cpu().clone() for name in self.shown},
        )

    def state_dict(self) -> dict[str, torch.Tensor]:
        """What a checkpoint holds besides: the looks so far."""
        return {
            f"{kind}|{part}|{name}": tensor
            for kind, look in self.found.items()
            for part in ("places", "scores")
            for name, tensor in getattr(look, part).items()
        }

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        """Take back what ``state_dict`` returned."""
        self.found = {
            kind: Look(
                places={name: state[f"{kind}|places|{name}"] for name in self.shapes},
                shapes=self.shapes,
                scores={name: state[f"{kind}|scores|{name}"] for name in self.shown},
            )
            for kind in {key.partition("|")[0] for key in state}
        }

    def _save(self) -> None:
        checkpoint.save(self.folder, self.problem.model, self.optimizer, self, self.generator, self.state)
        self.written = time.monotonic()

    def _load(self) -> bool:
        state = checkpoint.load(self.folder, self.problem.model, self.optimizer, self, self.generator)
        self.state = state or self.state
        return state is not None


def table(looks: Mapping[str, Look], against: str) -> list[dict[str, Any]]:
    """Every other kind compared with ``against``; plain JSON.

    ``matrix``: each of Figure 7's, ``all`` of them, and all that are ranked (``encoder``). :class:`Overlap`; the shared entries that equal
    columns make expect, and z beyond these (:func:`column_chance`); ``spearman`` of the scores, None for the encoder.
    """
    final = looks[against]
    parts = {"encoder": [*final.places], "all": [*final.scores]} | {_short(name): [name] for name in final.scores}
    return [
        {"against": against, "mask": kind, "matrix": part} | _compared(final, look, names, part != "encoder")
        for kind, look in looks.items()
        if kind != against
        for part, names in parts.items()
    ]


def _compared(one: Look, other: Look, names: Sequence[str], ranked: bool) -> dict[str, Any]:
    looks = one, other
    entries = sum(prod(one.shapes[name]) for name in names)
    kept = tuple(sum(look.kept[name] for name in names) for look in looks)
    shared = sum(len(np.intersect1d(one.places[name], other.places[name], assume_unique=True)) for name in names)
    overlap = Overlap.counted(entries, kept, shared)
    columns = ({name: look.columns[name] for name in names} for look in looks)
    expected, sd = column_chance(*columns, {name: one.shapes[name][0] for name in names})
    scores = ({name: look.scores[name] for name in names} for look in looks) if ranked else None
    return asdict(overlap) | {
        "kept": list(kept),
        "expected_in_columns": expected,
        "z_in_columns": (shared - expected) / sd if sd else None,
        "spearman": rank_correlation(*scores) if scores else None,
    }


def _short(name: str) -> str:
    return name.rpartition(".")[2]


def _offsets(problem: TaskProblem) -> dict[str, torch.Tensor]:
    """W^d of every linear map, as they are: a step of the walk changes them."""
    return {name: own.offset.weight.detach() for name, own in owned(problem.model).items()}


def _root_mean_square(offsets: Mapping[str, torch.Tensor]) -> float:
    entries = sum(each.numel() for each in offsets.values())
    return (sum(each.double().square().sum().item() for each in offsets.values()) / entries) ** 0.5
