"""The house rules: which module may import which, and what may not stand anywhere in the code."""

import ast
import re
import subprocess
from pathlib import Path

import pytest

from paperlib import code
from paperlib.paths import ROOT

GROUND = {"errors", "paths"}
SCIENCE = {"kernels", "tasks", "hub", "measure", "backbones", "training", "s3delta", "lets", "dps"}
EVIDENCE = {
    "parameters",
    "code",
    "records",
    "claims",
    "stats",
    "figures",
    "plan",
    "runs",
    "report",
    "pages",
    "grid",
    "keep",
    "cli",
}
PAPERS = {"s3delta", "lets", "dps"}

# Within a wing imports point down: a module may import what stands left of it, or beside it in its own package.
SCIENCE_ORDER = [{"kernels"}, {"hub", "measure"}, {"tasks", "backbones"}, {"training"}, PAPERS]
EVIDENCE_ORDER = [
    {"parameters", "stats", "figures"},
    {"code", "claims"},
    {"records"},
    {"plan", "runs", "report"},
    {"pages", "grid", "keep"},
    {"cli"},
]


def modules() -> dict[str, Path]:
    """Dotted name below paperlib -> file."""
    files = sorted((ROOT / "paperlib").rglob("*.py"))
    return {
        ".".join(f.relative_to(ROOT / "paperlib").with_suffix("").parts).removesuffix("__init__").rstrip("."): f
        for f in files
    }


def part(name: str) -> str:
    return name.partition(".")[0]


def imports(name: str, file: Path) -> set[str]:
    """Parts of paperlib that the module imports anywhere, functions included (``tasks`` for ``paperlib.tasks.splits``)."""
    package = name.split(".") if file.name == "__init__.py" else name.split(".")[:-1]
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = ["paperlib", *package][: len(package) + 2 - node.level] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            found |= {f"{base}.{alias.name}" for alias in node.names}
    return {dotted.split(".")[1] for dotted in found if dotted.startswith("paperlib.")}


MODULES = {name: file for name, file in modules().items() if name}
IMPORTS = {name: imports(name, file) for name, file in MODULES.items()}


def names_in(parts: set[str]) -> list[str]:
    return [name for name in MODULES if part(name) in parts]


def test_every_module_belongs_to_one_wing_or_the_ground():
    assert {part(name) for name in MODULES} == GROUND | SCIENCE | EVIDENCE | {"doctor"}
    assert not SCIENCE & EVIDENCE


def test_fingerprints_leave_out_the_same_wing():
    never_in_a_notebook = {"pages", "grid", "keep"}
    assert code.EVIDENCE == EVIDENCE - never_in_a_notebook


def test_imports_are_read_wherever_they_stand():
    assert {"tasks", "backbones"} <= IMPORTS["training.throughput"]
    assert "plan" in IMPORTS["cli"], "imports inside functions count"


@pytest.mark.parametrize("name", MODULES)
def test_neither_wing_imports_the_other(name):
    if part(name) == "doctor":
        assert IMPORTS[name] & SCIENCE and IMPORTS[name] & EVIDENCE, "doctor alone looks into both"
    elif part(name) in SCIENCE:
        assert not IMPORTS[name] & (EVIDENCE | {"doctor"})
    elif part(name) in EVIDENCE:
        assert not IMPORTS[name] & SCIENCE
    else:
        assert IMPORTS[name] <= GROUND


def test_only_the_command_line_calls_doctor():
    assert [name for name in MODULES if "doctor" in IMPORTS[name]] == ["cli"]


@pytest.mark.parametrize("paper", sorted(PAPERS))
def test_papers_never_import_one_another(paper):
    for name in names_in({paper}):
        assert not IMPORTS[name] & (PAPERS - {paper}), name


def test_kernels_import_nothing_of_paperlib():
    for name in names_in({"kernels"}):
        assert IMPORTS[name] <= {"kernels"}, name


@pytest.mark.parametrize("order", [SCIENCE_ORDER, EVIDENCE_ORDER], ids=["science", "evidence"])
def test_imports_point_down_within_a_wing(order):
    assert set().union(*order) == (SCIENCE if order is SCIENCE_ORDER else EVIDENCE)
    for level, parts in enumerate(order):
        above = set().union(*order[level + 1 :])
        for name in names_in(parts):
            assert not IMPORTS[name] & above, f"{name} imports what stands above it: {IMPORTS[name] & above}"


def test_nothing_unpickles_runs_remote_code_or_opens_a_shell():
    forbidden = {"pickle", "dill", "joblib", "cloudpickle", "shelve", "marshal"}
    for name, file in MODULES.items():
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                assert not forbidden & {part(alias.name) for alias in node.names}, name
            if isinstance(node, ast.ImportFrom):
                assert part(node.module or "") not in forbidden, name
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                assert called not in ("torch.load", "os.system", "os.popen", "eval", "exec", "yaml.load"), name
                options = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
                assert options.get("trust_remote_code", "False") == "False", name
                assert options.get("shell", "False") == "False", name


def tracked_text() -> dict[str, str]:
    """Path -> content of every text file git tracks or would track."""
    listed = subprocess.run(
        ["git", "-C", ROOT, "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode:
        pytest.skip("not a git checkout: there is no list of the project's files")
    found = {}
    for name in filter(None, listed.stdout.split("\0")):
        try:
            found[name] = (ROOT / name).read_text(encoding="utf-8")
        except (UnicodeDecodeError, FileNotFoundError, IsADirectoryError):
            continue
    return found


def test_no_absolute_path_of_a_machine_is_in_the_project():
    machine = re.compile(r"(?<![\w.~])/(?:home|Users|root|work|mnt|opt|data|scratch)/\w")
    found = {
        f"{name}: {match.group()}"
        for name, text in tracked_text().items()
        for match in machine.finditer(text)
        if name != "tests/test_architecture.py"
    }
    assert not found
    assert machine.search("in /" + "home/anna/x") and not machine.search("../shared/data")
