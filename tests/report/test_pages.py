"""What a rendered page holds: nothing from elsewhere, everything described, and where it came from."""

import os
import re
import subprocess
import sys

import pytest
from nbformat.v4 import new_markdown_cell, new_output

from paperlib import figures
from paperlib.errors import InputError
from paperlib.paths import ROOT

from .conftest import RECORD, code, display, png

TITLE = new_markdown_cell("# Memory of masks\n\nA claim.")


def test_a_page_loads_nothing_from_elsewhere(built):
    hostile = '<img src="https://x.org/a.png" alt="x"><link rel=stylesheet href="https://x.org/a.css">'
    with pytest.raises(InputError, match="not embedded"):
        built.soup(TITLE, code("x", display({"text/html": hostile})))
    soup = built.soup(
        TITLE,
        new_markdown_cell("See [the paper](https://example.org/paper).\n\n```mermaid\ngraph\n```"),
        code(
            "x",
            display(
                {"text/html": "<link rel=stylesheet href='https://x.org/a.css'><p style='background:url(//x)'>a</p>"}
            ),
        ),
        code("y", display({"image/png": png()}, **{"image/png": {"alt": "A line."}})),
        record=RECORD,
    )
    loads = [tag[name] for tag in soup.find_all(True) for name in ("src", "srcset", "data", "poster") if tag.get(name)]
    loads += [tag["href"] for tag in soup.find_all("link")]
    assert loads and all(address.startswith("data:") for address in loads)
    styles = "".join(style.get_text() for style in soup.find_all("style"))
    assert "@import" not in styles and "url(" not in styles
    assert not soup.select("[style*=url]")
    policy = soup.find("meta", attrs={"http-equiv": "Content-Security-Policy"})["content"]
    assert "default-src 'none'" in policy and "http" not in policy


def test_scripts_and_handlers_from_outputs_are_not_emitted(built):
    soup = built.soup(
        TITLE,
        code(
            "x",
            display({"application/javascript": "evil()", "text/plain": "<Javascript>"}),
            display(
                {"text/html": "<p onclick='evil()'>kept<script>evil()</script><a href='javascript:evil()'>link</a></p>"}
            ),
            display(
                {
                    "text/html": "<form action='/x'><input value='a'><button>words stay</button></form><svg onload=evil()></svg>"
                }
            ),
            display({"text/markdown": "*words* <iframe srcdoc='<script>evil()</script>'></iframe>"}),
        ),
    )
    article = str(soup.find("article"))
    assert "evil" not in article and "<form" not in article and "iframe" not in article
    assert "kept" in article and "words stay" in article and "&lt;Javascript&gt;" in article
    assert len(soup.find_all("script")) == 1


def test_text_of_data_is_shown_as_text(built):
    soup = built.soup(
        TITLE,
        code("a", new_output("stream", name="stdout", text="<b>bold</b> & $x$")),
        code("b", display({"text/plain": "<i>it</i>"})),
    )
    assert [pre.get_text() for pre in soup.select("article .output pre")] == ["<b>bold</b> & $x$", "<i>it</i>"]
    assert not soup.select("article b, article i, article math")


@pytest.mark.parametrize("metadata", [{}, {"image/png": {"alt": "  "}}])
def test_a_figure_without_alt_text_stops_the_build(built, metadata):
    page = built.page("dps/bad", [TITLE, code("# a comment\nplt.plot(x)", display({"image/png": png()}, **metadata))])
    with pytest.raises(InputError, match=r"dps/bad/notebook\.ipynb: cell 2 \('plt\.plot\(x\)'\).*without alt text"):
        built.render(page)
    assert not (built.out / page.output).exists()


@pytest.mark.parametrize(
    "cell",
    [
        new_markdown_cell("![](attachment:a.png)", attachments={"a.png": {"image/png": png()}}),
        code("x", display({"text/html": "<img src='data:image/png;base64,AA'>"})),
    ],
)
def test_images_in_text_need_alt_text_too(built, cell):
    with pytest.raises(InputError, match="cell 1 .*without alt text"):
        built.soup(cell)


def test_a_figure_is_shown_with_its_caption(built):
    picture = display(
        {"image/png": png(), "text/plain": "A line."},
        **{"image/png": {"alt": 'A "line".', "width": 200, "height": 100}},
    )
    caption = display({"text/markdown": "Error at $t$ & after."}, **{"text/markdown": {"caption": True}})
    (figure,) = built.soup(TITLE, code("show()", picture, caption)).find_all("figure")
    assert figure.img["alt"] == 'A "line".' and figure.img["width"] == "200"
    assert figure.figcaption.find("math") and "& after." in figure.figcaption.get_text()


def test_math_becomes_mathml_and_money_stays_money(built):
    text = (
        "Mask $M_t \\in \\{0,1\\}$, `$code$`, from $5 to $6, or \\$7.\n\n$$\nF_i = \\frac{a}{b}\n$$\n\n"
        "\\begin{align} a &= b \\\\ c &= d \\end{align}\n\n```python\nx = '$y$'\n```"
    )
    soup = built.soup(TITLE, new_markdown_cell(text), code("m", display({"text/latex": "$\\displaystyle z^2$"})))
    inline, block, align, output = soup.select("article math")
    assert inline.find("msub") and block["display"] == "block" and block.find("mfrac")
    assert len(align.find_all("mtr")) == 2 and output.find("msup")
    words = soup.find("article").get_text()
    assert "from $5 to $6, or $7." in words and "$code$" in words and "'$y$'" in words
    assert soup.find("code", string="$code$")


@pytest.mark.parametrize("latex", [r"\nosuchcommand{x}", r"\begin{nosuch}x\end{nosuch}"])
def test_math_that_cannot_be_read_is_named(built, latex):
    with pytest.raises(InputError, match="cell 2 .*cannot read the math"):
        built.soup(TITLE, new_markdown_cell(f"So ${latex}$ holds."))


def test_math_in_heads_and_captions_of_tables_but_not_in_their_cells(built):
    table = (
        "<table class='paperlib sortable'><caption>Peak $M$</caption><thead><tr><th>$T$</th></tr></thead>"
        "<tbody><tr><th>pay $a$</th></tr></tbody></table>"
    )
    soup = built.soup(TITLE, code("t", display({"text/html": table})))
    assert soup.caption.find("math") and soup.thead.find("math") and soup.tbody.get_text() == "pay $a$"
    assert soup.thead.th["scope"] == "col" and soup.tbody.th["scope"] == "row"
    box = soup.table.parent
    assert box["role"] == "group" and box["aria-label"] == soup.caption.get_text() and "scroll" in box["class"]


def test_the_contents_list_follows_the_headings(built):
    soup = built.soup(
        TITLE,
        new_markdown_cell("# Data $x$\n\n#### Deep"),
        new_markdown_cell("## Data $x$"),
        code("x", display({"text/markdown": "## From code"})),
        record=RECORD,
    )
    headings = soup.select("main h1, main h2, main h3, main h4")
    assert [heading.name for heading in headings] == ["h1", "h2", "h3", "h2", "h2"]
    anchors = [heading["id"] for heading in headings]
    assert len(set(anchors)) == len(anchors)
    entries = [link["href"].lstrip("#") for link in soup.select(".contents a")]
    assert entries == [*anchors[1:], "provenance"]
    assert all(soup.find(id=anchor) for anchor in entries)


def test_a_page_without_headings_takes_its_title(built):
    soup = built.soup(new_markdown_cell("Words only."))
    assert [heading.get_text() for heading in soup.find_all("h1")] == ["Title of dps/f_memory"]
    assert not soup.select(".contents")


def test_code_is_folded_under_its_first_line(built):
    soup = built.soup(
        TITLE, code("# why\nimport numpy\nnumpy.ones(3)"), code("seed: int = 0  # seed", tags=["parameters"])
    )
    first, second = soup.select("details.code")
    assert first.summary.get_text() == "Code import numpy" and "open" not in first.attrs
    assert "numpy.ones(3)" in first.select_one(".highlight").get_text()
    assert second.summary.get_text().startswith("Parameters")


def test_progress_bars_are_folded_to_their_last_state(built):
    parts = ["  0%|    | 0/2\r", " 50%|##  | 1/2\r", "100%|####| 2/2\n", "warned\n"]
    soup = built.soup(TITLE, code("run()", *[new_output("stream", name="stderr", text=part) for part in parts]))
    (messages,) = soup.select("details.messages")
    assert messages.pre.get_text() == "100%|####| 2/2\nwarned\n" and "open" not in messages.attrs
    widget = display({"application/vnd.jupyter.widget-view+json": {"model_id": "a"}, "text/plain": "0%| |"})
    assert "0%| |" not in built.soup(TITLE, code("run(2)", widget)).get_text()


def test_a_failed_notebook_says_so_first(built):
    traceback = ["\x1b[0;31mValueError\x1b[0m: <bad> value"]
    error = new_output("error", ename="ValueError", evalue="<bad> value", traceback=traceback)
    soup = built.soup(TITLE, code("f(0)", error))
    banner = soup.select_one("main .notice.failed")
    assert "failed with ValueError" in " ".join(banner.get_text().split())
    assert soup.find(id="failure") and banner.a["href"] == "#failure"
    assert soup.find(id="failure").get_text().strip() == "ValueError: <bad> value"
    assert soup.select_one("#failure .ansi-red-fg") and "open" in soup.select_one("details.code").attrs


def test_a_page_without_a_record_claims_nothing(built):
    assert "No record." in built.soup(TITLE).select_one(".notice").get_text()
    assert not built.soup(TITLE, record=RECORD).select(".notice")


def test_the_evidence_is_named_at_the_top(built):
    about = built.soup(TITLE, record=RECORD).select_one("main .about")
    facts = {pair.dt.get_text(): pair.dd.get_text() for pair in about.select(".facts div")}
    assert facts == {
        "source": "diagnostics",
        "backbone": "minilm",
        "device": "cpu",
        "profile": "laptop",
        "seeds": "0, 1",
    }
    assert about.select_one(".verdicts").get_text().split() == [
        "1",
        *figures.verdict_badge("differs").striptags().split(),
    ]


def test_the_footer_says_where_a_page_came_from(built):
    footer = built.soup(TITLE, record=RECORD).footer
    terms = {pair.dt.get_text(): pair.dd.get_text() for pair in footer.select("dl div")}
    assert terms["Git commit"] == "4b2a9c01d7e2 with uncommitted changes"
    assert terms["Notebook SHA-256"] == "0f" * 32
    assert terms["Parameters"] == "profile = laptop, seeds = [0, 1], backbone = minilm"
    assert (terms["Seeds"], terms["Versions"], terms["Device"]) == ("0, 1", "torch 2.13.0", "cpu")
    assert (terms["Precision"], terms["Deterministic"], terms["Threads"]) == ("fp32", "yes", "1")
    assert (terms["Wall time"], terms["Peak memory"], terms["Energy"]) == ("1 min 23 s", "2.00 GiB", "not measured")
    assert (terms["Code SHA-256"], terms["Kept records shown"]) == ("not recorded", "none")
    assert RECORD.provenance["command"] in footer.get_text()


def test_runs_behind_a_page_are_linked_where_they_have_pages(built):
    run = built.page("runs/memory/one", [TITLE], RECORD, kind="run")
    section = built.page("dps/f_memory", [TITLE], RECORD)
    built.render(run, section)
    html = built.html(section)
    assert re.findall(r'<li><a href="([^"]+)">runs/memory/one/record.json', html) == ["../runs/memory/one.html"]
    assert "<code>runs/memory/two/record.json</code>" in html
    assert '<a href="../index.html">paperlib</a>' in html
    assert '<a href="../../index.html">paperlib</a>' in built.html(run)


def test_only_what_changed_is_written_again(built):
    first, second = (built.page(f"dps/{name}", [TITLE], RECORD) for name in "ab")
    assert built.render(first, second) == ["dps/a.html", "dps/b.html", "index.html"]
    assert built.render(first, second) == []
    built.page("dps/b", [TITLE, new_markdown_cell("More.")], RECORD)
    assert built.render(first, second) == ["dps/b.html"]
    os.utime(first.record)
    assert built.render(first, second) == ["dps/a.html"]
    assert not list(built.out.rglob("*.tmp"))


def test_nothing_heavy_is_imported_when_nothing_is_to_be_done():
    modules = "import sys, paperlib.report; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", modules], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert not {"nbconvert", "matplotlib", "pandas", "bs4"} & set(loaded.split())


def test_a_notebook_that_is_not_there_is_named(built):
    page = built.page("dps/gone", [TITLE])
    page.notebook.unlink()
    with pytest.raises(InputError, match="no such notebook"):
        built.render(page)
