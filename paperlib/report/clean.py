"""HTML that notebooks put out, made safe and accessible: an allow-list of tags, described images, scoped tables."""

import re

from bs4 import BeautifulSoup, Tag
from bs4.element import PreformattedString

from paperlib.errors import InputError
from paperlib.report.mathml import in_text

_DROPPED = ("script", "style", "iframe", "object", "embed", "template", "noscript", "textarea", "title", "svg")
_TEXT = (
    "a abbr b blockquote br caption cite code col colgroup dd del details div dl dt em figcaption figure h1 h2 h3 h4 h5 "
    "h6 hr i img kbd li mark ol p pre q s samp small span strong sub summary sup table tbody td tfoot th thead tr u ul var"
)
_MATH = (
    "math mrow mi mo mn ms mtext mspace msub msup msubsup munder mover munderover mfrac msqrt mroot mtable mtr mtd mstyle "
    "mpadded mphantom menclose"
)
_KEPT = {*_TEXT.split(), *_MATH.split()}
_ATTRIBUTES = set(
    "class scope colspan rowspan title alt width height lang dir open start aria-hidden aria-label data-sort display "
    "mathvariant stretchy fence form accent accentunder movablelimits linethickness minsize maxsize lspace rspace "
    "columnalign displaystyle scriptlevel separator largeop depth voffset notation".split()
)
_LINK = re.compile(r"(https?:|mailto:|#)\S*|[^:\s]+")
_HEADINGS = ("h1", "h2", "h3", "h4", "h5", "h6")


def clean(html: str) -> str:
    """``html`` without scripts, styles, forms, foreign loads and unknown tags (whose text stays).

    Images must be embedded and described, else InputError. Tables get scopes and a container to scroll in.
    """
    soup = BeautifulSoup(html, "html.parser")
    for remark in soup.find_all(string=lambda text: isinstance(text, PreformattedString)):
        remark.extract()
    for tag in soup.find_all(_DROPPED):
        tag.decompose()
    for tag in soup.find_all(True):
        _clean_tag(tag)
    for code in soup.find_all("pre"):
        code["class"] = "scroll"
    for table in soup.find_all("table"):
        _finish_table(soup, table)
    return str(soup)


def _clean_tag(tag: Tag) -> None:
    if tag.name not in _KEPT:
        tag.unwrap()
        return
    tag.attrs = {name: value for name, value in tag.attrs.items() if _keep(tag.name, name.lower(), value)}
    if tag.name == "img":
        if "src" not in tag.attrs:
            raise InputError("an image that is not embedded; a page loads nothing from elsewhere")
        if not tag.get("alt", "").strip():
            raise InputError("an image without alt text; describe it in alt=...")


def _keep(tag: str, name: str, value: str) -> bool:
    if name == "href":
        return tag == "a" and bool(_LINK.fullmatch(value))
    if name == "src":
        return value.startswith("data:image/")
    if name == "id":
        return tag in _HEADINGS
    return name in _ATTRIBUTES


def _finish_table(soup: BeautifulSoup, table: Tag) -> None:
    ours = "paperlib" in table.get("class", [])
    for head in table.select("thead th"):
        head.attrs.setdefault("scope", "col")
    for head in table.select("tbody th"):
        head.attrs.setdefault("scope", "row")
    if ours:
        for tag in table.select("caption, th[scope=col]"):
            text = tag.get_text()
            tag.clear()
            tag.append(BeautifulSoup(in_text(text), "html.parser"))
    caption = table.find("caption")
    label = caption.get_text() if caption else "table"
    table.wrap(soup.new_tag("div", attrs={"class": "table scroll", "role": "group", "aria-label": label}))
