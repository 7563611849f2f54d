"""Parameters of the S3Delta section notebooks."""

from typing import Annotated

from pydantic import Field

from paperlib.parameters.base import Parameters, Seed


class BinaryConcrete(Parameters):
    """``s3delta/c1_binary_concrete``: closed forms against Monte Carlo (appendix C.1)."""

    probabilities: Annotated[list[Annotated[float, Field(gt=0, lt=1)]], Field(min_length=1, max_length=8)]
    betas: Annotated[list[Annotated[float, Field(gt=0, le=100)]], Field(min_length=1, max_length=8)]
    epsilon: Annotated[float, Field(gt=0, lt=0.5)]
    draws: Annotated[int, Field(ge=1000)]
    seeds: Annotated[list[Seed], Field(min_length=2)]
    standard_errors: Annotated[float, Field(gt=0)]


MODELS: dict[str, type[Parameters]] = {"s3delta/c1_binary_concrete": BinaryConcrete}
