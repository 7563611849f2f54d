"""Which executed notebooks become which pages of the report."""

from pathlib import Path

from paperlib import paths, plan, runs
from paperlib.report import Page
from paperlib.report import render as render_pages


def render(chosen: plan.Plan) -> Path:
    """Render what has been executed of the plan, and the scoreboard as ``index.html``; returns the path of the index."""
    sections = [page for section in chosen.sections() for page in _section_pages(chosen, section)]
    job = plan.overview_job(chosen)
    board = runs.execute(job.notebook, job.parameters, progress=False)
    index = Page(board.parent / runs.EXECUTED, board, "index.html", "Scoreboard", "overview")
    render_pages(list({page.output: page for page in sections}.values()), paths.reports(), index)
    return paths.reports() / "index.html"


def _section_pages(chosen: plan.Plan, section: str) -> list[Page]:
    kind = "performance" if section.startswith("performance/") else "section"
    own = _page(plan.record_path(chosen.section_job(section)), f"{section}.html", section.rpartition("/")[2], kind)
    behind = [
        _page(path, f"{job.notebook}/{path.parent.name}.html", path.parent.name, "run")
        for path, job in chosen.runs([section]).items()
    ]
    return [page for page in (own, *behind) if page.notebook.is_file()]


def _page(record: Path, output: str, title: str, kind: str) -> Page:
    return Page(record.parent / runs.EXECUTED, record, output, title, kind)
