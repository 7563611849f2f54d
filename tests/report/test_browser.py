"""The page in a real browser: accessible in both schemes, sortable by keyboard, silent on the network."""

import shutil

import pandas as pd
import pytest
from nbformat.v4 import new_markdown_cell, new_output

from paperlib import figures

from .conftest import RECORD, code, display, png

CHROMIUM = shutil.which("chromium")
ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")

PROSE = """# Memory of masks

A claim about $M_t$ and `code`, with [a link](https://example.org).

## A method

$$
F_i = \\frac{1}{n} \\sum_j g_{ij}^2 + \\frac{1}{n} \\sum_j g_{ij}^2
 + \\frac{1}{n} \\sum_j g_{ij}^2 + \\frac{1}{n} \\sum_j g_{ij}^2
$$

### Detail

```python
def step(theta, lr=1e-3):  # one step
    return theta * "x"
```
"""


@pytest.fixture(scope="module")
def browser():
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def address(built, monkeypatch) -> str:
    """A page with one of everything."""
    tables = []
    monkeypatch.setattr(figures, "display", lambda data, raw: tables.append(display(data)))
    verdicts = list(figures.VERDICTS)
    frame = pd.DataFrame(
        {"claim": [f"claim {v}" for v in verdicts], "ours": [10.5, 9.25, None, 100.0, 0.5], "verdict": verdicts}
    )
    figures.table(frame, "Printed beside ours, $M$ in MiB", {"verdict": figures.verdict_badge})
    error = new_output(
        "error", ename="ValueError", evalue="x", traceback=["\x1b[31mred\x1b[0m \x1b[33myellow\x1b[0m \x1b[1;34mblue"]
    )
    page = built.page(
        "dps/f_memory",
        [
            new_markdown_cell(PROSE),
            code("seed: int = 0", tags=["parameters"]),
            code("figures.table(frame)", *tables),
            code(
                "frame",
                display(
                    {
                        "text/html": "<table border=1><thead><tr><th></th><th>a</th></tr></thead>"
                        "<tbody><tr><th>0</th><td>1</td></tr></tbody></table>"
                    }
                ),
            ),
            code("show()", display({"image/png": png()}, **{"image/png": {"alt": "A line."}})),
            code("print()", new_output("stream", name="stdout", text="wide " * 80)),
            code("warn()", new_output("stream", name="stderr", text="slow\n")),
            code("f(0)", error),
        ],
        RECORD,
    )
    built.render(page)
    return (built.out / page.output).as_uri()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_axe_finds_nothing_and_nothing_is_fetched(browser, address, scheme, width):
    axe = pytest.importorskip("axe_core_python.sync_playwright").Axe()
    page = browser.new_page(color_scheme=scheme, viewport={"width": width, "height": 900})
    requests, complaints = [], []
    page.on("request", lambda request: requests.append(request.url))
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(address)
    page.evaluate("document.querySelectorAll('details').forEach((details) => { details.open = true; })")
    page.wait_for_timeout(50)
    violations = {found["id"]: [node["html"] for node in found["nodes"]] for found in axe.run(page)["violations"]}
    assert violations == {}
    assert complaints == []
    assert [url for url in requests if not url.startswith(("file:", "data:"))] == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width, "the page itself never scrolls sideways"
    page.close()


def test_a_table_sorts_by_its_heads(browser, address):
    page = browser.new_page()
    page.goto(address)
    head = page.locator("table.sortable th[scope=col]", has_text="ours")
    ours = page.locator("table.sortable tbody td:nth-child(2)")
    assert head.get_attribute("aria-sort") is None
    head.get_by_role("button").click()
    assert head.get_attribute("aria-sort") == "ascending"
    assert ours.all_inner_texts() == ["0.5", "9.2", "10.5", "100.0", "–"]
    head.get_by_role("button").press("Enter")
    assert head.get_attribute("aria-sort") == "descending"
    assert ours.all_inner_texts() == ["100.0", "10.5", "9.2", "0.5", "–"]
    page.locator("table.sortable th button", has_text="claim").press("Space")
    assert page.locator("[aria-sort]").count() == 1
    assert page.locator("table.sortable tbody th").first.inner_text() == "claim differs"
    page.close()


def test_an_unsigned_script_does_not_run(browser, built, tmp_path):
    page = built.page("dps/x", [new_markdown_cell("# X")], RECORD)
    built.render(page)
    forged = built.html(page).replace("</body>", "<script>document.title = 'owned'</script></body>")
    (tmp_path / "forged.html").write_text(forged, encoding="utf-8")
    tab = browser.new_page()
    tab.goto((tmp_path / "forged.html").as_uri())
    assert tab.title() == "Title of dps/x · paperlib"
    tab.close()
