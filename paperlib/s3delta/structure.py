"""Structures: which delta modules of a search space are kept under a budget, as data that can be saved, averaged and transferred."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from paperlib.errors import InputError
from paperlib.s3delta.positions import Position, candidates
from paperlib.s3delta.supernet import backbone_size

NAME = "structure.json"


@dataclass(frozen=True)
class Structure:
    """``chosen``: names of positions of the search space ``space`` on ``backbone``, in the order of choice, within ``budget`` scalars.

    ``p``: probability of every candidate by name, in the space's order; empty for a random structure.
    """

    backbone: str
    space: str
    budget: float
    chosen: tuple[str, ...]
    p: dict[str, float]

    @classmethod
    def greedy(cls, backbone: str, model: nn.Module, space: str, p: Sequence[float], budget: float) -> "Structure":
        """The most probable modules that fit: see :func:`greedy`. ``p``: (K,) in the order of the space's candidates."""
        positions = candidates(model, space)
        if len(p) != len(positions):
            raise InputError(
                f"{len(p)} probabilities for the {len(positions)} positions of space {space!r} on {backbone!r}"
            )
        names, p = [position.name for position in positions], [float(each) for each in p]
        order = greedy(p, [position.size(model) for position in positions], budget)
        return cls(backbone, space, float(budget), tuple(names[i] for i in order), dict(zip(names, p, strict=True)))

    @classmethod
    def random(cls, backbone: str, model: nn.Module, space: str, budget: float, seed: int) -> "Structure":
        """Modules drawn at random until none fits: see :func:`random`."""
        positions = candidates(model, space)
        order = random([position.size(model) for position in positions], budget, np.random.default_rng(seed))
        return cls(backbone, space, float(budget), tuple(positions[i].name for i in order), {})

    @classmethod
    def average(cls, structures: Sequence["Structure"], model: nn.Module) -> "Structure":
        """The greedy structure of the mean p, over seeds or over tasks. InputError: other backbones, spaces or budgets among them, or no p."""
        first = structures[0]
        for other in structures:
            if (other.backbone, other.space, other.budget, other.p.keys()) != (
                first.backbone,
                first.space,
                first.budget,
                first.p.keys(),
            ):
                raise InputError("structures of different backbones, spaces or budgets cannot be averaged")
        if not first.p:
            raise InputError("random structures have no probabilities to average")
        # By name: a structure that comes from a record has its names in another order than the space.
        names = [position.name for position in candidates(model, first.space)]
        if set(names) != set(first.p):
            raise InputError(f"structures for {first.backbone!r} have other positions than this model")
        mean = [math.fsum(each.p[name] for each in structures) / len(structures) for name in names]
        return cls.greedy(first.backbone, model, first.space, mean, first.budget)

    def positions(self, model: nn.Module) -> list[Position]:
        """The chosen positions, in order. InputError if the model has one of them not."""
        known = {position.name: position for position in candidates(model, self.space)}
        unknown = [name for name in self.chosen if name not in known]
        if unknown:
            raise InputError(
                f"structure for {self.backbone!r}: {len(unknown)} positions that this model does not have, such as {unknown[0]!r}"
            )
        return [known[name] for name in self.chosen]

    def plain(self) -> dict[str, Any]:
        """The structure in plain JSON."""
        return {**asdict(self), "chosen": list(self.chosen)}

    @classmethod
    def of(cls, plain: dict[str, Any]) -> "Structure":
        """Take back what :meth:`plain` returned. KeyError, TypeError, ValueError or AttributeError for anything else."""
        return cls(
            str(plain["backbone"]),
            str(plain["space"]),
            float(plain["budget"]),
            tuple(map(str, plain["chosen"])),
            {str(name): float(p) for name, p in plain["p"].items()},
        )

    def save(self, folder: Path) -> None:
        """Write ``structure.json``."""
        folder.mkdir(parents=True, exist_ok=True)
        part = folder / f"{NAME}.part"
        part.write_text(json.dumps(self.plain(), indent=1, allow_nan=False) + "\n", encoding="utf-8")
        part.replace(folder / NAME)

    @classmethod
    def load(cls, folder: Path, backbone: str) -> "Structure":
        """Read ``structure.json``. InputError: no such file, no structure in it, or one for another backbone than ``backbone``."""
        path = folder / NAME
        try:
            found = cls.of(json.loads(path.read_text(encoding="utf-8")))
        except OSError:
            raise InputError(f"no structure file {path}; save one with Structure.save") from None
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{path} holds no structure: {type(error).__name__} {error}") from None
        if found.backbone != backbone:
            raise InputError(f"{path} is for backbone {found.backbone!r}, not {backbone!r}; search one for it")
        return found


def budget(model: nn.Module, per_ten_thousand: float) -> float:
    """B in scalars: a share of the backbone's parameters in units of 1e-4, the task head and delta modules left out."""
    return per_ten_thousand / 1e4 * backbone_size(model)


def greedy(p: Sequence[float], sizes: Sequence[int], budget: float) -> list[int]:
    """Indices by falling p, ties in their order; one that no longer fits is skipped, and the search goes on.

    The sum of the chosen ``sizes`` never exceeds ``budget``, and what is left is less than any size not chosen. InputError: a p that is no number,
    a budget below every size.
    """
    p = np.asarray(p, dtype=np.float64)
    if np.isnan(p).any():
        raise InputError("a structure cannot be chosen: some probabilities are not numbers")
    return _filled(np.argsort(-p, kind="stable"), sizes, budget)


def random(sizes: Sequence[int], budget: float, generator: np.random.Generator) -> list[int]:
    """Indices, each drawn evenly from those not chosen that still fit, until none does. InputError: a budget below every size."""
    # What does not fit never fits later, so a permutation walked once is the same draw.
    return _filled(generator.permutation(len(sizes)), sizes, budget)


def _filled(order: np.ndarray, sizes: Sequence[int], budget: float) -> list[int]:
    sizes = [int(size) for size in sizes]
    left, chosen = budget, []
    for i in order.tolist():
        if sizes[i] <= left:
            left -= sizes[i]
            chosen.append(i)
    if not chosen:
        raise InputError(f"a budget of {budget:g} scalars holds no module; the smallest has {min(sizes)}")
    return chosen
