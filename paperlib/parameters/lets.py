"""Parameters of the LeTS section notebooks."""

from typing import Annotated

from pydantic import Field

from paperlib.parameters.base import Parameters

Percent = Annotated[float, Field(ge=0, le=100)]
Length = Annotated[int, Field(ge=1)]


class Metrics(Parameters):
    """``lets/a1_metrics``: operations, the four metrics, and Figure 6 as far as it is known (appendix A.1)."""

    length: Length
    longer: Length
    frozen: Annotated[int, Field(ge=0, le=24)]
    most_tasks: Annotated[int, Field(ge=9)]
    lets_saving: Percent
    lets_parameters: Percent
    lets_overhead: Percent


MODELS: dict[str, type[Parameters]] = {"lets/a1_metrics": Metrics}
