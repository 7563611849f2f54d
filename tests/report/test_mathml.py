"""LaTeX as the notebooks write it, as MathML."""

import pytest
from bs4 import BeautifulSoup

from paperlib.errors import InputError
from paperlib.report.mathml import in_text, mathml


def _read(latex: str, block: bool = False) -> BeautifulSoup:
    return BeautifulSoup(mathml(latex, block), "html.parser")


@pytest.mark.parametrize(
    ("latex", "rows"),
    [
        (r"\begin{aligned} a &= b \\ c &= d \end{aligned}", 2),
        (r"\begin{align*} a &= b \\[4pt] c &= d \\ e &= f \end{align*}", 3),
        (r"\begin{equation} x\\y \end{equation}", 0),
        (r"\begin{cases} 1 & x>0 \\y & z \end{cases}", 2),
    ],
)
def test_environments_keep_their_rows(latex, rows):
    assert len(_read(latex, block=True).find_all("mtr")) == rows


@pytest.mark.parametrize(
    ("latex", "shown"),
    [
        (r"z \sim p", "z∼p"),
        (r"\mathbb{1}[x]", "𝟙[x]"),
        (r"\arg\min_x f", "argminxf"),
        ("a &lt; b", "a<b"),
        (r"10\%", "10%"),
        (r"\hat{\theta} \odot \nabla", "θ^⊙∇"),
    ],
)
def test_symbols_of_the_appendices(latex, shown):
    assert _read(latex).get_text() == shown


def test_bars_are_fences():
    assert [bar["lspace"] for bar in _read(r"|x| + \left|y\right|").find_all("mo", string="|")] == ["0"] * 4


@pytest.mark.parametrize(
    ("text", "formulas"),
    [
        ("peak $M$ (MiB)", 1),
        ("from $5 to $6", 0),
        ("$x$ and $y_1$", 2),
        (r"\$x\$", 0),
        ("US$5$ x", 0),
        ("`$a", 0),
    ],
)
def test_dollars_in_text(text, formulas):
    soup = BeautifulSoup(in_text(text), "html.parser")
    assert len(soup.find_all("math")) == formulas
    if not formulas:
        assert soup.get_text() == text


def test_text_around_math_is_escaped():
    assert in_text("<b> $x$ <i>").startswith("&lt;b&gt; <math") and in_text("<b> $x$ <i>").endswith(" &lt;i&gt;")


@pytest.mark.parametrize("latex", [r"\nosuch{x}", r"\begin{nosuch}x\end{nosuch}", r"\frac", r"x^2^3"])
def test_what_cannot_be_read_is_refused(latex):
    with pytest.raises(InputError, match="cannot read the math"):
        mathml(latex)
