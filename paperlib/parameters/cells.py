"""The parameters cell of a notebook, read without running it."""

import ast
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from paperlib import paths
from paperlib.errors import InputError

PLAIN_TYPES = {"str", "int", "float", "bool", "list", "dict"}


@dataclass(frozen=True)
class Parameter:
    """One line of a parameters cell: ``name: type = default  # help``."""

    name: str
    type: str
    default: Any
    help: str


def notebooks() -> list[str]:
    """Ids of all notebooks: their path below ``notebooks/`` without the ending."""
    found = (p for p in paths.NOTEBOOKS.rglob("*.ipynb") if ".ipynb_checkpoints" not in p.parts)
    return sorted(p.relative_to(paths.NOTEBOOKS).with_suffix("").as_posix() for p in found)


def notebook_path(notebook: str) -> Path:
    """Path of the notebook with this id; InputError names the known ones."""
    path = paths.NOTEBOOKS / f"{notebook}.ipynb"
    if not path.is_file():
        raise InputError(f"unknown notebook {notebook!r}; known: {', '.join(notebooks())}")
    return path


@cache
def read(path: Path) -> tuple[Parameter, ...]:
    """Parameters of the notebook at ``path``, in order.

    Raises InputError if no cell carries the tag ``parameters`` or a line of it is not of the agreed form.
    """
    lines = _tagged_source(path).splitlines()
    return tuple(_parameter(path, line, number) for number, line in enumerate(lines, start=1) if line.strip())


def _parameter(path: Path, line: str, number: int) -> Parameter:
    _, _, comment = line.partition("  # ")
    try:
        (node,) = ast.parse(line).body
        parameter = Parameter(node.target.id, node.annotation.id, ast.literal_eval(node.value), comment.strip())
    except (SyntaxError, ValueError, AttributeError):
        parameter = None
    if parameter is None or parameter.type not in PLAIN_TYPES:
        raise InputError(
            f"{path.name}: parameters cell, line {number}: write 'name: type = default  # help' "
            f"with a type among {', '.join(sorted(PLAIN_TYPES))}"
        )
    return parameter


def _tagged_source(path: Path) -> str:
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        if "parameters" in cell.get("metadata", {}).get("tags", []):
            return "".join(cell["source"])
    raise InputError(f"{path.name}: no cell is tagged 'parameters'; tag the cell that holds the defaults")
