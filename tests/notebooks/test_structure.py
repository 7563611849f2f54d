"""Every notebook has the same form, agrees with its pydantic model, and is listed where it belongs."""

import ast
import builtins
import itertools
import re

import nbformat
import pytest
from papermill import inspect_notebook

from paperlib import claims, code, parameters, paths
from paperlib.code import code_cells
from paperlib.parameters import cells, profiles

NOTEBOOKS = cells.notebooks()
PAPER_NOTEBOOKS = [name for name in NOTEBOOKS if name.partition("/")[0] in claims.PAPERS]
LONGEST_CELL = 25
LONGEST_CODE_GROUP = 6
every_notebook = pytest.mark.parametrize("name", NOTEBOOKS)


def opened(name):
    return nbformat.read(paths.NOTEBOOKS / f"{name}.ipynb", as_version=nbformat.NO_CONVERT)


def statements(source):
    """Lines of code, counted as a reader does: without blank lines and comments."""
    return [line for line in source.splitlines() if line.strip() and not line.strip().startswith("#")]


@every_notebook
def test_it_is_a_valid_notebook_for_any_python_kernel(name):
    notebook = opened(name)
    nbformat.validate(notebook)
    assert notebook.nbformat == 4
    assert notebook.metadata.kernelspec.name == "python3"
    assert notebook.metadata.language_info == {"name": "python"}
    assert set(notebook.metadata) == {"kernelspec", "language_info"}


@every_notebook
def test_it_is_stored_without_what_it_computed(name):
    for cell in opened(name).cells:
        if cell.cell_type == "code":
            assert cell.outputs == [] and cell.execution_count is None
            assert set(cell.metadata) <= {"tags"}


@every_notebook
def test_it_opens_with_title_parameters_and_begin(name):
    title, given, begin = opened(name).cells[:3]
    assert title.cell_type == "markdown" and re.match(r"# \S", title.source)
    assert given.cell_type == "code" and given.metadata.tags == ["parameters"]
    assert f'run = records.begin("{name}", globals())' in begin.source.splitlines()


@every_notebook
def test_one_title_and_sections_below_it(name):
    headings = [
        line
        for cell in opened(name).cells
        if cell.cell_type == "markdown"
        for line in cell.source.splitlines()
        if re.match("#+ ", line)
    ]
    assert [line.startswith("## ") for line in headings] == [False] + [True] * (len(headings) - 1)


@every_notebook
def test_each_line_of_the_parameters_cell_declares_one_parameter(name):
    form = re.compile(r"[a-zA-Z_]\w*: (str|int|float|bool|list|dict) = .+  # \S.*")
    source = opened(name).cells[1].source
    assert all(form.fullmatch(line) for line in source.splitlines())


@every_notebook
def test_papermill_sees_the_same_parameters_as_we_do(name):
    theirs = inspect_notebook(paths.NOTEBOOKS / f"{name}.ipynb")
    ours = cells.read(paths.NOTEBOOKS / f"{name}.ipynb")
    assert [(p.name, p.type, p.help) for p in ours] == [
        (p["name"], p["inferred_type_name"], p["help"]) for p in theirs.values()
    ]
    assert [p.default for p in ours] == [ast.literal_eval(p["default"]) for p in theirs.values()]


@every_notebook
def test_the_cell_and_its_model_name_the_same_parameters(name):
    declared = [p.name for p in cells.read(paths.NOTEBOOKS / f"{name}.ipynb")]
    assert sorted(declared) == sorted(parameters.MODELS[name].model_fields)


@every_notebook
def test_the_types_of_cell_and_model_agree(name):
    schema = parameters.MODELS[name].model_json_schema()
    words = {"string": "str", "integer": "int", "number": "float", "boolean": "bool", "array": "list", "object": "dict"}
    for parameter in cells.read(paths.NOTEBOOKS / f"{name}.ipynb"):
        assert words[schema["properties"][parameter.name]["type"]] == parameter.type, parameter.name
        assert type(parameter.default) is getattr(builtins, parameter.type), parameter.name


@every_notebook
def test_its_defaults_are_valid(name):
    resolved = parameters.resolve(name, {}).model_dump()
    assert resolved == {p.name: p.default for p in cells.read(paths.NOTEBOOKS / f"{name}.ipynb")}


@every_notebook
def test_no_function_lives_in_a_notebook(name):
    for cell in opened(name).cells:
        if cell.cell_type == "code":
            definitions = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
            assert not [node.name for node in ast.walk(ast.parse(cell.source)) if isinstance(node, definitions)]


@every_notebook
def test_code_cells_are_short(name):
    lengths = [len(statements(source)) for source in code_cells(paths.NOTEBOOKS / f"{name}.ipynb")]
    assert max(lengths) <= LONGEST_CELL, f"lines of the code cells: {lengths}"


@every_notebook
def test_prose_comes_before_code(name):
    kinds = [cell.cell_type for cell in opened(name).cells[3:]]
    assert kinds[0] == "markdown"
    groups = [len(list(group)) for kind, group in itertools.groupby(kinds) if kind == "code"]
    assert max(groups) <= LONGEST_CODE_GROUP, f"code cells without a word between them: {groups}"


@every_notebook
def test_no_branch_on_the_scale(name):
    """Small scale is smaller parameters, never another path through the code."""
    for source in code_cells(paths.NOTEBOOKS / f"{name}.ipynb"):
        assert not re.search(r"(?i)\bsmoke\b|\bprofile\s*(==|!=|in\b)", source)


@every_notebook
def test_the_kept_records_it_shows_are_those_of_notebooks_it_names(name):
    """Written out, so that a page changes with them; only sections show what was measured elsewhere."""
    assert set(code.shown(name)) <= set(NOTEBOOKS)
    assert not code.shown(name) or name in PAPER_NOTEBOOKS


@every_notebook
def test_its_last_cell_writes_the_record(name):
    last = opened(name).cells[-1]
    assert last.cell_type == "code"
    # What a finished run no longer needs may be cleared behind it, never before it.
    assert any(ast.unparse(statement).startswith("run.finish(") for statement in ast.parse(last.source).body)
    finishes = [source for source in code_cells(paths.NOTEBOOKS / f"{name}.ipynb") if "run.finish(" in source]
    assert len(finishes) == 1


@pytest.mark.parametrize("name", PAPER_NOTEBOOKS)
def test_a_section_judges_its_claims_and_says_first_what_differs(name):
    notebook = opened(name)
    first = notebook.cells[3].source.splitlines()[0]
    assert first in ("## What does not reproduce", "## What to know first"), "the second where everything reproduces"
    source = "\n".join(code_cells(paths.NOTEBOOKS / f"{name}.ipynb"))
    sections = [
        (paper, key)
        for paper in claims.PAPERS
        for key, section in claims.load(paper).sections.items()
        if section.notebook == name
    ]
    assert sections, "no paper lists it"
    for paper, key in sections:
        (book,) = re.findall(rf'(\w+) = claims\.Book\("{paper}", "{re.escape(key)}"', source)
        assert f"{book}.table()" in source and f"{book}.verdicts" in source.partition("run.finish(")[2]


def test_every_section_notebook_is_listed_under_sections_of_its_paper_and_exists():
    listed = {
        (paper, s.notebook) for paper in claims.PAPERS for s in claims.load(paper).sections.values() if s.notebook
    }
    assert sorted(notebook for _, notebook in listed) == sorted(PAPER_NOTEBOOKS)
    assert all(notebook.startswith(f"{paper}/") for paper, notebook in listed)


def test_every_notebook_has_a_model_and_every_model_a_notebook():
    assert sorted(parameters.MODELS) == NOTEBOOKS


@pytest.mark.parametrize("profile", profiles.names())
def test_profiles_name_notebooks_that_exist(profile):
    chosen = profiles.load(profile)
    named = set(chosen.sections) | {grid.notebook for section in chosen.sections.values() for grid in section.runs}
    assert named <= set(NOTEBOOKS)


def test_the_default_profile_shows_every_section_there_is():
    shown = [name for name in NOTEBOOKS if not name.startswith("runs/") and name != "overview"]
    assert sorted(profiles.load("laptop").sections) == shown
    assert sorted(profiles.load("smoke").sections) == shown
