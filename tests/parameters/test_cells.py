"""The parameters cell is read without running it, and held to one form."""

import nbformat
import pytest

from paperlib.errors import InputError
from paperlib.parameters import cells


@pytest.fixture
def read(tmp_path, write_notebook):
    return lambda source: cells.read(write_notebook(tmp_path, "n", source))


def test_name_type_default_and_help(read):
    source = (
        'lr: float = 2e-5  # peak\nname: str = "a # b"  # says it\nxs: list = [1, -2]  # more\non: bool = True  # yes'
    )
    assert [(p.name, p.type, p.default, p.help) for p in read(source)] == [
        ("lr", "float", 2e-5, "peak"),
        ("name", "str", "a # b", "says it"),
        ("xs", "list", [1, -2], "more"),
        ("on", "bool", True, "yes"),
    ]


@pytest.mark.parametrize(
    "line",
    [
        "seed = 0  # no type",
        "seed: int  # no default",
        "seed: set = {1}  # not plain",
        "seed: int | None = 0  # no single type",
        "seed: list[int] = [0]  # no plain type",
        "seed: int = 2**3  # not a literal",
        "seed: int = f()  # not a literal",
        "import os  # no parameter",
        "seed: int = (  # not Python",
        "self.seed: int = 0  # no plain name",
    ],
)
def test_any_other_form_is_refused_with_its_line(read, line):
    with pytest.raises(InputError, match=r"n.ipynb: parameters cell, line 3: write 'name: type = default  # help'"):
        read(f"ok: int = 1  # fine\n\n{line}")


def test_a_notebook_without_the_tag_is_refused(tmp_path):
    path = tmp_path / "n.ipynb"
    nbformat.write(nbformat.v4.new_notebook(), path)
    with pytest.raises(InputError, match="n.ipynb: no cell is tagged 'parameters'"):
        cells.read(path)


def test_ids_are_paths_below_the_notebooks_folder(monkeypatch, tmp_path, write_notebook):
    monkeypatch.setattr("paperlib.paths.NOTEBOOKS", tmp_path)
    for name in ("overview", "dps/a", "dps/.ipynb_checkpoints/a-checkpoint"):
        write_notebook(tmp_path, name, "")
    assert cells.notebooks() == ["dps/a", "overview"]
    assert cells.notebook_path("dps/a") == tmp_path / "dps" / "a.ipynb"
    with pytest.raises(InputError, match="unknown notebook 'dps/b'; known: dps/a, overview"):
        cells.notebook_path("dps/b")
