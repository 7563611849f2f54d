"""Parameters of the run notebooks: the heavy work, executed by the grid."""

from typing import Annotated, Literal

from pydantic import Field

from paperlib.parameters.base import DataParameters, Parameters, Precision, Seed, TaskName


class FineTune(DataParameters):
    """``runs/finetune``: one backbone, one task, one method, one seed."""

    task: TaskName
    protocol: Literal["dps", "s3delta"]
    train_rows: Annotated[int, Field(ge=0)]
    method: Literal["vanilla", "dps_dense"]
    preset: Literal["reference", "paper"]
    p: Annotated[float, Field(ge=0, lt=1)]
    update_ratio: Annotated[float, Field(gt=0, le=1)]
    seed: Seed
    epochs: Annotated[int, Field(ge=1)]
    batch_size: Annotated[int, Field(ge=1)]
    accumulation: Annotated[int, Field(ge=1)]
    learning_rate: Annotated[float, Field(gt=0, lt=1)]
    warmup_ratio: Annotated[float, Field(ge=0, lt=1)]
    weight_decay: Annotated[float, Field(ge=0, lt=1)]
    clip_norm: Annotated[float, Field(gt=0)]
    dropout: Annotated[float, Field(ge=-1, lt=1)]
    precision: Precision
    checkpoint_seconds: Annotated[float, Field(ge=0)]


MODELS: dict[str, type[Parameters]] = {"runs/finetune": FineTune}
