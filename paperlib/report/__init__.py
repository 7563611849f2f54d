"""Executed notebooks become self-contained HTML pages: no network, no scripts but our own, every figure described."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from paperlib.errors import InputError

HERE = Path(__file__).parent
_MAKERS = (".py", ".j2", ".css", ".js", ".json")


@dataclass(frozen=True)
class Page:
    """One page of the report.

    ``notebook``: the executed notebook. ``record``: its record.json, None or a path that is not there if it wrote
    none. ``output``: the page below the reports folder (``dps/f_memory.html``). ``kind``: section, run,
    performance, overview.
    """

    notebook: Path
    record: Path | None
    output: str
    title: str
    kind: str


def render(pages: Sequence[Page], out: Path, index: Page) -> list[Path]:
    """Write every page that is older than what it shows, and the index; return the pages written.

    Raises InputError naming notebook and cell: a notebook that is not there, a figure without alt text, math that
    cannot be read.
    """
    every = [*pages, index]
    changed = max(path.stat().st_mtime_ns for path in HERE.rglob("*") if path.suffix in _MAKERS)
    stale = [page for page in every if _stale(page, out, changed)]
    if not stale:
        return []
    # nbconvert takes a second to import: not when there is nothing to do.
    from paperlib.report.exporter import Exporter

    exporter = Exporter(every, index)
    return [_write(page, out / page.output, exporter) for page in stale]


def _stale(page: Page, out: Path, makers_changed: int) -> bool:
    if not page.notebook.is_file():
        raise InputError(f"{page.notebook}: no such notebook; run it before its page is rendered")
    target = out / page.output
    shown = [path.stat().st_mtime_ns for path in (page.notebook, page.record) if path and path.is_file()]
    return not target.is_file() or target.stat().st_mtime_ns < max(makers_changed, *shown)


def _write(page: Page, target: Path, exporter) -> Path:
    """Render in one atomic step, dated by the moment before the notebook was read: later changes stay visible."""
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".tmp")
    part.touch()
    read_at = part.stat().st_mtime_ns
    try:
        part.write_text(exporter.page(page), encoding="utf-8")
        os.utime(part, ns=(read_at, read_at))
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
    return target
