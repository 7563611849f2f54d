"""LaTeX to MathML at render time, so that a page needs no script to show an equation."""

import re
from html import unescape

from latex2mathml.commands import MATRICES
from latex2mathml.converter import convert
from markupsafe import Markup, escape

from paperlib.errors import InputError

INLINE = r"(?<![\\$\w])\$(?![\s$])(?P<{name}>(?:\\.|[^$\\`\n]|\n(?!\s*\n))+?)(?<!\s)\$(?![\d$])"
"""``$...$`` as pandoc reads it: no space inside the dollars, no digit after: "$5 and $6" is money."""

_WRAPPERS = re.compile(r"\\(?:begin|end)\{equation\*?\}")
_UNKNOWN = re.compile(r"<m[ion][^>]*>\s*(\\[A-Za-z]+)")


def mathml(latex: str, block: bool = False) -> Markup:
    """``latex`` (no dollars) as a ``<math>`` element. Raises InputError if a part of it is not understood."""
    source = _rewritten(latex)
    if unknown := [name for name in re.findall(r"\\begin\{(\w+\*?)\}", source) if f"\\{name}" not in MATRICES]:
        raise InputError(f"cannot read the math {latex.strip()!r}: unknown environment {unknown[0]}")
    try:
        result = convert(source, xmlns="", display="block" if block else "inline")
    except Exception as error:
        raise InputError(f"cannot read the math {latex.strip()!r} ({type(error).__name__})") from error
    if unknown := _UNKNOWN.search(result):
        raise InputError(f"cannot read the math {latex.strip()!r}: unknown command {unknown[1]}")
    return Markup(_corrected(result))


def _rewritten(latex: str) -> str:
    """The same math in the words that latex2mathml (3.81) knows."""
    source = _WRAPPERS.sub("", unescape(latex)).strip()
    source = re.sub(r"\\(begin|end)\{aligned\}", r"\\\1{align*}", source)
    source = re.sub(r"\\arg(?![A-Za-z])", r"\\operatorname{arg}", source)
    # A row's end: its spacing is not read, and a letter right after it is taken for a command.
    return re.sub(r"\\\\(\[[^\]]*\])?", r"\\\\ ", source)


def in_text(text: str) -> Markup:
    """Plain text, escaped, with its ``$...$`` as MathML."""
    result, last = Markup(""), 0
    for match in re.finditer(INLINE.format(name="math"), text):
        result += escape(text[last : match.start()]) + mathml(match["math"])
        last = match.end()
    return result + escape(text[last:])


def _corrected(result: str) -> str:
    result = result.replace(' xmlns=""', "")
    result = result.replace("<mi>&#x0007E;</mi>", "<mo>&#x0223C;</mo>")
    # A bar between two letters is a fence, not a relation: \\mid is that.
    result = re.sub(r"<mo( [^>]*)?>&#x0007C;</mo>", r'<mo\1 lspace="0" rspace="0">|</mo>', result)
    # Browsers ignore mathvariant on digits.
    return re.sub(
        r'<mn mathvariant="double-struck">(\d)</mn>', lambda found: f"<mn>{chr(0x1D7D8 + int(found[1]))}</mn>", result
    )
