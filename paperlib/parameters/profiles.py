"""Profiles: named scales. A profile says which sections are shown and which runs they need."""

import itertools
import shlex
from dataclasses import dataclass
from functools import cache
from typing import Any

from pydantic import BaseModel, ConfigDict

from paperlib import paths
from paperlib.errors import InputError
from paperlib.parameters import base, model_of, resolve
from paperlib.parameters.recipes import Search, TableName, fill

OVERRIDABLE = ("source", "data_dir", "backbone")


class Grid(BaseModel):
    """Runs of one notebook: the product of the ``grid`` values, each with the same ``parameters``.

    ``search`` puts the points of a paper's search in front of the product. ``recipes`` fill in what nobody set: a value written here
    wins over the search's, which wins over a recipe's. ``fixed`` parameters stay whatever source, data or backbone the reader asks for.
    """

    model_config = ConfigDict(extra="forbid", strict=True)
    notebook: str
    parameters: dict[str, Any] = {}
    recipes: list[TableName] = []
    search: Search | None = None
    grid: dict[str, list[Any]] = {}
    fixed: dict[str, Any] = {}

    def points(self) -> list[dict[str, Any]]:
        """Every point of the search with every combination of the grid's values, merged over the common parameters and filled in."""
        searched = self.search.points(self.parameters) if self.search else [self.parameters]
        combinations = list(itertools.product(*self.grid.values()))
        given = (
            {**point, **dict(zip(self.grid, values, strict=True))} for point in searched for values in combinations
        )
        return [fill(self.recipes, point) for point in given]


class Section(BaseModel):
    """One section notebook of a profile: its own parameters and the runs it reads."""

    model_config = ConfigDict(extra="forbid", strict=True)
    parameters: dict[str, Any] = {}
    runs: list[Grid] = []


class Profile(BaseModel):
    """A named scale, as written in ``parameters/profiles/<name>.yaml``."""

    model_config = ConfigDict(extra="forbid", strict=True)
    description: str
    needs: str
    minutes: float
    defaults: dict[str, Any] = {}
    sections: dict[str, Section]


@dataclass(frozen=True)
class Job:
    """One notebook with all its parameters resolved and validated."""

    notebook: str
    parameters: dict[str, Any]


def names() -> list[str]:
    """Names of all profiles."""
    return sorted(p.stem for p in (paths.PARAMETERS / "profiles").glob("*.yaml"))


@cache
def load(name: str) -> Profile:
    """The profile called ``name``; InputError lists the known ones, or says what is wrong in the file."""
    if name not in names():
        raise InputError(f"unknown profile {name!r}{base.suggestion(name, names())}; known: {', '.join(names())}")
    content = base.read_yaml(paths.PARAMETERS / "profiles" / f"{name}.yaml")
    return base.validated(Profile, f"profiles/{name}.yaml", content)


def section_job(profile: str, section: str, overrides: dict[str, Any]) -> Job:
    """The section notebook itself, with the profile's parameters and the reader's overrides."""
    chosen = load(profile)
    if section not in chosen.sections:
        raise InputError(
            f"profile {profile!r} has no section {section!r}{base.suggestion(section, chosen.sections)}; "
            f"it has: {', '.join(chosen.sections)}"
        )
    return page_job(profile, section, overrides, chosen.sections[section].parameters)


def page_job(profile: str, notebook: str, overrides: dict[str, Any], given: dict[str, Any] | None = None) -> Job:
    """A light notebook opened at this profile: a section, or the scoreboard."""
    chosen = load(profile)
    return _job(notebook, given or {}, {**chosen.defaults, "profile": profile}, _changed(chosen, overrides))


def run_jobs(profile: str, section: str, overrides: dict[str, Any]) -> list[Job]:
    """Every run the section reads at this scale, in the profile's order; none for a section the profile leaves out."""
    chosen = load(profile)
    grids = chosen.sections[section].runs if section in chosen.sections else []
    changed = _changed(chosen, overrides)
    return [
        _job(grid.notebook, point, chosen.defaults, {**changed, **grid.fixed})
        for grid in grids
        for point in grid.points()
    ]


def _job(notebook: str, given: dict[str, Any], defaults: dict[str, Any], overrides: dict[str, Any]) -> Job:
    known = model_of(notebook).model_fields
    shared = {key: value for key, value in defaults.items() if key in known}
    asked = {key: value for key, value in overrides.items() if key in known}
    return Job(notebook, resolve(notebook, {**shared, **given, **asked}).model_dump())


def _changed(chosen: Profile, overrides: dict[str, Any]) -> dict[str, Any]:
    """Overrides that change something: a notebook opened with the profile's defaults leaves what sections and runs say for themselves."""
    return {key: value for key, value in overrides.items() if value != chosen.defaults.get(key)}


def overrides_of(parameters: dict[str, Any]) -> dict[str, Any]:
    """The source, data folder and backbone a section notebook was opened with, as overrides for its runs."""
    return {key: parameters[key] for key in OVERRIDABLE if key in parameters}


def command(profile: str, overrides: dict[str, Any], section: str | None = None) -> str:
    """The shell command that executes a profile, or one section of it, with the reader's overrides."""
    named = {"source": "--source", "data_dir": "--data", "backbone": "--backbone"}
    usual = load(profile).defaults
    asked = {key: value for key, value in overrides.items() if value and value != usual.get(key)}
    options = [part for key, value in asked.items() for part in (named[key], shlex.quote(value))]
    return " ".join(["paperlib reproduce", profile, *(["--only", section] if section else []), *options])
