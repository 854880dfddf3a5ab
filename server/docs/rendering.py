"""From the Markdown in this directory to HTML pages.

Comments such as `<!-- parameters Upscale -->` stand for tables, which `tables` makes of the messages.
"""

import re
from functools import lru_cache
from html import escape, unescape
from typing import Any, Final, NamedTuple

from markdown_it import MarkdownIt
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import get_lexer_by_name

from server.docs import creative_tables, tables
from server.docs.pages import EXAMPLE_ADDRESS, PAGES, Page, source

__all__ = ["Section", "render", "sections"]

_DIRECTIVE: Final = re.compile(
    r"<!-- (parameters|reply|example|codes|families|schemas|settings|controls|presets|styles) ?([\w ]*) -->"
)
_HEADING: Final = re.compile(r"<h([23])>(.*?)</h\1>")
_ANCHORED: Final = re.compile(r'<h([23]) id="([^"]+)"><a href="[^"]+">(.*?)</a></h\1>')
_BLOCK: Final = re.compile(r"</?(?:p|h\d|li|ul|ol|td|th|tr|table|pre|div|section|br|hr)\b[^>]*>")
_TAG: Final = re.compile(r"<[^>]*>")


class Section(NamedTuple):
    """What stands below a heading, as plain text.

    Attributes:
        page: the name of its page.
        title: of its page.
        anchor: of the heading; empty for what comes before the first.
    """

    page: str
    title: str
    anchor: str
    heading: str
    text: str


@lru_cache(maxsize=64)
def render(page: Page, base_url: str) -> str:
    """A page, with the server's own address in the examples.

    Args:
        page: which one.
        base_url: what the reader reaches the server as.
    """
    body = _body(page, base_url)
    return _frame(
        page, body, [(anchor, inner) for level, anchor, inner in _ANCHORED.findall(body) if level == "2"]
    )


@lru_cache(maxsize=8)
def sections(base_url: str) -> tuple[Section, ...]:
    """All sections of all pages, in order: what can be searched.

    Args:
        base_url: what the reader reaches the server as.
    """
    found = []
    for page in PAGES:
        body = _body(page, base_url)
        headings = [("", page.title, 0), *((m[2], _text(m[3]), m.end()) for m in _ANCHORED.finditer(body))]
        ends = [*(m.start() for m in _ANCHORED.finditer(body)), len(body)]
        for (anchor, heading, start), end in zip(headings, ends, strict=True):
            text = _text(body[start:end])
            if text:
                found.append(Section(page.name, page.title, anchor, heading, text))
    return tuple(found)


def _body(page: Page, base_url: str) -> str:
    def with_anchor(match: re.Match[str]) -> str:
        level, inner = match.groups()
        anchor = _anchor(inner)
        return f'<h{level} id="{anchor}"><a href="#{anchor}">{inner}</a></h{level}>'

    def with_table(match: re.Match[str]) -> str:
        return _with_address(_table(match), escape(base_url))

    html = _MARKDOWN.render(_with_address(source(page), base_url))
    html = html.replace("<th></th>", "<td></td>")  # an empty cell is not the head of anything
    return _DIRECTIVE.sub(with_table, _HEADING.sub(with_anchor, html))


def _text(html: str) -> str:
    return " ".join(unescape(_TAG.sub("", _BLOCK.sub(" ", html))).split())


def _frame(page: Page, body: str, sections: list[tuple[str, str]]) -> str:
    entries = []
    for other in PAGES:
        here = other == page
        current = " aria-current=page" if here else ""
        entries.append(f'<li><a href="{other.name}"{current}>{escape(other.title)}</a>')
        if here and len(sections) > 1:
            inner = "".join(f'<li><a href="#{anchor}">{title}</a></li>' for anchor, title in sections)
            entries.append(f"<ul>{inner}</ul>")
        entries.append("</li>")
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{escape(page.title)} · Tilewire</title>
<link rel="stylesheet" href="docs.css">
<link rel="icon" href="favicon.svg">
<script type="module" src="docs.js" blocking="render"></script>
</head>
<body>
<a class="skip" href="#text">Skip to the text</a>
<header><a class="name" href="..">Tilewire</a><a href="../docs">Documentation</a></header>
<div class="columns">
<nav aria-label="Documentation"><ul>{"".join(entries)}</ul></nav>
<main id="text">
{body}
</main>
</div>
<footer>For programs: <a href="../openapi.json">OpenAPI</a> · <a href="../asyncapi.json">AsyncAPI</a> ·
<a href="tasks#json-schemas">JSON Schemas</a></footer>
</body>
</html>
"""


def _table(match: re.Match[str]) -> str:
    kind, argument = match.groups()
    return {
        "parameters": tables.parameter_table,
        "reply": tables.reply_table,
        "example": lambda name: _highlight(tables.example(name), "json", ""),
        "codes": tables.code_list,
        "families": tables.family_list,
        "schemas": tables.schema_list,
        "settings": tables.setting_table,
        "controls": creative_tables.control_table,
        "presets": creative_tables.preset_table,
        "styles": creative_tables.style_table,
    }[kind](argument)


def _with_address(text: str, base_url: str) -> str:
    socket_url = base_url.replace("http", "ws", 1)
    return text.replace(f"ws://{EXAMPLE_ADDRESS}", socket_url).replace(f"http://{EXAMPLE_ADDRESS}", base_url)


def _anchor(heading: str) -> str:
    text = _TAG.sub("", heading).lower()
    return re.sub(r"[^a-z0-9]+", "-", text).strip("-")


def _highlight(code: str, language: str, _attributes: Any) -> str:
    lexer = get_lexer_by_name(language or "text", stripnl=False)
    return f"<pre><code>{highlight(code, lexer, _FORMATTER)}</code></pre>\n"


_FORMATTER: Final[HtmlFormatter[str]] = HtmlFormatter(nowrap=True)
_MARKDOWN: Final = MarkdownIt("commonmark", {"highlight": _highlight}).enable("table")
