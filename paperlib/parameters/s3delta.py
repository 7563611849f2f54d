"""Parameters of the S3Delta section notebooks."""

from typing import Annotated

from pydantic import Field

from paperlib.parameters.base import Backbone, DataParameters, Parameters, Seed


class TransformerLayer(Parameters):
    """``s3delta/a1_transformer``: real layers and delta modules against what appendix A.1 says of them."""

    exact: Annotated[list[Backbone], Field(min_length=1, max_length=3)]
    t5: Annotated[list[Backbone], Field(min_length=1)]
    encoders: list[Backbone]
    budgets: Annotated[list[Annotated[float, Field(gt=0)]], Field(min_length=1)]
    seed: Seed


class Experiments(DataParameters):
    """``s3delta/b1_experiments``: the split protocol, executed and audited (appendix B.1)."""

    seeds: Annotated[list[Seed], Field(min_length=2)]
    held_out: Annotated[int, Field(ge=1)]
    measured_rows: Annotated[int, Field(ge=1)]


class SearchHyperparameters(DataParameters):
    """``s3delta/b2_hyperparameters``: Tables 3 and 4, and the pre-experiments (appendix B.2)."""

    profile: str


class BinaryConcrete(Parameters):
    """``s3delta/c1_binary_concrete``: closed forms against Monte Carlo (appendix C.1)."""

    probabilities: Annotated[list[Annotated[float, Field(gt=0, lt=1)]], Field(min_length=1, max_length=8)]
    betas: Annotated[list[Annotated[float, Field(gt=0, le=100)]], Field(min_length=1, max_length=8)]
    epsilon: Annotated[float, Field(gt=0, lt=0.5)]
    draws: Annotated[int, Field(ge=1000)]
    seeds: Annotated[list[Seed], Field(min_length=2)]
    standard_errors: Annotated[float, Field(gt=0)]


class GlobalSigmoid(DataParameters):
    """``s3delta/c2_global_sigmoid``: eqs. 27 to 34 by autograd and by hand, and local against global (appendix C.2, Figure 8)."""

    profile: str
    networks: Annotated[list[Backbone], Field(min_length=1, max_length=3)]
    budget: Annotated[float, Field(gt=0)]
    taus: Annotated[list[Annotated[float, Field(gt=0)]], Field(min_length=1)]
    draws: Annotated[int, Field(ge=1)]
    steps: Annotated[int, Field(ge=1)]
    seed: Seed


class Efficiency(DataParameters):
    """``s3delta/d1_efficiency``: what a search costs beside a training, and a structure beside other placements (appendices D.1 and B.3, Table 5)."""

    profile: str
    timed: Backbone
    budget: Annotated[float, Field(gt=0)]
    rounds: Annotated[int, Field(ge=2)]
    batch_size: Annotated[int, Field(ge=1)]
    length: Annotated[int, Field(ge=2)]
    seed: Seed


class HeatMaps(DataParameters):
    """``s3delta/d2_heatmaps``: p of every candidate on every task, and how far tasks agree (appendix D.2, Figure 9)."""

    profile: str


class TransferAndEnergy(DataParameters):
    """``s3delta/e_transfer_and_energy``: structures on other tasks than their own, and what a search costs (appendix E)."""

    profile: str


MODELS: dict[str, type[Parameters]] = {
    "s3delta/a1_transformer": TransformerLayer,
    "s3delta/b1_experiments": Experiments,
    "s3delta/b2_hyperparameters": SearchHyperparameters,
    "s3delta/c1_binary_concrete": BinaryConcrete,
    "s3delta/c2_global_sigmoid": GlobalSigmoid,
    "s3delta/d1_efficiency": Efficiency,
    "s3delta/d2_heatmaps": HeatMaps,
    "s3delta/e_transfer_and_energy": TransferAndEnergy,
}
