"""Parameters of the DPS section notebooks."""

from typing import Annotated

from pydantic import Field

from paperlib.parameters.base import Backbone, DataParameters, Parameters, Seed, TaskName


class CaseStudy(DataParameters):
    """``dps/a_case_study``: easy and hard cases over restarts (appendix A, Figure 1)."""

    profile: str


class Datasets(DataParameters):
    """``dps/b_datasets``: Table 1 against loaded rows, and how hard the diagnostics are (appendix B)."""

    profile: str
    seed: Seed
    margin: Annotated[float, Field(gt=0, lt=1)]


class Hyperparameters(Parameters):
    """``dps/c_hyperparameters``: Table 2 against the models' own repositories (appendix C)."""

    profile: str
    layers: Annotated[int, Field(ge=1, le=200)]


class MethodSearch(DataParameters):
    """``dps/d_method_search``: the seven search spaces, and what a search finds (appendix D)."""

    profile: str
    task: TaskName
    seed: Seed
    budgets: Annotated[list[Annotated[int, Field(ge=1)]], Field(min_length=1)]


class LabelMapping(DataParameters):
    """``dps/e_label_mapping``: trained on one inference task, scored on others (appendix E)."""

    profile: str


class Memory(Parameters):
    """``dps/f_memory``: Table 3 by counting bytes, and what training really allocates (appendix F)."""

    profile: str
    backbone: Backbone


MODELS: dict[str, type[Parameters]] = {
    "dps/a_case_study": CaseStudy,
    "dps/b_datasets": Datasets,
    "dps/c_hyperparameters": Hyperparameters,
    "dps/d_method_search": MethodSearch,
    "dps/e_label_mapping": LabelMapping,
    "dps/f_memory": Memory,
}
