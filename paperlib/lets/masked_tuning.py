"""From an architecture to a tuned sub-task: Delta-pruning finds which offsets are kept, masked fine-tuning trains those (appendix A.2, C and D).

Stated: 100 steps of warm-up fine-tuning of a copy, one mini-batch, the mask made ahead of fine-tuning, the pre-trained weights without
gradient, transformer biases with a learning-rate schedule of their own, at most 1.2 times the memory of fine-tuning. Inferred, in no source:

1.  Ranked and masked are the matrices that the architecture owns. Biases, layer norms and readout are trained whole; embeddings are frozen.
2.  The warm-up trains all that the sub-task owns with Adam at 2e-5, biases at the same rate, both constant, no decay. With Adam every offset that
    is sampled well is of one size and the score tends to |dL/dW|; with "sgd" it is the squared gradient.
3.  The mini-batch is of an epoch that the warm-up does not get to, with dropout, as "one mini-batch training" says.
4.  The tuned sub-task begins anew: biases and norms as pre-trained, a fresh readout, and offsets at 0 ("from BERT") or, with "warm", at
    what the warm-up had found for them.
5.  Both schedules are the loop's, warm-up and linear fall, one twenty-five to fifty times the other.
6.  The mask is in the forward pass: what is not kept does not exist, and no moment or decay can reach it.
"""

import math
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch.nn.utils import clip_grad_norm_

from paperlib import measure
from paperlib.errors import InputError
from paperlib.kernels.dropout import FastDropout
from paperlib.lets import pruning
from paperlib.lets.architecture import Task
from paperlib.lets.offsets import Offset, compact, load, save
from paperlib.lets.own_layers import CompactOffset, OwnLinear, OwnNorm
from paperlib.lets.problem import TaskProblem
from paperlib.training import Method
from paperlib.training.batches import epoch_batches

OPTIMIZERS = {"adam": torch.optim.AdamW, "sgd": torch.optim.SGD}
STARTS = ("zero", "warm")
OFFSETS = "offsets.safetensors"


@dataclass(frozen=True)
class WarmUp:
    """Dense fine-tuning at a constant rate: ``steps`` N_steps, ``optimizer`` "adam" or "sgd". InputError: numbers that are not positive."""

    steps: int = 100
    batch_size: int = 16
    learning_rate: float = 2e-5
    optimizer: str = "adam"
    clip_norm: float = 1.0
    seed: int = 0
    precision: str = "auto"

    def __post_init__(self):
        for name in ("steps", "batch_size", "learning_rate", "clip_norm"):
            if not 0 < getattr(self, name) < math.inf:
                raise InputError(f"warm-up: {name} must be a finite number above 0, got {getattr(self, name):g}")
        if self.optimizer not in OPTIMIZERS:
            raise InputError(f"warm-up: unknown optimizer {self.optimizer!r}; known: {', '.join(OPTIMIZERS)}")

    def walk(
        self, problem: TaskProblem, optimizer: torch.optim.Optimizer | None = None, done: int = 0
    ) -> Iterator[tuple[int, torch.Tensor]]:
        """Train ``problem.model`` in place; yields every step's number and loss once it is done. Draws from streams of its own alone.

        Goes on after ``done`` steps, if model and ``optimizer`` (:meth:`optimizing`; None: a new one) are as these left them.
        """
        network = problem.model.train()
        optimizer = optimizer or self.optimizing(network)
        batches = islice(self._batches(problem), done, None)
        for step in range(done + 1, self.steps + 1):
            loss = self._loss(problem, next(batches), step)
            loss.backward()
            norm = clip_grad_norm_(network.parameters(), self.clip_norm)
            if not norm.isfinite():
                raise InputError(f"warm-up: the gradient of step {step} is not finite; lower the learning rate")
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            yield step, loss.detach()

    def optimizing(self, network: Task) -> torch.optim.Optimizer:
        """A new optimizer of all that ``network`` owns."""
        decay = {"weight_decay": 0.0}
        return OPTIMIZERS[self.optimizer](network.parameters(), lr=self.learning_rate, fused=True, **decay)

    def mask_gradients(self, problem: TaskProblem, look: int = 0) -> dict[str, torch.Tensor]:
        """g (:func:`pruning.mask_gradients`) at the offsets as they are, by name of their linear map, on a batch of an epoch no walk gets to.

        ``look``: another number is another batch, under other dropout.
        """
        weights = {name: own.offset.weight for name, own in owned(problem.model).items()}
        last = 1 + self.steps // -(-len(problem.train) // self.batch_size)
        rows = self._epoch(problem, last + look)[0]
        delta = {name: weight.detach() for name, weight in weights.items()}
        return pruning.mask_gradients(self._loss(problem, rows, self.steps + 1 + look), weights, delta)

    def _loss(self, problem: TaskProblem, rows: np.ndarray, step: int) -> torch.Tensor:
        """Of one batch, with dropout that depends on seed and step alone: a look in between changes no later step."""
        device = measure.device()
        bf16 = measure.precision(self.precision) == "bf16"
        batch = problem.batch(problem.train, rows)
        devices = [] if device.type == "cpu" else [torch.cuda.current_device()]
        generator = np.random.Generator(np.random.SFC64([self.seed, step]))
        dropout = FastDropout(generator) if device.type == "cpu" else nullcontext()
        with torch.random.fork_rng(devices), torch.autocast(device.type, torch.bfloat16, enabled=bf16), dropout:
            torch.manual_seed(int(generator.integers(2**62)))
            return problem.loss(problem.logits(batch), batch)

    def _batches(self, problem: TaskProblem) -> Iterator[np.ndarray]:
        epoch = 0
        while True:
            yield from self._epoch(problem, epoch)
            epoch += 1

    def _epoch(self, problem: TaskProblem, epoch: int) -> list[np.ndarray]:
        return epoch_batches(problem.train.lengths, self.batch_size, self.seed, epoch)


def owned(network: Task) -> dict[str, OwnLinear]:
    """The linear maps that a sub-task owns, by name."""
    return {name: module for name, module in network.named_modules() if isinstance(module, OwnLinear)}


def delta_pruned(
    problem: TaskProblem, k: float, warm_up: WarmUp, per_matrix: bool = False, folder: Path | None = None
) -> dict[str, Offset]:
    """Algorithm 2 on a fresh sub-task of ``problem``'s architecture: the kept share ``k`` of its offsets, with the values of the warm-up.

    Without any walk {} for an architecture that owns no matrix. ``folder``: keeps what was found, and what is found there is taken, so that a
    resumed run has its masks again. ``problem.model`` is not touched. InputError: as :func:`pruning.kept` and :func:`pruning.scores`.
    """
    walker = problem.fresh()
    maps = owned(walker.model)
    if not maps:
        return {}
    pruning.kept(k, sum(own.offset.weight.numel() for own in maps.values()))
    path = folder and folder / OFFSETS
    if path and path.is_file():
        return load(path, {name: own.offset.weight for name, own in maps.items()})
    for _ in warm_up.walk(walker):
        pass
    masks = pruning.masks(pruning.scores(warm_up.mask_gradients(walker)), k, per_matrix)
    found = compact({name: own.offset.weight.detach().cpu() for name, own in maps.items()}, _on_cpu(masks))
    if path:
        save(path, found)
    return found


class MaskedTuning(Method):
    """Trains the kept offsets, biases, norms and readout of a :class:`TaskProblem` (the loop's ``learning_rate``), and its transformer biases
    at ``bias_learning_rate`` on the same schedule.

    ``offsets``: of every linear map that the sub-task owns, as :func:`delta_pruned` gives them; ``start``: their values, "zero" or "warm".
    None: all of the dense ones are trained, the fine-tuning of what is owned.
    InputError: an unknown start, a rate that is not positive; on attaching, offsets of another architecture.
    """

    def __init__(self, offsets: dict[str, Offset] | None, bias_learning_rate: float, start: str = "zero"):
        if start not in STARTS:
            raise InputError(f"masked tuning: unknown start {start!r}; known: {', '.join(STARTS)}")
        if not 0 < bias_learning_rate < math.inf:
            raise InputError(f"masked tuning: a bias learning rate of {bias_learning_rate:g}; give a number above 0")
        self.offsets, self.bias_learning_rate, self.start = offsets, bias_learning_rate, start

    def attach(self, model: torch.nn.Module, total_steps: int) -> None:
        if not isinstance(model, Task):
            raise InputError("masked tuning: the problem is not of LeTS; wrap it in a TaskProblem")
        if self.offsets is not None:
            place(model, self.offsets, zero=self.start == "zero")
        self.model = model
        self._biases = {*model.parameter_groups(1.0, 1.0)[1]["params"]}
        self._norms = {norm.weight for norm in model.modules() if isinstance(norm, OwnNorm)}

    def after_clipping(self, step: int, optimizer: torch.optim.Optimizer) -> None:
        """For this one step biases and layer norms are groups of their own: bit for bit what an optimizer with these groups does."""
        self._groups = [(group, group["params"]) for group in optimizer.param_groups]
        for group, parameters in self._groups:
            rate = group["lr"] * self.bias_learning_rate / group["initial_lr"]
            biases = [parameter for parameter in parameters if parameter in self._biases]
            # The optimizer knows layer norms by the names that transformers gives them; ours have other ones.
            norms = [parameter for parameter in parameters if parameter in self._norms]
            apart = self._biases | self._norms
            group["params"] = [parameter for parameter in parameters if parameter not in apart]
            optimizer.param_groups += [
                {**group, "params": biases, "lr": rate},
                {**group, "params": norms, "weight_decay": 0.0},
            ]

    def after_step(self, step: int, optimizer: torch.optim.Optimizer) -> None:
        """The groups are as the schedule knows them again."""
        del optimizer.param_groups[len(self._groups) :]
        for group, parameters in self._groups:
            group["params"] = parameters

    def found(self) -> dict[str, Offset]:
        """The kept offsets as they are now, by linear map, on the CPU; {} where they are dense."""
        compacts = {
            name: own.offset for name, own in owned(self.model).items() if isinstance(own.offset, CompactOffset)
        }
        return {
            name: Offset(each.values.detach().cpu(), each.indices.cpu(), each.shape) for name, each in compacts.items()
        }

    def sizes(self) -> dict[str, int]:
        """What is stored of the sub-task, in scalars by part (:meth:`Task.sizes`), and the ``bytes`` of its kept offsets."""
        return self.model.sizes() | {"bytes": sum(offset.nbytes for offset in self.found().values())}


def place(network: Task, offsets: dict[str, Offset], zero: bool) -> None:
    """Put compact offsets in place of all dense ones, with their values or at 0. InputError: not one of its shape for each."""
    maps = owned(network)
    shapes = {name: tuple(own.offset.weight.shape) for name, own in maps.items()}
    given = {name: tuple(offset.shape) for name, offset in offsets.items()}
    if odd := sorted(name for name in shapes.keys() | given.keys() if shapes.get(name) != given.get(name)):
        raise InputError(
            f"masked tuning: offsets and architecture differ at {odd[0]}; give the offsets pruned for this architecture"
        )
    for name, own in maps.items():
        device = own.bias.device
        values = offsets[name].values.to(device)
        start = Offset(torch.zeros_like(values) if zero else values, offsets[name].indices.to(device), shapes[name])
        own.offset = CompactOffset(start)


def _on_cpu(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor.cpu() for name, tensor in tensors.items()}
