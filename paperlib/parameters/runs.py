"""Parameters of the run notebooks: the heavy work, executed by the grid."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from paperlib.parameters.base import (
    Backbone,
    DataParameters,
    Parameters,
    Precision,
    Seed,
    TaskName,
    known_task,
    suggestion,
)

FAMILIES: dict[str, tuple[str, ...]] = {
    "start": ("re_init",),
    "objective": ("r3f", "r_dropout"),
    "weights": ("mixout", "child_tuning_d", "child_tuning_f", "dps_dense", "dps_mix"),
}
PLACEMENTS = ("searched", "random", "fine_tuning", "adapter", "lora_r8", "lora_r1", "bitfit", "lnfit", "lra")
SHARED = ("source", "data_dir", "backbone", "space", "budget")
SPLITS = ("train", "validation", "validation_mismatched", "test")
SHARING = ("lets", "full", "freeze_bottom", "adapters", "non_adaptive", "diff_pruning", "diff_pruning_structured")
OF_THE_SUB_TASK = ("source", "data_dir", "backbone", "train_rows", "aggregation", "lstm")
METHODS = ("vanilla", *(name for family in FAMILIES.values() for name in family))


def _known_method(value: str) -> str:
    """One method, or several of different families joined by +."""
    parts = value.split("+")
    for part in parts:
        if part not in METHODS:
            raise ValueError(f"unknown method {part!r}{suggestion(part, METHODS)}; known: {', '.join(METHODS)}")
    for family, members in FAMILIES.items():
        if len(clash := [part for part in parts if part in members]) > 1:
            raise ValueError(f"method {value!r} joins two {family} methods ({', '.join(clash)}); keep one of them")
    if len(parts) > 1 and "vanilla" in parts:
        raise ValueError(f"method {value!r}: vanilla adds nothing to another method; leave it out")
    return value


MethodName = Annotated[str, AfterValidator(_known_method)]


def _known_rows(value: str) -> str:
    """Labelled rows of a task, as in "snli:test"."""
    task, _, split = value.partition(":")
    if split not in SPLITS:
        raise ValueError(f"{value!r} names no rows; write task:split, the split one of {', '.join(SPLITS)}")
    return f"{known_task(task)}:{split}"


def _one_of(what: str, known: tuple[str, ...]) -> AfterValidator:
    """One of the ``known`` names, with a suggestion for any other."""

    def check(value: str) -> str:
        if value not in known:
            raise ValueError(f"unknown {what} {value!r}{suggestion(value, known)}; known: {', '.join(known)}")
        return value

    return AfterValidator(check)


class Training(DataParameters):
    """What every training run is given: the method, and how to train."""

    train_rows: Annotated[int, Field(ge=0)]
    method: MethodName
    preset: Literal["reference", "paper"]
    p: Annotated[float, Field(ge=0, le=1)]
    update_ratio: Annotated[float, Field(gt=0, le=1)]
    selection: Literal["matrix", "global"]
    noise: Literal["normal", "uniform"]
    sigma: Annotated[float, Field(gt=0)]
    strength: Annotated[float, Field(ge=0)]
    reinit_layers: Annotated[int, Field(ge=1)]
    seed: Seed
    epochs: Annotated[int, Field(ge=1)]
    steps: Annotated[int, Field(ge=0)]
    batch_size: Annotated[int, Field(ge=1)]
    accumulation: Annotated[int, Field(ge=1)]
    learning_rate: Annotated[float, Field(gt=0, lt=1)]
    warmup_ratio: Annotated[float, Field(ge=0, lt=1)]
    warmup_steps: Annotated[int, Field(ge=0)]
    weight_decay: Annotated[float, Field(ge=0, lt=1)]
    decay_towards: Literal["zero", "pretrained"]
    layer_decay: Annotated[float, Field(gt=0, le=1)]
    layer_decay_form: Literal["electra", "revisit"]
    clip_norm: Annotated[float, Field(gt=0)]
    dropout: Annotated[float, Field(ge=-1, lt=1)]
    precision: Precision
    checkpoint_seconds: Annotated[float, Field(ge=0)]

    @model_validator(mode="after")
    def _p_leaves_something_to_train(self):
        parts = self.method.split("+")
        dps, child = {"dps_dense", "dps_mix"} & set(parts), {"child_tuning_d", "child_tuning_f"} & set(parts)
        dropped = "mixout" in parts or (dps and self.preset == "reference")
        if dropped and self.p == 1:
            raise ValueError(f"p: {self.method} in preset {self.preset} trains the share 1 - p; give one below 1")
        if (child or (dps and self.preset == "paper")) and self.p == 0:
            raise ValueError(f"p: {self.method} in preset {self.preset} trains the share p; give one above 0")
        return self


class FineTune(Training):
    """``runs/finetune``: one backbone, one task, one method, one seed."""

    task: TaskName
    protocol: Literal["dps", "s3delta"]


class Transfer(Training):
    """``runs/transfer``: one method trained on one inference task, scored on the rows of others."""

    task: TaskName
    train_split: Literal["train", "validation"]
    targets: Annotated[list[Annotated[str, AfterValidator(_known_rows)]], Field(min_length=1)]

    @model_validator(mode="after")
    def _targets_are_distinct_and_unseen(self):
        if len(set(self.targets)) < len(self.targets):
            raise ValueError(f"targets {', '.join(self.targets)}: name each once")
        if (rows := f"{self.task}:{self.train_split}") in self.targets:
            raise ValueError(
                f"target {rows!r} holds the training rows; give another split of it, or another train_split"
            )
        return self


class DeltaModules(DataParameters):
    """What a search for delta modules and their training share: the rows, the budget, and how to train."""

    task: TaskName
    train_rows: Annotated[int, Field(ge=0)]
    space: Literal["M", "L"]
    budget: Annotated[float, Field(gt=0, lt=10_000)]
    seed: Seed
    epochs: Annotated[int, Field(ge=1)]
    steps: Annotated[int, Field(ge=0)]
    batch_size: Annotated[int, Field(ge=1)]
    interval: Annotated[int, Field(ge=1)]
    learning_rate: Annotated[float, Field(gt=0, lt=1)]
    clip_norm: Annotated[float, Field(gt=0)]
    dropout: Annotated[float, Field(ge=-1, lt=1)]
    precision: Precision
    checkpoint_seconds: Annotated[float, Field(ge=0)]


class Search(DeltaModules):
    """``runs/search``: where a budget of delta modules is best spent on one task."""

    alpha_learning_rate: Annotated[float, Field(gt=0, le=10)]
    tau: Annotated[float, Field(gt=0)]
    beta: Annotated[float, Field(gt=0)]
    gradient: Literal["global", "local", "implicit"]
    hard: bool
    order: Literal["second", "first", "one-level"]


class DeltaTuning(DeltaModules):
    """``runs/delta_tuning``: fresh delta modules trained on one task, at the places a search found or at others."""

    placement: Annotated[str, _one_of("placement", PLACEMENTS)]
    searched_on: list[TaskName]
    search_seeds: list[Seed]
    search: dict[str, Any]

    @model_validator(mode="after")
    def _searches_belong_to_searched_structures(self):
        named = [name for name in ("searched_on", "search_seeds", "search") if getattr(self, name)]
        if named and self.placement != "searched":
            raise ValueError(f"{', '.join(named)}: placement {self.placement!r} reads no search; leave them empty")
        if fixed := [name for name in self.search if name in SHARED]:
            raise ValueError(f"search: {', '.join(fixed)} of a search are those of this run; give them there")
        return self


class SubTask(DataParameters):
    """What a search for shared parts and the training of a sub-task are both given: the rows, the readout, and how to train."""

    task: TaskName
    train_rows: Annotated[int, Field(ge=0)]
    aggregation: Annotated[int, Field(ge=1)]
    lstm: Annotated[int, Field(ge=1)]
    seed: Seed
    batch_size: Annotated[int, Field(ge=1)]
    interval: Annotated[int, Field(ge=0)]
    learning_rate: Annotated[float, Field(gt=0, lt=1)]
    bias_learning_rate: Annotated[float, Field(gt=0, lt=1)]
    clip_norm: Annotated[float, Field(gt=0)]
    dropout: Annotated[float, Field(ge=-1, lt=1)]
    checkpoint_seconds: Annotated[float, Field(ge=0)]


class SharingSearch(SubTask):
    """``runs/sharing_search``: which parts of every layer a sub-task owns."""

    epochs: Annotated[int, Field(ge=1)]
    alpha_learning_rate: Annotated[float, Field(gt=0, le=10)]
    xi: Annotated[float, Field(ge=0, lt=1)]
    form: Literal["L1", "L2", "L3"]
    alpha: Annotated[float, Field(gt=0)]
    beta: Annotated[float, Field(gt=0)]
    length: Annotated[int, Field(ge=1)]
    density: Annotated[float, Field(gt=0, le=1)]
    overhead: bool
    postponed: Annotated[float, Field(ge=0)]
    temperature: Annotated[float, Field(gt=0)]
    anneal: Annotated[float, Field(gt=0)]
    patience: Annotated[int, Field(ge=1)]


class Sharing(SubTask):
    """``runs/sharing``: one sub-task trained by LeTS or by a method it is compared with."""

    method: Annotated[str, _one_of("method", SHARING)]
    architecture: Literal["searched", "all_own", "all_share", "freeze_bottom"]
    frozen_layers: Annotated[int, Field(ge=0)]
    search: dict[str, Any]
    k: Annotated[float, Field(gt=0, le=1)]
    per_matrix: bool
    start: Literal["zero", "warm"]
    mask_steps: Annotated[int, Field(ge=1)]
    mask_learning_rate: Annotated[float, Field(gt=0, lt=1)]
    mask_optimizer: Literal["adam", "sgd"]
    finding_learning_rate: Annotated[float, Field(gt=0, lt=1)]
    penalty: Annotated[float, Field(ge=0)]
    bottleneck: Annotated[int, Field(ge=1)]
    epochs: Annotated[int, Field(ge=1)]
    steps: Annotated[int, Field(ge=0)]
    warmup_ratio: Annotated[float, Field(ge=0, lt=1)]
    warmup_steps: Annotated[int, Field(ge=0)]
    weight_decay: Annotated[float, Field(ge=0, lt=1)]
    precision: Precision

    @property
    def reads_a_search(self) -> bool:
        """Whether the architecture is one that a search found."""
        return self.method == "lets" and self.architecture == "searched"

    @model_validator(mode="after")
    def _a_search_belongs_to_a_searched_architecture(self):
        if self.search and not self.reads_a_search:
            raise ValueError("search: only method lets with architecture searched reads a search; leave it empty")
        if fixed := [name for name in self.search if name in (*OF_THE_SUB_TASK, "task", "seed", "density")]:
            raise ValueError(f"search: {', '.join(fixed)} of a search are those of this run; give them there")
        return self


class Masks(DataParameters):
    """``runs/masks``: which offsets of one sub-task are kept after few steps, after all, and of a random offset."""

    task: TaskName
    train_rows: Annotated[int, Field(ge=0)]
    k: Annotated[float, Field(gt=0, le=1)]
    accumulated: Annotated[list[Annotated[int, Field(ge=1)]], Field(min_length=1)]
    steps: Annotated[int, Field(ge=1)]
    optimizer: Literal["adam", "sgd"]
    per_matrix: bool
    seed: Seed
    other_seed: Seed
    batch_size: Annotated[int, Field(ge=1)]
    learning_rate: Annotated[float, Field(gt=0, lt=1)]
    clip_norm: Annotated[float, Field(gt=0)]
    aggregation: Annotated[int, Field(ge=1)]
    lstm: Annotated[int, Field(ge=1)]
    precision: Precision
    checkpoint_seconds: Annotated[float, Field(ge=0)]


class Footprint(Parameters):
    """``runs/footprint``: bytes that a few steps of every method allocate, at one batch size."""

    backbone: Backbone
    batch_size: Annotated[int, Field(ge=1)]
    length: Annotated[int, Field(ge=2)]
    dropout: Annotated[float, Field(ge=-1, lt=1)]
    precision: Precision
    seed: Seed


MODELS: dict[str, type[Parameters]] = {
    "runs/finetune": FineTune,
    "runs/transfer": Transfer,
    "runs/search": Search,
    "runs/delta_tuning": DeltaTuning,
    "runs/sharing_search": SharingSearch,
    "runs/sharing": Sharing,
    "runs/masks": Masks,
    "runs/footprint": Footprint,
}
