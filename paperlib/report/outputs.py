"""What a cell put out, made ready to show: captions joined to figures, progress bars at their last state."""

import base64
import re

from markupsafe import Markup
from nbconvert.preprocessors import Preprocessor
from nbformat import NotebookNode

from paperlib.errors import InputError

IMAGES = ("image/png", "image/jpeg", "image/svg+xml")
_WIDGET = "application/vnd.jupyter.widget-view+json"


class Outputs(Preprocessor):
    """Puts ``resources["failure"]`` (the first error output) beside the cells it tidies."""

    enabled = True

    def preprocess(self, nb, resources):
        """Tidy the outputs of every code cell of an executed notebook."""
        nb.cells = [cell for cell in nb.cells if "papermill-error-cell-tag" not in cell.metadata.get("tags", [])]
        for number, cell in enumerate(nb.cells, start=1):
            cell.metadata["number"] = number
            if cell.cell_type == "code":
                cell.outputs = tidy(cell.outputs, f"cell {number} ({first_line(cell.source)!r})")
        errors = [output for cell in nb.cells for output in cell.get("outputs", []) if output.output_type == "error"]
        resources["failure"] = errors[0] if errors else None
        return nb, resources


def tidy(outputs: list[NotebookNode], where: str) -> list[NotebookNode]:
    """Outputs as they are shown. Raises InputError, naming ``where``, for an image without alt text."""
    kept: list[NotebookNode] = []
    for output in outputs:
        if output.output_type == "stream":
            _add_stream(kept, output)
        elif output.get("metadata", {}).get("text/markdown", {}).get("caption") and kept and _image(kept[-1]):
            kept[-1].metadata["caption"] = output.data["text/markdown"]
        elif output.output_type == "error" or _WIDGET not in output.data:
            kept.append(output)
    for output in kept:
        if output.output_type == "stream":
            output.text = last_state(output.text)
        else:
            _describe(output, where)
    return [output for output in kept if output.output_type != "stream" or output.text.strip()]


def first_line(source: str) -> str:
    """The first line of code that says something: neither blank nor a comment nor a magic."""
    lines = [line.strip() for line in source.splitlines() if line.strip()]
    return next((line for line in lines if not line.startswith(("#", "%"))), lines[0] if lines else "")


def last_state(text: str) -> str:
    """``text`` as a terminal shows it in the end: what a carriage return overwrote is gone, colours stay."""
    text = re.sub(r"\x1b\[[0-9;]*[A-HJK]", "", text).replace("\r\n", "\n")
    return "\n".join(_overwritten(line) for line in text.split("\n"))


def _overwritten(line: str) -> str:
    states = [state for state in line.split("\r") if state.strip()]
    return states[-1] if states else ""


def _add_stream(kept: list[NotebookNode], output: NotebookNode) -> None:
    if kept and kept[-1].output_type == "stream" and kept[-1].name == output.name:
        kept[-1].text += output.text
    else:
        kept.append(output)


def _image(output: NotebookNode) -> str | None:
    return next((kind for kind in IMAGES if kind in output.get("data", {})), None)


def _describe(output: NotebookNode, where: str) -> None:
    """Turn an image into the ``figure`` the template shows."""
    kind = _image(output)
    if kind is None or "text/html" in output.data or "text/markdown" in output.data:
        return
    about = output.metadata.get(kind, {})
    if not str(about.get("alt", "")).strip():
        raise InputError(f"{where} shows a figure without alt text; use figures.show(fig, alt=..., caption=...)")
    data = output.data[kind]
    if kind == "image/svg+xml":
        data = base64.b64encode(data.encode()).decode()
    output.metadata["figure"] = {
        "source": Markup("data:{};base64,{}").format(kind, data.replace("\n", "")),
        "alt": about["alt"],
        "width": about.get("width"),
        "height": about.get("height"),
    }
