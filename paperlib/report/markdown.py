"""Markdown to HTML: math as MathML, headings in sane order with unique anchors, kept for the contents list."""

import re
from dataclasses import dataclass, field

from markupsafe import Markup
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath, MathInlineParser

from paperlib.report.mathml import INLINE, mathml


@dataclass
class Heading:
    level: int
    anchor: str
    html: Markup


@dataclass
class Contents:
    """The headings of one page so far. The first is the page's h1; no later one is, and no level is skipped."""

    headings: list[Heading] = field(default_factory=list)

    def add(self, html: str, level: int) -> Heading:
        if not self.headings:
            level = 1
        else:
            level = min(max(level, 2), self.headings[-1].level + 1)
        heading = Heading(level, self._anchor(html), Markup(html))
        self.headings.append(heading)
        return heading

    def _anchor(self, html: str) -> str:
        words = re.findall(r"[\w.]+", Markup(html).striptags().lower())
        taken = {heading.anchor for heading in self.headings} | {"top", "contents", "provenance"}
        anchor = base = "-".join(words) or "section"
        number = 2
        while anchor in taken:
            anchor, number = f"{base}-{number}", number + 1
        return anchor


class _Inline(MathInlineParser):
    SPECIFICATION = {**MathInlineParser.SPECIFICATION, "inline_math_tex": INLINE.format(name="math_inline_tex")}


class _Renderer(IPythonRenderer):
    """Links stay as they are; images are embedded from beside the notebook."""

    def __init__(self, contents: Contents, **options):
        super().__init__(escape=False, embed_images=True, exclude_anchor_links=True, **options)
        self._contents = contents

    def heading(self, text: str, level: int, **attributes) -> str:
        heading = self._contents.add(text, level)
        return f'<h{heading.level} id="{heading.anchor}">{text}</h{heading.level}>\n'

    def inline_math(self, body: str) -> str:
        return mathml(body)

    def block_math(self, body: str) -> str:
        return _equation(body)

    def latex_environment(self, name: str, body: str) -> str:
        return _equation(f"\\begin{{{name}}}{body}\\end{{{name}}}")


def _equation(latex: str) -> str:
    return f'<span class="equation scroll">{mathml(latex, block=True)}</span>'


def to_html(source: str, contents: Contents, attachments: dict, folder: str) -> str:
    """HTML of a Markdown text; its headings are added to ``contents``."""
    renderer = _Renderer(contents, attachments=attachments, path=folder)
    return MarkdownWithMath(renderer, inline=_Inline(hard_wrap=False)).render(source)
