"""What sharing saves, measured: one engine for N sub-tasks beside N separate fine-tuned models, in one process, against eqs. (10) to (13).

Nothing is trained: the time does not depend on what the weights say. Sub-tasks have random offsets of a given kept share, separate models are
copies of the backbone with weights of their own. All answer the same batch.
"""

import time
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from statistics import median

import torch
from torch import nn
from tqdm import tqdm

from paperlib import measure
from paperlib.errors import InputError
from paperlib.lets import metrics, operations, pruning, workload
from paperlib.lets.architecture import Architecture, Task
from paperlib.lets.engine import Engine
from paperlib.lets.frozen_pass import FrozenEncoder
from paperlib.lets.offsets import Offset
from paperlib.lets.operations import Encoder
from paperlib.lets.own_layers import CompactOffset, OwnLinear
from paperlib.lets.readout import ReadoutSizes
from paperlib.lets.workload import Node, Workload


@dataclass(frozen=True)
class Setting:
    """What answers what: sub-tasks of one ``architecture`` with a ``kept`` share of offsets, and a batch of ``batch_size`` rows of ``length``.

    ``weights``, ``only_read``: as in :class:`Engine`. InputError: a kept share outside (0, 1], counts below 1.
    """

    architecture: Architecture
    batch_size: int
    length: int
    kept: float = 0.005
    weights: str = "merged"
    only_read: bool = False
    outputs: int = 2
    sizes: ReadoutSizes = field(default_factory=ReadoutSizes)
    seed: int = 0

    def __post_init__(self):
        pruning.kept(self.kept, 10**9)
        for name in ("batch_size", "length", "outputs"):
            operations.require_positive(getattr(self, name), name)


class Contest:
    """``tasks`` sub-tasks on ``model``, a backbone of the BERT type, and as many separate models, all on this process's device.

    InputError: no tasks, rows longer than the backbone reads, an architecture for another number of layers.
    """

    def __init__(self, model: nn.Module, setting: Setting, tasks: int):
        operations.require_positive(tasks, "number of tasks")
        operations.require_layers(Encoder.of(model.config), setting.architecture)
        longest = getattr(model.config, "max_position_embeddings", setting.length)
        if setting.length > longest:
            raise InputError(f"sharing: rows of {setting.length} tokens; the backbone reads at most {longest}")
        self.setting, self.model = setting, model.to(measure.device()).eval()
        self.names = [f"task {i}" for i in range(1, tasks + 1)]
        self.inputs = _rows(model.config.vocab_size, setting)

    def separate(self, tasks: int) -> list[nn.Module]:
        """Whole models, one per sub-task."""
        return [deepcopy(self.model) for _ in self.names[:tasks]]

    def engine(self, tasks: int) -> Engine:
        """The first ``tasks`` sub-tasks, on a frozen encoder of their own."""
        frozen = FrozenEncoder(deepcopy(self.model))
        torch.manual_seed(self.setting.seed)
        made = {name: _random_task(frozen, self.setting) for name in self.names[:tasks]}
        return Engine(frozen, made, self.setting.weights, self.setting.only_read)

    def work(self, engine: Engine) -> Workload:
        """Predicted operations of an engine's sub-tasks, each waiting for the one before; all keep the same share."""
        encoder, setting = Encoder.of(self.model.config), self.setting
        readout = operations.readout(encoder.layers, encoder.hidden, setting.sizes, setting.outputs)
        return workload.sharing(
            encoder,
            setting.length,
            engine.architectures,
            workload.in_order([*engine.tasks]),
            kept=next(iter(engine.kept.values())),
            readout=sum(readout.values()),
            only_read=setting.only_read,
        )

    def predicted(self, engine: Engine) -> dict[str, float]:
        """Eqs. (10) to (13) of an engine's sub-tasks; ``speedup``: of one device that does one thing after another, 100 N / total operations."""
        bert = operations.total(Encoder.of(self.model.config), self.setting.length)
        found = metrics.summary(self.work(engine), bert)
        return found | {"speedup": 100 * len(engine.tasks) / found["total_operations"]}


@dataclass
class Rounds:
    """Seconds in each round, by number of sub-tasks: of so many ``separate`` models one after the other, and of one ``engine``."""

    separate: dict[int, list[float]]
    engine: dict[int, list[float]]

    def speedups(self, tasks: int) -> list[float]:
        """How many times faster the engine is, in each round."""
        return [one / other for one, other in zip(self.separate[tasks], self.engine[tasks], strict=True)]


@torch.no_grad()
def interleaved(contest: Contest, counts: Sequence[int], rounds: int) -> Rounds:
    """Time ``rounds`` rounds after one that warms up. Between the separate models of a round the engines take their turns, each when as many
    models have answered as it has sub-tasks, so that a drift of the machine's speed hits all alike.

    InputError: a count of sub-tasks that the contest has not, no rounds.
    """
    operations.require_positive(rounds, "number of rounds")
    if not counts or not set(counts) <= set(range(1, len(contest.names) + 1)):
        raise InputError(f"sharing: counts {[*counts]}; give numbers from 1 to {len(contest.names)}")
    models, whole = contest.separate(max(counts)), contest.engine(max(counts))
    engines = {tasks: whole.only(contest.names[:tasks]) for tasks in counts}
    found = Rounds({tasks: [] for tasks in engines}, {tasks: [] for tasks in engines})
    for number in tqdm(range(rounds + 1), unit="round"):
        total = 0.0
        for tasks, model in enumerate(models, start=1):
            total += _seconds(lambda model=model: model(**contest.inputs))
            if tasks in engines:
                seconds = _seconds(lambda tasks=tasks: engines[tasks](**contest.inputs))
                if number:
                    found.separate[tasks].append(total)
                    found.engine[tasks].append(seconds)
    return found


@dataclass(frozen=True)
class Bytes:
    """Of tensors: ``held`` once everything is built, and the ``peak`` of answering one batch."""

    held: int
    peak: int


def memory(contest: Contest, tasks: int) -> dict[str, Bytes]:
    """Bytes of ``separate`` models, which answer one after the other, and of the ``engine``; the batch itself is not in them."""
    contestants = {
        "separate": lambda: _in_turn(contest.separate(tasks)),
        "engine": lambda: contest.engine(tasks),
    }
    found = {}
    for name, build in contestants.items():
        with measure.Allocations() as allocations, torch.no_grad():
            answer = build()
            allocations.mark("built")
            scores = answer(**contest.inputs)
            allocations.mark("answered")
            del scores, answer
        found[name] = Bytes(allocations.held["built"], allocations.peak["answered"])
    return found


def _in_turn(models: list[nn.Module]):
    return lambda **inputs: [model(**inputs).logits for model in models]


@dataclass(frozen=True)
class CriticalPath:
    """The ``work`` of an engine in seconds, node by node, and of one ``whole`` model."""

    work: Workload
    whole: float

    @property
    def max_speedup(self) -> float:
        """Eq. (13) with seconds for operations."""
        return metrics.max_speedup(len(self.work.new_operations), self.work.critical_operations, self.whole)


@torch.no_grad()
def critical_path(contest: Contest, engine: Engine, rounds: int) -> CriticalPath:
    """Median seconds of every node of the work, each measured alone, and of a separate model, which answers once in every round.

    What a device would need that ran in parallel all that may run in parallel, and each node as fast as here. The embeddings count in
    the first node.
    """
    operations.require_positive(rounds, "number of rounds")
    seconds: dict[Node, list[float]] = {}
    whole = []
    for number in range(rounds + 1):
        once = _seconds(lambda: contest.model(**contest.inputs))
        start, nodes = _now(), engine.layer_by_layer({}, **contest.inputs)
        for node in nodes:
            end = _now()
            if number:
                seconds.setdefault(node, []).append(end - start)
            start = _now()
        if number:
            whole.append(once)
    measured = {node: median(each) for node, each in seconds.items()}
    return CriticalPath(Workload(measured, contest.work(engine).waits_for), median(whole))


def _rows(vocabulary: int, setting: Setting) -> dict[str, torch.Tensor]:
    """Ids by chance, without padding."""
    generator = torch.Generator().manual_seed(setting.seed)
    ids = torch.randint(5, vocabulary, (setting.batch_size, setting.length), generator=generator)
    return {"input_ids": ids.to(measure.device()), "attention_mask": torch.ones_like(ids).to(measure.device())}


def _random_task(frozen: FrozenEncoder, setting: Setting) -> Task:
    """A sub-task with small offsets at random places, the same share of every matrix, in compact form."""
    task = Task(frozen, setting.architecture, setting.outputs, setting.sizes)
    for own in task.modules():
        if isinstance(own, OwnLinear):
            own.offset = CompactOffset(_random_offset(own.offset.weight, setting.kept))
    return task


def _random_offset(like: torch.Tensor, share: float) -> Offset:
    places = torch.randperm(like.numel(), device=like.device)[: pruning.kept(share, like.numel())].sort().values
    return Offset(0.01 * torch.randn_like(places, dtype=like.dtype), places.int(), like.shape)


def _seconds(call) -> float:
    start = _now()
    call()
    return _now() - start


def _now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()
