"""The names of parameters: which there are, where they are, and which one a misspelt one was meant to be."""

import difflib
from collections.abc import Iterator, Mapping
from functools import cache, lru_cache
from typing import Any, Final

from msgspec import inspect

from server.protocol.requests import TASK_CLASSES

__all__ = ["accepted_elsewhere", "allowed_values", "known_names", "nearest"]

_LIKENESS: Final = 0.8  # of `difflib`: one letter that is wrong, missing or too many in five

_SENT_BY_SDKS: Final[Mapping[str, frozenset[str]]] = {
    "upscale": frozenset({"customTaskUUID", "providerSettings", "retry", "routing", "skipResponse"}),
    "modelSearch": frozenset(
        {
            "additional_params", "capabilities", "conditioning", "customTaskUUID", "retry", "sort", "source",
            "tags", "type", "visibility",
        }
    ),
    "accountManagement": frozenset({"apiKeys", "endDate", "groupBy", "models", "startDate", "timezone"}),
    "imageUpload": frozenset({"customTaskUUID", "retry"}),
}  # fmt: skip
"""What Runware's SDKs may send of their own accord, and is of no account here: the fields of `task_map.py` in
runware-sdk 1.8, of `types.py` in runware 0.5.24, of `index.d.ts` in sdk-js 1.3.2."""


@cache
def _objects(task_type: str) -> dict[str, frozenset[str]]:
    """The names of a task's parameters, and of those of objects in it under their paths."""
    objects: dict[str, frozenset[str]] = {}
    for task in TASK_CLASSES:
        if task.__struct_config__.tag == task_type:
            for path, struct in _structs(inspect.type_info(task), ""):
                objects[path] = frozenset(field.encode_name for field in struct.fields)
            objects[""] |= {"taskType"}
    return objects


def known_names(task_type: str, path: str) -> frozenset[str]:
    """Give the names of the parameters in an object; none if there is no object of fixed names.

    Args:
        task_type: of the task.
        path: such as `inputs`; empty for the task itself.
    """
    return _objects(task_type).get(path, frozenset())


def accepted_elsewhere(task_type: str, name: str) -> str | None:
    """Say where an unknown parameter of a task has its place.

    Returns:
        Its path, where an object in the task has one of this name; empty where SDKs send it and it does not
        matter; None for others.
    """
    kind = "upscale" if task_type == "imageUpscale" else task_type
    if name in _SENT_BY_SDKS.get(kind, ()):
        return ""
    for path, names in _objects(task_type).items():
        if path and name in names:
            return f"{path}.{name}"
    return None


@lru_cache(maxsize=1024)
def nearest(name: str, known: frozenset[str]) -> str | None:
    """Give the known name that a wrong one was meant to be, if it differs by little or by its spelling."""
    plain = {_plain(each): each for each in sorted(known)}
    if (same := plain.get(_plain(name))) is not None:
        return same
    close = difflib.get_close_matches(name, sorted(known), n=1, cutoff=_LIKENESS)
    return close[0] if close else None


@cache
def allowed_values(task_type: str, path: str) -> tuple[str, ...]:
    """Give the values that a parameter may have; none if there is no list of them.

    Args:
        task_type: of the task.
        path: such as `settings.scheduler`.
    """
    for task in TASK_CLASSES:
        if task.__struct_config__.tag == task_type:
            for prefix, struct in _structs(inspect.type_info(task), ""):
                for field in struct.fields:
                    if path == (f"{prefix}.{field.encode_name}" if prefix else field.encode_name):
                        return tuple(_values(field.type))
    return ()


def _plain(name: str) -> str:
    return name.replace("_", "").replace("-", "").lower()


def _structs(kind: inspect.Type, path: str) -> Iterator[tuple[str, inspect.StructType]]:
    """The Structs in a type, by where they are in it."""
    for each in _alternatives(kind):
        if isinstance(each, inspect.StructType):
            yield path, each
            for field in each.fields:
                yield from _structs(field.type, f"{path}.{field.encode_name}" if path else field.encode_name)


def _values(kind: inspect.Type) -> Iterator[str]:
    for each in _alternatives(kind):
        if isinstance(each, inspect.ListType):
            yield from (value for value in _values(each.item_type) if each)
        elif isinstance(each, inspect.EnumType):
            yield from (str(member.value) for member in each.cls)
        elif isinstance(each, inspect.LiteralType):
            yield from map(str, each.values)


def _alternatives(kind: Any) -> Iterator[inspect.Type]:
    if isinstance(kind, inspect.UnionType):
        for each in kind.types:
            yield from _alternatives(each)
    elif isinstance(kind, inspect.Metadata):
        yield from _alternatives(kind.type)
    else:
        yield kind
