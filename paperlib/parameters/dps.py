"""Parameters of the DPS section notebooks."""

from typing import Annotated

from pydantic import Field

from paperlib.parameters.base import DataParameters, Parameters, Seed


class CaseStudy(DataParameters):
    """``dps/a_case_study``: easy and hard cases over restarts (appendix A, Figure 1)."""

    profile: str


class Datasets(DataParameters):
    """``dps/b_datasets``: Table 1 against loaded rows, and how hard the diagnostics are (appendix B)."""

    profile: str
    seed: Seed
    margin: Annotated[float, Field(gt=0, lt=1)]


MODELS: dict[str, type[Parameters]] = {"dps/a_case_study": CaseStudy, "dps/b_datasets": Datasets}
