"""A small report to look at: notebooks made here with their outputs put in by hand; no kernel runs."""

import base64
import io
import os
from pathlib import Path

import matplotlib.pyplot as plt
import nbformat
import pytest
from bs4 import BeautifulSoup
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from paperlib import records, report

VERDICTS = [{"id": "dps.F.a", "verdict": "differs", "source": "diagnostics", "backbone": "minilm", "device": "cpu"}]
RECORD = records.Record(
    notebook="dps/f_memory",
    parameters={"profile": "laptop", "seeds": [0, 1], "backbone": "minilm"},
    results={},
    verdicts=VERDICTS,
    runs=["runs/memory/one/record.json", "runs/memory/two/record.json"],
    cost={"wall_seconds": 83.2, "peak_memory_bytes": 2**31, "energy_joules": None},
    provenance={
        "git_sha": "4b2a9c01d7e2",
        "git_dirty": True,
        "notebook_sha256": "0f" * 32,
        "versions": {"torch": "2.13.0"},
        "device": "cpu",
        "precision": "fp32",
        "deterministic": True,
        "threads": 1,
        "command": 'paperlib run dps/f_memory --json \'{"profile": "laptop"}\'',
    },
)


def png() -> str:
    fig, ax = plt.subplots(figsize=(2, 1))
    ax.plot([0, 1])
    drawn = io.BytesIO()
    fig.savefig(drawn, format="png")
    plt.close(fig)
    return base64.b64encode(drawn.getvalue()).decode()


def display(data: dict, **metadata):
    return new_output("display_data", data=data, metadata=metadata)


def code(source: str, *outputs, tags=()):
    return new_code_cell(source, outputs=list(outputs), metadata={"tags": list(tags)})


class Report:
    """Notebooks and their pages below one folder."""

    def __init__(self, folder: Path):
        self.results, self.out = folder / "results", folder / "reports"
        self.index = self.page("overview", [new_markdown_cell("# Scoreboard")], output="index.html", kind="overview")

    def page(self, name: str, cells: list, record=None, output: str = "", kind: str = "section") -> report.Page:
        """Store the notebook (and its record) and tell the page that shows it."""
        folder = self.results / name
        folder.mkdir(parents=True, exist_ok=True)
        nbformat.write(new_notebook(cells=cells), folder / "notebook.ipynb")
        path = folder / "record.json"
        if record is not None:
            records.write(path, record)
        return report.Page(folder / "notebook.ipynb", path, output or f"{name}.html", f"Title of {name}", kind)

    def render(self, *pages: report.Page) -> list[str]:
        """Pages written, by their address."""
        written = report.render(pages, self.out, self.index)
        return [path.relative_to(self.out).as_posix() for path in written]

    def html(self, page: report.Page) -> str:
        return (self.out / page.output).read_text(encoding="utf-8")

    def soup(self, *cells, record=None) -> BeautifulSoup:
        """The page of a notebook with these cells."""
        page = self.page("dps/f_memory", list(cells), record)
        self.render(page)
        return BeautifulSoup(self.html(page), "html.parser")


@pytest.fixture
def built(tmp_path, monkeypatch) -> Report:
    monkeypatch.setitem(os.environ, "PAPERLIB_RESULTS", str(tmp_path / "results"))
    return Report(tmp_path)
