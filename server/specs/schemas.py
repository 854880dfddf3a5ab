"""The messages as JSON Schemas (Draft 2020-12), made from the Structs that decode and encode them."""

from collections.abc import Mapping
from functools import cache
from typing import Any, Final

import msgspec
from msgspec import Struct

from server.protocol.errors import ErrorItem
from server.protocol.replies import (
    AccountManagementResult,
    Acknowledgement,
    AuthenticationResult,
    CancelResult,
    ImageUploadResult,
    MediaStorageResult,
    ModelSearchResult,
    PingResult,
    Progress,
    TaskDetails,
    UpscaleResult,
    UsageReport,
)
from server.protocol.requests import (
    TASK_CLASSES,
    AccountManagement,
    Authentication,
    Cancel,
    GetResponse,
    GetTaskDetails,
    ImageUpload,
    ImageUpscale,
    MediaStorage,
    ModelSearch,
    Ping,
    Task,
    Upscale,
)
from server.protocol.tokens import NewToken, NewTokenResult

__all__ = [
    "DIALECT",
    "MESSAGE_CLASSES",
    "REPLIES",
    "REPLY_CLASSES",
    "Schema",
    "components",
    "schema_name",
    "standalone",
    "task_type",
]

Schema = dict[str, Any]

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"

_UPSCALE: Final = (UpscaleResult, Acknowledgement, Progress)

REPLIES: Final[Mapping[type[Task], tuple[type[Struct], ...]]] = {
    Authentication: (AuthenticationResult,),
    Ping: (PingResult,),
    ImageUpload: (ImageUploadResult,),
    MediaStorage: (MediaStorageResult,),
    Upscale: _UPSCALE,
    ImageUpscale: _UPSCALE,
    GetResponse: (UpscaleResult, Progress),
    GetTaskDetails: (TaskDetails,),
    AccountManagement: (AccountManagementResult, UsageReport),
    ModelSearch: (ModelSearchResult,),
    Cancel: (CancelResult,),
}
"""The elements of `data` that may answer a task; any task may get an error as well."""

REPLY_CLASSES: Final[tuple[type[Struct], ...]] = tuple(
    dict.fromkeys(item for items in REPLIES.values() for item in items)
)

MESSAGE_CLASSES: Final[tuple[type[Struct], ...]] = (*TASK_CLASSES, *REPLY_CLASSES, ErrorItem)

# What several parameters of a task have to say to each other.
_ONE_INPUT: Final[Schema] = {
    "oneOf": [
        {"required": ["inputImage"]},
        {"required": ["inputs"], "properties": {"inputs": {"required": ["image"]}}},
    ],
    "not": {
        "anyOf": [
            {"required": pair, "properties": {name: {"type": "number"} for name in pair}}
            for pair in (
                ["upscaleFactor", "targetMegapixels"],
                *(
                    [one, side]
                    for one in ("upscaleFactor", "targetMegapixels")
                    for side in ("width", "height")
                ),
            )
        ]
    },
}


def task_type(task: type[Task]) -> str:
    """What a kind of task is called on the wire."""
    return str(task.__struct_config__.tag)


def schema_name(struct: type[Struct]) -> str:
    """What the schema of a message is called."""
    return struct.__name__


@cache
def components(ref_template: str = "#/components/schemas/{name}") -> dict[str, Schema]:
    """All messages, and what they are made of, by name; not to be changed.

    Beside one schema for each Struct there are `Task` and `Item`, any one of them, and the frames: `Tasks`
    from the client, `Data` and `Errors` from the server, and `Response`, the body of an answer over HTTP.

    Args:
        ref_template: how the schemas refer to each other.
    """
    _, schemas = msgspec.json.schema_components(
        (*MESSAGE_CLASSES, NewToken, NewTokenResult), ref_template=ref_template
    )
    for schema in schemas.values():
        _numbers_for_decimals(schema)
    for struct in (Upscale, ImageUpscale):
        schemas[schema_name(struct)] |= _ONE_INPUT

    def ref(name: str) -> Schema:
        return {"$ref": ref_template.format(name=name)}

    def frame(field: str, item: str) -> Schema:
        return {"type": "object", "properties": {field: {"type": "array", "items": ref(item)}}}

    return schemas | {
        "Task": {
            "title": "Task",
            "description": "A task of any kind.",
            "oneOf": [ref(schema_name(task)) for task in TASK_CLASSES],
        },
        "Tasks": {
            "title": "Tasks",
            "description": "A frame of tasks, or a single one.",
            "anyOf": [{"type": "array", "items": ref("Task")}, ref("Task")],
        },
        "Item": {
            "title": "Item",
            "description": "An element of `data`.",
            "anyOf": [ref(schema_name(item)) for item in REPLY_CLASSES],
        },
        "Data": {
            "title": "Data",
            "description": "A frame of what succeeded.",
            "required": ["data"],
            **frame("data", "Item"),
        },
        "Errors": {
            "title": "Errors",
            "description": "A frame of what failed.",
            "required": ["errors"],
            **frame("errors", "ErrorItem"),
        },
        "Response": {
            "title": "Response",
            "description": "What succeeded, and what failed if anything did.",
            "required": ["data"],
            "type": "object",
            "properties": {
                "data": {"type": "array", "items": ref("Item")},
                "errors": {"type": "array", "items": ref("ErrorItem")},
            },
        },
    }


@cache
def standalone(name: str) -> Schema:
    """One of the messages as a schema of its own, with all that it refers to.

    Raises:
        KeyError: if there is none of this name.
    """
    schemas = components("#/$defs/{name}")
    own = schemas[name]
    needed: dict[str, Schema] = {}
    _collect(own, schemas, needed)
    return {"$schema": DIALECT, **own, "$defs": needed}


def _collect(schema: Any, schemas: Mapping[str, Schema], needed: dict[str, Schema]) -> None:
    """Put all schemas that one refers to, directly or not, into `needed`."""
    if isinstance(schema, list):
        for part in schema:
            _collect(part, schemas, needed)
    elif isinstance(schema, dict):
        name = str(schema.get("$ref", "")).removeprefix("#/$defs/")
        if name and name not in needed:
            needed[name] = schemas[name]
            _collect(schemas[name], schemas, needed)
        for part in schema.values():
            _collect(part, schemas, needed)


def _numbers_for_decimals(schema: Any) -> None:
    """Say what the encoders do: msgspec's own choice for decimals is text."""
    if isinstance(schema, list):
        for part in schema:
            _numbers_for_decimals(part)
    elif isinstance(schema, dict):
        if schema.get("format") == "decimal":
            del schema["format"]
            schema["type"] = "number"
        for part in schema.values():
            _numbers_for_decimals(part)
