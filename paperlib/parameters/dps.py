"""Parameters of the DPS section notebooks."""

from paperlib.parameters.base import DataParameters, Parameters, Seed


class CaseStudy(DataParameters):
    """``dps/a_case_study``: easy and hard cases over restarts (appendix A, Figure 1)."""

    profile: str


class Datasets(DataParameters):
    """``dps/b_datasets``: Table 1 against loaded rows, and how hard the diagnostics are (appendix B)."""

    profile: str
    seed: Seed


MODELS: dict[str, type[Parameters]] = {"dps/a_case_study": CaseStudy, "dps/b_datasets": Datasets}
