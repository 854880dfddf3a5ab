"""The parts of the pages that are made from the messages and the settings: tables, codes, examples."""

import ast
import inspect
import json
from collections.abc import Iterable
from html import escape
from http import HTTPStatus
from itertools import pairwise
from typing import Final

import msgspec
from markdown_it import MarkdownIt
from msgspec import Struct

from server.protocol.error_codes import CODES, FAMILIES, ErrorCode
from server.protocol.replies import UsageRow, UsageTotals
from server.settings import Settings
from server.specs import examples
from server.specs.parameters import Parameter, parameter_codes, parameters
from server.specs.schemas import MESSAGE_CLASSES, components, schema_name

__all__ = [
    "code_list",
    "example",
    "family_list",
    "parameter_table",
    "reply_table",
    "schema_list",
    "setting_table",
    "table",
]

_INLINE: Final = MarkdownIt("commonmark", {"html": False})

_DESCRIBED: Final[tuple[type[Struct], ...]] = (*MESSAGE_CLASSES, UsageRow, UsageTotals)
_STRUCTS: Final = {schema_name(struct): struct for struct in _DESCRIBED}


def parameter_table(name: str) -> str:
    """The parameters of a task, and below them those that are refused."""
    fields = parameters(_STRUCTS[name])
    offered = [field for field in fields if not field.refused]
    refused = [f"<code>{field.path}</code> ({escape(field.refused)})" for field in fields if field.refused]
    note = f"<p>Refused, unless they ask for nothing: {', '.join(refused)}.</p>" if refused else ""
    return table(("Parameter", "Value", "Default", "Meaning"), map(_parameter_row, offered)) + note


def reply_table(name: str) -> str:
    """The fields of a reply."""
    rows = (
        (
            f"<code>{field.path}</code>",
            _value(field),
            "" if field.required else "optional",
            _text(field.description),
        )
        for field in parameters(_STRUCTS[name])
    )
    return table(("Field", "Value", "Presence", "Meaning"), rows)


def example(name: str) -> str:
    """The example of a task (by taskType) a reply (by schema), `Error` or `Tile`: as a frame, in JSON."""
    if name in examples.REQUESTS:
        return f"[{_json(examples.REQUESTS[name])}]"
    if name == "Error":
        return f'{{"errors": [{_json(examples.ERROR)}]}}'
    return f'{{"data": [{_json(examples.TILE if name == "Tile" else examples.REPLIES[name])}]}}'


def code_list(_: str) -> str:
    """The codes that stand for themselves, each under its own anchor."""
    return "".join(_code(code, f'<a href="#{code}">{code}</a>', about) for code, about in CODES.items())


def family_list(_: str) -> str:
    """The codes that are made of the name of a parameter, each under its own anchor."""
    return "".join(
        _code(family, f"{family}…", FAMILIES[family])
        + table(("Code", "Parameter", ""), _code_rows(codes.items()))
        for family, codes in parameter_codes().items()
    )


def schema_list(_: str) -> str:
    """Links to the JSON Schemas."""
    links = (f'<a href="../schemas/{name}.json"><code>{name}</code></a>' for name in components())
    return f"<p>{', '.join(links)}</p>"


def setting_table(_: str) -> str:
    """The settings, each with the sentence that stands below it in their class."""
    (struct,) = ast.parse(inspect.getsource(Settings)).body
    assert isinstance(struct, ast.ClassDef)
    defaults = {field.name: field.default for field in msgspec.structs.fields(Settings)}
    rows = []
    for setting, sentence in pairwise(struct.body):
        match setting, sentence:
            case ast.AnnAssign(target=ast.Name(name)), ast.Expr(ast.Constant(str(about))):
                rows.append((f"<code>{name}</code>", _setting_default(defaults[name]), _text(about)))
    assert len(rows) == len(defaults), "a setting has no sentence"
    return table(("Setting", "Default", "Meaning"), rows)


def _setting_default(default: object) -> str:
    """A default as a TOML file would have it; nothing for what depends on the machine, or is empty."""
    match default:
        case msgspec.NODEFAULT | None | ():
            return ""
        case tuple():
            return f"<code>{escape(json.dumps(default))}</code>"
        case int() if not isinstance(default, bool) and default >= 10_000:
            return f"<code>{default:_}</code>"
    return f"<code>{escape(json.dumps(default))}</code>"


def _code(anchor: str, heading: str, about: ErrorCode) -> str:
    return (
        f'<section class="code" id="{anchor}"><h3>{heading}</h3>'
        f'<p class="status">HTTP {about.status} {HTTPStatus(about.status).phrase}</p>'
        f"<p>{_text(about.meaning)}</p><p><strong>What to do:</strong> {_text(about.advice)}</p></section>"
    )


def _code_rows(codes: Iterable[tuple[str, tuple[str, str]]]) -> Iterable[tuple[str, ...]]:
    for code, (path, description) in codes:
        yield f'<code id="{code}">{code}</code>', f"<code>{path}</code>", _text(description)


def _parameter_row(field: Parameter) -> tuple[str, ...]:
    default = "required" if field.required else _default(field)
    return f"<code>{field.path}</code>", _value(field), default, _text(field.description)


def _value(field: Parameter) -> str:
    return _text(f"{field.type}, {field.bounds}" if field.bounds else field.type)


def _default(field: Parameter) -> str:
    return f"<code>{escape(json.dumps(field.default))}</code>" if field.default is not None else ""


def table(heads: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    """A table in HTML.

    Args:
        heads: of its columns.
        rows: a cell, in HTML, for each column.
    """
    head = "".join(f"<th>{head}</th>" for head in heads)
    body = "".join(
        "<tr>"
        + "".join(f'<td data-head="{head}">{cell}</td>' for head, cell in zip(heads, row, strict=True))
        + "</tr>"
        for row in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _text(markdown: str) -> str:
    rendered: str = _INLINE.renderInline(markdown)
    return rendered


def _json(item: examples.Example) -> str:
    return json.dumps(item, indent=2, ensure_ascii=False)
