"""How results are shown: figures with a description, tables with a caption, verdicts in words and symbols.

Importing this module applies the house style (``matplotlibrc`` at the repository's root). What is shown reads
well in JupyterLab and in the rendered report alike.
"""

import base64
import io
import math
from collections.abc import Callable, Mapping, Sequence
from numbers import Integral, Real

import matplotlib as mpl
import matplotlib.pyplot as plt
import pandas as pd
from IPython.display import display
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from paperlib.errors import InputError
from paperlib.paths import ROOT

# rc_file leaves the backend alone, so a notebook's inline display goes on working.
mpl.rc_file(ROOT / "matplotlibrc")

COLOURS: list[str] = mpl.rcParams["axes.prop_cycle"].by_key()["color"]
"""Okabe-Ito, strongest first: blue, vermilion, green, purple, orange, sky, black, yellow."""

VERDICTS: dict[str, str] = {
    "reproduced": "✓",
    "differs": "✗",
    "erratum": "⚠",
    "shape only": "≈",
    "not run": "○",
}
"""Every verdict a claim can have, with the symbol that says it without colour."""

MISSING = "–"

Format = str | Callable[[object], str]


def verdict_badge(verdict: str, count: int | None = None) -> Markup:
    """The verdict in words and symbol, with how often it was given if ``count`` is, as HTML for a cell of :func:`table`.

    Raises InputError for a word that is no verdict.
    """
    if verdict not in VERDICTS:
        raise InputError(f"unknown verdict {verdict!r}; use one of {', '.join(VERDICTS)}")
    told = verdict if count is None else f"{count} {verdict}"
    return Markup(
        '<span class="verdict verdict-{}" style="white-space:nowrap"><span aria-hidden="true">{}</span> {}</span>'
    ).format(verdict.replace(" ", "-"), VERDICTS[verdict], told)


def verdict_tally(counts: Mapping[str, int]) -> Markup:
    """Several verdicts with how often each was given, in the house's order; 0 stands for a section without claims yet."""
    return Markup(" ").join(verdict_badge(word, counts[word] or None) for word in VERDICTS if word in counts)


def link(address: str) -> Markup:
    """A link to ``address`` (a web address, or a path relative to the page), for a cell of :func:`table`."""
    return Markup('<a href="{0}">{0}</a>').format(address) if address else Markup(MISSING)


def new(nrows: int = 1, ncols: int = 1, width: float = 7.2, height: float = 3.6, **options):
    """A figure of ``width`` x ``height`` inches and its axes; ``options`` go to ``plt.subplots``."""
    return plt.subplots(nrows, ncols, figsize=(width, height), **options)


def show(fig: Figure, alt: str, caption: str) -> None:
    """Display ``fig`` with the text that stands in for it (``alt``) and a caption (Markdown), and close it.

    ``alt`` says what is to be seen to someone who cannot see it; the report is not built without it.
    """
    _require("figure", alt=alt, caption=caption)
    png = io.BytesIO()
    fig.savefig(png, format="png")
    width, height = (round(inches * fig.get_dpi()) for inches in fig.get_size_inches())
    plt.close(fig)
    display(
        {"image/png": base64.b64encode(png.getvalue()).decode("ascii"), "text/plain": alt},
        metadata={"image/png": {"alt": alt, "width": width, "height": height}},
        raw=True,
    )
    display(
        {"text/markdown": caption, "text/plain": caption},
        metadata={"text/markdown": {"caption": True}},
        raw=True,
    )


def beside_print(frame: pd.DataFrame, panel: str, rows: str, bars: Sequence[str], xlabel: str) -> Figure:
    """Horizontal bars of the columns ``bars`` of every row, named by column ``rows``, with a diamond at column ``printed``; a panel for
    each value of column ``panel``."""
    panels = list(frame[panel].unique())
    fig, axes = new(1, len(panels), width=0.6 + 4.0 * len(panels), height=3.4, sharex=True, squeeze=False)
    for ax, value in zip(axes.flat, panels, strict=True):
        part = frame[frame[panel] == value].reset_index()
        for number, column in enumerate(bars):
            places = part.index + (number - (len(bars) - 1) / 2) * 0.4
            ax.barh(places, part[column], height=0.38, color=COLOURS[2 * number], label=column)
        ax.plot(part["printed"], part.index, "D", color="black", ls="none", label="printed")
        ax.set(title=f"{panel} {value}", xlabel=xlabel, yticks=part.index, yticklabels=part[rows])
        ax.invert_yaxis()
    for ax in axes.flat[1:]:
        ax.set_yticklabels([])
    fig.legend(*axes.flat[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(bars) + 1)
    return fig


def seeds_and_interval(
    ax: Axes,
    groups: Mapping[str, Sequence[float]],
    intervals: Mapping[str, tuple[float, float] | None],
    ylabel: str = "",
) -> None:
    """Each group's seeds as open dots, beside their mean with its interval; the tick label states n.

    ``groups``: label -> one value per seed. ``intervals``: label -> (low, high) around the mean; where absent
    or None (one seed has no interval) the mean is drawn alone.
    """
    for position, (label, values) in enumerate(groups.items()):
        colour = COLOURS[position % len(COLOURS)]
        mean = math.fsum(values) / len(values)
        interval = intervals.get(label)
        error = None if interval is None else [[mean - interval[0]], [interval[1] - mean]]
        spread = [position - 0.14 + 0.05 * ((seed % 3) - 1) for seed in range(len(values))]
        ax.plot(spread, values, "o", mfc="none", mec=colour, alpha=0.9, ls="none")
        ax.errorbar(position + 0.14, mean, yerr=error, fmt="D", color=colour, elinewidth=1.8)
    ax.set_xticks(range(len(groups)), [f"{label}\nn = {len(values)}" for label, values in groups.items()])
    ax.set_xlim(-0.6, len(groups) - 0.4)
    ax.grid(axis="x", visible=False)
    ax.set_ylabel(ylabel)


def table(
    frame: pd.DataFrame, caption: str, formats: Mapping[str, Format] | None = None, sortable: bool = True
) -> None:
    """Display ``frame`` as an accessible table: caption, header scopes, numbers right, all text escaped.

    ``formats``: column -> format spec (``".1%"``) or a function of the cell such as :func:`verdict_badge`;
    other numbers get about four significant digits, with the same decimals down a column. Text that is
    ``markupsafe.Markup`` is HTML already and stays. The first column (or the index, where it is more than row
    numbers) names the rows. Missing values show as a dash. Captions and column names may hold ``$math$``.
    Raises InputError on an empty caption or frame, and on a format for a column that is not there.
    """
    _require("table", caption=caption)
    frame = _flat(frame)
    formats = dict(formats or {})
    if unknown := sorted(set(formats) - set(frame.columns)):
        raise InputError(f"table {caption!r}: formats names {unknown}; the columns are {list(frame.columns)}")
    columns = [_Column(name, frame[name].tolist(), formats.get(name)) for name in frame.columns]
    html, text = _html(columns, caption, sortable), _plain(columns, caption)
    display({"text/html": html, "text/plain": text}, raw=True)


class _Column:
    """One column of a table: ``cells`` as HTML, ``keys`` the numbers they sort by (None: by their text)."""

    def __init__(self, name: str, values: list, form: Format | None):
        present = [value for value in values if not _missing(value)]
        self.name = name
        self.numeric = bool(present) and all(_number(value) for value in present) and not callable(form)
        form = form or (_spec(present) if self.numeric else None)
        self.cells = [_text(value, form) for value in values]
        self.keys = [repr(float(value)) if _number(value) else None for value in values]


def _require(what: str, **texts: str) -> None:
    for name, text in texts.items():
        if not isinstance(text, str) or not text.strip():
            raise InputError(f"a {what} needs {name}=...: one sentence of text; nothing was shown")


def _flat(frame: pd.DataFrame) -> pd.DataFrame:
    """One level of columns, all named by text, and the index as columns where it says something."""
    plain_index = isinstance(frame.index, pd.RangeIndex) and frame.index.name is None
    frame = frame.copy() if plain_index else frame.reset_index(names=_index_names(frame.index))
    frame.columns = [" ".join(map(str, name if isinstance(name, tuple) else (name,))).strip() for name in frame]
    if frame.columns.empty:
        raise InputError("a table needs at least one column; nothing was shown")
    if not frame.columns.is_unique:
        raise InputError(f"a table needs distinct column names; it has {list(frame.columns)}")
    return frame


def _index_names(index: pd.Index) -> list[str]:
    return [name if name is not None else "" for name in index.names]


def _missing(value: object) -> bool:
    return value is None or value is pd.NA or (isinstance(value, Real) and math.isnan(value))


def _number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and not _missing(value)


def _spec(values: list) -> str:
    """Four significant digits of the largest value, unless that would show the smallest as 0."""
    sizes = [abs(value) for value in values if value and math.isfinite(value)]
    # A column of counts with a gap is float in pandas.
    if all(isinstance(value, Integral) for value in values) or all(size.is_integer() and size < 1e7 for size in sizes):
        return ",.0f"
    decimals = min(max(3 - math.floor(math.log10(max(sizes))), 0), 6)
    if max(sizes) >= 1e7 or min(sizes) < 0.5 * 10**-decimals:
        return ".4g"
    return f",.{decimals}f"


def _text(value: object, form: Format | None) -> Markup:
    if _missing(value):
        return Markup(MISSING)
    if callable(form):
        return escape(form(value))
    if isinstance(value, bool):
        return Markup("yes" if value else "no")
    if isinstance(value, tuple | list):
        return Markup("[{}]").format(Markup(",\N{NO-BREAK SPACE}").join(_text(part, form) for part in value))
    if isinstance(value, Real):
        return escape(format(value, form or _spec([value])).replace("-", "−"))
    return escape(value)


def _html(columns: list[_Column], caption: str, sortable: bool) -> str:
    # The inline styles are for JupyterLab, which aligns every cell right; the report drops them for its own.
    # Cells may hold a dollar amount: JupyterLab must not read the body as math.
    heads = Markup("").join(
        Markup('<th scope="col"{} style="text-align:{}">{}</th>').format(*_alignment(column), column.name)
        for column in columns
    )
    rows = Markup("\n").join(_row(columns, row) for row in range(len(columns[0].cells)))
    table = Markup(
        '<table class="paperlib{}"><caption style="text-align:left">{}</caption>\n'
        '<thead><tr>{}</tr></thead>\n<tbody class="mathjax_ignore">\n{}\n</tbody></table>'
    )
    return str(table.format(" sortable" if sortable else "", caption, heads, rows))


def _row(columns: list[_Column], row: int) -> Markup:
    header = Markup('<th scope="row"{}{} style="text-align:{}">{}</th>')
    cell = Markup('<td{}{} style="text-align:{}">{}</td>')
    shapes = [header] + [cell] * (len(columns) - 1)
    cells = Markup("").join(
        shape.format(kind, _sort_key(column.keys[row]), side, column.cells[row])
        for shape, column in zip(shapes, columns, strict=True)
        for kind, side in [_alignment(column)]
    )
    return Markup("<tr>{}</tr>").format(cells)


def _sort_key(key: str | None) -> Markup:
    return Markup("") if key is None else Markup(' data-sort="{}"').format(key)


def _alignment(column: _Column) -> tuple[Markup, str]:
    """The column's class attribute for the report, and its alignment for JupyterLab."""
    if column.numeric:
        return Markup(' class="num"'), "right"
    long = any(len(cell.striptags()) > 24 for cell in column.cells)
    return Markup(' class="long"' if long else ""), "left"


def _plain(columns: list[_Column], caption: str) -> str:
    text = pd.DataFrame({column.name: [cell.striptags() for cell in column.cells] for column in columns})
    return f"{caption}\n{text.to_string(index=False)}"
