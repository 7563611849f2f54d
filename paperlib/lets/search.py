"""The search: which parts of every layer a sub-task owns, learned by gradient on two parts of its training rows (appendix A.2 and B).

Stated: Gumbel-softmax selectors (14), a temperature that falls by exp(-0.065) every tenth of an epoch, a stop once the selected model has not
changed for three tenths, a loss with the expected operations in billions, Adam at 5e-4 for the logits and 2e-5 for the weights, biases
with no rate of their own, 80 % of the training rows for the weights (D1) and 20 % for the logits (D2), the second-order gradient (15) to (17).

Inferred, in no source:

1.  Each step moves the logits first, then the weights, on the same rows of D1 (as DARTS does), of which one frozen pass serves all.
2.  Each of the two draws Gumbel noise and dropout anew; the four passes of one gradient of the logits share theirs.
3.  xi is the weights' learning rate, as in DARTS; a plain gradient step, without Adam's scaling. xi = 0 is the first-order gradient.
4.  Logits start at 0. Both rates are constant. AdamW's eps is that of the transformers library's AdamW, 1e-6; no weight decay.
5.  The weights' gradient is cut to norm 1, the transformers library's default; that of the logits is not cut.
6.  Tenths of an epoch count steps of the weights on D1. The selected model is looked at whenever one is complete, first after the first,
    since logits that have not moved select nothing; four equal looks stop the search.
7.  ``epochs`` bounds a search that never settles. Nothing is selected on validation rows: where there are any they are only looked at, with
    the weights of the super-network and the architecture selected so far.
8.  The loss's form (:mod:`paperlib.lets.objective`); operations are multiply-adds of one sequence, without the readout's, and without the
    frozen part's unless ``overhead`` adds that constant. It matters in "L1": the fewer operations in all, the more each saved one counts, so
    that with the same constants an encoder of 6 layers of 384 is pressed to share nine times as hard as BERT-large.
9.  ``postponed``: epochs in which the weights learn alone; 0, as the appendix has no such phase. But offsets start at 0, where
    to own is to compute what is shared: logits that move at once hear of operations only, and may settle on sharing everything.
10. All in fp32: differences of nearly equal losses (17) leave nothing in bf16.
"""

import math
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.nn.utils import clip_grad_norm_
from tqdm import tqdm

from paperlib import measure
from paperlib.errors import InputError
from paperlib.kernels.dropout import FastDropout
from paperlib.lets import gumbel, operations
from paperlib.lets.architecture import Architecture
from paperlib.lets.bilevel import Slope, architecture_gradient, replaying
from paperlib.lets.frozen_pass import FrozenPass
from paperlib.lets.objective import OWN, Objective, reconstruction
from paperlib.lets.operations import Encoder
from paperlib.lets.problem import TaskProblem
from paperlib.training import checkpoint
from paperlib.training.batches import epoch_batches
from paperlib.training.loop import EVALUATION_BATCH

D1_SHARE = 0.8


@dataclass(frozen=True)
class Settings:
    """How to search. ``epochs``: at most so many, of D1, after the ``postponed`` ones in which the logits rest. ``interval``: steps between looks
    at validation rows; 0: none.

    ``bias_learning_rate``: of the transformer's biases, a group of their own; in the search the paper gives them the others' rate. ``xi``: the
    unrolled step, 0 for the first order. ``form``, ``alpha``, ``beta``: see :class:`Objective`. ``length``, ``density``: tokens and kept share
    of the offsets that operations are counted for; ``overhead``: with those of the whole frozen pass. ``temperature``, ``anneal``: T_0, and
    the fall of log T per tenth. ``patience``: in tenths.
    InputError: a number outside its range.
    """

    epochs: int
    batch_size: int = 16
    seed: int = 0
    interval: int = 0
    learning_rate: float = 2e-5
    bias_learning_rate: float = 2e-5
    alpha_learning_rate: float = 5e-4
    xi: float = 2e-5
    form: str = "L1"
    alpha: float = 0.5
    beta: float = 0.5
    length: int = 128
    density: float = 0.005
    overhead: bool = False
    postponed: float = 0.0
    temperature: float = gumbel.START
    anneal: float = gumbel.RATE
    patience: int = gumbel.PATIENCE
    clip_norm: float = 1.0
    checkpoint_seconds: float = 30.0

    def __post_init__(self):
        at_least = {"epochs": 1, "batch_size": 1, "interval": 0, "xi": 0, "postponed": 0}
        for name, least in at_least.items():
            if not least <= getattr(self, name) < math.inf:
                raise InputError(f"search: {name} must be a finite number from {least}, got {getattr(self, name):g}")
        for name in ("learning_rate", "bias_learning_rate", "alpha_learning_rate", "clip_norm"):
            if not 0 < getattr(self, name) < math.inf:
                raise InputError(f"search: {name} must be a finite number above 0, got {getattr(self, name):g}")
        gumbel.annealed(0, self.temperature, self.anneal)

    @classmethod
    def of(cls, parameters) -> "Settings":
        """The settings among a run's parameters; those it has not keep their defaults."""
        known = (each.name for each in fields(cls))
        return cls(**{name: getattr(parameters, name) for name in known if hasattr(parameters, name)})


@dataclass(frozen=True)
class Outcome:
    """What a search found, in plain JSON.

    ``architecture``: s1, s2, s3 of every layer from the bottom, true where it owns; ``operations``: of it. ``p_own``: softmax of its logits,
    without noise. ``steps``: those taken; ``settled``: whether the early stop ended them. ``looks``: at every completed tenth its number
    ``tenths``, the ``step``, the ``temperature`` from then on, ``alpha`` (L, 3, 2), the ``architecture`` selected and its ``operations``.
    Of every step: ``train_losses`` on D1 and ``expected``, E_ops of the same pass. Of every step that was not postponed: ``search_losses`` on D2
    at W' and ``corrections``, |xi (17)| / |first term of (16)|. NaN or infinite where they were. ``validation``: metrics every ``interval``
    steps. ``skipped_updates``: of alpha or W, whose loss or gradient was not finite.
    """

    architecture: list[list[bool]]
    p_own: list[list[float]]
    steps: int
    settled: bool
    operations: float
    looks: list[dict[str, Any]]
    train_losses: list[float]
    search_losses: list[float]
    corrections: list[float]
    expected: list[float]
    validation: list[dict[str, float]]
    skipped_updates: int

    def results(self) -> dict[str, Any]:
        """What a record keeps: None for numbers that were not finite."""
        kept = asdict(self)
        for name in ("train_losses", "search_losses", "corrections", "expected"):
            kept[name] = [number if math.isfinite(number) else None for number in kept[name]]
        return kept


class _Rows(NamedTuple):
    """A batch with its frozen pass."""

    batch: dict[str, torch.Tensor]
    shared: FrozenPass


class Search:
    """One search: step by step, resumable at any of them.

    ``problem``: a super-network, :meth:`TaskProblem.whole`, whose weights W are searched with; none of them outlives the search. ``folder`` holds
    the checkpoint; None: none. InputError: a sub-task that shares anything, fewer than two training rows, an interval without validation rows.
    """

    def __init__(self, problem: TaskProblem, settings: Settings, folder: Path | None = None):
        self.problem, self.settings, self.folder = problem, settings, folder
        _require_searchable(problem, settings)
        self.device = measure.device()
        self.network = problem.model.train()
        self.parts = parts(len(problem.train), settings.seed)
        self.steps_per_epoch, self._search_batches = (-(-len(part) // settings.batch_size) for part in self.parts)
        self.postponed = round(settings.postponed * self.steps_per_epoch)
        self.total_steps = self.postponed + settings.epochs * self.steps_per_epoch
        self.alpha = torch.nn.Parameter(torch.zeros(problem.layers, 3, 2, dtype=torch.float64, device=self.device))
        self.objective = Objective(settings.form, settings.alpha, settings.beta)
        encoder = Encoder.of(problem.frozen.config)
        overhead = operations.total(encoder, settings.length) if settings.overhead else 0
        self.cost = reconstruction(encoder, settings.length, settings.density, overhead)
        self.early_stop = gumbel.EarlyStop(settings.patience)
        self.weights = [*self.network.parameters()]
        self.optimizer = self._adamw()
        # A stream of its own for noise and dropout, so that loading a model elsewhere changes nothing here.
        torch.manual_seed(settings.seed)
        # Checkpoints hold one beside torch's; nothing is drawn from it.
        self.generator = np.random.Generator(np.random.SFC64(settings.seed))
        numbers = ("train_losses", "search_losses", "corrections", "expected")
        self.state = {"step": 0, "settled": False, "looks": [], "validation": [], "skipped": 0}
        self.state |= {name: [] for name in numbers}
        self.resumed = folder is not None and self._load()

    @property
    def temperature(self) -> float:
        """T_n of the step to come."""
        return gumbel.annealed(self.tenths, self.settings.temperature, self.settings.anneal)

    @property
    def tenths(self) -> int:
        """n, the completed tenths of an epoch, since the logits move."""
        return gumbel.tenth(max(self.state["step"] - self.postponed, 0), self.steps_per_epoch)

    @property
    def architecture(self) -> Architecture:
        """The likelier choice of every selector, by its logits; a tie is shared."""
        return Architecture(tuple(tuple(row) for row in (gumbel.selected(self.alpha) == OWN).tolist()))

    def run(self) -> Outcome:
        """Search until the selected model settles, or to the last step."""
        written, state = time.monotonic(), self.state
        batches = zip(self._batches(0, self.steps_per_epoch), self._batches(1, self._search_batches), strict=True)
        with tqdm(total=self.total_steps, initial=state["step"], unit="step", mininterval=1.0) as bar:
            while state["step"] < self.total_steps and not state["settled"]:
                # Before a step, never after: what is looked at after a step belongs to it.
                if self.folder and time.monotonic() - written > self.settings.checkpoint_seconds:
                    self._save()
                    written = time.monotonic()
                self.step(*next(batches))
                bar.update()
        return self._outcome()

    def step(self, train_rows: np.ndarray, search_rows: np.ndarray) -> None:
        """One step of alpha, then of W, on rows of D1 and of D2 (numbers of training rows), and the looks that are due after it."""
        train, before = self._rows(train_rows), self.tenths
        if self.state["step"] >= self.postponed:
            self._move_alpha(train, self._rows(search_rows))
        self._move_weights(train)
        self.state["step"] += 1
        if self.tenths > before:
            self._look()
        if self.settings.interval and self.state["step"] % self.settings.interval == 0:
            self._validate()

    def loss(self, rows: _Rows) -> torch.Tensor:
        """L(W, alpha) of a batch under fresh noise, a scalar."""
        return self._loss_and_operations(rows)[0]

    def slope(self, train: _Rows, search: _Rows) -> Slope:
        """G_alpha of rows of D1 and of D2, the noise of all passes the same."""
        loss = replaying(self.loss, self.weights)
        return architecture_gradient(loss, self.alpha, self.weights, search, train, self.settings.xi)

    def _loss_and_operations(self, rows: _Rows) -> tuple[torch.Tensor, torch.Tensor]:
        # Noise first: batches of other shapes draw other numbers from dropout on, and must not from P.
        p = gumbel.probabilities(self.alpha, gumbel.noise(self.alpha), self.temperature)
        own = p[..., OWN].to(self.weights[0].dtype)
        expected = self.cost.expected(p)
        with self._dropout():
            logits = self.problem.logits(rows.batch, rows.shared, own)
        return self.objective(self.problem.loss(logits, rows.batch), expected), expected

    def _rows(self, numbers: np.ndarray) -> _Rows:
        batch = self.problem.batch(self.problem.train, numbers)
        return _Rows(batch, self.problem.shared(batch))

    def _dropout(self):
        """Dropout's own stream where it has one, begun by torch's generator: whoever replays that one replays this one."""
        if self.device.type != "cpu":
            return nullcontext()
        return FastDropout(np.random.Generator(np.random.SFC64(int(torch.randint(2**62, ())))))

    def _move_alpha(self, train: _Rows, search: _Rows) -> None:
        slope = self.slope(train, search)
        state = self.state
        state["search_losses"].append(slope.value.item())
        state["corrections"].append((slope.correction.norm() / slope.first.norm()).item())
        self.alpha.grad = slope.total
        self._update(math.isfinite(state["search_losses"][-1]) and bool(slope.total.isfinite().all()))

    def _move_weights(self, train: _Rows) -> None:
        loss, expected = self._loss_and_operations(train)
        loss.backward(inputs=self.weights)
        norm = clip_grad_norm_(self.weights, self.settings.clip_norm)
        self.state["train_losses"].append(loss.item())
        self.state["expected"].append(expected.item())
        self._update(math.isfinite(loss.item()) and bool(norm.isfinite()))

    def _update(self, sound: bool) -> None:
        """Move what has a gradient, unless that is not finite."""
        if sound:
            self.optimizer.step()
        else:
            self.state["skipped"] += 1
        self.optimizer.zero_grad(set_to_none=True)

    def _look(self) -> None:
        self.state["looks"].append(
            {
                "tenths": self.tenths,
                "step": self.state["step"],
                "temperature": self.temperature,
                "alpha": self.alpha.tolist(),
                "architecture": [list(row) for row in self.architecture.layers],
                "operations": self._operations(),
            }
        )
        self.state["settled"] = self.early_stop.look(self.tenths, gumbel.selected(self.alpha))

    def _operations(self) -> float:
        return self.cost.discrete(gumbel.selected(self.alpha))

    def _validate(self) -> None:
        chosen = self.network.architecture
        self.network.architecture = self.architecture
        scores = self.problem.scores(self.problem.validation, EVALUATION_BATCH)
        self.network.architecture = chosen
        self.state["validation"].append(self.problem.evaluate(self.problem.validation, scores))

    def _adamw(self) -> torch.optim.AdamW:
        """One optimizer: weights, biases and logits are groups of it, and what has no gradient does not move."""
        settings = self.settings
        groups = self.network.parameter_groups(settings.learning_rate, settings.bias_learning_rate)
        groups.append({"params": [self.alpha], "lr": settings.alpha_learning_rate})
        return torch.optim.AdamW(groups, eps=1e-6, weight_decay=0.0, fused=True)

    def _batches(self, part: int, per_epoch: int) -> Iterator[np.ndarray]:
        """The part's batches of row numbers from the present step on, for ever."""
        rows = self.parts[part]
        epoch, done = divmod(self.state["step"], per_epoch)
        while True:
            batches = epoch_batches(
                self.problem.train.lengths[rows], self.settings.batch_size, self.settings.seed, epoch
            )
            yield from (rows[batch] for batch in batches[done:])
            epoch, done = epoch + 1, 0

    def _outcome(self) -> Outcome:
        state = self.state
        return Outcome(
            architecture=[list(row) for row in self.architecture.layers],
            p_own=torch.softmax(self.alpha.detach(), -1)[..., OWN].tolist(),
            steps=state["step"],
            settled=state["settled"],
            operations=self._operations(),
            looks=state["looks"],
            train_losses=state["train_losses"],
            search_losses=state["search_losses"],
            corrections=state["corrections"],
            expected=state["expected"],
            validation=state["validation"],
            skipped_updates=state["skipped"],
        )

    def named_parameters(self):
        """What a checkpoint holds: W by name, never the frozen encoder, and alpha."""
        yield from self.network.named_parameters()
        yield "alpha", self.alpha

    def state_dict(self) -> dict[str, torch.Tensor]:
        """What a checkpoint holds besides: the early stop's last look."""
        return self.early_stop.state_dict()

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        """Take back what ``state_dict`` returned."""
        self.early_stop.load_state_dict(state)

    def _save(self) -> None:
        checkpoint.save(self.folder, self, self.optimizer, self, self.generator, self.state)

    def _load(self) -> bool:
        state = checkpoint.load(self.folder, self, self.optimizer, self, self.generator)
        self.state = state or self.state
        return state is not None


def parts(rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of the training rows of D1, 80 %, and of D2, the rest; at least one each. InputError: fewer than two rows."""
    if rows < 2:
        raise InputError(f"search: {rows} training rows cannot be parted into D1 and D2; give at least 2")
    order = np.random.default_rng([seed, *b"parts"]).permutation(rows)
    of_d1 = min(max(round(D1_SHARE * rows), 1), rows - 1)
    return np.sort(order[:of_d1]), np.sort(order[of_d1:])


def _require_searchable(problem: TaskProblem, settings: Settings) -> None:
    if problem.architecture != Architecture.all_own(problem.layers):
        raise InputError("search: the sub-task shares parts already; give the super-network, TaskProblem.whole")
    if settings.interval and problem.validation is None:
        raise InputError("search: validation every so many steps, but no validation rows; give interval 0 or some rows")
