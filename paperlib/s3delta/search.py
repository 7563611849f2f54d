"""The structure search: which delta modules a budget is best spent on, learned on the two halves of the training rows (appendix B.1)."""

import math
import time
from contextlib import nullcontext
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from tqdm import tqdm
from transformers import get_linear_schedule_with_warmup

from paperlib import measure
from paperlib.errors import InputError
from paperlib.kernels.dropout import FastDropout
from paperlib.s3delta.bilevel import Bilevel
from paperlib.s3delta.gates import Gates
from paperlib.s3delta.structure import greedy
from paperlib.tasks import splits
from paperlib.training import Problem, checkpoint
from paperlib.training.batches import epoch_batches
from paperlib.training.loop import EVALUATION_BATCH


class Gated(Protocol):
    """What the search asks of a super-net.

    n_i of its K modules, a context in which they are gated by z (K,), and one in which it may count on its frozen weights to stay as they are.
    """

    sizes: torch.Tensor

    def gated(self, z: torch.Tensor): ...

    def casts_kept(self): ...


@dataclass(frozen=True)
class Settings:
    """How to search.

    ``budget``: B in scalars. ``steps``: T, in place of ``epochs`` unless 0. ``interval``: I_eval, steps between validations. ``tau``,
    ``beta``, ``gradient``, ``hard``: see :class:`paperlib.s3delta.gates.Gates`; ``order``: see :class:`paperlib.s3delta.bilevel.Bilevel`.
    Both learning rates fall linearly to 0.
    """

    budget: float
    epochs: int
    batch_size: int
    interval: int
    seed: int
    steps: int = 0
    learning_rate: float = 3e-4
    alpha_learning_rate: float = 0.1
    tau: float = 1.0
    beta: float = 1.0
    gradient: str = "global"
    hard: bool = False
    order: str = "second"
    clip_norm: float = 2.0
    precision: str = "auto"
    checkpoint_seconds: float = 30.0

    @classmethod
    def of(cls, parameters, budget: float) -> "Settings":
        """The settings among a run's parameters, whose own budget is a share; ``budget``: B in scalars."""
        return cls(
            budget, **{each.name: getattr(parameters, each.name) for each in fields(cls) if each.name != "budget"}
        )

    def steps_per_epoch(self, rows: int) -> int:
        """Search steps of one pass over half of ``rows`` training rows."""
        return math.ceil(rows // 2 / self.batch_size)

    def total_steps(self, rows: int) -> int:
        """T."""
        return self.steps or self.epochs * self.steps_per_epoch(rows)


@dataclass(frozen=True)
class Outcome:
    """What a search found, in plain JSON.

    ``p``: probability of every module at the selected step; ``chosen``: numbers of the modules that fill the budget by it, in order of p.
    ``validation``: metrics at every I_eval-th step, and ``alphas`` and ``probabilities`` the logits and p there. ``selected_step``: the last
    of those steps with the highest main metric. ``delta_losses``, ``alpha_losses``: of every step, on batches of D_delta and D_alpha, NaN or
    infinite where they were. ``skipped_updates``: those of alpha or w whose loss or gradient was not finite.
    """

    p: list[float]
    chosen: list[int]
    validation: list[dict[str, float]]
    alphas: list[list[float]]
    probabilities: list[list[float]]
    selected_step: int
    delta_losses: list[float]
    alpha_losses: list[float]
    skipped_updates: int

    def results(self) -> dict[str, Any]:
        """What a record keeps: all but ``alphas``, which p tells up to a constant; None for losses that were not finite."""
        kept = asdict(self)
        del kept["alphas"]
        for name in ("delta_losses", "alpha_losses"):
            kept[name] = [loss if math.isfinite(loss) else None for loss in kept[name]]
        return kept


class Search:
    """One search: step by step, resumable at any of them.

    ``supernet`` gates the delta modules inside ``problem.model``; the caller draws them from a seed. The model's parameters that require
    gradients are w; nothing of them is kept but what they taught alpha, for a structure is retrained from fresh modules. ``folder`` holds the
    checkpoint; None: none. InputError: no validation rows, fewer than two training rows, an interval longer than the search, and what
    :class:`Gates` and :class:`Bilevel` refuse.
    """

    def __init__(self, problem: Problem, supernet: Gated, settings: Settings, folder: Path | None = None):
        self.problem, self.supernet, self.settings, self.folder = problem, supernet, settings, folder
        self.device, self.precision = measure.device(), measure.precision(settings.precision)
        model = problem.model.to(self.device).train()
        self.halves = _halves(len(problem.train), settings.seed)
        self.total_steps = _checked_steps(problem, settings)
        self.weights = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
        self.alpha = torch.nn.Parameter(torch.zeros(len(supernet.sizes), dtype=torch.float64, device=self.device))
        self.gates = Gates(
            supernet.sizes.to(self.device),
            settings.budget,
            settings.tau,
            settings.beta,
            settings.gradient,
            settings.hard,
        )
        self.optimizer = self._adamw()
        weights = list(self.weights.values())
        self.bilevel = Bilevel(
            self._loss, weights, self.alpha, self.gates, self.optimizer, settings.order, settings.clip_norm
        )
        # A stream of its own for gates and dropout, so that loading a model elsewhere changes nothing here.
        torch.manual_seed(settings.seed)
        self.generator = np.random.Generator(np.random.SFC64(settings.seed))
        self.alphas: list[torch.Tensor] = []
        self.unread: list[dict[str, torch.Tensor]] = []
        self.state = {"step": 0, "delta_losses": [], "alpha_losses": [], "validation": [], "skipped": 0}
        self.resumed = folder is not None and self._load()
        self.schedule = get_linear_schedule_with_warmup(
            self.optimizer, 0, self.total_steps, last_epoch=self.state["step"] - 1
        )

    def run(self) -> Outcome:
        """Search to the end and choose."""
        written = time.monotonic()
        with tqdm(total=self.total_steps, initial=self.state["step"], unit="step", mininterval=1.0) as bar:
            while self.state["step"] < self.total_steps:
                for batches in self._remaining_of_epoch():
                    if self.folder and time.monotonic() - written > self.settings.checkpoint_seconds:
                        self._save()
                        written = time.monotonic()
                    self.step(*batches)
                    bar.update()
        return self._outcome()

    def step(self, delta_rows: np.ndarray, alpha_rows: np.ndarray) -> None:
        """One search step on rows of D_delta and of D_alpha (numbers of training rows), and the validation that is due after it."""
        train, state = self.problem.train, self.state
        batches = (self.problem.batch(train, rows) for rows in (delta_rows, alpha_rows))
        with self.supernet.casts_kept():
            found = self.bilevel.step(*batches)
        self.schedule.step()
        self.unread.append(found)
        state["step"] += 1
        if state["step"] % self.settings.interval == 0:
            self._validate()

    def structure(self, alpha: torch.Tensor) -> tuple[torch.Tensor, list[int]]:
        """p (K,) of the logits ``alpha``, on the CPU, and the numbers of the modules that fill the budget by it."""
        with torch.no_grad():
            p = self.gates.p(alpha).cpu()
        return p, greedy(p, self.gates.sizes.cpu(), self.settings.budget)

    def _read(self) -> None:
        """Take what steps since the last reading found off the device, all of it at once; nothing else waits for the device."""
        if self.unread:
            columns = (
                torch.stack(each).tolist() for each in zip(*(found.values() for found in self.unread), strict=True)
            )
            found = dict(zip(self.unread[0], columns, strict=True))
            self.state["delta_losses"] += found["delta"]
            self.state["alpha_losses"] += found["alpha"]
            self.state["skipped"] += int(sum(found["skipped"]))
            self.unread.clear()

    def _loss(self, z: torch.Tensor, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        with self._gated(z), self._autocast(), self._dropout():
            return self.problem.loss(self.problem.logits(batch), batch)

    def _validate(self) -> None:
        """Metrics on the validation rows with gates of p, or those of the structure where gates are hard."""
        self._read()
        p, chosen = self.structure(self.alpha)
        z = torch.zeros_like(p).index_fill(0, torch.tensor(chosen), 1.0) if self.settings.hard else p
        with self._gated(z.to(self.device)), self._autocast():
            scores = self.problem.scores(self.problem.validation, EVALUATION_BATCH)
        self.state["validation"].append(self.problem.evaluate(self.problem.validation, scores))
        self.alphas.append(self.alpha.detach().clone())

    def _gated(self, z: torch.Tensor):
        return self.supernet.gated(z.to(next(iter(self.weights.values())).dtype))

    def _autocast(self):
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16")

    def _dropout(self):
        return FastDropout(self.generator) if self.device.type == "cpu" else nullcontext()

    def _adamw(self) -> torch.optim.AdamW:
        """One optimizer, with a group for w and one for alpha, as :class:`Bilevel` wants it."""
        rates = (self.settings.learning_rate, self.settings.alpha_learning_rate)
        groups = [
            {"params": parameters, "lr": rate, "initial_lr": rate}
            for parameters, rate in zip((list(self.weights.values()), [self.alpha]), rates, strict=True)
        ]
        return torch.optim.AdamW(groups, eps=1e-8, weight_decay=0.0, fused=True)

    def _remaining_of_epoch(self):
        epoch, done = divmod(self.state["step"], self.settings.steps_per_epoch(len(self.problem.train)))
        # Epochs that the other half does not see: the same shuffle would pair the same places of both halves for ever.
        epochs = math.ceil(self.total_steps / self.settings.steps_per_epoch(len(self.problem.train)))
        streams = [self._batches(half, epoch + offset) for half, offset in zip(self.halves, (0, epochs), strict=True)]
        return list(zip(*streams, strict=True))[done:][: self.total_steps - self.state["step"]]

    def _batches(self, half: np.ndarray, epoch: int) -> list[np.ndarray]:
        lengths = self.problem.train.lengths[half]
        return [half[i] for i in epoch_batches(lengths, self.settings.batch_size, self.settings.seed, epoch)]

    def _outcome(self) -> Outcome:
        self._read()
        state, main = self.state, self.problem.task.metrics[0]
        scores = [metrics[main] for metrics in state["validation"]]
        # Ties go to the later step, which has seen more.
        best = max(range(len(scores)), key=lambda number: (scores[number], number))
        p, chosen = self.structure(self.alphas[best])
        return Outcome(
            p=p.tolist(),
            chosen=chosen,
            validation=state["validation"],
            alphas=[alpha.tolist() for alpha in self.alphas],
            probabilities=[self.structure(alpha)[0].tolist() for alpha in self.alphas],
            selected_step=(best + 1) * self.settings.interval,
            delta_losses=state["delta_losses"],
            alpha_losses=state["alpha_losses"],
            skipped_updates=state["skipped"],
        )

    def named_parameters(self):
        """What a checkpoint holds: w by name, never the frozen backbone, and alpha."""
        yield from self.weights.items()
        yield "alpha", self.alpha

    def state_dict(self) -> dict[str, torch.Tensor]:
        """What a checkpoint holds besides: the logits of every validation so far."""
        return {f"alphas.{number:06d}": alpha for number, alpha in enumerate(self.alphas)}

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        """Take back what ``state_dict`` returned."""
        self.alphas = [state[name].to(self.device) for name in sorted(state)]

    def _save(self) -> None:
        self._read()
        checkpoint.save(self.folder, self, self.optimizer, self, self.generator, self.state)

    def _load(self) -> bool:
        state = checkpoint.load(self.folder, self, self.optimizer, self, self.generator)
        self.state = state or self.state
        return state is not None


def _checked_steps(problem: Problem, settings: Settings) -> int:
    """T, if the problem can be searched on."""
    if problem.validation is None:
        raise InputError("a search selects its structure on validation rows; use the s3delta protocol, which has some")
    steps = settings.total_steps(len(problem.train))
    if not 1 <= settings.interval <= steps:
        raise InputError(
            f"validation every {settings.interval} steps in a search of {steps}; give an interval between 1 and {steps}"
        )
    return steps


def _halves(rows: int, seed: int) -> list[np.ndarray]:
    """Numbers of the training rows of D_delta and of D_alpha."""
    import pandas as pd

    return [half["row"].to_numpy() for half in splits.halves(pd.DataFrame({"row": np.arange(rows)}), seed)]
