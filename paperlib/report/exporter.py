"""The nbconvert exporter: our template on top of ``lab``, with filters that make and clean the HTML."""

import base64
import hashlib
import os
from collections.abc import Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

import nbformat
from jinja2 import pass_context
from markupsafe import Markup
from nbconvert.exporters import HTMLExporter
from nbconvert.filters.ansi import ansi2html
from traitlets.config import Config

from paperlib import figures, records
from paperlib.errors import InputError
from paperlib.report import HERE, Page, provenance
from paperlib.report.clean import clean
from paperlib.report.markdown import Contents, to_html
from paperlib.report.outputs import Outputs, first_line

TEMPLATE = HERE / "templates" / "paperlib"
_SHOWN = ["text/html", "text/markdown", "image/svg+xml", "image/png", "image/jpeg", "text/latex", "text/plain"]


class Exporter(HTMLExporter):
    """Renders pages of one report; knows them all, so that they can link to one another."""

    def __init__(self, pages: Sequence[Page], index: Page):
        config = Config({"NbConvertBase": {"display_data_priority": _SHOWN}})
        super().__init__(
            template_name="paperlib", extra_template_basedirs=[str(TEMPLATE.parent)], config=config, language_code="en"
        )
        self.register_preprocessor(Outputs, enabled=True)
        self._index = index
        self._outputs = {page.record: page.output for page in pages if page.record}
        self._contents = Contents()
        self._css = Markup((TEMPLATE / "page.css").read_text(encoding="utf-8"))
        self._js = Markup((TEMPLATE / "sort.js").read_text(encoding="utf-8").strip())

    def default_filters(self):
        """nbconvert's, and ours: all HTML of a notebook passes through ``clean``."""
        yield from super().default_filters()
        yield from {
            "page_markdown": self._markdown,
            "page_html": self._html,
            "page_ansi": lambda text: clean(ansi2html(text)),
            "first_line": first_line,
        }.items()

    def page(self, page: Page) -> str:
        """The whole HTML of one page. InputError names the notebook where something is missing."""
        self._contents = Contents()
        notebook = nbformat.read(page.notebook, as_version=4)
        try:
            html, _ = self.from_notebook_node(notebook, {"page": self._context(page)})
        except InputError as error:
            raise InputError(f"{page.notebook}: {error}") from error
        return html

    def _context(self, page: Page) -> dict:
        has_record = page.record is not None and page.record.is_file()
        record = records.read(page.record) if has_record else None
        digest = base64.b64encode(hashlib.sha256(f"\n{self._js}\n".encode()).digest()).decode()
        context = {
            "title": page.title,
            "kind": page.kind,
            "folder": str(page.notebook.parent),
            "home": None if page == self._index else _between(page.output, self._index.output),
            "parents": PurePosixPath(page.output).parts[:-1],
            # A function: nbconvert copies what it is given, and the headings are known only while it renders.
            "headings": lambda: self._contents.headings,
            "css": self._css,
            "js": self._js,
            "js_hash": digest,
            "has_record": has_record,
        }
        return context | (self._told(page, record) if record else {})

    def _told(self, page: Page, record: records.Record) -> dict:
        runs = provenance.runs(record, page.record, self._outputs)
        return {
            "facts": provenance.facts(record),
            "verdicts": [(figures.verdict_badge(name), n) for name, n in provenance.verdicts(record).items()],
            "footer": provenance.footer(record),
            "command": record.provenance.get("command", ""),
            "runs": [(name, output and _between(page.output, output)) for name, output in runs],
        }

    @pass_context
    def _markdown(self, context, source: str) -> str:
        cell, folder = context["cell"], context["resources"]["page"]["folder"]
        with _naming(cell):
            return clean(to_html(source, self._contents, cell.get("attachments", {}), folder))

    @pass_context
    def _html(self, context, source: str) -> str:
        with _naming(context["cell"]):
            return clean(source)


@contextmanager
def _naming(cell):
    """Errors name the cell."""
    try:
        yield
    except InputError as error:
        raise InputError(f"cell {cell.metadata.number} ({first_line(cell.source)!r}): {error}") from error


def _between(start: str, target: str) -> str:
    return Path(os.path.relpath(target, Path(start).parent)).as_posix()
