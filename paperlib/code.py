"""Which code a notebook's results depend on, as a fingerprint.

A run's results come from its own cells and from the science modules they reach; how records are written or pages drawn does
not change them. A section's page shows evidence too, so there everything it reaches counts, with the claims it is held to and the
kept records it shows.
Comments and layout never count: modules are compared by their syntax trees.
"""

import ast
import hashlib
import json
from functools import cache
from pathlib import Path

from paperlib import paths

EVIDENCE = {"parameters", "records", "code", "runs", "plan", "claims", "stats", "figures", "report", "cli"}

# Data a module reads, so that editing it counts as editing the module.
DATA = {
    "paperlib.tasks.registry": "tasks.yaml",
    "paperlib.backbones": "backbones.yaml",
    "paperlib.claims": "papers/*.yaml",
    "paperlib.parameters.profiles": "profiles/*.yaml",
    "paperlib.parameters.recipes": "recipes/*.yaml",
}


def fingerprint(notebook: str) -> str:
    """SHA-256 (hex) over the notebook's code cells and the paperlib modules and data behind them."""
    source = _source(notebook)
    reached = sorted(_closure(source))
    if notebook.startswith(("runs/", "performance/")):
        reached = [name for name in reached if name.split(".")[1] not in EVIDENCE]
    digest = hashlib.sha256(_tree(source).encode())
    for name in reached:
        digest.update(f"\n{name}\n{_tree(_file(name).read_text(encoding='utf-8'))}".encode())
        for data in sorted(paths.PARAMETERS.glob(DATA[name])) if name in DATA else ():
            digest.update(data.read_bytes())
    for kept in [path for name in _shown_in(source) for path in sorted((paths.reference() / name).glob("*.json"))]:
        digest.update(f"\n{kept.name}\n".encode() + kept.read_bytes())
    return digest.hexdigest()


def shown(notebook: str) -> list[str]:
    """Notebooks whose kept records this one shows: those it names in calls of ``run.reference("...")``."""
    return _shown_in(_source(notebook))


@cache
def _shown_in(source: str) -> list[str]:
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    return sorted({call.args[0].value for call in calls if ast.unparse(call.func) == "run.reference"})


def _source(notebook: str) -> str:
    return "\n".join(code_cells(paths.NOTEBOOKS / f"{notebook}.ipynb"))


def code_cells(notebook: Path) -> list[str]:
    """Sources of the notebook's code cells, the parameters cell left out: its values are recorded themselves."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return [
        "".join(cell["source"])
        for cell in cells
        if cell["cell_type"] == "code" and "parameters" not in cell["metadata"].get("tags", [])
    ]


def imported(source: str, package: str = "") -> set[str]:
    """Names of the paperlib modules that ``source`` imports anywhere, functions included."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = _absolute(node, package)
            names |= {base} | {f"{base}.{alias.name}" for alias in node.names}
    return {name for name in names if name.startswith("paperlib.") and _file(name) is not None}


def _absolute(node: ast.ImportFrom, package: str) -> str:
    if not node.level:
        return node.module or ""
    parents = package.split(".")[: len(package.split(".")) - node.level + 1]
    return ".".join([*parents, *([node.module] if node.module else [])])


def _closure(source: str) -> set[str]:
    reached, waiting = set(), imported(source)
    while waiting:
        name = waiting.pop()
        if name not in reached:
            reached.add(name)
            waiting |= _imports_of(name)
    return reached


@cache
def _imports_of(name: str) -> frozenset[str]:
    file = _file(name)
    package = name if file.name == "__init__.py" else name.rpartition(".")[0]
    found = imported(file.read_text(encoding="utf-8"), package)
    parent = name.rpartition(".")[0]
    return frozenset(found | ({parent} if parent != "paperlib" else set()))


@cache
def _file(name: str) -> Path | None:
    stem = paths.ROOT.joinpath(*name.split("."))
    return next((f for f in (stem.with_suffix(".py"), stem / "__init__.py") if f.is_file()), None)


@cache
def _tree(source: str) -> str:
    return ast.dump(ast.parse(source))
