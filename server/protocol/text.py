"""Control characters, which no text from outside may hold: databases, logs and terminals take them amiss."""

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from msgspec import Struct

from server.protocol.errors import invalid

__all__ = ["find_control_character", "printable", "refuse_control_characters"]

_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")
"""The category Cc of Unicode."""

_CONTROL_IN_PROSE: Final = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
_PROSE: Final = frozenset({"positivePrompt", "negativePrompt"})
"""What may have several lines, and tabs."""


def find_control_character(value: Any, name: str = "") -> tuple[str, str] | None:
    """The first text within a value that holds a control character: its path, and the character.

    Args:
        value: a text, or what holds texts in any depth: structs, mappings, lists, tuples.
        name: what the value is called; the path begins with it.
    """
    if isinstance(value, str):
        found = (_CONTROL_IN_PROSE if name.rpartition(".")[2] in _PROSE else _CONTROL).search(value)
        return (name, found[0]) if found else None
    for inner_name, inner in _parts(value):
        path = ".".join(part for part in (name, inner_name) if part)
        if (at := find_control_character(inner, path)) is not None:
            return at
    return None


def refuse_control_characters(value: Any, name: str = "") -> None:
    """See to it that no text within a value, called `name`, holds a control character.

    Raises:
        ParameterError: naming the first one that does.
    """
    if (found := find_control_character(value, name)) is not None:
        path, character = found
        raise invalid(path, f"{path} holds the control character U+{ord(character):04X}", "string")


def printable(text: str) -> str:
    """The text, with a replacement character in place of each control character."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text)


def _parts(value: Any) -> Iterator[tuple[str, Any]]:
    """What a value holds, each with its name."""
    if isinstance(value, Struct):
        names = zip(value.__struct_encode_fields__, value.__struct_fields__, strict=True)
        yield from ((wire_name, getattr(value, name)) for wire_name, name in names)
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield "", key
            yield str(key), inner
    elif isinstance(value, list | tuple):
        yield from (("", inner) for inner in value)
