"""Shared by all tests: the real data where it exists, folders of their own for records and reports, small problems to train on."""

import copy
import os
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch

# Without a GPU Triton's kernels run in its interpreter. Triton decides when it is imported, which transformers does: before any test module.
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder with glue/, superglue/ and nli/ in their official layouts, or a skip that says how to give one."""
    folder = Path(os.environ.get("PAPERLIB_DATA", ROOT.parent / "shared" / "data"))
    if not (folder / "glue").is_dir():
        pytest.skip(f"no real data in {folder}; set PAPERLIB_DATA to a folder that holds glue/")
    return folder


@pytest.fixture
def workspace(tmp_path, monkeypatch) -> Path:
    """An empty results folder, and empty folders of reports and of kept records beside it."""
    monkeypatch.setenv("PAPERLIB_RESULTS", str(tmp_path / "results"))
    monkeypatch.setenv("PAPERLIB_REFERENCE", str(tmp_path / "kept"))
    monkeypatch.setenv("PAPERLIB_REPORTS", str(tmp_path / "reports"))
    return tmp_path


@pytest.fixture(scope="session")
def write_notebook():
    """``write(folder, name, given, *code)``: a notebook with title, parameters cell ``given``, and code cells."""
    from nbformat import write
    from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

    def written(folder: Path, name: str, given: str, *code: str) -> Path:
        path = folder / f"{name}.ipynb"
        path.parent.mkdir(parents=True, exist_ok=True)
        tagged = new_code_cell(given, metadata={"tags": ["parameters"]})
        cells = [new_markdown_cell(f"# {name}"), tagged, *map(new_code_cell, code)]
        kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
        write(new_notebook(cells=cells, metadata=kernel), path)
        return path

    return written


@cache
def _backbone(name, outputs, dropout):
    from paperlib import backbones

    return backbones.load(name, outputs, seed=0, dropout=dropout)


@pytest.fixture
def make_problem():
    """A fresh problem: ``task`` from diagnostics in the given sizes (validation 0: none), on a tiny backbone."""

    from paperlib import tasks
    from paperlib.tasks import diagnostics
    from paperlib.tasks.splits import Splits
    from paperlib.training import Problem

    def make(task="rte", backbone="tiny-bert", train=10, validation=0, test=6, dropout=-1.0):
        task = tasks.get(task)
        frames = diagnostics.generate(task.name, sizes={"train": train, "validation": validation or 1, "test": test})
        rows = Splits(frames["train"], frames["validation"] if validation else None, frames["test"])
        drawn = _backbone(backbone, task.outputs, dropout)
        return Problem.of(task, rows, replace(drawn, model=copy.deepcopy(drawn.model)))

    return make


@pytest.fixture
def make_settings():
    """Settings in fp32 with a rate at which tiny models move."""

    from paperlib.training import Settings

    def make(**changed):
        usual = {"epochs": 2, "batch_size": 4, "learning_rate": 1e-3, "seed": 0, "precision": "fp32"}
        return Settings(**(usual | changed))

    return make
