"""What sharing saves, measured: one engine for N sub-tasks beside N separate fine-tuned models, in one process, against eqs. (10) to (13).

Nothing is trained: the time does not depend on what the weights say. Sub-tasks have random offsets of a given kept share, separate models are
copies of the backbone with weights of their own. All answer the same batch.
"""

from collections.abc import Callable, Mapping, Sequence
from copy import copy, deepcopy
from dataclasses import dataclass, field
from itertools import islice
from statistics import median

import torch
from torch import nn
from tqdm import tqdm

from paperlib import measure
from paperlib.errors import InputError
from paperlib.lets import metrics, operations, workload
from paperlib.lets.architecture import Architecture, Own, Task
from paperlib.lets.engine import Engine
from paperlib.lets.frozen_pass import FrozenEncoder
from paperlib.lets.offsets import Offset
from paperlib.lets.operations import Encoder, Kept
from paperlib.lets.own_layers import CompactOffset, OwnLinear
from paperlib.lets.readout import ReadoutSizes
from paperlib.lets.workload import READOUT, Node, Workload


@dataclass(frozen=True)
class SubTask:
    """A sub-task to be: its ``architecture``, and the ``kept`` share of the offsets it owns, of all layers or of each."""

    architecture: Architecture
    kept: Kept = 0.005


HALF, DECOUPLED, MIXED, ALTERNATING, OWN = "freeze_bottom_half", "decoupled", "mixed", "alternating", "all_own"
KINDS = {
    HALF: "bottom half frozen",
    DECOUPLED: "own attention",
    MIXED: "mixed",
    ALTERNATING: "alternating",
    OWN: "all own",
}
"""Sub-tasks that a contest can be made of, and their titles. Own attention: of every layer, on shared input; mixed: that in the bottom half,
all own above; alternating: own attention and bottom half frozen in turn."""


def sub_tasks(kind: str, layers: int, count: int, kept: Kept = 0.005) -> dict[str, SubTask]:
    """``count`` sub-tasks of a kind of :data:`KINDS`, called "task 1" and so on. InputError: an unknown kind."""
    if kind not in KINDS:
        raise InputError(f"sharing: unknown kind {kind!r}; known: {', '.join(KINDS)}")
    half = layers // 2
    decoupled, frozen = Architecture((Own(False, True, False),) * layers), Architecture.freeze_bottom(layers, half)
    cycle = {
        HALF: [frozen],
        DECOUPLED: [decoupled],
        MIXED: [Architecture(decoupled.layers[:half] + frozen.layers[half:])],
        ALTERNATING: [decoupled, frozen],
        OWN: [Architecture.all_own(layers)],
    }[kind]
    return {f"task {i + 1}": SubTask(cycle[i % len(cycle)], kept) for i in range(count)}


@dataclass(frozen=True)
class Setting:
    """What all contestants answer, ``batch_size`` rows of ``length`` tokens, and how the engine does it.

    ``weights``, ``only_read``, ``together``: as in :class:`Engine`. ``outputs``, ``sizes``: of every sub-task's readout. ``seed``: of rows
    and offsets. InputError: counts below 1.
    """

    batch_size: int
    length: int
    weights: str = "merged"
    only_read: bool = False
    together: bool | None = None
    outputs: int = 2
    sizes: ReadoutSizes = field(default_factory=ReadoutSizes)
    seed: int = 0

    def __post_init__(self):
        for name in ("batch_size", "length", "outputs"):
            operations.require_positive(getattr(self, name), name)


class Contest:
    """``tasks``, sub-tasks by name, on ``model``, a backbone of the BERT type, and as many separate models, all on this process's device.

    InputError: no tasks, rows longer than the backbone reads; of a task an architecture or shares for another number of layers, or a share
    outside [0, 1].
    """

    def __init__(self, model: nn.Module, tasks: Mapping[str, SubTask], setting: Setting):
        operations.require_positive(len(tasks), "number of tasks")
        for task in tasks.values():
            # Looks at a task as a prediction does.
            operations.task(Encoder.of(model.config), setting.length, task.architecture, task.kept)
        longest = getattr(model.config, "max_position_embeddings", setting.length)
        if setting.length > longest:
            raise InputError(f"sharing: rows of {setting.length} tokens; the backbone reads at most {longest}")
        self.tasks, self.setting, self.model = dict(tasks), setting, model.to(measure.device()).eval()
        self.inputs = _rows(model.config.vocab_size, setting)

    def first(self, count: int) -> "Contest":
        """The same between the first ``count`` sub-tasks and models. InputError: there are not as many, or none is asked for."""
        if not 1 <= count <= len(self.tasks):
            raise InputError(
                f"sharing: {count} of {len(self.tasks)} sub-tasks; give a number from 1 to {len(self.tasks)}"
            )
        part = copy(self)
        part.tasks = dict(islice(self.tasks.items(), count))
        return part

    def separate(self) -> list[nn.Module]:
        """Whole models, one per sub-task."""
        return [deepcopy(self.model) for _ in self.tasks]

    def engine(self) -> Engine:
        """The sub-tasks, on a frozen encoder of their own."""
        frozen = FrozenEncoder(deepcopy(self.model))
        torch.manual_seed(self.setting.seed)
        made = {name: _random_task(frozen, task, self.setting) for name, task in self.tasks.items()}
        return Engine(frozen, made, self.setting.weights, self.setting.only_read, self.setting.together)

    def work(self, engine: Engine) -> Workload:
        """Predicted operations of an engine's sub-tasks, each waiting for the one before."""
        encoder, setting = Encoder.of(self.model.config), self.setting
        readout = operations.readout(encoder.layers, encoder.hidden, setting.sizes, setting.outputs)
        return workload.sharing(
            encoder,
            setting.length,
            engine.architectures,
            workload.in_order([*engine.tasks]),
            kept=engine.kept,
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
def interleaved(contest: Contest, engine: Engine, counts: Sequence[int], rounds: int) -> Rounds:
    """Time ``rounds`` rounds after one that warms up, of the first ``counts`` sub-tasks of the contest's ``engine``. Between the separate models of
    a round the engines take their turns, each when as many models have answered as it has sub-tasks, so that a drift of the machine's speed
    hits all alike.

    InputError: a count of sub-tasks that the contest has not, no rounds.
    """
    operations.require_positive(rounds, "number of rounds")
    models = contest.first(max(counts, default=0)).separate()
    engines = {tasks: engine.only(contest.first(tasks).tasks) for tasks in counts}
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
    """Of tensors: ``held`` by the models, and the ``peak`` of answering one batch, what is held in it; the batch itself is not."""

    held: int
    peak: int


def separate_memory(contest: Contest, counts: Sequence[int]) -> dict[int, Bytes]:
    """By number of separate models, which answer one after the other. What is held is summed over tensors, the rise above it is measured.

    InputError: more models than the contest has.
    """
    held = {models: len(contest.first(models).tasks) * _nbytes(contest.model) for models in counts}
    # Their weights do not matter to the rise: one model stands for all.
    return _answering(held, lambda models: [contest.model(**contest.inputs).logits for _ in range(models)])


def engine_memory(contest: Contest, engine: Engine, counts: Sequence[int]) -> dict[int, Bytes]:
    """The same by number of sub-tasks, of the first ones of the contest's ``engine``."""
    parts = {tasks: engine.only(contest.first(tasks).tasks) for tasks in counts}
    held = {tasks: _nbytes(part.frozen) + sum(part.nbytes.values()) for tasks, part in parts.items()}
    return _answering(held, lambda tasks: parts[tasks](**contest.inputs))


@torch.no_grad()
def _answering(held: dict[int, int], answer: Callable[[int], object]) -> dict[int, Bytes]:
    with measure.Allocations() as allocations:
        for count in held:
            answer(count)
            allocations.mark(str(count))
    return {count: Bytes(before, before + allocations.peak[str(count)]) for count, before in held.items()}


def _nbytes(module: nn.Module) -> int:
    return sum(tensor.nbytes for tensor in [*module.parameters(), *module.buffers()])


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
        start, nodes = measure.now(), engine.layer_by_layer({}, **contest.inputs)
        for node in nodes:
            end = measure.now()
            if number:
                seconds.setdefault(node, []).append(end - start)
            start = measure.now()
        if number:
            whole.append(once)
    measured = {node: median(each) for node, each in seconds.items()}
    return CriticalPath(Workload(measured, contest.work(engine).waits_for), median(whole))


@dataclass(frozen=True)
class Rates:
    """Seconds per operation of every sub-module where the frozen model computes it, with what is not counted as an operation: norms,
    activations, sums and copies. Only sparse products and readouts have no such measure: they cost as many seconds as q, k and v."""

    seconds: dict[str, float]

    def speedup(self, contest: Contest, engine: Engine) -> float:
        """100 N / total operations, with seconds for operations."""
        encoder, length = Encoder.of(contest.model.config), contest.setting.length
        only_read, readout = contest.setting.only_read, contest.work(engine)
        layers = operations.frozen(encoder, length, [*engine.architectures.values()])
        for name, architecture in engine.architectures.items():
            layers += operations.task(encoder, length, architecture, engine.kept[name], only_read)
        total = sum(map(self._of, layers))
        total += self.seconds["qkv"] * sum(macs for node, macs in readout.operations.items() if node[1] == READOUT)
        return len(engine.tasks) * encoder.layers * self._of(operations.layer(encoder, length)) / total

    def _of(self, layer: Mapping[str, float]) -> float:
        return sum(self.seconds[name] * macs for name, macs in layer.items())


def rates(contest: Contest, rounds: int) -> Rates:
    """Measured on the contest's model and rows: medians of ``rounds`` rounds, all layers together."""
    shared = copy(contest)
    shared.tasks = {"task": SubTask(Architecture.all_share(contest.model.config.num_hidden_layers))}
    engine = shared.engine()
    seconds, macs = critical_path(shared, engine, rounds).work.operations, shared.work(engine).operations
    found = {}
    for part, modules in workload.PARTS.items():
        nodes = [node for node in macs if node[0] == workload.FROZEN and node[1].endswith(f" {part}")]
        found |= dict.fromkeys(modules, sum(seconds[node] for node in nodes) / sum(macs[node] for node in nodes))
    return Rates(found)


def _rows(vocabulary: int, setting: Setting) -> dict[str, torch.Tensor]:
    """Ids by chance, without padding."""
    generator = torch.Generator().manual_seed(setting.seed)
    ids = torch.randint(5, vocabulary, (setting.batch_size, setting.length), generator=generator)
    return {"input_ids": ids.to(measure.device()), "attention_mask": torch.ones_like(ids).to(measure.device())}


def _random_task(frozen: FrozenEncoder, sub_task: SubTask, setting: Setting) -> Task:
    """With small offsets at random places, the same share of every matrix of a layer, in compact form."""
    task = Task(frozen, sub_task.architecture, setting.outputs, setting.sizes)
    kept = sub_task.kept
    shares = [kept] * len(task.layers) if isinstance(kept, int | float) else kept
    for layer, share in zip(task.layers, shares, strict=True):
        for own in layer.modules():
            if isinstance(own, OwnLinear):
                own.offset = CompactOffset(_random_offset(own.offset.weight, share))
    return task


def _random_offset(like: torch.Tensor, share: float) -> Offset:
    entries = like.numel()
    places = torch.randperm(entries, device=like.device)[: round(share * entries)].sort().values
    return Offset(0.01 * torch.randn_like(places, dtype=like.dtype), places.int(), like.shape)


def _seconds(call) -> float:
    start = measure.now()
    call()
    return measure.now() - start
