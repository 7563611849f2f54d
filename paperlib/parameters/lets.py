"""Parameters of the LeTS section notebooks."""

from typing import Annotated

from pydantic import Field

from paperlib.parameters.base import Backbone, DataParameters, Parameters, Precision, Seed, TaskName

Percent = Annotated[float, Field(ge=0, le=100)]
Length = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(gt=0, le=1)]


class Metrics(DataParameters):
    """``lets/a1_metrics``: operations, the metrics, and Figure 6 as far as it is known (appendix A.1); and the metrics of tuned sub-tasks."""

    profile: str
    length: Length
    longer: Length
    frozen: Annotated[int, Field(ge=0, le=24)]
    most_tasks: Annotated[int, Field(ge=9)]
    lets_saving: Percent
    lets_parameters: Percent
    lets_overhead: Percent
    timed: Annotated[int, Field(ge=1)]
    rounds: Annotated[int, Field(ge=1)]
    batch_size: Annotated[int, Field(ge=1)]


class Hyperparameters(DataParameters):
    """``lets/a2_hyperparameters``: Table 4, the search's setup, and what training takes of time and memory (appendix A.2)."""

    profile: str
    timed: Backbone
    batch_size: Annotated[int, Field(ge=1)]
    length: Length
    precision: Precision
    seed: Seed


class SecondOrder(DataParameters):
    """``lets/b_gumbel_and_second_order``: eqs. 14 to 17 against closed forms and autograd (appendix B)."""

    draws: Annotated[int, Field(ge=1000)]
    temperatures: Annotated[list[Annotated[float, Field(gt=0, le=100)]], Field(min_length=1, max_length=6)]
    delta: Annotated[float, Field(ge=-20, le=20)]
    task: TaskName
    rows: Annotated[int, Field(ge=100)]
    batch_size: Annotated[int, Field(ge=1, le=20)]
    learned: Annotated[int, Field(ge=1)]
    xis: Annotated[list[Annotated[float, Field(gt=0, le=1)]], Field(min_length=1, max_length=3)]
    horizons: Annotated[list[Annotated[int, Field(ge=1)]], Field(min_length=2)]
    repeats: Annotated[int, Field(ge=1)]
    seed: Seed


class DeltaPruning(DataParameters):
    """``lets/d_delta_pruning``: Algorithm 2 line by line (appendix D)."""

    task: TaskName
    frozen_layers: Annotated[int, Field(ge=0)]
    train_rows: Annotated[int, Field(ge=8)]
    held_out: Annotated[int, Field(ge=8)]
    steps: Annotated[int, Field(ge=1)]
    batch_size: Annotated[int, Field(ge=1)]
    learning_rate: Annotated[float, Field(gt=0)]
    sgd_learning_rate: Annotated[float, Field(gt=0)]
    k: Share
    shares: Annotated[list[Share], Field(min_length=2)]
    deletions: Annotated[int, Field(ge=1)]
    seeds: Annotated[list[Seed], Field(min_length=1)]
    table4_batch: Annotated[int, Field(ge=1)]


class Initialisation(DataParameters):
    """``lets/c_initialisation``: masks of final, accumulated and random offsets, against chance (appendix C)."""

    profile: str


MODELS: dict[str, type[Parameters]] = {
    "lets/a1_metrics": Metrics,
    "lets/a2_hyperparameters": Hyperparameters,
    "lets/b_gumbel_and_second_order": SecondOrder,
    "lets/c_initialisation": Initialisation,
    "lets/d_delta_pruning": DeltaPruning,
}
