"""Parameters of the performance notebooks."""

from collections.abc import Callable
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from paperlib.parameters.base import Backbone, DataParameters, Parameters, Precision, Seed, TaskName
from paperlib.parameters.runs import MethodName


def _with_vanilla(methods: list[str]) -> list[str]:
    """Methods by name, each once, vanilla among them, against which the others are measured; or none."""
    if methods and "vanilla" not in methods or len(set(methods)) < len(methods):
        raise ValueError(f"methods must name vanilla, and none twice, got {', '.join(methods)}")
    return methods


class Throughput(DataParameters):
    """``performance/throughput``: real tokens per second against transformers.Trainer."""

    task: TaskName
    steps: Annotated[int, Field(ge=1)]
    repeats: Annotated[int, Field(ge=1)]
    batch_size: Annotated[int, Field(ge=1)]
    precision: Literal["auto", "bf16", "fp32"]
    seed: Seed


class StepCost(Parameters):
    """``performance/step_cost``: seconds and bytes of an optimizer step under each method, against vanilla."""

    backbone: Backbone
    methods: Annotated[list[MethodName], AfterValidator(_with_vanilla)]
    stage_steps: Annotated[int, Field(ge=2)]
    rounds: Annotated[int, Field(ge=1)]
    batch_size: Annotated[int, Field(ge=1)]
    length: Annotated[int, Field(ge=2)]
    precision: Precision
    seed: Seed
    selection_backbone: Backbone


SearchName = Literal["M, second", "M, first", "M, one-level", "L, second"]
TrainedName = Literal["lowest", "random", "fine_tuning", "adapter", "lora_r8", "lora_r1", "bitfit", "lnfit"]


def _with(*needed: str) -> Callable[[list[str]], list[str]]:
    """Names, each once, ``needed`` among them: what the others are measured against, and what the targets speak of."""

    def checked(names: list[str]) -> list[str]:
        if not {*needed} <= {*names} or len({*names}) < len(names):
            raise ValueError(
                f"name {', '.join(map(repr, needed))} among others, and none twice, got {', '.join(names)}"
            )
        return names

    return checked


class SearchCost(Parameters):
    """``performance/search_cost``: seconds and bytes of a step of the structure search, against training and other placements."""

    backbone: Backbone
    budget: Annotated[float, Field(gt=0)]
    rounds: Annotated[int, Field(ge=1)]
    batch_size: Annotated[int, Field(ge=1)]
    length: Annotated[int, Field(ge=2)]
    searches: Annotated[list[SearchName], AfterValidator(_with("M, second", "M, one-level"))]
    trained: Annotated[list[TrainedName], AfterValidator(_with("lowest", "random"))]
    parts: bool
    precision: Precision
    seed: Seed


class Kernels(Parameters):
    """``performance/kernels``: seconds of one-pass AdamW and of exact selection, against torch's operators and a copy."""

    sizes: Annotated[list[Annotated[int, Field(ge=1)]], Field(min_length=1)]
    kept: Annotated[float, Field(gt=0, le=1)]
    dtype: Literal["fp32", "bf16"]
    rounds: Annotated[int, Field(ge=1)]
    seed: Seed


SubTaskKind = Literal["freeze_bottom_half", "decoupled", "mixed", "alternating", "all_own"]
"""The kinds of ``paperlib.lets.sharing_cost``, which this light module does not import."""


def _each_once(kinds: list[str]) -> list[str]:
    if len(set(kinds)) < len(kinds):
        raise ValueError(f"none may be named twice, got {', '.join(kinds)}")
    return kinds


class Sharing(Parameters):
    """``performance/sharing``: seconds and bytes of several sub-tasks on one frozen pass, against as many separate models."""

    backbone: Backbone
    architectures: Annotated[list[SubTaskKind], Field(min_length=1), AfterValidator(_each_once)]
    tasks: Annotated[int, Field(ge=1)]
    batch_size: Annotated[int, Field(ge=1)]
    length: Annotated[int, Field(ge=2)]
    kept: Annotated[float, Field(gt=0, le=1)]
    weights: Literal["merged", "patched"]
    rounds: Annotated[int, Field(ge=1)]
    precision: Precision
    seed: Seed


MODELS: dict[str, type[Parameters]] = {
    "performance/kernels": Kernels,
    "performance/search_cost": SearchCost,
    "performance/sharing": Sharing,
    "performance/step_cost": StepCost,
    "performance/throughput": Throughput,
}
