"""The methods LeTS is compared with by name, and how those with a mask are trained: once to find it, once with it."""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path

from safetensors.torch import load_file, save_file

from paperlib.errors import InputError
from paperlib.lets.adapters import BOTTLENECK, Adapters
from paperlib.lets.comparisons import Difference, FixedMask, FreezeBottom, pretrained
from paperlib.lets.diff_pruning import PENALTY, DiffPruning
from paperlib.lets.offsets import Offset, from_tensors, to_tensors
from paperlib.training import Loop, Method, Outcome, Problem, Settings

METHODS = ("full", "freeze_bottom", "adapters", "non_adaptive", "diff_pruning", "diff_pruning_structured")
MASKED = METHODS[3:]
"""Those that find a mask by training and train again with it."""

OFFSETS = "offsets.safetensors"


@dataclass(frozen=True)
class Choice:
    """A method and what it is given; each reads the values that are its own.

    ``frozen_layers``: of "freeze_bottom", from the bottom. ``bottleneck``: of adapters. ``k``: kept share of all pre-trained weights, of the
    masked methods. ``penalty``: DiffPruning's lambda. InputError: an unknown method.
    """

    method: str
    frozen_layers: int = 0
    bottleneck: int = BOTTLENECK
    k: float = 0.005
    penalty: float = PENALTY

    def __post_init__(self):
        if self.method not in METHODS:
            raise InputError(f"unknown method {self.method!r}; known: {', '.join(METHODS)}")

    @classmethod
    def of(cls, parameters) -> "Choice":
        """The choice among a run's parameters."""
        return cls(
            **{each.name: getattr(parameters, each.name) for each in fields(cls) if hasattr(parameters, each.name)}
        )

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


def train(
    make: Callable[[], Problem], choice: Choice, settings: Settings, finding: Settings, folder: Path | None = None
) -> tuple[Outcome, dict[str, Offset]]:
    """What the method comes to under ``settings``, and its kept offsets ({} but for masked methods).

    ``make`` gives the problem, with the same fresh weights every time. A masked method is first trained under ``finding``, without a look at
    validation or test rows: its last weights, not its best, give the mask, as in DiffPruning's published scripts. ``folder``: for
    checkpoints, and the mask once it is found; an interrupted run goes on there exactly.
    """
    if choice.method not in MASKED:
        return Loop(make(), choice.build(), settings, folder).run(), {}
    found = _found(make, choice, finding, folder)
    method = FixedMask(found)
    outcome = Loop(make(), method, settings, folder).run()
    return outcome, method.offsets()


def _found(make: Callable[[], Problem], choice: Choice, finding: Settings, folder: Path | None) -> dict[str, Offset]:
    path = folder and folder / OFFSETS
    if path and path.is_file():
        return from_tensors(load_file(path), pretrained(make().model))
    problem, method = make(), choice.build()
    # The loop ends with a look at test rows, and these are not to be seen yet.
    blind = replace(problem, validation=None, test=problem.train)
    Loop(blind, method, finding, folder and folder / "finding").run()
    found = method.offsets(choice.k)
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        save_file({name: tensor.cpu().contiguous() for name, tensor in to_tensors(found).items()}, part)
        part.replace(path)
    return found
