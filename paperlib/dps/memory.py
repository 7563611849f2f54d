"""Memory of fine-tuning by counting bytes: the model behind DPS's Table 3 (appendix F).

M(B) = F + a kappa B + c n, in GiB: ``F`` a fixed part, ``a`` one sample's activations in one graph, ``kappa`` graphs alive at once, ``c``
bytes a method adds per weight, ``n`` the weights it looks after. F and a come from the vanilla column alone, c from the tensors' types.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

GIB = 2**30

Column = Mapping[int, float]
"""Batch size -> GiB."""

Table = Mapping[str, Column]
"""Method -> its column."""

TITLES = {
    "vanilla": "Vanilla",
    "mixout": "Mixout",
    "r3f": "R3F",
    "r_dropout": "R-Dropout",
    "child_tuning_d": "CHILD-TUNING_D",
    "dps_dense": "DPS Dense",
    "dps_mix": "DPS Mix",
}
"""The columns of Table 3 in its order, as it names them."""

METHODS = tuple(TITLES)
TWO_FORWARDS = ("r3f", "r_dropout")


STAGE_ONE, SELECTION, STAGE_TWO = MOMENTS = ("stage I", "selection step", "stage II")
"""Moments of a cycle, each taken while a step's graph is alive; methods without stages are alike in all."""


@dataclass(frozen=True)
class Item:
    """One tensor shaped like the weights: ``what`` it is, its ``dtype``, ``bytes`` per weight, the moments ``when`` it is alive.

    ``weights``: which weights it covers: "all", "tracked" (those of Linear modules) or "encoder" (all in the stack of layers).
    """

    what: str
    dtype: str
    bytes: float
    when: tuple[str, ...] = MOMENTS
    weights: str = "tracked"


VANILLA = (
    Item("weight", "fp32", 4, weights="all"),
    Item("gradient", "fp32", 4, weights="all"),
    Item("first moment", "fp32", 4, weights="all"),
    Item("second moment", "fp32", 4, weights="all"),
)

_AFTER = (SELECTION, STAGE_TWO)
_START = Item("pre-trained weight", "fp32", 4)
_FISHER = Item("gradient mask", "bool", 1, weights="encoder")
_WIDE_MASKS = (Item("mask", "int64", 8, _AFTER), Item("mask on the graph", "int64", 8, _AFTER))

AS_CODED: dict[str, tuple[Item, ...]] = {
    "vanilla": (),
    "mixout": (_START, Item("mask on the graph", "fp32", 4)),
    "r3f": (),
    "r_dropout": (),
    "child_tuning_d": (_FISHER,),
    "dps_dense": (Item("GAM", "fp32", 4), *_WIDE_MASKS),
    "dps_mix": (
        *(_START, Item("GAM", "fp32", 4), Item("FAM", "int64", 8)),
        *(Item("snapshot", "fp32", 4, _AFTER), *_WIDE_MASKS),
    ),
}
"""What each method keeps beyond vanilla in its published code, tensor by tensor."""

_MASK = Item("mask", "bool", 1, _AFTER)
_GAM = Item("GAM", "fp32", 4, (STAGE_ONE,))

LEAN: dict[str, tuple[Item, ...]] = {
    "vanilla": (),
    "mixout": (_START,),
    "r3f": (),
    "r_dropout": (),
    "child_tuning_d": (_FISHER,),
    "dps_dense": (_GAM, _MASK),
    "dps_mix": (_START, _GAM, Item("snapshot", "fp32", 4, _AFTER), _MASK),
}
"""What this library keeps: GAM goes as the mask comes; counts and draws, one number per input column, are left out."""

PACKED: dict[str, tuple[Item, ...]] = {
    method: tuple(replace(item, dtype="bits", bytes=1 / 8) if item.dtype == "bool" else item for item in items)
    for method, items in LEAN.items()
}
"""The same where one pass moves the weights (:func:`paperlib.training.update.in_one_pass`): masks are bits."""


@dataclass(frozen=True)
class Counts:
    """Numbers of weights: of the whole model, of its Linear modules (``tracked``), of its stack of layers (``encoder``)."""

    all: int
    tracked: int
    encoder: int


def counts(backbone: str) -> Counts:
    """Counts of a random or config-only backbone with two classes, from its shapes alone."""
    return counts_of(_without_storage(backbone))


def tracked_shapes(backbone: str) -> list[tuple[int, ...]]:
    """Shapes of all tracked weights of a random or config-only backbone."""
    from paperlib.dps.scope import tracked

    return [tuple(weight.shape) for weight in tracked(_without_storage(backbone)).values()]


def activation_bytes(backbone: str, length: int) -> int:
    """Bytes that all layers save for the backward pass of one row of ``length`` tokens, in fp32 with plain attention and no dropout.

    ``backbone``: as for :func:`counts`, of BERT's kind.
    """
    import torch

    from paperlib import backbones

    model = _without_storage(backbone)
    (layers,) = backbones.stacks(model)
    weights = {p.untyped_storage()._cdata for p in model.parameters()}
    saved: dict[int, torch.Tensor] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        saved[tensor.untyped_storage()._cdata] = tensor
        return tensor

    row = torch.empty(1, length, model.config.hidden_size, device="meta", requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        layers[0](row)
    return len(layers) * sum(t.untyped_storage().nbytes() for storage, t in saved.items() if storage not in weights)


def _without_storage(backbone: str):
    """The model's shapes alone, with two classes, plain attention and no dropout."""
    import torch
    from transformers import AutoModelForSequenceClassification

    from paperlib import backbones

    config = backbones.configuration(backbone)
    config.num_labels = 2
    for key in backbones.DROPOUT_KEYS:
        if hasattr(config, key):
            setattr(config, key, 0.0)
    with torch.device("meta"):
        return AutoModelForSequenceClassification.from_config(config, attn_implementation="eager")


def counts_of(model) -> Counts:
    """Counts of a model as it stands."""
    from paperlib import backbones
    from paperlib.dps.scope import tracked

    return Counts(
        all=sum(p.numel() for p in model.parameters()),
        tracked=sum(p.numel() for p in tracked(model).values()),
        encoder=sum(p.numel() for stack in backbones.stacks(model) for p in stack.parameters()),
    )


def extra_bytes(items: Sequence[Item], counts: Counts, moment: str | None = None) -> float:
    """c n, the bytes the items take at a moment, each over the weights it covers; without a moment at the worst one."""
    moment = moment or worst_moment(items, counts)
    return sum(item.bytes * getattr(counts, item.weights) for item in items if moment in item.when)


def worst_moment(items: Sequence[Item], counts: Counts) -> str:
    """The moment at which the items take most, the first of several."""
    return max(MOMENTS, key=lambda moment: extra_bytes(items, counts, moment))


@dataclass(frozen=True)
class Line:
    """Memory in GiB as a line over the batch size: ``intercept`` + ``slope`` B."""

    intercept: float
    slope: float

    @classmethod
    def through(cls, column: Column) -> "Line":
        """The line through a column's two batch sizes."""
        (low, at_low), (high, at_high) = sorted(column.items())
        slope = (at_high - at_low) / (high - low)
        return cls(at_low - slope * low, slope)

    def at(self, batch_size: float) -> float:
        """GiB at a batch size."""
        return self.intercept + self.slope * batch_size

    def crosses(self, other: "Line") -> float:
        """Batch size at which both need the same; lines of one slope have none (ZeroDivisionError)."""
        return (other.intercept - self.intercept) / (self.slope - other.slope)


@dataclass(frozen=True)
class ByteModel:
    """M(B) = F + a kappa B + c n: ``vanilla`` holds F and a, ``two_forwards`` is kappa of methods that run the model twice."""

    vanilla: Line
    counts: Counts
    two_forwards: float = 2.0

    def predict(self, items: Mapping[str, Sequence[Item]], batch_sizes: Sequence[int]) -> dict[str, dict[int, float]]:
        """GiB of every method of ``items`` at every batch size."""
        return {
            method: {
                batch: self.vanilla.at(self._graphs(method) * batch) + extra_bytes(kept, self.counts) / GIB
                for batch in batch_sizes
            }
            for method, kept in items.items()
        }

    def _graphs(self, method: str) -> float:
        return self.two_forwards if method in TWO_FORWARDS else 1.0


@dataclass(frozen=True)
class Fit:
    """How well a variant of the model meets a table: ``residuals`` are printed minus predicted GiB; ``constants`` were fitted."""

    variant: str
    constants: int
    residuals: dict[tuple[str, int], float]

    @property
    def rmse(self) -> float:
        """Root mean square residual over all numbers of the table."""
        return _root_mean_square(self.residuals.values())

    @property
    def rmse_one_graph(self) -> float:
        """Root mean square residual of the methods that run the model once."""
        return _root_mean_square(r for (method, _), r in self.residuals.items() if method not in TWO_FORWARDS)

    @property
    def largest(self) -> float:
        """Largest absolute residual."""
        return max(map(abs, self.residuals.values()))


def fits(printed: Table, counts: Counts) -> list[Fit]:
    """Variants of the model against the printed table, from the one without freedom to those with a constant for each column.

    The first two read their constants off columns: F and a from vanilla, kappa from the mean slope of the methods with two forwards.
    The others are least squares over all numbers.
    """
    vanilla = Line.through(printed["vanilla"])
    slopes = [Line.through(printed[method]).slope for method in TWO_FORWARDS]
    kappa = float(np.mean(slopes)) / vanilla.slope
    batches = sorted(printed["vanilla"])

    def read_off(kappa: float) -> Table:
        return ByteModel(vanilla, counts, kappa).predict(AS_CODED, batches)

    numbers = [(method, batch) for method in printed for batch in batches]
    two = np.array([method in TWO_FORWARDS for method, _ in numbers], dtype=float)
    batch = np.array([b for _, b in numbers], dtype=float)
    shared = np.column_stack([np.ones(len(numbers)), batch * (1 - two), batch * two])
    own = np.array([[method == each for each in printed] for method, _ in numbers], dtype=float)
    counted = np.array([extra_bytes(AS_CODED[method], counts) / GIB for method, _ in numbers])
    seen = np.array([printed[method][b] for method, b in numbers])
    squares = {
        "F, a and a slope for two forwards, least squares": (shared, counted),
        "a fixed part per column, one slope": (np.column_stack([own, batch]), 0),
        "a fixed part per column, two slopes": (np.column_stack([own, shared[:, 1:]]), 0),
    }
    return [
        Fit("F and a from vanilla, two graphs", 2, _residuals(printed, read_off(2.0))),
        Fit(f"the same, {kappa:.2f} graphs (fitted)", 3, _residuals(printed, read_off(kappa))),
        *(
            Fit(name, design.shape[1], dict(zip(numbers, _left_over(design, seen - known), strict=True)))
            for name, (design, known) in squares.items()
        ),
    ]


def _residuals(printed: Table, predicted: Table) -> dict[tuple[str, int], float]:
    return {(m, b): value - predicted[m][b] for m, column in printed.items() for b, value in column.items()}


def _left_over(design: np.ndarray, target: np.ndarray) -> list[float]:
    found = np.linalg.lstsq(design, target, rcond=None)[0]
    return (target - design @ found).tolist()


def _root_mean_square(values) -> float:
    return float(np.sqrt(np.mean(np.square(list(values)))))


def percent_over_vanilla(table: Table, method: str, batch_size: int) -> float:
    """How much more than vanilla a method needs, in percent of vanilla."""
    return 100 * (table[method][batch_size] / table["vanilla"][batch_size] - 1)
