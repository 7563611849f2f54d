"""Recipes: the hyper-parameters a paper prints, as data that profiles read and notebooks print."""

import itertools
import random
from collections.abc import Iterable
from functools import cache
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from paperlib import paths
from paperlib.errors import InputError
from paperlib.parameters import base

EVERY = "all"
METHODS = "methods"

Point = dict[str, Any]


class Row(BaseModel):
    """One row of a table: the run parameters it sets, and what the model's own repository says of them."""

    model_config = ConfigDict(extra="forbid", strict=True)
    values: Point
    official: Point = {}
    source: str
    note: str = ""


class Table(BaseModel):
    """Values of some run parameters by the value of another one, ``by``; the row ``all`` fits every value."""

    model_config = ConfigDict(extra="forbid", strict=True)
    title: str
    by: str
    rows: dict[str, Row]


class Recipes(BaseModel):
    """A paper's recipes, as written in ``parameters/recipes/<paper>.yaml``: its tables, and grids of values around their rows.

    ``search``: grids by the row they vary, "table.row", or the row alone where the table is ``methods``.
    """

    model_config = ConfigDict(extra="forbid", strict=True)
    tables: dict[str, Table]
    search: dict[str, dict[str, Annotated[list[Any], Field(min_length=1)]]] = {}

    @model_validator(mode="after")
    def _defaults_are_points(self):
        for name, grid in self.search.items():
            table, key = _place(name)
            if table not in self.tables or key not in self.tables[table].rows:
                raise ValueError(f"search has {key!r}, which has no default in the table {table!r}")
            usual = self.usual(name)
            for parameter, values in grid.items():
                if usual.get(parameter) not in values:
                    raise ValueError(f"{table}.{key}: the default of {parameter} is none of the values searched")
        return self

    def usual(self, name: str) -> Point:
        """The default point of a grid: its row, and the value the row's table goes by unless that is any."""
        table, key = _place(name)
        picked = {} if key == EVERY else {self.tables[table].by: key}
        return {**picked, **self.tables[table].rows[key].values}

    def grid(self, name: str) -> list[Point]:
        """A whole grid in the order it is written, each point with the other defaults of its row."""
        parameters, values = self.search[name].keys(), self.search[name].values()
        return [{**self.usual(name), **dict(zip(parameters, each, strict=True))} for each in itertools.product(*values)]


def _place(name: str) -> tuple[str, str]:
    """Table and row that a grid varies."""
    table, _, key = name.rpartition(".")
    return table or METHODS, key


def names() -> list[str]:
    """Papers that have recipes."""
    return sorted(p.stem for p in (paths.PARAMETERS / "recipes").glob("*.yaml"))


@cache
def load(paper: str) -> Recipes:
    """The recipes of one paper; InputError lists the known ones, or says what is wrong in the file."""
    if paper not in names():
        raise InputError(f"unknown recipes {paper!r}{base.suggestion(paper, names())}; known: {', '.join(names())}")
    content = base.read_yaml(paths.PARAMETERS / "recipes" / f"{paper}.yaml")
    return base.validated(Recipes, f"recipes/{paper}.yaml", content)


def fill(chosen: Iterable[str], point: Point) -> Point:
    """``point`` with what the tables ``chosen`` ("dps.bert") add; what it sets itself stays, and of two tables the first is heard.

    InputError: the point lacks the parameter a table goes by, or the table has no row for its value.
    """
    filled = dict(point)
    for name in chosen:
        filled = {**_row(name, filled).values, **filled}
    return filled


def _row(name: str, point: Point) -> Row:
    paper, _, key = name.partition(".")
    table = load(paper).tables[key]
    if table.by not in point:
        raise InputError(f"recipe {name!r} goes by {table.by}; give one in the profile's parameters or grid")
    row = table.rows.get(str(point[table.by]), table.rows.get(EVERY))
    if row is None:
        raise InputError(
            f"recipe {name!r} has no row for {table.by} {point[table.by]!r}; it has: {', '.join(table.rows)}"
        )
    return row


def _known_table(name: str) -> str:
    known = [f"{paper}.{table}" for paper in names() for table in load(paper).tables]
    if name not in known:
        raise ValueError(f"unknown recipe {name!r}{base.suggestion(name, known)}; known: {', '.join(known)}")
    return name


TableName = Annotated[str, AfterValidator(_known_table)]
"""A table of a paper's recipes, as in "dps.bert"."""


class Search(BaseModel):
    """The search of an appendix, or part of it: the grids named in ``methods`` (none: all), without the values named in ``leave_out``.

    ``configurations``: how many points of each grid to try, 0 for all; the grid's default is one of them if it is left, the others are
    drawn by ``seed``.
    """

    model_config = ConfigDict(extra="forbid", strict=True)
    recipes: str
    methods: list[str] = []
    leave_out: dict[str, list[Any]] = {}
    configurations: Annotated[int, Field(ge=0)] = 0
    seed: int = 0

    @model_validator(mode="after")
    def _names_are_known(self):
        if self.recipes not in names():
            raise ValueError(f"unknown recipes {self.recipes!r}; known: {', '.join(names())}")
        known = load(self.recipes).search
        for method in self.methods:
            if method not in known:
                raise ValueError(
                    f"unknown search {method!r}{base.suggestion(method, known)}; known: {', '.join(known)}"
                )
        return self

    def points(self, fixed: Point) -> list[Point]:
        """Points to try, method by method, with the values in ``fixed`` in place of their own; those that then agree come once."""
        methods = self.methods or list(load(self.recipes).search)
        return [point for method in methods for point in self._tried(method, fixed)]

    def _tried(self, method: str, fixed: Point) -> list[Point]:
        found = load(self.recipes)
        usual = {**found.usual(method), **fixed}
        left = _distinct({**point, **fixed} for point in found.grid(method) if not self._left_out(point))
        if not self.configurations or len(left) <= self.configurations:
            return left
        first = [point for point in left if point == usual]
        others = [point for point in left if point != usual]
        # A stream for every method, so that leaving one out changes no other's draw.
        drawn = random.Random(f"{self.seed} {method}").sample(others, self.configurations - len(first))
        return [point for point in left if point in first + drawn]

    def _left_out(self, point: Point) -> bool:
        return any(point.get(name) in values for name, values in self.leave_out.items())


def _distinct(points: Iterable[Point]) -> list[Point]:
    kept: list[Point] = []
    for point in points:
        if point not in kept:
            kept.append(point)
    return kept
