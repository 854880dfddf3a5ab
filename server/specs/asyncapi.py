"""What the server offers over its WebSocket, as an AsyncAPI 3.0 document."""

from functools import cache
from typing import Any, Final
from urllib.parse import urlsplit

from msgspec import Struct

from server.protocol.codec import JSON, MESSAGEPACK, Codec
from server.protocol.errors import ErrorItem
from server.protocol.requests import TASK_CLASSES, Task
from server.specs import examples
from server.specs.schemas import MESSAGE_CLASSES, REPLIES, Schema, components, schema_name, task_type
from server.specs.version import VERSION

__all__ = ["asyncapi", "asyncapi_of_client"]

_DESCRIPTION: Final = (
    "A client keeps one socket open, sends arrays of tasks, and gets the reply to each when it is ready. "
    "The first task is the `authentication`. Every reply names the task that it answers; frames have `data` "
    "for what succeeded or `errors` for what failed, never both. See `/docs`."
)

_CHANNELS: Final[dict[str, tuple[Codec, str]]] = {
    "json": (JSON, "Text frames of JSON."),
    "messagepack": (
        MESSAGEPACK,
        "Binary frames of MessagePack, after the subprotocol was agreed on. The same objects, but images go "
        "both ways as bytes: `image` of a task may be the file itself, `imageBase64Data` of a result is. It "
        "may be pixels too, a map as in the schema `RawImage`, with `pixels` as bytes; `image` of a result "
        "is that with the `outputFormat` `RAW`.",
    ),
}


def asyncapi(base_url: str, subprotocol: str) -> dict[str, Any]:
    """The document.

    Args:
        base_url: what clients reach the server as, `http://…` or `https://…`.
        subprotocol: that of the MessagePack frames.
    """
    return _document(subprotocol) | _servers(base_url)


def asyncapi_of_client(base_url: str) -> dict[str, Any]:
    """The document as a client has it: generators of clients take what an application sends for its methods.

    In JSON only: what they generate encodes messages as that.

    Args:
        base_url: what clients reach the server as.
    """
    return _document_of_client() | _servers(base_url)


def _servers(base_url: str) -> dict[str, Any]:
    address = urlsplit(base_url)
    server: Schema = {"host": address.netloc, "protocol": {"http": "ws", "https": "wss"}[address.scheme]}
    if address.path:
        server["pathname"] = address.path
    return {"servers": {"this": server}}


@cache
def _document_of_client() -> dict[str, Any]:
    whole = _document("")
    messages = whole["components"]["messages"]
    return whole | {
        "channels": {"json": whole["channels"]["json"]},
        "operations": {
            task_type(task): _operation("json", task) | {"action": "send"} for task in TASK_CLASSES
        },
        "components": whole["components"]
        | {"messages": {name: message for name, message in messages.items() if name.endswith("-json")}},
    }


@cache
def _document(subprotocol: str) -> dict[str, Any]:
    messages = list(map(schema_name, MESSAGE_CLASSES))
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Tilewire",
            "description": _DESCRIPTION,
            "version": VERSION,
            "license": {"name": "MIT"},
        },
        "defaultContentType": JSON.media_type,
        "channels": {
            name: {
                "address": "/v1",
                "title": name,
                "description": description,
                "messages": {
                    message: {"$ref": f"#/components/messages/{_message_id(message, codec)}"}
                    for message in messages
                },
                "bindings": {"ws": {"method": "GET", **(_headers(subprotocol) if codec.binary else {})}},
            }
            for name, (codec, description) in _CHANNELS.items()
        },
        "operations": {
            f"{name}-{task_type(task)}": _operation(name, task) for name in _CHANNELS for task in TASK_CLASSES
        },
        "components": {
            "schemas": components(),
            "messages": {
                _message_id(message, codec): _message(message, codec)
                for codec, _ in _CHANNELS.values()
                for message in messages
            },
        },
    }


def _headers(subprotocol: str) -> Schema:
    name = "Sec-WebSocket-Protocol"
    return {
        "headers": {
            "type": "object",
            "required": [name],
            "properties": {name: {"type": "string", "const": subprotocol}},
        }
    }


def _message_id(name: str, codec: Codec) -> str:
    return f"{name}-{'messagepack' if codec.binary else 'json'}"


def _message(name: str, codec: Codec) -> Schema:
    """A frame that holds this one kind of task or item; frames may mix them."""
    array = {"type": "array", "items": {"$ref": f"#/components/schemas/{name}"}}
    payload: Schema = array
    example: Any
    tasks: dict[str, type[Task]] = {schema_name(task): task for task in TASK_CLASSES}
    if name in tasks:
        example = [examples.REQUESTS[task_type(tasks[name])]]
    elif name == schema_name(ErrorItem):
        payload = {"type": "object", "required": ["errors"], "properties": {"errors": array}}
        example = {"errors": [examples.ERROR]}
    else:
        payload = {"type": "object", "required": ["data"], "properties": {"data": array}}
        example = {"data": [examples.REPLIES[name]]}
    return {
        "name": name,
        "title": name,
        "summary": components()[name].get("description", ""),
        "contentType": codec.media_type,
        "payload": payload,
        "examples": [{"payload": example}],
    }


def _operation(channel: str, task: type[Task]) -> Schema:
    def message(struct: type[Struct]) -> Schema:
        return {"$ref": f"#/channels/{channel}/messages/{schema_name(struct)}"}

    return {
        "action": "receive",  # as the server sees it
        "channel": {"$ref": f"#/channels/{channel}"},
        "summary": components()[schema_name(task)].get("description", ""),
        "messages": [message(task)],
        "reply": {
            "channel": {"$ref": f"#/channels/{channel}"},
            "messages": [*map(message, REPLIES[task]), message(ErrorItem)],
        },
    }
