"""Finds the few tags of an HTML page that matter here, in time linear in its size.

Building a tree, as the standard prescribes, takes quadratic to cubic time on markup made for it,
minutes for a page of common size, and pages are written by strangers. Four kinds of tags found by
a single pass over the text need no tree.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from html import unescape

# No alternative can give back what it took (`*+`), and none crosses a "<", so every character is
# looked at a constant number of times. Attributes are bounded as a tag with a million is an attack.
_TAG = re.compile(
    r"""<!--|<(script|style|textarea|title|link|a|base)(?=[\s/>])"""
    r"""((?:[^<>"']++|"[^"<]*+"|'[^'<]*+')*+)>""",
    re.IGNORECASE,
)
_ATTRIBUTE = re.compile(r"""([^\s"'<>/=]++)(?:\s*+=\s*+(?:"([^"]*+)"|'([^']*+)'|([^\s"'<>]++)))?""")
_META_CHARSET = re.compile(
    rb"""<meta[^<>]{0,200}?charset\s{0,9}=\s{0,9}["']?([\w-]{1,40})""", re.IGNORECASE
)
_RAW_TEXT = frozenset({"script", "style", "textarea", "title"})
_MAX_TAG_CHARS = 8_192
# The encodings of the web; Python knows stranger ones, not all of them quick.
_ENCODINGS = re.compile(
    r"utf-8|utf-16(le|be)?|(us-)?ascii|iso-8859-\d{1,2}|windows-\d{3,4}|koi8-[ru]|gbk|gb2312|gb18030"
    r"|big5|euc-(jp|kr)|shift_jis"
)


@dataclass(slots=True)
class Markup:
    """What was found: the texts of JSON-LD scripts, the base address, the link to the next page."""

    json_ld: list[str] = field(default_factory=list)
    base: str | None = None
    next_link: str | None = None


def decode_html(body: bytes, declared: str | None) -> str:
    """The text of a page, by the HTTP header's charset, else by its meta tag, else as UTF-8."""
    if body.startswith(b"\xef\xbb\xbf"):
        return body[3:].decode("utf-8", "replace")
    found = _META_CHARSET.search(body, 0, 1024)
    name = declared or (found.group(1).decode("ascii", "replace") if found else "utf-8")
    known = _ENCODINGS.fullmatch(name.strip().lower())
    try:
        return body.decode(known.group() if known else "utf-8", "replace")
    except LookupError:
        return body.decode("utf-8", "replace")


def read_markup(html: str) -> Markup:
    """Never raises, whatever the text."""
    found = Markup()
    for name, attributes, text in _tags(html):
        if name == "script" and _words(attributes, "type")[:1] == ["application/ld+json"]:
            found.json_ld.append(text)
        elif name == "base" and found.base is None:
            found.base = attributes.get("href")
        elif (
            name in ("a", "link")
            and found.next_link is None
            and "next" in _words(attributes, "rel")
        ):
            found.next_link = attributes.get("href")
    return found


def _tags(html: str) -> Iterator[tuple[str, Mapping[str, str], str]]:
    """The interesting tags outside comments: name, attributes, and the raw text that follows."""
    position = 0
    while match := _TAG.search(html, position):
        position = match.end()
        if match.group(1) is None:
            position = _after(html, "-->", position)
            continue
        name, text = match.group(1).lower(), ""
        if name in _RAW_TEXT:
            end = _end_tag(html, name, position)
            text, position = html[position:end], end
        yield name, _attributes(match.group(2)), text


def _after(html: str, text: str, start: int) -> int:
    found = html.find(text, start)
    return len(html) if found < 0 else found + len(text)


def _end_tag(html: str, name: str, start: int) -> int:
    found = re.compile(rf"</{name}(?=[\s/>])", re.IGNORECASE).search(html, start)
    return found.start() if found else len(html)


def _attributes(text: str) -> Mapping[str, str]:
    found: dict[str, str] = {}
    for name, double, single, bare in _ATTRIBUTE.findall(text[:_MAX_TAG_CHARS]):
        found.setdefault(name.lower(), unescape(double or single or bare))
    return found


def _words(attributes: Mapping[str, str], name: str) -> list[str]:
    return attributes.get(name, "").lower().replace(";", " ").split()
