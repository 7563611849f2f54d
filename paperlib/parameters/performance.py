"""Parameters of the performance notebooks."""

from typing import Annotated, Literal

from pydantic import Field

from paperlib.parameters.base import DataParameters, Parameters, Seed, TaskName


class Throughput(DataParameters):
    """``performance/throughput``: real tokens per second against transformers.Trainer."""

    task: TaskName
    steps: Annotated[int, Field(ge=1)]
    repeats: Annotated[int, Field(ge=1)]
    batch_size: Annotated[int, Field(ge=1)]
    precision: Literal["auto", "bf16", "fp32"]
    seed: Seed


MODELS: dict[str, type[Parameters]] = {"performance/throughput": Throughput}
