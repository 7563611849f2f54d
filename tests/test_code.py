"""Which edits change a fingerprint, on a small house of our own and on the real one."""

import shutil

import pytest

from paperlib import code, paths

FILES = {
    "paperlib/__init__.py": "",
    "paperlib/errors.py": "class InputError(ValueError): pass\n",
    "paperlib/records.py": "from paperlib import claims\n",
    "paperlib/claims.py": "LIMIT = 1\n",
    "paperlib/training/__init__.py": "from paperlib.training.loop import Loop\n",
    "paperlib/training/loop.py": "from . import batches\n\nRATE = 1\n",
    "paperlib/training/batches.py": "def size():\n    from ..errors import InputError\n    return 16\n",
    "paperlib/tasks/__init__.py": "from paperlib.tasks import registry\n",
    "paperlib/tasks/registry.py": "NAMES = ()\n",
    "paperlib/tasks/metrics.py": "def f1(): pass\n",
    "paperlib/dps/__init__.py": "X = 1\n",
    "parameters/tasks.yaml": "rte: {}\n",
    "parameters/papers/dps.yaml": "claims: []\n",
}
RUN, SECTION = "runs/train", "dps/a"


@pytest.fixture
def house(tmp_path, monkeypatch, write_notebook):
    """``edit(path, text)`` changes one file of a small project; fingerprints are of that project."""
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    monkeypatch.setattr(paths, "NOTEBOOKS", tmp_path / "notebooks")
    monkeypatch.setattr(paths, "PARAMETERS", tmp_path / "parameters")
    monkeypatch.setenv("PAPERLIB_REFERENCE", str(tmp_path / "kept"))
    cells = (
        "from paperlib import records",
        "def f():\n    from paperlib.training import Loop\n    from paperlib import tasks",
    )
    for name in (RUN, SECTION):
        write_notebook(tmp_path / "notebooks", name, "seed: int = 0  # x", *cells)

    def edit(path=None, text=""):
        if path:
            (tmp_path / path).write_text(text)
        forget()

    def forget():
        for remembered in (code._imports_of, code._file, code._tree):
            remembered.cache_clear()

    forget()
    yield edit
    forget()


def both():
    return code.fingerprint(RUN), code.fingerprint(SECTION)


@pytest.mark.parametrize(
    "path, text, changes_run, changes_section",
    [
        ("paperlib/training/loop.py", "from . import batches\n\nRATE = 2\n", True, True),
        (
            "paperlib/training/batches.py",
            "def size():\n    from ..errors import InputError\n    return 8\n",
            True,
            True,
        ),
        ("paperlib/errors.py", "class InputError(Exception): pass\n", True, True),
        ("paperlib/tasks/registry.py", "NAMES = ('rte',)\n", True, True),
        ("parameters/tasks.yaml", "rte: {}\ncola: {}\n", True, True),
        ("paperlib/training/__init__.py", "from paperlib.training.loop import Loop as Loop\nY = 1\n", True, True),
        ("paperlib/records.py", "from paperlib import claims\nINDENT = 2\n", False, True),
        ("paperlib/claims.py", "LIMIT = 2\n", False, True),
        ("parameters/papers/dps.yaml", "claims: [1]\n", False, True),
        ("paperlib/tasks/metrics.py", "def f1(): return 1\n", False, False),
        ("paperlib/dps/__init__.py", "X = 2\n", False, False),
        ("paperlib/training/loop.py", "# why\nfrom . import batches\n\n\nRATE = (1)  # so\n", False, False),
    ],
    ids=[
        "science",
        "relative import inside a function",
        "ground",
        "package of an imported name",
        "data of a module",
        "package",
        "records",
        "claims",
        "printed claims",
        "not reached",
        "other paper",
        "comments and layout",
    ],
)
def test_what_an_edit_changes(house, path, text, changes_run, changes_section):
    run, section = both()
    house(path, text)
    assert (run != code.fingerprint(RUN), section != code.fingerprint(SECTION)) == (changes_run, changes_section)


def test_a_new_import_changes_it_even_if_unused(house):
    before = both()
    house("paperlib/training/batches.py", "from paperlib.dps import X\n" + FILES["paperlib/training/batches.py"])
    added = both()
    house("paperlib/dps/__init__.py", "X = 3\n")
    assert len({before, added, both()}) == 3


def test_code_cells_count_but_not_prose_nor_the_values_of_the_parameters_cell(house, tmp_path, write_notebook):
    first = write_notebook(tmp_path / "notebooks", RUN, "seed: int = 0  # x", "from paperlib import tasks", "x = 1")
    before = code.fingerprint(RUN)
    write_notebook(tmp_path / "notebooks", RUN, "seed: int = 5  # y", "from paperlib import tasks  # here", "x = 1")
    first.write_text(first.read_text().replace("# runs/train", "# Another title"))
    assert code.fingerprint(RUN) == before
    write_notebook(tmp_path / "notebooks", RUN, "seed: int = 0  # x", "from paperlib import tasks", "x = 2")
    assert code.fingerprint(RUN) != before


def test_a_kept_record_changes_the_pages_that_show_it_when_it_comes_changes_or_goes(house, tmp_path, write_notebook):
    write_notebook(tmp_path / "notebooks", SECTION, "seed: int = 0  # x", 'run.reference("runs/train", seed=1)')
    assert code.shown(SECTION) == ["runs/train"] and code.shown(RUN) == []
    kept, other = tmp_path / "kept/runs/train/gpu-1.json", tmp_path / "kept/runs/other/gpu-1.json"
    for path in (kept, other):
        path.parent.mkdir(parents=True)
    before, seen = both(), []
    other.write_text("{}")
    assert both() == before, "another notebook's"
    for text in ('{"seed": 1}', '{"seed": 2}'):
        kept.write_text(text)
        seen.append(both())
    kept.unlink()
    assert len({before[1], *(section for _, section in seen)}) == 3 and both() == before
    assert {run for run, _ in seen} == {before[0]}


def test_it_is_the_same_every_time(house):
    before = both()
    house()
    assert both() == before and all(len(each) == 64 for each in before)


def test_imports_are_found_in_every_form():
    source = "import paperlib.stats\nfrom paperlib import claims as c, errors\nfrom paperlib.tasks.splits import Splits\nimport os"
    assert code.imported(source) == {
        "paperlib.stats",
        "paperlib.claims",
        "paperlib.errors",
        "paperlib.tasks.splits",
    }
    assert code.imported("from . import loop\nfrom ..tasks import get", "paperlib.training") == {
        "paperlib.training",
        "paperlib.training.loop",
        "paperlib.tasks",
    }


def test_data_belongs_to_modules_that_exist():
    for name, data in code.DATA.items():
        assert paths.ROOT.joinpath(*name.split(".")).with_suffix(".py").is_file()
        assert list(paths.PARAMETERS.glob(data))


def test_recipes_belong_to_the_sections_that_show_them_and_to_no_run(tmp_path, monkeypatch):
    """A run's record names the parameters it got, wherever they came from."""
    names = ("runs/finetune", "dps/c_hyperparameters")
    shutil.copytree(paths.PARAMETERS, tmp_path / "parameters")
    monkeypatch.setattr(paths, "PARAMETERS", tmp_path / "parameters")
    before = [code.fingerprint(name) for name in names]
    recipes = tmp_path / "parameters" / "recipes" / "dps.yaml"
    recipes.write_text(recipes.read_text() + "# another value\n")
    assert [code.fingerprint(name) == old for name, old in zip(names, before, strict=True)] == [True, False]


def test_a_real_run_depends_on_training_and_not_on_claims(monkeypatch):
    read = []
    monkeypatch.setattr(code, "_tree", lambda source: read.append(source) or "")
    code.fingerprint("runs/finetune")
    seen = {name for name in ("training/loop", "claims", "records", "dps/dense", "tasks/diagnostics/reading") if
            (paths.ROOT / "paperlib" / f"{name}.py").read_text() in read}  # fmt: skip
    assert seen == {"training/loop", "dps/dense", "tasks/diagnostics/reading"}
