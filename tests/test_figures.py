"""What figures and tables show, and what they refuse."""

import base64
import io

import matplotlib.image
import pandas as pd
import pytest
from bs4 import BeautifulSoup
from hypothesis import given
from hypothesis import strategies as st
from markupsafe import Markup

from paperlib import figures
from paperlib.errors import InputError


@pytest.fixture
def shown(monkeypatch):
    """Everything displayed, as (data, metadata)."""
    displayed = []
    monkeypatch.setattr(figures, "display", lambda data, metadata=None, raw=False: displayed.append((data, metadata)))
    return displayed


def _table(shown) -> BeautifulSoup:
    return BeautifulSoup(shown[-1][0]["text/html"], "html.parser")


def _cells(shown, column: int) -> list[str]:
    return [row.find_all(["th", "td"])[column].get_text() for row in _table(shown).select("tbody tr")]


def test_a_figure_carries_alt_text_and_caption_and_is_closed(shown):
    fig, ax = figures.new(width=4, height=2)
    ax.plot([0, 1])
    figures.show(fig, alt="A rising line.", caption="It rises with $t$.")
    (image, about), (caption, mark) = shown
    assert about["image/png"] == {"alt": "A rising line.", "width": 400, "height": 200}
    png = matplotlib.image.imread(io.BytesIO(base64.b64decode(image["image/png"])))
    assert png.shape[:2] == (400, 800), "drawn at twice the size it is shown"
    assert caption["text/markdown"] == "It rises with $t$." and mark["text/markdown"]["caption"]
    assert not figures.plt.fignum_exists(fig.number)


@pytest.mark.parametrize(
    "texts", [{"alt": "", "caption": "c"}, {"alt": "a", "caption": "  "}, {"alt": None, "caption": "c"}]
)
def test_a_figure_without_words_is_refused(shown, texts):
    with pytest.raises(InputError, match="needs (alt|caption)="):
        figures.show(figures.new()[0], **texts)
    assert not shown
    figures.plt.close("all")


def test_seeds_are_all_drawn_beside_their_mean_and_interval():
    fig, ax = figures.new()
    figures.seeds_and_interval(ax, {"full": [1.0, 2.0, 6.0], "one seed": [4.0]}, {"full": (0.5, 5.5)}, "score")
    seeds = sorted(value for line in ax.lines for value in line.get_ydata() if line.get_marker() == "o")
    assert seeds == [1, 2, 4, 6]
    means = [line.get_ydata()[0] for line in ax.lines if line.get_marker() == "D"]
    assert means == [3, 4]
    (interval,) = [path.vertices[:, 1].tolist() for bars in ax.collections for path in bars.get_paths()]
    assert interval == [0.5, 5.5]
    assert [label.get_text() for label in ax.get_xticklabels()] == ["full\nn = 3", "one seed\nn = 1"]
    figures.plt.close(fig)


def test_a_table_names_its_rows_columns_and_subject(shown):
    figures.table(pd.DataFrame({"method": ["a", "b"], "accuracy": [0.5, 0.25]}), "Accuracy by method")
    table = _table(shown)
    assert table.caption.get_text() == "Accuracy by method"
    assert [head.get_text() for head in table.select("thead th[scope=col]")] == ["method", "accuracy"]
    assert [head.get_text() for head in table.select("tbody th[scope=row]")] == ["a", "b"]
    assert [cell["data-sort"] for cell in table.select("td.num")] == ["0.5", "0.25"]
    assert "Accuracy by method" in shown[-1][0]["text/plain"]


def test_text_from_data_is_escaped_and_markup_is_kept(shown):
    rows = {"text": ["<script>x</script>", Markup("<b>ours</b>")]}
    figures.table(pd.DataFrame(rows, dtype=object), "Rows of <data>")
    html = shown[-1][0]["text/html"]
    assert "<script>" not in html and "&lt;script&gt;" in html and "&lt;data&gt;" in html
    assert "<b>ours</b>" in html


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1200, 3], ["1,200", "3"]),
        ([0.9134, 0.5], ["0.9134", "0.5000"]),
        ([93.126, 7.0], ["93.13", "7.00"]),
        ([1.0, 1e-9], ["1", "1e−09"]),
        ([-0.25, None], ["−0.2500", "–"]),
        ([3.0, None], ["3", "–"]),
        ([True, False], ["yes", "no"]),
        ([(0.1, 0.25), None], ["[0.1000,\N{NO-BREAK SPACE}0.2500]", "–"]),
        ([float("inf"), 2.5], ["inf", "2.500"]),
        ([0.0, 0.0], ["0", "0"]),
    ],
)
def test_numbers_are_written_to_be_read(shown, values, expected):
    figures.table(pd.DataFrame({"row": ["x", "y"], "value": values}), "Numbers")
    assert _cells(shown, 1) == expected


def test_formats_are_specs_or_functions(shown):
    frame = pd.DataFrame({"share": [0.125, None], "verdict": ["differs", "not run"], "page": ["dps/a.html", None]})
    figures.table(frame, "Formats", {"share": ".1%", "verdict": figures.verdict_badge, "page": figures.link})
    assert _cells(shown, 0) == ["12.5%", "–"]
    assert _cells(shown, 1) == ["✗ differs", "○ not run"]
    assert _table(shown).a["href"] == "dps/a.html"


def test_an_index_that_says_something_names_the_rows(shown):
    figures.table(pd.DataFrame({"n": [1, 2]}, index=pd.Index(["cola", "rte"], name="task")), "By task")
    assert [head.get_text() for head in _table(shown).select("tbody th")] == ["cola", "rte"]


@pytest.mark.parametrize(
    ("frame", "options", "message"),
    [
        (pd.DataFrame({"a": [1]}), {"caption": " "}, "needs caption="),
        (pd.DataFrame(), {"caption": "c"}, "at least one column"),
        (pd.DataFrame({"a": [1]}), {"caption": "c", "formats": {"b": ".1f"}}, r"\['b'\]"),
        (pd.DataFrame([[1, 2]], columns=["a", "a"]), {"caption": "c"}, "distinct"),
    ],
)
def test_tables_that_cannot_be_read_are_refused(shown, frame, options, message):
    with pytest.raises(InputError, match=message):
        figures.table(frame, **options)
    assert not shown


def test_bars_stand_beside_the_print_with_a_panel_for_each_value():
    frame = pd.DataFrame(
        {"size": [16, 16, 32], "who": ["a", "b", "a"], "printed": [3.0, 4.0, 5.0], "x": [1.0, 2.0, 6.0], "y": [7, 8, 9]}
    )
    fig = figures.beside_print(frame, "size", "who", ["x", "y"], "GiB")
    first, second = fig.axes
    assert [ax.get_title(loc="left") for ax in fig.axes] == ["size 16", "size 32"]
    assert [[bar.get_width() for bar in bars] for bars in first.containers] == [[1, 2], [7, 8]]
    assert [line.get_xdata().tolist() for ax in fig.axes for line in ax.lines] == [[3, 4], [5]]
    assert [label.get_text() for label in first.get_yticklabels()] == ["a", "b"] and first.yaxis_inverted()
    assert {text.get_text() for text in fig.legends[0].get_texts()} == {"x", "y", "printed"}
    figures.plt.close(fig)


def test_every_verdict_has_a_word_and_a_symbol_of_its_own():
    assert len(set(figures.VERDICTS.values())) == len(figures.VERDICTS)
    for word, symbol in figures.VERDICTS.items():
        assert figures.verdict_badge(word).striptags() == f"{symbol} {word}"
    with pytest.raises(InputError, match="unknown verdict 'perhaps'"):
        figures.verdict_badge("perhaps")


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=6))
def test_no_number_but_zero_is_written_as_zero(values):
    spec = figures._spec(values)
    for value in values:
        assert (float(format(value, spec).replace(",", "")) == 0) == (value == 0)
