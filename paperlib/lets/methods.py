"""LeTS and the methods it is compared with, by name: those with a mask are trained twice, once to find it and once with it."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

from torch import nn

from paperlib.errors import InputError
from paperlib.lets import offsets
from paperlib.lets.adapters import BOTTLENECK, Adapters
from paperlib.lets.architecture import Architecture
from paperlib.lets.comparisons import Difference, FixedMask, FreezeBottom, pretrained
from paperlib.lets.diff_pruning import PENALTY, DiffPruning
from paperlib.lets.masked_tuning import OFFSETS, WarmUp
from paperlib.lets.offsets import Offset
from paperlib.lets.readout import ReadoutSizes
from paperlib.lets.sub_task import SubTask, Trained, stored
from paperlib.training import Loop, Method, Problem, Settings, checkpoint

LETS = "lets"
COMPARISONS = ("full", "freeze_bottom", "adapters", "non_adaptive", "diff_pruning", "diff_pruning_structured")
MASKED = COMPARISONS[3:]
"""Those that find a mask by training and train again with it."""

FINDING = "finding"


@dataclass(frozen=True)
class Comparison:
    """A method on the whole model and what it is given; each reads the values that are its own.

    ``frozen_layers``: of "freeze_bottom", from the bottom. ``bottleneck``: of adapters. ``k``: kept share of all pre-trained weights, of the
    masked methods. ``penalty``: DiffPruning's lambda. ``finding_learning_rate``: the masked methods' while they find the mask.
    InputError: an unknown method.
    """

    method: str
    frozen_layers: int = 0
    bottleneck: int = BOTTLENECK
    k: float = 0.005
    penalty: float = PENALTY
    finding_learning_rate: float = 2e-5

    def __post_init__(self):
        if self.method not in COMPARISONS:
            raise InputError(f"unknown method {self.method!r}; known: {', '.join(COMPARISONS)}")

    def build(self) -> Method:
        """The method of the only training, or of the one that finds the mask. InputError: values outside their range."""
        match self.method:
            case "full":
                return Method()
            case "freeze_bottom":
                return FreezeBottom(self.frozen_layers)
            case "adapters":
                return Adapters(self.bottleneck)
            case "non_adaptive":
                return Difference()
        return DiffPruning(self.penalty, structured=self.method == "diff_pruning_structured")

    def train(self, problem: Problem, settings: Settings, folder: Path | None = None) -> Trained:
        """Train ``problem`` in place.

        A masked method is first trained, on a copy, at its finding rate, without a look at validation or test rows: its last weights, not its
        best, give the mask, as in DiffPruning's published scripts. ``folder``: for checkpoints, and the mask once it is found; an
        interrupted run goes on there exactly.
        """
        started = time.perf_counter()
        method = FixedMask(self._found(problem, settings, folder)) if self.method in MASKED else self.build()
        seconds = time.perf_counter() - started if self.method in MASKED else 0.0
        outcome = Loop(problem, method, settings, folder).run()
        found = method.offsets() if isinstance(method, FixedMask) else {}
        layers = problem.model.config.num_hidden_layers
        sizes = _sizes(problem.model, found)
        return Trained(problem, outcome, self._architecture(layers), [1.0] * layers, sizes, seconds)

    def _architecture(self, layers: int) -> Architecture | None:
        """A mask saves no operation where the input is the sub-task's own."""
        if self.method == "adapters":
            return None
        return Architecture.freeze_bottom(layers, self.frozen_layers if self.method == "freeze_bottom" else 0)

    def _found(self, problem: Problem, settings: Settings, folder: Path | None) -> dict[str, Offset]:
        path = folder and folder / OFFSETS
        if path and path.is_file():
            return offsets.load(path, pretrained(problem.model))
        # The loop ends with a look at test rows, and these are not to be seen yet.
        blind = replace(problem.copy(), validation=None, test=problem.train)
        method, finding = self.build(), replace(settings, learning_rate=self.finding_learning_rate)
        Loop(blind, method, finding, folder and folder / FINDING).run()
        found = method.offsets(self.k)
        if path:
            offsets.save(path, found)
            checkpoint.clear(folder / FINDING)
        return found


def of(parameters, layers: int, searched: Sequence[Architecture] = ()) -> SubTask | Comparison:
    """What the ``parameters`` of a run ask for on an encoder of ``layers`` layers; ``searched``: what its search found, if it reads one.

    InputError: more frozen layers than layers, or values outside their range.
    """
    if parameters.method != LETS:
        known = [each.name for each in fields(Comparison)]
        return Comparison(**{name: getattr(parameters, name) for name in known if hasattr(parameters, name)})
    fixed = {"all_own": 0, "all_share": layers, "freeze_bottom": parameters.frozen_layers}
    architecture = (
        searched[0]
        if parameters.architecture == "searched"
        else Architecture.freeze_bottom(layers, fixed[parameters.architecture])
    )
    warm_up = WarmUp(
        steps=parameters.mask_steps,
        batch_size=parameters.batch_size,
        learning_rate=parameters.mask_learning_rate,
        optimizer=parameters.mask_optimizer,
        clip_norm=parameters.clip_norm,
        seed=parameters.seed,
        precision=parameters.precision,
    )
    return SubTask(
        architecture,
        parameters.k,
        warm_up,
        parameters.bias_learning_rate,
        ReadoutSizes(parameters.aggregation, parameters.lstm),
        parameters.start,
        parameters.per_matrix,
    )


def _sizes(model: nn.Module, kept: Mapping[str, Offset]) -> dict[str, int]:
    """What was trained of a whole model: kept entries are offsets, of whichever weight; what is not of the body is the readout."""
    scalars = dict.fromkeys(("offsets", "biases", "norms", "readout"), 0)
    body = pretrained(model)
    for name, weight in model.named_parameters():
        if name in kept:
            scalars["offsets"] += len(kept[name].values)
        elif weight.requires_grad:
            scalars[_part(name) if name in body else "readout"] += weight.numel()
    return stored(scalars, kept)


def _part(name: str) -> str:
    if name.endswith(".bias"):
        return "biases"
    return "norms" if ".LayerNorm." in name else "offsets"
