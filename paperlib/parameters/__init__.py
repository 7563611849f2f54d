"""Parameters: profiles as data, and a strict pydantic model for every notebook."""

from typing import Any

from paperlib.errors import InputError
from paperlib.parameters import dps, lets, overview, performance, runs, s3delta
from paperlib.parameters.base import Parameters, validated
from paperlib.parameters.cells import notebook_path, read

MODELS: dict[str, type[Parameters]] = {
    **runs.MODELS,
    **s3delta.MODELS,
    **lets.MODELS,
    **dps.MODELS,
    **performance.MODELS,
    **overview.MODELS,
}


def model_of(notebook: str) -> type[Parameters]:
    """The pydantic model of a notebook's parameters; InputError for a notebook that has none."""
    if notebook not in MODELS:
        notebook_path(notebook)
        raise InputError(f"{notebook}: no parameter model; add one to paperlib/parameters")
    return MODELS[notebook]


def resolve(notebook: str, given: dict[str, Any]) -> Parameters:
    """Defaults of the notebook's parameters cell, overridden by ``given``, validated."""
    defaults = {p.name: p.default for p in read(notebook_path(notebook))}
    return validated(model_of(notebook), notebook, {**defaults, **given})
