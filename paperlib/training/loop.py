"""The training loop that every method of every paper runs on."""

import math
import time
from contextlib import nullcontext
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm
from transformers import get_linear_schedule_with_warmup

from paperlib import measure
from paperlib.errors import InputError
from paperlib.kernels.dropout import FastDropout
from paperlib.training import checkpoint
from paperlib.training.batches import epoch_batches
from paperlib.training.method import Method
from paperlib.training.optimizer import adamw
from paperlib.training.problem import Problem

EVALUATION_BATCH = 64


@dataclass(frozen=True)
class Settings:
    """How to train.

    ``steps``: T, optimizer steps, in place of ``epochs`` unless 0. ``warmup_steps`` stands in place of ``warmup_ratio``, a share of T,
    unless 0. ``interval``: I_eval, steps between validations; 0 for one after every epoch; the last step is followed by one in any case.
    ``clip_norm`` bounds the global gradient norm. ``decay_towards``, ``layer_decay``, ``layer_decay_form``: see
    :mod:`paperlib.training.optimizer`. ``in_turn``: torch's operators move the weights also where one pass could.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    seed: int
    steps: int = 0
    interval: int = 0
    accumulation: int = 1
    warmup_ratio: float = 0.1
    warmup_steps: int = 0
    weight_decay: float = 0.01
    decay_towards: str = "zero"
    layer_decay: float = 1.0
    layer_decay_form: str = "electra"
    clip_norm: float = 1.0
    precision: str = "auto"
    in_turn: bool = False
    checkpoint_seconds: float = 30.0

    @classmethod
    def of(cls, parameters) -> "Settings":
        """The settings among a run's parameters; those it has not keep their defaults."""
        known = (each.name for each in fields(cls))
        return cls(**{name: getattr(parameters, name) for name in known if hasattr(parameters, name)})

    def steps_per_epoch(self, rows: int) -> int:
        """Optimizer steps of one pass over ``rows`` rows."""
        return math.ceil(math.ceil(rows / self.batch_size) / self.accumulation)

    def total_steps(self, rows: int) -> int:
        """T, optimizer steps of the whole run."""
        return self.steps or self.epochs * self.steps_per_epoch(rows)

    def warmup(self, rows: int) -> int:
        """Optimizer steps over which the learning rate rises; InputError if there are no more steps than that."""
        if self.warmup_steps >= self.total_steps(rows):
            raise InputError(
                f"warmup_steps {self.warmup_steps} of {self.total_steps(rows)} steps leave none at the full rate; warm up for fewer"
            )
        return self.warmup_steps or math.ceil(self.warmup_ratio * self.total_steps(rows))


@dataclass
class Outcome:
    """What a training run found; plain JSON in all fields but ``scores`` (the model's answers to the test rows).

    ``losses``: training loss of every optimizer step; a record holds None where it was not finite. ``validation``: metrics of each
    validation, empty when nothing is selected. ``selected_step``: the step whose weights were tested (the last one when nothing is
    selected). ``skipped_steps``: steps whose loss or gradient was not finite. ``tokens``: of all training rows seen, targets of
    text-to-text models left out. ``test``: metrics on the test rows.
    """

    losses: list[float]
    validation: list[dict[str, float]]
    selected_step: int
    skipped_steps: int
    tokens: int
    test: dict[str, float]
    scores: Any = field(repr=False)

    def results(self, problem: Problem) -> dict[str, Any]:
        """Everything a record keeps: no timings, only what the same run gives again.

        ``correct``: 1 or 0 per test row, in the split's order, or None where right and wrong is no matter of one class. ``degenerate``: the model
        gives every test row the same class.
        """
        predicted = problem.classes(self.scores)
        return {
            "test": self.test,
            "validation": self.validation,
            "selected_step": self.selected_step,
            "losses": [loss if math.isfinite(loss) else None for loss in self.losses],
            "skipped_steps": self.skipped_steps,
            "tokens": self.tokens,
            "train_rows": len(problem.train),
            "test_rows": len(problem.test),
            "correct": None if predicted is None else [int(right) for right in predicted == problem.test.gold],
            "degenerate": predicted is not None and len(set(predicted.tolist())) == 1,
        }


class Loop:
    """One training run: step by step, resumable at any of them.

    ``folder`` holds the checkpoints, and the best weights of a problem with validation rows, which needs one; None: no checkpoints.
    """

    def __init__(self, problem: Problem, method: Method, settings: Settings, folder: Path | None = None):
        self.problem, self.method, self.settings, self.folder = problem, method, settings, folder
        self.model = problem.model.to(measure.device()).train()
        self.device, self.precision = measure.device(), measure.precision(settings.precision)
        # A stream of its own for dropout and whatever methods draw, so that loading a model elsewhere changes nothing here.
        torch.manual_seed(settings.seed)
        self.generator = np.random.Generator(np.random.SFC64(settings.seed))
        self.steps_per_epoch = settings.steps_per_epoch(len(problem.train))
        self.total_steps = settings.total_steps(len(problem.train))
        method.attach(self.model, self.total_steps)
        self.optimizer = adamw(self.model, settings)
        self.state = {"step": 0, "losses": [], "validation": [], "selected_step": 0, "skipped": 0, "tokens": 0}
        self.resumed = folder is not None and self._load()
        self.schedule = get_linear_schedule_with_warmup(
            self.optimizer,
            settings.warmup(len(problem.train)),
            self.total_steps,
            last_epoch=self.state["step"] - 1,
        )
        if not self.resumed:
            # An epoch that training does not see.
            with self._dropout():
                method.prepare(problem, self._batches(self.total_steps // self.steps_per_epoch + 1))

    def run(self) -> Outcome:
        """Train to the end, test once, and return what was found."""
        written = time.monotonic()
        with tqdm(total=self.total_steps, initial=self.state["step"], unit="step", mininterval=1.0) as bar:
            while self.state["step"] < self.total_steps:
                for micro_batches in self._remaining_of_epoch():
                    # Before a step, never after: what is validated after a step belongs to it.
                    if self.folder and time.monotonic() - written > self.settings.checkpoint_seconds:
                        self._save()
                        written = time.monotonic()
                    self.step(micro_batches)
                    self._validate_if_due()
                    bar.update()
        return self._outcome()

    def step(self, micro_batches: list[np.ndarray]) -> None:
        """One optimizer step over one or more micro-batches of row numbers."""
        step, state = self.state["step"] + 1, self.state
        sizes = [self.problem.averaged(self.problem.train, indices) for indices in micro_batches]
        total = 0.0
        for indices, size in zip(micro_batches, sizes, strict=True):
            batch = self.problem.batch(self.problem.train, indices)
            with self.method.forward_weights(step), self._autocast(), self._dropout():
                loss = self.method.loss(self.problem, batch) * (size / sum(sizes))
            loss.backward()
            total += loss.item()
            state["tokens"] += int(self.problem.train.lengths[indices].sum()) * self.problem.train.choices
        state["losses"].append(total)
        if not (math.isfinite(total) and self._update(step)):
            state["skipped"] += 1
        self.optimizer.zero_grad(set_to_none=True)
        self.schedule.step()
        state["step"] = step

    def _update(self, step: int) -> bool:
        """Move the weights, unless the gradient is not finite; whether they moved."""
        norm = self.optimizer.norm()
        if not torch.isfinite(norm):
            return False
        changed = self.method.after_backward(step)
        with self._dropout():
            self.optimizer.update(self.method, step, self.settings.clip_norm, None if changed else norm)
        self.method.after_step(step, self.optimizer)
        return True

    def _autocast(self):
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16")

    def _dropout(self):
        return FastDropout(self.generator) if self.device.type == "cpu" else nullcontext()

    def _remaining_of_epoch(self):
        epoch, done = divmod(self.state["step"], self.steps_per_epoch)
        batches, size = self._batches(epoch), self.settings.accumulation
        steps = [batches[start : start + size] for start in range(0, len(batches), size)]
        return steps[done:][: self.total_steps - self.state["step"]]

    def _batches(self, epoch: int) -> list[np.ndarray]:
        return epoch_batches(self.problem.train.lengths, self.settings.batch_size, self.settings.seed, epoch)

    def _validate_if_due(self) -> None:
        step = self.state["step"]
        due = step % (self.settings.interval or self.steps_per_epoch) == 0 or step == self.total_steps
        if self.problem.validation is None or not due:
            return
        metrics = self.problem.evaluate(self.problem.validation, self._scores(self.problem.validation))
        history, main = self.state["validation"], self.problem.task.metrics[0]
        history.append(metrics)
        # Ties go to the later step, which has seen more.
        if metrics[main] >= max(past[main] for past in history):
            self.state["selected_step"] = step
            checkpoint.save_best(self.folder, self.model)

    def _scores(self, rows):
        with self._autocast():
            return self.problem.scores(rows, EVALUATION_BATCH)

    def _outcome(self) -> Outcome:
        state = self.state
        if self.problem.validation is not None:
            checkpoint.load_best(self.folder, self.model)
        scores = self._scores(self.problem.test)
        return Outcome(
            losses=state["losses"],
            validation=state["validation"],
            selected_step=state["selected_step"] or self.total_steps,
            skipped_steps=state["skipped"],
            tokens=state["tokens"],
            test=self.problem.evaluate(self.problem.test, scores),
            scores=scores,
        )

    def _save(self) -> None:
        checkpoint.save(self.folder, self.model, self.optimizer, self.method, self.generator, self.state)

    def _load(self) -> bool:
        state = checkpoint.load(self.folder, self.model, self.optimizer, self.method, self.generator)
        self.state = state or self.state
        return state is not None
