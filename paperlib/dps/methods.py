"""The fine-tuning methods by name, with the variants the paper's text and its published code stand for."""

from paperlib.dps.dense import DPSDense
from paperlib.errors import InputError
from paperlib.training import Method

PRESETS = ("reference", "paper")


def method(name: str, preset: str, p: float, update_ratio: float) -> Method:
    """The method called ``name``: "vanilla" or "dps_dense".

    ``preset`` "reference" is the published code's reading (p is dropped: the top 1 - p of each matrix train, and momentum still moves the
    rest); "paper" is the text's (p is reserved: the top p train, the rest stay fixed). InputError for unknown names.
    """
    if preset not in PRESETS:
        raise InputError(f"unknown preset {preset!r}; known: {', '.join(PRESETS)}")
    if name == "vanilla":
        return Method()
    if name == "dps_dense":
        reference = preset == "reference"
        return DPSDense(1 - p if reference else p, update_ratio, "grad_zero" if reference else "freeze")
    raise InputError(f"unknown method {name!r}; known: vanilla, dps_dense")


def dropout(name: str, preset: str, total_steps: int) -> float:
    """Dropout the published code trains ``name`` with; negative: the backbone's own.

    DPS Dense runs without dropout below 2,000 steps, which the paper's text does not mention.
    """
    silenced = name == "dps_dense" and preset == "reference" and total_steps < 2000
    return 0.0 if silenced else -1.0
