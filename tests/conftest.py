"""Shared by all tests: the real data where it exists, and folders of their own for records and reports."""

import os
from pathlib import Path

import pytest

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
    """An empty results folder, and an empty reports folder beside it."""
    monkeypatch.setenv("PAPERLIB_RESULTS", str(tmp_path / "results"))
    monkeypatch.setenv("PAPERLIB_REPORTS", str(tmp_path / "reports"))
    return tmp_path
