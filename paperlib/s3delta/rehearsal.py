"""A small search and retraining, watched: what is trained, when it is validated, and which rows are looked at (appendix B.1)."""

import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import torch

from paperlib import backbones
from paperlib.s3delta.positions import BASELINES, candidates
from paperlib.s3delta.search import Search
from paperlib.s3delta.search import Settings as SearchSettings
from paperlib.s3delta.structure import Structure, budget
from paperlib.s3delta.supernet import Supernet, head
from paperlib.s3delta.tuning import FINE_TUNING, DeltaTuning
from paperlib.tasks import Task
from paperlib.tasks.splits import Splits
from paperlib.training import Loop, Problem, Settings
from paperlib.training.optimizer import algorithm

SPACE, PER_TEN_THOUSAND = "M", 5.556


@dataclass
class Watched(Problem):
    """A problem that counts how often each part is scored."""

    scored: Counter = field(default_factory=Counter)

    def scores(self, rows, batch_size: int):
        self.scored[next(name for name in ("validation", "test", "train") if rows is getattr(self, name))] += 1
        return super().scores(rows, batch_size)


@dataclass(frozen=True)
class Watch:
    """What was seen of one training: ``steps`` optimizer steps on ``rows`` training rows, ``scored`` how often a part was scored.

    ``optimizer``: its algorithm. ``linear``: largest difference of any learning rate from base (1 - t / T), relative to the base. ``validations``:
    metrics kept. ``selected_step``: whose structure or weights are kept. ``frozen``: the backbone's own parameters are bit for bit what they were.
    """

    phase: str
    rows: int
    steps: int
    scored: dict[str, int]
    optimizer: str
    linear: float
    validations: int
    selected_step: int
    frozen: bool


def rehearse(task: Task, parts: Splits, backbone: str, seed: int, steps: int, interval: int) -> list[Watch]:
    """A search of ``steps`` steps, validated every ``interval``-th, and the retraining of what it found; batches are as large as that takes."""
    loaded, problem = _problem(task, parts, backbone, seed)
    before = _backbone(loaded.model)
    torch.manual_seed(seed)
    supernet = Supernet(loaded.model, candidates(loaded.model, SPACE))
    scalars = budget(loaded.model, PER_TEN_THOUSAND)
    batch = -(-(len(problem.train) // 2) // steps)
    settings = SearchSettings(
        budget=scalars, epochs=1, batch_size=batch, interval=interval, seed=seed, precision="fp32"
    )
    search = Search(problem, supernet, settings)
    rates = _Rates(search.optimizer)
    found = search.run()
    searched = Watch(
        phase="search",
        rows=sum(map(len, search.halves)),
        steps=search.state["step"],
        scored=dict(problem.scored),
        optimizer=algorithm(search.optimizer),
        linear=rates.deviation(search.total_steps),
        validations=len(found.validation),
        selected_step=found.selected_step,
        frozen=_same(before, _backbone(loaded.model)),
    )
    supernet.remove()
    structure = Structure.greedy(backbone, loaded.model, SPACE, found.p, scalars)
    return [searched, _retrained(task, parts, structure, seed, steps, interval)]


def _retrained(task: Task, parts: Splits, structure: Structure, seed: int, steps: int, interval: int) -> Watch:
    loaded, problem = _problem(task, parts, structure.backbone, seed)
    before = _backbone(loaded.model)
    settings = Settings(
        epochs=1,
        batch_size=-(-len(problem.train) // steps),
        learning_rate=3e-4,
        seed=seed,
        interval=interval,
        warmup_ratio=0.0,
        weight_decay=0.0,
        precision="fp32",
        in_turn=True,  # torch's own class, which is looked at
    )
    with tempfile.TemporaryDirectory() as folder:
        loop = Loop(problem, DeltaTuning(structure), settings, Path(folder))
        rates = _Rates(loop.optimizer)
        outcome = loop.run()
    return Watch(
        phase="retrain",
        rows=len(problem.train),
        steps=len(outcome.losses),
        scored=dict(problem.scored),
        optimizer=algorithm(loop.optimizer),
        linear=rates.deviation(loop.total_steps),
        validations=len(outcome.validation),
        selected_step=outcome.selected_step,
        frozen=_same(before, _backbone(loaded.model)),
    )


def _problem(task: Task, parts: Splits, backbone: str, seed: int) -> tuple[backbones.Backbone, Watched]:
    loaded = backbones.load(backbone, task.outputs, seed)
    return loaded, Watched.of(task, parts, loaded)


class _Rates:
    """The learning rates with which an optimizer really steps."""

    def __init__(self, optimizer: torch.optim.Optimizer):
        self.bases = [group["initial_lr"] for group in optimizer.param_groups]
        self.seen: list[list[float]] = []
        optimizer.register_step_pre_hook(self._note)

    def _note(self, optimizer, positional, named) -> None:
        self.seen.append([group["lr"] for group in optimizer.param_groups])

    def deviation(self, total: int) -> float:
        """Largest |rate / base - (1 - t / T)|; where a step has several updates, the rates of one step are the same."""
        per_step = len(self.seen) // total
        return max(
            abs(rate / base - (1 - number // per_step / total))
            for number, rates in enumerate(self.seen)
            for rate, base in zip(rates, self.bases, strict=True)
        )


def _backbone(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Copies of the pre-trained parameters: neither the task head nor delta modules."""
    trained = {*head(model).values()}
    return {n: p.detach().clone() for n, p in model.named_parameters() if p not in trained and ".delta_" not in n}


def _same(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> bool:
    return before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)


def trained(backbone: str, outputs: int) -> list[dict[str, int | str]]:
    """For fine-tuning and every baseline: scalars with a gradient in the backbone, in delta modules and in the task head, and frozen ones."""
    rows = []
    for placement in (FINE_TUNING, *BASELINES):
        model = backbones.load(backbone, outputs, seed=0).model
        DeltaTuning(placement).attach(model, 1)
        inside = {*head(model).values()}
        counts = Counter()
        for name, parameter in model.named_parameters():
            part = "deltas" if ".delta_" in name else "head" if parameter in inside else "backbone"
            counts[part if parameter.requires_grad else "frozen"] += parameter.numel()
        rows.append(
            {"placement": placement} | {part: counts[part] for part in ("backbone", "deltas", "head", "frozen")}
        )
    return rows
